"""A supervisor in the background: how it is started, and how what it says reaches the terminal."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from headway.local.processes import ProcessId
from headway.local.state import STACK_VARIABLE
from headway.settings import Settings


class SupervisorLog:
    """Tells what a supervisor in the background writes from now on."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._file = supervisor_log(settings)
        self.say = say
        self._read = self._file.stat().st_size if self._file.exists() else 0

    def tell_new(self) -> bool:
        """Say the lines that came since the last call; whether there were any."""
        if not self._file.exists():
            return False
        with self._file.open("rb") as log:
            log.seek(self._read)
            new, end, _ = log.read().rpartition(b"\n")
        self._read += len(new) + len(end)
        for line in new.decode(errors="replace").splitlines():
            self.say(line)
        return bool(new)


def start_daemon(settings: Settings, *, only: Sequence[str]) -> ProcessId:
    """Run the stack in the background and name its keeper, which lives as long as anything of it does."""
    command = [sys.executable, "-P", "-m", "headway.local.daemon", *only]
    with supervisor_log(settings).open("ab") as log:
        # It forks and ends at once, so nobody here has to wait for the daemon one day.
        started = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment_of(settings),
            start_new_session=True,
            check=True,
        )
    pid, ticks = map(int, started.stdout.split())
    return ProcessId(pid=pid, started=ticks)


def environment_of(settings: Settings) -> dict[str, str]:
    """What every process of the stack inherits: ours, the resolved settings, and the mark of this stack."""
    return {**os.environ, **settings.environment(), STACK_VARIABLE: str(settings.state)}


def supervisor_log(settings: Settings) -> Path:
    """Where a supervisor in the background writes what it does."""
    return settings.state / "log" / "supervisor.log"
