"""Events on which the Enricher's own code raises, hangs, takes memory or dies; planted, as the flights' own never do.

``python -m orchestration.chaos.hostile MODULE [ARGUMENT ...]`` runs a module as if by ``python -m``; in the Enricher,
events of certain aircraft (`TAILS`) then act. What ends the process says so first, on stderr and in the words of
`headway.failpoints`, so a trial can prove each death. Memory is limited as a container's is, by SIGKILL: a limit on
address space would only raise, and kill innocents.
"""

import itertools
import os
import runpy
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from headway.clock import SystemClock
from headway.failpoints import PLAN_VARIABLE, hit

JOB = "enricher"
# By aircraft: which fail-point of the Enricher the event is; None when the process lives on.
TAILS: Mapping[str, str | None] = {
    "RAISE": None,
    "HANG": "hostile_hang",
    "KILL": "hostile_kill",
    "DIE": "hostile_die",
    "ALLOCATE": "hostile_allocate",
}
# These two act through real fail-points, at every hit (a number with a point is a chance).
ENVIRONMENT: Mapping[str, str] = {
    PLAN_VARIABLE: f"{JOB}.{TAILS['HANG']}=1.0:hang,{JOB}.{TAILS['KILL']}=1.0:kill",
}
# A hang costs this twice. The Enricher's alone: an honest batch of another job may take as long on a busy machine.
_DEADLINE = {"HEADWAY_JOB_DEADLINE_S": "10"}
# Four times what the Enricher holds under load.
MOST_RESIDENT_BYTES = 1024**3
_ALLOCATED_BYTES = 2 * 1024**3
_PAGE_BYTES = 4096
_LOOK_EVERY_S = 0.02


def react(body: object) -> None:
    """Do what an event of a hostile aircraft does to whoever looks at it; nothing for any other."""
    match getattr(body, "tail", None):
        case "RAISE":
            raise ZeroDivisionError("planted")
        case "HANG":
            hit(f"{JOB}.{TAILS['HANG']}")
        case "KILL":
            hit(f"{JOB}.{TAILS['KILL']}")
        case "DIE":
            _announce("hostile_die", pid=os.getpid())
            os.kill(os.getpid(), signal.SIGSEGV)
        case "ALLOCATE":
            bytearray(_ALLOCATED_BYTES)[::_PAGE_BYTES] = b"\1" * (_ALLOCATED_BYTES // _PAGE_BYTES)


def limit_memory(most_bytes: int) -> None:
    """Have this process killed once more than this is resident, by a child that lives as long; before any thread."""
    guarded = os.getpid()
    if os.fork():
        return
    resident = Path(f"/proc/{guarded}/statm")
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError):  # gone between two looks
        while os.getppid() == guarded:
            if int(resident.read_text().split()[1]) * page_bytes > most_bytes:
                _announce("hostile_allocate", pid=guarded)
                os.kill(guarded, signal.SIGKILL)
                break
            time.sleep(_LOOK_EVERY_S)
    os._exit(0)


def plant() -> None:
    """Have every event that is to be enriched in this process react first."""
    from headway.enrichment import CachedEnrichment

    enrich = CachedEnrichment.enrich

    def reacting(self: Any, items: Any) -> Any:  # Any: as typed where it is defined
        for item in items:
            react(item.body)
        return enrich(self, items)

    CachedEnrichment.enrich = reacting  # type: ignore[method-assign]


def concerns(command: Sequence[str]) -> bool:
    """Whether a command, perhaps through another module, runs the Enricher."""
    return any(pair == ("streaming.main", JOB) for pair in itertools.pairwise(command))


def _announce(point: str, *, pid: int) -> None:
    said = {
        "event": "failpoint",
        "name": f"{JOB}.{point}",
        "action": "kill",
        "pid": pid,
        "timestamp": SystemClock().now().isoformat(),
    }
    os.write(2, orjson.dumps(said) + b"\n")


def main() -> None:
    """Plant it if the command runs the Enricher, then run the command."""
    command = sys.argv[1:]
    if concerns(command):
        os.environ.update(_DEADLINE)
        limit_memory(MOST_RESIDENT_BYTES)
        plant()
    sys.argv = command
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
