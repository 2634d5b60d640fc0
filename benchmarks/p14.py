"""Start: seconds until `headway --help`, the code location, the whole stack, and a champion are there, each held to its limit.

Each is done anew in a process of its own. The stack starts with an empty state, on ports of its own, with downloads and
environment in place, and is stopped again; its stages are when each process was ready. On it a first version becomes live,
and a second one takes its place; the second is what is timed. What bites: seconds are of the machine, and of what else it
does.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.frame import Plan
from benchmarks.limits import Timing, timed
from benchmarks.release_time import mark_views, release_of
from benchmarks.report import outcome
from headway.clock import monotonic_s
from headway.commands import Outcome, Say
from headway.errors import PermanentFailure
from headway.settings import PORT_BASE, Settings, project_root
from products.catalogue import find_product

# Beside the stack of whoever runs this, which is at PORT_BASE.
_PORT_BASE = PORT_BASE + 12_000
_STACKS = 3
_PRODUCT = find_product("flight_delay")
_LOCATION = "import orchestration.definitions as code; code.defs.get_repository_def()"
_CLI = (sys.executable, "-m", "headway.cli")


def run(plan: Plan, say: Say) -> Outcome:
    """Time each."""
    times = plan.windows
    help_ = timed("headway --help", lambda: _call((*_CLI, "--help")), limit_s=0.3, times=times, say=say)
    location = timed(
        "code location", lambda: _call((sys.executable, "-c", _LOCATION)), limit_s=3.0, times=times, say=say
    )
    return outcome("P14", [location, help_, *_stacks(min(_STACKS, times), say)])


def _stacks(times: int, say: Say) -> tuple[Timing, Timing]:
    took_s, stages, released_s, phases = [], [], [], []
    for _ in range(times):
        # Short: Ray and HAProxy put sockets under it.
        folder = Path(tempfile.mkdtemp(prefix="hw-p14-"))
        env = {"HEADWAY_STATE": str(folder), "HEADWAY_PORT_BASE": str(_PORT_BASE)}
        try:
            began_s = monotonic_s()
            up = json.loads(_call((*_CLI, "up", "--json"), env))
            took_s.append(monotonic_s() - began_s)
            stages.append({each["name"]: float(each["ready_after_s"] or 0.0) for each in up["processes"]})
            say(f"stack up: {took_s[-1]:.1f} s, last {max(stages[-1], key=stages[-1].__getitem__)}")
            settings = Settings(state=folder, port_base=_PORT_BASE)
            mark_views(_PRODUCT, settings)
            release_of(_PRODUCT, settings, seed=1)
            seconds, by_phase = release_of(_PRODUCT, settings, seed=2)
            released_s.append(seconds)
            phases.append(by_phase)
            say(f"alias to all of the weight: {seconds:.1f} s, {by_phase}")
        finally:
            _call((*_CLI, "down"), env)
            shutil.rmtree(folder, ignore_errors=True)
    return (
        Timing(title="stack up, state empty", limit_s=75.0, took_s=took_s, stages=stages),
        Timing(title="alias to all of the weight", limit_s=45.0, took_s=released_s, stages=phases),
    )


def _call(argv: tuple[str, ...], env: Mapping[str, str] | None = None) -> str:
    environment = {**os.environ, "PYTHONPATH": str(project_root()), **(env or {})}
    ran = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise PermanentFailure(f"{' '.join(argv[1:])}: ended with {ran.returncode}: {ran.stderr[-500:]}")
    return ran.stdout
