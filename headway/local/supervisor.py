"""Keeps a set of processes running: starts them in readiness order, restarts them with backoff, stops them in reverse.

A subreaper: what a process leaves behind comes here and is ended. Run it inside `headway.local.keeper.run_kept`, which
cleans up after the supervisor itself. Why none of the existing ones (supervisord, circus, honcho): docs/adr/0010.

What bites: one thread does everything, so a ``command`` or ``ready`` that takes long delays every answer. Keep
``ready`` under a second, and download before starting.
"""

import os
import selectors
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from headway.clock import monotonic_s
from headway.errors import HeadwayError, PermanentFailure
from headway.local.child import MET, Child, State
from headway.local.control import ControlSocket, Message
from headway.local.instances import Instances
from headway.local.keeper import sweep
from headway.local.plan import Process, backoff_s, failures_in_a_row, start_order
from headway.local.processes import become_subreaper
from headway.local.wakeup import stop_signals

# A broken configuration shows at once; the other tries are for a port in TIME_WAIT and for a slow disk.
START_ATTEMPTS = 3
# Of the 15 s that a stop may take, this much is for asking; the rest is for the kernel and the last sweep.
STOP_WITHIN_S = 12.0
PROBE_EVERY_S = 0.1
IDLE_S = 60.0


class Supervisor:
    """Runs processes until told to stop; see the module.

    Args:
        processes: what to keep, in any order.
        instances: which of them may run several times, and how often each is wanted.
        log_dir: gets ``<name>.log`` for each.
        environment: all that a process sees besides its own ``env``.
        control: where status, stop, restart, pause, resume and scale are asked for.
        say: told each step in words.
        record: told the status whenever a process changes state.
    """

    def __init__(
        self,
        processes: Iterable[Process],
        *,
        instances: Instances,
        log_dir: Path,
        environment: Mapping[str, str],
        control: ControlSocket,
        say: Callable[[str], None],
        record: Callable[[Message], None],
    ) -> None:
        self._instances = instances
        self._log_dir = log_dir
        self._children = {p.name: self._child(p) for p in start_order([*processes, *instances.extra().values()])}
        self._environment = environment
        self._control = control
        self._say = say
        self._record = record
        self._began = monotonic_s()
        self._phase: Literal["starting", "ready", "stopping"] = "starting"
        self._stop_began = 0.0
        self._problem: str | None = None
        self._changed = True

    def run(self) -> int:
        """Start everything, keep it, stop it when told to. Exit code 0 unless something never became ready."""
        become_subreaper()
        with stop_signals() as (wakeup, stops), selectors.DefaultSelector() as selector:
            selector.register(wakeup, selectors.EVENT_READ)
            selector.register(self._control, selectors.EVENT_READ)
            while self._phase != "stopping" or any(child.running for child in self._children.values()):
                for child in self._children.values():
                    self._advance(child)
                self._tell()
                for key, _ in selector.select(self._pause_s()):
                    if key.fileobj is self._control:
                        self._control.answer(self._handle)
                    else:
                        wakeup.recv(4096)
                if stops:
                    self._begin_stop()
                self._reap()
                self._match_instances()
        sweep()
        self._record(self.status())
        self._say(f"stopped in {monotonic_s() - self._stop_began:.1f} s")
        return 0 if self._problem is None else 1

    def status(self) -> dict[str, Any]:
        """Everything there is to know, as plain values."""
        return {
            "phase": self._phase,
            "problem": self._problem,
            "pid": os.getpid(),
            "up_s": round(monotonic_s() - self._began, 1),
            "processes": [child.describe() for child in self._children.values()],
            "instances": self._instances.describe(
                name for name, child in self._children.items() if child.state == "ready"
            ),
        }

    def _tell(self) -> None:
        vital = (child for child in self._children.values() if child.spec.vital)
        if self._phase == "starting" and all(child.state in MET for child in vital):
            self._phase = "ready"
            self._changed = True
            self._say(f"all ready after {monotonic_s() - self._began:.1f} s")
        if self._changed:
            self._changed = False
            self._record(self.status())

    def _pause_s(self) -> float:
        if self._phase == "stopping" or any(
            child.state in ("starting", "stopping") for child in self._children.values()
        ):
            return PROBE_EVERY_S
        due = [child.start_at - monotonic_s() for child in self._children.values() if child.state == "backoff"]
        return max(0.0, min([IDLE_S, *due]))

    def _reap(self) -> None:
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            child = next((c for c in self._children.values() if c.pid == ended.si_pid), None)
            if child is None:  # an orphan that came to us
                os.waitpid(ended.si_pid, 0)
            else:
                self._ended(child, code=ended.si_status if ended.si_code == os.CLD_EXITED else None, how=child.reap())

    # One process: what time brings.

    def _advance(self, child: Child) -> None:
        now = monotonic_s()
        if child.state == "stopping":
            if now - child.since >= child.spec.stop_timeout_s or self._overdue(now):
                child.kill_group()
        elif self._phase == "stopping":
            self._stop_in_turn(child)
        elif child.state == "starting":
            self._probe(child)
        elif child.state in ("waiting", "backoff") and now >= child.start_at and self._may_start(child):
            self._start(child)

    def _may_start(self, child: Child) -> bool:
        return all(self._children[name].state in MET for name in child.spec.depends_on)

    def _start(self, child: Child) -> None:
        began = monotonic_s()
        try:
            child.spawn(child.spec.command(), environment=self._environment)
        except PermanentFailure as error:
            self._refused(child, error)
            return
        except (HeadwayError, OSError) as error:
            self._failed(child, f"could not be started: {error}")
            return
        self._enter(child, "starting")
        child.since = began  # what the preparation took belongs to the start

    def _probe(self, child: Child) -> None:
        if child.spec.ready is not None and child.spec.ready():
            child.ready_after_s = round(monotonic_s() - child.since, 2)
            self._enter(child, "ready")
            self._say(f"{child.spec.name:<16} ready after {child.ready_after_s:5.1f} s")
        elif monotonic_s() - child.since > child.spec.start_timeout_s:
            child.last_end = f"was not ready after {child.spec.start_timeout_s:.0f} s"
            self._ask_to_stop(child, after_stop="backoff")

    def _ended(self, child: Child, *, code: int | None, how: str) -> None:
        if child.state == "stopping" and self._phase == "stopping":
            self._enter(child, "stopped")
        elif child.state == "stopping" and child.after_stop != "backoff":
            child.start_at = 0.0
            self._enter(child, child.after_stop)
        elif child.state == "stopping":
            self._failed(child, child.last_end or how)
        elif child.spec.ready is None and code == 0:
            child.ready_after_s = round(monotonic_s() - child.since, 2)
            self._enter(child, "done")
            self._say(f"{child.spec.name:<16} done after  {child.ready_after_s:5.1f} s")
        else:
            self._failed(child, how)

    def _refused(self, child: Child, error: PermanentFailure) -> None:
        """Say once what another start cannot mend; what has been ready before is tried again all the same."""
        if child.ready_after_s is not None or not child.spec.vital or self._phase == "stopping":
            self._failed(child, f"could not be started: {error}")
            return
        child.last_end = str(error)
        self._enter(child, "failed")
        self._problem = f"{child.spec.name}: {error}"
        self._say(self._problem)
        self._begin_stop()

    def _failed(self, child: Child, how: str) -> None:
        ready_for_s = monotonic_s() - child.since if child.state == "ready" else 0.0
        child.failures = failures_in_a_row(child.failures, ready_for_s)
        child.last_end = how
        name, was_ready = child.spec.name, child.ready_after_s is not None
        if self._phase == "stopping":
            self._enter(child, "stopped")
        elif child.spec.vital and not was_ready and child.failures >= START_ATTEMPTS:
            self._enter(child, "failed")
            self._problem = (
                f"{name}: {how}, {child.failures} times before it was ready. {child.log_file} ends:{child.last_words()}"
            )
            self._say(self._problem)
            self._begin_stop()
        elif was_ready and child.spec.restart == "never":
            self._enter(child, "failed")
            self._say(f"{name:<16} {how}; it is not started again")
        else:
            child.restarts += 1
            child.start_at = monotonic_s() + backoff_s(child.failures)
            self._enter(child, "backoff")
            self._say(f"{name:<16} {how}; starting it again in {backoff_s(child.failures):.1f} s")

    def _enter(self, child: Child, state: State) -> None:
        child.state = state
        child.since = monotonic_s()
        self._changed = True

    # Stopping.

    def _begin_stop(self) -> None:
        if self._phase != "stopping":
            self._stop_began = monotonic_s()
            self._phase = "stopping"
            self._changed = True

    def _overdue(self, now: float) -> bool:
        return self._phase == "stopping" and now - self._stop_began >= STOP_WITHIN_S

    def _stop_in_turn(self, child: Child) -> None:
        """Stop a child once nothing that depends on it runs, so that what it flushes still finds a receiver."""
        if any(child.spec.name in other.spec.depends_on and other.running for other in self._children.values()):
            return
        if child.running:
            self._ask_to_stop(child, after_stop="stopped")
        elif child.state in ("waiting", "backoff", "paused"):
            self._enter(child, "stopped")

    def _ask_to_stop(self, child: Child, *, after_stop: State) -> None:
        child.after_stop = after_stop
        self._enter(child, "stopping")
        child.ask_to_stop()

    # Requests.

    def _handle(self, request: Message) -> Message:
        match request.get("do"):
            case "status":
                return self.status()
            case "stop":
                self._begin_stop()
                return self.status()
            case "restart" | "pause" | "resume" as what:
                return self._direct(what, str(request.get("name")))
            case "scale":
                return self._scale(str(request.get("name")), request.get("instances"), held=request.get("held") is True)
            case other:
                return {"error": f"got the request {other!r}, wanted status, stop, restart, pause, resume or scale"}

    def _direct(self, what: Literal["restart", "pause", "resume"], name: str) -> Message:
        child = self._children.get(name)
        if child is None:
            return {"error": f"no process {name!r} runs here (found: {', '.join(self._children)})"}
        if self._phase == "stopping":
            return {"error": f"{name}: everything is being stopped; start it again with `headway up`"}
        if what == "resume" and child.state not in ("paused", "failed"):
            return {"error": f"{name} is {child.state}, so there is nothing to resume"}
        after_stop: State = "paused" if what == "pause" else "waiting"
        if child.state == "stopping":
            child.after_stop = after_stop
        elif child.running:
            self._ask_to_stop(child, after_stop=after_stop)
        else:
            child.start_at = child.failures = 0
            self._enter(child, after_stop)
        return self.status()

    # Instances that come and go.

    def _scale(self, name: str, instances: int | None, *, held: bool) -> Message:
        if self._phase == "stopping":
            return {"error": f"{name}: everything is being stopped; start it again with `headway up`"}
        try:
            self._instances.want(name, instances, held=held)
        except PermanentFailure as refusal:
            return {"error": str(refusal)}
        self._match_instances()
        return self.status()

    def _match_instances(self) -> None:
        """Add what is wanted and not there, ask what is no longer wanted to stop, forget it when it has."""
        if self._phase == "stopping":
            return
        wanted = self._instances.extra()
        for name, process in wanted.items():
            if name not in self._children:
                self._children[name] = self._child(process)
            elif self._children[name].after_stop == "stopped":  # on its way out, and wanted again
                self._children[name].after_stop = "waiting"
        for name in (self._children.keys() & self._instances.possible) - wanted.keys():
            child = self._children[name]
            if not child.running:
                del self._children[name]
                self._changed = True
            elif child.state != "stopping" or child.after_stop != "stopped":
                self._ask_to_stop(child, after_stop="stopped")

    def _child(self, process: Process) -> Child:
        return Child(process, log_file=self._log_dir / f"{process.name}.log")
