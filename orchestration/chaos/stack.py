"""A one-machine stack of a trial's own: in a folder and a block of ports that nobody else uses, gone afterwards."""

import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headway.local import lifecycle
from headway.local.stack import THROUGH_VARIABLE
from headway.settings import LOOPBACK, PORT_BLOCK, Settings

# Below what Linux gives to outgoing connections, and above the stack's own.
_FIRST, _LAST = 31_000, 32_700
EVENT_PLANE = ("streams", "collector", "haproxy")


@contextmanager
def own_stack(
    parts: Sequence[str], *, mutant: str | None, environment: Mapping[str, str], say: Callable[[str], None]
) -> Iterator[Settings]:
    """Start these parts, give the settings that reach them, and stop and erase them at the end.

    With a ``mutant`` every module of ours is started through `orchestration.chaos.mutant`, and before that through
    whatever the ``environment`` says. The folder is kept when the trial raises, for its logs.
    """
    state = Path(tempfile.mkdtemp(prefix="hw-chaos-"))
    with _environment({**environment, **_through(mutant, environment)}):
        settings = Settings(state=state / "s", port_base=free_block())
        try:
            lifecycle.up(settings, only=parts, say=say)
            with _clients_log(settings.state / "log" / "chaos.log"):
                yield settings
        except BaseException:
            lifecycle.down(settings, say=say)
            say(f"the state folder is kept: {state}")
            raise
    lifecycle.down(settings, say=say)
    shutil.rmtree(state)


def _through(mutant: str | None, environment: Mapping[str, str]) -> dict[str, str]:
    if mutant is None:
        return {}
    before = environment.get(THROUGH_VARIABLE, "")
    return {THROUGH_VARIABLE: f"{before} orchestration.chaos.mutant {mutant}".strip()}


def processes_of(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return what the supervisor says of each process, by name."""
    return {process["name"]: process for process in lifecycle.status(settings)["processes"]}


def free_block() -> int:
    """Return the first port of a block in which nothing listens; starts at a place that differs per process."""
    blocks = range(_FIRST, _LAST, PORT_BLOCK)
    shift = os.getpid() % len(blocks)
    for place in range(len(blocks)):
        base = blocks[(place + shift) % len(blocks)]
        if all(_is_free(base + offset) for offset in range(PORT_BLOCK)):
            return base
    raise AssertionError(f"no free block of {PORT_BLOCK} ports between {_FIRST} and {_LAST}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


@contextmanager
def _clients_log(path: Path) -> Iterator[None]:
    """Keep what our own clients say of a broker that is being killed out of what a person reads."""
    logger = logging.getLogger("headway.adapters")
    handler = logging.FileHandler(path)
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = True
        logger.removeHandler(handler)
        handler.close()


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    former = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in former.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
