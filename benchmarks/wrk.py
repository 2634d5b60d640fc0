"""Load by ``wrk`` (Debian package, deploy/apt-bench.txt): closed loop, keep-alive, each body made by a Lua script.

It says what a server can do at most, not how long users wait: a closed loop slows down with the server.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headway.errors import PermanentFailure

# wrk's own summary in a form that need not be guessed from prose; latencies are in microseconds there.
_REPORT = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('WRK {"requests": %d, "seconds": %f, "status": %d, "socket": %d, "p50_ms": %f, "p99_ms": %f}\\n',
    summary.requests, summary.duration / 1e6, e.status, e.connect + e.read + e.write + e.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""


def post(url: str, *, script: str, folder: Path, connections: int, seconds: float) -> Mapping[str, Any]:
    """Load a URL with what the script's ``request`` gives.

    Returns requests, seconds, status and socket errors, latencies, and the processor seconds that wrk itself took.

    Raises:
        PermanentFailure: there is no wrk, or it gave no summary.
    """
    found = shutil.which("wrk")
    if found is None:
        raise PermanentFailure("bench: wrk is not on PATH. Debian: apt-get install wrk (deploy/apt-bench.txt)")
    lua = folder / "load.lua"
    lua.write_text(script + _REPORT, encoding="utf-8")
    command = [
        found,
        "-t1",
        f"-c{connections}",
        f"-d{max(1, round(seconds))}s",
        "--timeout",
        "10s",
        "-s",
        str(lua),
        url,
    ]
    before = os.times()
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    after = os.times()
    summary = [line[4:] for line in run.stdout.splitlines() if line.startswith("WRK ")]
    if run.returncode != 0 or not summary:
        raise PermanentFailure(f"wrk: no summary for {url} ({(run.stderr or run.stdout).strip()[-300:]})")
    report: dict[str, Any] = json.loads(summary[0])
    report["cpu_s"] = after.children_user - before.children_user + after.children_system - before.children_system
    return report
