"""The one-machine stack as a whole: up, down, status, reset; and one process of it: restart, pause, resume, scale.

Progress is told through ``say``, line by line; results are plain values. What bites: `up` gives the daemon the resolved
settings as environment variables, so everything in the stack sees the same ports, whatever else is set.
"""

import os
import resource
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal

from headway.announcement import read_announcement
from headway.clock import monotonic_s
from headway.errors import PermanentFailure, TransientFailure
from headway.local.background import SupervisorLog, environment_of, start_daemon, supervisor_log
from headway.local.control import ControlSocket, Message, ask
from headway.local.instances import Instances
from headway.local.keeper import run_kept
from headway.local.plan import Process
from headway.local.ports import holders
from headway.local.processes import ProcessId, identify, is_alive, own_id
from headway.local.stack import PARTS, Part, announcements, choose, control_socket
from headway.local.state import claim, clean_stale, erase, forget, held, is_held, record, recorded
from headway.local.supervisor import Supervisor
from headway.settings import Settings

Say = Callable[[str], None]

# A stop takes 15 s at most; who holds the lock longer than this is stuck.
_DOWN_WITHIN_S = 20.0
_POLL_S = 0.1
_SILENT_AT_MOST_S = 8.0
# In the record of processes: whoever holds the lock longest.
KEEPER = "keeper"


def up(settings: Settings, *, only: Sequence[str], say: Say) -> dict[str, Any]:
    """Start the stack in the background and give its status once everything is ready; when it is up, just the status.

    Raises:
        PermanentFailure: a port is busy, a stack without these parts is up, or a part does not get ready.
        TransientFailure: one that was being stopped did not end, or a supervisor does not answer.
    """
    chosen = choose(only, parts=PARTS)
    running = _running(settings, say=say)
    if running is not None:
        missing = {part.name for part in chosen} - set(running["parts"])
        if missing:
            raise PermanentFailure(
                f"{settings.state}: its stack is up without {', '.join(sorted(missing))}. "
                "Stop it with `headway down`, then start it with all the parts you need."
            )
        return _until_ready(settings, told=SupervisorLog(settings, say), alive=lambda: is_held(settings.state))
    prepare(settings, chosen, say=say)
    told = SupervisorLog(settings, say)
    daemon = start_daemon(settings, only=[part.name for part in chosen])
    try:
        return _until_ready(settings, told=told, alive=lambda: is_alive(daemon))
    except KeyboardInterrupt:
        down(settings, say=say)
        raise


def run(settings: Settings, *, only: Sequence[str], say: Say) -> int:
    """Run the stack in this process until a signal or `down`; give the exit code when everything is gone."""
    chosen = choose(only, parts=PARTS)
    _running(settings, say=say)  # one that is being stopped is waited for; one that is up is refused next
    prepare(settings, chosen, say=say)
    processes = [process for part in chosen for process in part.processes(settings)]
    scalable = [each for part in chosen for each in part.scalable(settings)]
    instances = Instances(scalable, file=settings.state / "instances.json")
    with held(settings.state):
        try:
            return run_kept(lambda: _supervise(settings, processes, instances, keeper=os.getppid(), say=say))
        finally:
            forget(settings)


def down(settings: Settings, *, say: Say) -> dict[str, Any]:
    """Stop the stack, or what is left of one; give what was stopped, and the pids that, if any, still run.

    One stack: an `up` that waited for its end takes the lock at once, and what runs from then on is not ours to end.
    """
    began = monotonic_s()
    known, asked = recorded(settings.state), False
    told = SupervisorLog(settings, say)
    while not asked and is_held(settings.state) and monotonic_s() - began < _DOWN_WITHIN_S:
        try:
            ask(control_socket(settings), {"do": "stop"})
        except TransientFailure:  # just started, and does not listen yet; or just gone
            time.sleep(_POLL_S)
        else:
            known, asked = known | recorded(settings.state), True
    while asked and any(map(is_alive, known.values())) and monotonic_s() - began < _DOWN_WITHIN_S:
        told.tell_new()
        time.sleep(_POLL_S)
    told.tell_new()
    orderly = KEEPER in known and recorded(settings.state).get(KEEPER) != known[KEEPER]
    left = () if orderly else clean_stale(settings, say=say)
    return {
        "stopped": [name for name, process in known.items() if process not in left],
        "left": [process.pid for process in left],
        "seconds": round(monotonic_s() - began, 1),
    }


def status(settings: Settings) -> dict[str, Any]:
    """Give phase, processes, links and ports; the phase is ``down`` when there is no stack."""
    try:
        answer = ask(control_socket(settings), {"do": "status"})
    except TransientFailure:
        phase = "starting" if is_held(settings.state) else "down"
        answer = {"phase": phase, "problem": None, "processes": [], "instances": {}}
    names = {process["name"] for process in answer["processes"]}
    running = [part for part in PARTS if names & {process.name for process in part.processes(settings)}]
    return {
        "state": str(settings.state),
        **answer,
        "parts": [part.name for part in running],
        "links": {part.name: link for part in running if (link := part.link(settings)) is not None},
        "ports": {
            **{name: getattr(settings.ports, name) for part in running for name in part.ports},
            **_announced(settings, names),
        },
    }


def direct(settings: Settings, what: Literal["restart", "pause", "resume"], name: str, *, within_s: float) -> None:
    """Restart, pause or resume one process; return when that is done.

    Raises:
        TransientFailure: no stack is up, or it took longer than ``within_s``.
        PermanentFailure: there is no such process, or it is not in a state for this.
    """
    deadline = monotonic_s() + within_s
    former_pid = _process(ask(control_socket(settings), {"do": "status"}), name).get("pid")
    process = _process(ask(control_socket(settings), {"do": what, "name": name}), name)
    while not _is_done(what, process, former_pid):
        if monotonic_s() > deadline:
            raise TransientFailure(
                f"{name}: after {within_s:.0f} s of {what} it is {process['state']}. See {process['log']}."
            )
        time.sleep(_POLL_S)
        process = _process(ask(control_socket(settings), {"do": "status"}), name)


def scale(settings: Settings, name: str, instances: int | None, *, held: bool, within_s: float) -> dict[str, Any]:
    """Set how many instances of a process are wanted and who decides it; return its counts once as many are ready.

    ``instances`` None leaves the number. The number is kept over restarts of the stack.

    Raises:
        TransientFailure: no stack is up, or it took longer than ``within_s``.
        PermanentFailure: there is no such process, it cannot have so many, or a person holds another number.
    """
    deadline = monotonic_s() + within_s
    request = {"do": "scale", "name": name, "instances": instances, "held": held}
    counts = ask(control_socket(settings), request)["instances"][name]
    while counts["ready"] != counts["instances"]:
        if monotonic_s() > deadline:
            raise TransientFailure(
                f"{name}: after {within_s:.0f} s {counts['ready']} of {counts['instances']} instances are ready. "
                f"See {settings.state / 'log'}/{name}-*.log."
            )
        time.sleep(_POLL_S)
        counts = ask(control_socket(settings), {"do": "status"})["instances"][name]
    return dict(counts)


def instances(settings: Settings, name: str | None) -> dict[str, dict[str, Any]]:
    """Return the counts of instances by process, of all or of the one that is named.

    Raises:
        TransientFailure: no stack is up.
        PermanentFailure: there is no such process.
    """
    counts: dict[str, dict[str, Any]] = ask(control_socket(settings), {"do": "status"})["instances"]
    if name is not None and name not in counts:
        raise PermanentFailure(f"{name}: wanted a process that may have several instances, one of {', '.join(counts)}")
    return {each: count for each, count in counts.items() if name in (None, each)}


def reset(settings: Settings, *, say: Say) -> dict[str, Any]:
    """Stop the stack and erase its state folder.

    Raises:
        PermanentFailure: the folder was not made by Headway, or something in it still runs.
    """
    report = down(settings, say=say)
    if report["left"]:
        raise PermanentFailure(
            f"{settings.state}: kept, as the processes {report['left']} did not end. End them, then reset again."
        )
    erase(settings.state)
    return {**report, "erased": str(settings.state)}


def prepare(settings: Settings, chosen: Sequence[Part], *, say: Say) -> None:
    """Do what has to hold before anything starts: own state folder, nothing left over, ports free, downloads there.

    Raises:
        PermanentFailure: a stack is up already, a port is busy (with its holder), or the folder is not ours.
        TransientFailure: a download failed.
    """
    claim(settings.state)
    with held(settings.state):
        clean_stale(settings, say=say)
    wanted = {port: part.name for part in chosen for port in part.port_numbers(settings)}
    if busy := holders(wanted):
        lines = "; ".join(f"{holder}, wanted for {wanted[holder.port]}" for holder in busy)
        raise PermanentFailure(
            f"{lines}. Nothing was started. End what holds it, or choose other ports: HEADWAY_PORT_BASE moves all of "
            "them, HEADWAY_PORTS__<NAME> one."
        )
    for part in chosen:
        if part.fetch is not None:
            part.fetch()


def _running(settings: Settings, *, say: Say) -> dict[str, Any] | None:
    """Status of the stack that is up; None when there is none. Waits for one that is just coming or just dying."""
    deadline = monotonic_s() + _DOWN_WITHIN_S
    ending: dict[str, ProcessId] = {}
    # The lock is let go a moment before its holder has ended.
    while is_held(settings.state) or any(map(is_alive, ending.values())):
        facts = status(settings)
        if facts["phase"] == "stopping" and not ending:
            ending = recorded(settings.state)
            say(f"waiting for the stack of pid {facts['pid']} to end, which is being stopped")
        elif facts["processes"] and facts["phase"] != "stopping":
            return facts
        if monotonic_s() > deadline:
            raise TransientFailure(_why_not(settings, ending))
        time.sleep(_POLL_S)
    return None


def _why_not(settings: Settings, ending: Mapping[str, ProcessId]) -> str:
    left = {name: process.pid for name, process in ending.items() if is_alive(process)}
    if left:
        told = ", ".join(f"{name} (pid {pid})" for name, pid in left.items())
        return (
            f"{settings.state}: its stack was being stopped already, and after {_DOWN_WITHIN_S:.0f} s this still runs: "
            f"{told}. End it with `headway down`, then start again."
        )
    return f"{settings.state}: its supervisor lives and does not answer. End it: `headway down`."


def _until_ready(settings: Settings, *, told: SupervisorLog, alive: Callable[[], bool]) -> dict[str, Any]:
    spoke = began = monotonic_s()
    while True:
        lives = alive()  # asked before the log is read, so that a dying supervisor's last words are told
        if told.tell_new():
            spoke = monotonic_s()
        now = status(settings)
        if now["phase"] == "ready":
            told.tell_new()
            return now
        if not lives:
            raise PermanentFailure(f"stack: did not get ready, and was stopped. All is in {supervisor_log(settings)}.")
        if monotonic_s() - spoke > _SILENT_AT_MOST_S:
            spoke = monotonic_s()
            waiting = [p["name"] for p in now["processes"] if p["state"] in ("starting", "backoff")]
            told.say(f"waiting for {', '.join(waiting) or 'the supervisor'} ({spoke - began:.0f} s)")
        time.sleep(_POLL_S)


def _supervise(settings: Settings, processes: Sequence[Process], instances: Instances, *, keeper: int, say: Say) -> int:
    own = {KEEPER: identify(keeper), "supervisor": own_id()}

    def remember(facts: Message) -> None:
        found = own | {process["name"]: identify(process["pid"] or 0) for process in facts["processes"]}
        record(settings.state, {name: process for name, process in found.items() if process is not None})

    control = ControlSocket(control_socket(settings))
    scratch = settings.sockets / "tmp"
    scratch.mkdir()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # inherited: broker, load balancer and Ray want thousands
    try:
        return Supervisor(
            processes,
            instances=instances,
            log_dir=settings.state / "log",
            environment={
                **environment_of(settings),
                # Processes stand in the log folder; Python must not import from where it happens to stand.
                "PYTHONSAFEPATH": "1",
                "PYTHONUNBUFFERED": "1",
                # Whatever they leave in their temporary folder, killed or not, goes with the stack.
                "TMPDIR": str(scratch),
            },
            control=control,
            say=say,
            record=remember,
        ).run()
    finally:
        control.close()


def _announced(settings: Settings, names: Collection[str]) -> dict[str, int]:
    files = [announcements(settings) / f"{name}.json" for name in sorted(names)]
    return {said.name: said.port for said in map(read_announcement, files) if said is not None}


def _process(facts: Message, name: str) -> dict[str, Any]:
    # Unknown here means unknown to the supervisor, whose refusal names what there is.
    return next((dict(process) for process in facts["processes"] if process["name"] == name), {})


def _is_done(what: str, process: Message, former_pid: int | None) -> bool:
    if what == "pause":
        return bool(process["state"] == "paused")
    # One that ends has no pid before nor after; the answer to the request said that it waits.
    return bool(process["state"] == "done" or (process["state"] == "ready" and process["pid"] != former_pid))
