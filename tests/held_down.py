"""Processes of a stack that are killed and stay dead for a while, as long as somebody needs to see what becomes of it."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from headway.local import lifecycle
from headway.settings import Settings
from orchestration.chaos.faults import process_state
from orchestration.chaos.stack import processes_of

_WITHIN_S = 120.0


def pids(settings: Settings, names: Sequence[str]) -> dict[str, int | None]:
    """The processes' pids by name; None for one that does not run."""
    running = processes_of(settings)
    return {name: running[name]["pid"] for name in names}


@contextmanager
def held_down(settings: Settings, names: Sequence[str], *, say: Callable[[str], None]) -> Iterator[None]:
    """SIGKILL these, keep the supervisor from starting them again, and have it do so afterwards; proves both."""
    before = pids(settings, names)
    for pid in before.values():
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    for name in names:
        lifecycle.direct(settings, "pause", name, within_s=_WITHIN_S)
    try:
        assert pids(settings, names) == dict.fromkeys(names)
        assert [process_state(pid) for pid in before.values() if pid is not None] == [None] * len(names)
        yield
    finally:
        for name in names:
            lifecycle.direct(settings, "resume", name, within_s=_WITHIN_S)
    after = pids(settings, names)
    assert not {*before.values(), None} & {*after.values()}, (before, after)
    say("; ".join(f"{name}: SIGKILL, pid {before[name]} -> {after[name]}" for name in names))
