"""One kept process as the supervisor sees it: its state, its pid and log, and the system calls that act on it.

Decides nothing: `headway.local.supervisor` says when. Each child leads its own session and dies with its supervisor.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from headway.clock import monotonic_s
from headway.local.plan import Process
from headway.local.processes import ProcessId, be_nice, children, identify, tied_to_parent

PART_VARIABLE = "HEADWAY_PART"
LOG_LIMIT_BYTES = 16 * 1024 * 1024

State = Literal["waiting", "starting", "ready", "done", "backoff", "stopping", "paused", "failed", "stopped"]
RUNNING: frozenset[State] = frozenset({"starting", "ready", "stopping"})
MET: frozenset[State] = frozenset({"ready", "done"})


class Child:
    """A process to keep and what became of it. Times are monotonic seconds."""

    def __init__(self, spec: Process, *, log_file: Path) -> None:
        self.spec = spec
        self.log_file = log_file
        self.state: State = "waiting"
        self.since = 0.0
        self.start_at = 0.0
        self.after_stop: State = "stopped"
        self.failures = 0
        self.restarts = 0
        self.ready_after_s: float | None = None
        self.last_end: str | None = None
        self._popen: subprocess.Popen[bytes] | None = None
        self._identity: ProcessId | None = None

    @property
    def pid(self) -> int | None:
        """Its pid while it runs."""
        return None if self._popen is None else self._popen.pid

    @property
    def running(self) -> bool:
        """Whether there is a process now."""
        return self.state in RUNNING

    def spawn(self, command: Sequence[str], *, environment: Mapping[str, str]) -> None:
        """Start the process: own session, output to its log, killed by the kernel when this process ends."""
        if self.log_file.exists() and self.log_file.stat().st_size > LOG_LIMIT_BYTES:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
        with self.log_file.open("ab") as log:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.log_file.parent,
                env={**environment, **self.spec.env, PART_VARIABLE: self.spec.name},
                start_new_session=True,
                # The supervisor runs Python in one thread only, which is what makes a preexec_fn safe.
                preexec_fn=self._prepared(),  # noqa: PLW1509
            )
        self._identity = identify(self._popen.pid)

    def _prepared(self) -> Callable[[], None]:
        tie = tied_to_parent(os.getpid(), signal.SIGKILL)

        def prepare() -> None:
            tie()
            if self.spec.niceness:
                be_nice(self.spec.niceness)

        return prepare

    def ask_to_stop(self) -> None:
        """Send the stop signal to the process alone: what it started is its own to stop."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, self.spec.stop_signal)

    def kill_group(self) -> None:
        """SIGKILL the process and all that stayed in its group."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def reap(self) -> str:
        """Take leave of the process, which has ended: kill what it left, give how it ended in words."""
        assert self._popen is not None
        # The group first: as long as the zombie stands, its pid, and so the group's number, is not given again.
        self.kill_group()
        code = os.waitstatus_to_exitcode(os.waitpid(self._popen.pid, 0)[1])
        self._popen.returncode = code  # reaped here, so Popen must not try to
        self._popen = self._identity = None
        self._kill_orphans()
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def last_words(self) -> str:
        """The last lines of the log, indented, for a message."""
        if not self.log_file.exists():
            return " nothing"
        lines = self.log_file.read_text(errors="replace").splitlines()[-5:]
        return "".join(f"\n    {line}" for line in lines)

    def describe(self) -> dict[str, Any]:
        """Everything about it as plain values."""
        return {
            "name": self.spec.name,
            "state": self.state,
            "pid": self.pid,
            "started_ticks": None if self._identity is None else self._identity.started,
            "for_s": round(monotonic_s() - self.since, 1),
            "ready_after_s": self.ready_after_s,
            "restarts": self.restarts,
            "last_end": self.last_end,
            "log": str(self.log_file),
        }

    def _kill_orphans(self) -> None:
        """Kill what had left the group: it came to this process, its subreaper, and carries the part's mark."""
        mark = f"{PART_VARIABLE}={self.spec.name}".encode()
        for pid in children(os.getpid()):
            with contextlib.suppress(OSError):
                if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    os.kill(pid, signal.SIGKILL)
