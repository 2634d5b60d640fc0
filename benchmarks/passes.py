"""A contestant that does a whole job in passes, in a process of its own: how fast, with how much processor and memory.

The process prints one JSON line (`benchmarks.peers.backfill_work.measure`) and writes below the folder it is given.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.frame import Sample
from headway.errors import PermanentFailure
from headway.local.processes import descendants, tied_to_parent

_LIMIT_S = 900.0
_SAMPLE_S = 0.25


@dataclass(frozen=True, kw_only=True)
class Passes:
    """A contestant's process, started for every window; ``count`` is what one pass is given, of events or rows."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    folder: Path
    count: int
    of: str
    most_mib: float

    def measure(self, seconds: float) -> Sample:
        """Do all of it as often as the window lets it; nothing without a window."""
        if not seconds:
            return Sample(value=0.0)
        with self.running(seconds) as (said, _):
            return self.sample(said, value=said["passes"] * self.count / said["seconds"])

    def grown(self, seconds: float) -> Sample:
        """Do all of it once, whatever the window, and judge that as ``by_processor`` does; nothing without a window."""
        if not seconds:
            return Sample(value=0.0)
        with self.running(0.0) as (said, _):
            return self.by_processor(said)

    def by_processor(self, said: Mapping[str, float]) -> Sample:
        """Count what is done per second of processor time; more memory than allowed is an error."""
        sample = self.sample(said, value=said["passes"] * self.count / said["cpu_s"])
        return Sample(value=sample.value, errors=int(said["peak_mib"] > self.most_mib), facts=sample.facts)

    def sample(self, said: Mapping[str, float], *, value: float) -> Sample:
        """Give a window's figures."""
        done = said["passes"] * self.count
        facts = {
            f"cpu_us_per_{self.of}": said["cpu_s"] / done * 1e6,
            "seconds_per_pass": said["seconds"] / said["passes"],
            "peak_mib": said["peak_mib"],
        }
        return Sample(value=value, facts=facts)

    @contextlib.contextmanager
    def running(self, seconds: float) -> Iterator[tuple[dict[str, float], Path]]:
        """Run the process to its end; give what it said, its peak memory, and what it wrote, until the block ends."""
        out = Path(tempfile.mkdtemp(prefix="out-", dir=self.folder))
        log = out / "log"
        command = [word.format(out=out, window_s=seconds) for word in self.command]
        try:
            with log.open("wb") as errors, (out / "said").open("wb") as told:
                process = subprocess.Popen(
                    command, env=dict(self.env), cwd=out, stdout=told, stderr=errors,
                    preexec_fn=tied_to_parent(os.getpid(), signal.SIGKILL),  # noqa: PLW1509 - one thread here
                )  # fmt: skip
            peak_mib = _watch(process)
            if process.returncode != 0:
                raise PermanentFailure(f"{self.name}: ended with {process.returncode}: {log.read_text()[-800:]}")
            said = json.loads((out / "said").read_text().splitlines()[-1])
            yield {**said, "peak_mib": peak_mib}, out
        finally:
            shutil.rmtree(out, ignore_errors=True)


def _watch(process: "subprocess.Popen[bytes]") -> float:
    """Wait for a process; return the most memory it and all it started held at once, in MiB."""
    most_kib, deadline = 0, time.monotonic() + _LIMIT_S
    while process.poll() is None:
        if time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise PermanentFailure(f"process {process.pid}: did not end within {_LIMIT_S:.0f} s")
        most_kib = max(most_kib, sum(map(_resident_kib, (process.pid, *descendants(process.pid)))))
        time.sleep(_SAMPLE_S)
    return most_kib / 1024


def _resident_kib(pid: int) -> int:
    try:
        status = (Path("/proc") / str(pid) / "status").read_text()
    except OSError:  # ended meanwhile
        return 0
    return int((status.partition("VmRSS:")[2].split() or ["0"])[0])
