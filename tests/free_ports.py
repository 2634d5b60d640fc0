"""Ports for what a test starts: out of the way of the machine's stack, of other tests and of the system's own choice.

The system gives ports above 32,767 to whoever connects or listens anywhere. One of those is free when asked for and may
be taken when the server gets there, seconds later, or while it is down to be started again.
"""

import os
import socket
from itertools import count

_FIRST, _LAST, _STEP = 20_000, 31_000, 100
_FIRST_ALONE, _LAST_ALONE = 31_000, 32_768
# What is given is not in use yet, so that asking twice would give it twice.
_blocks, _alone = count(os.getpid()), count(17 * os.getpid())


def free_block() -> int:
    """Return the first port of a block of a hundred in which nothing listens."""
    blocks = range(_FIRST, _LAST, _STEP)
    for place, _ in zip(_blocks, blocks, strict=False):
        base = blocks[place % len(blocks)]
        if all(_is_free(base + offset) for offset in range(_STEP)):
            return base
    raise AssertionError(f"no free block of {_STEP} ports between {_FIRST} and {_LAST}")


def free_port() -> int:
    """Return a port on which nothing listens."""
    ports = range(_FIRST_ALONE, _LAST_ALONE)
    for place, _ in zip(_alone, ports, strict=False):
        if _is_free(ports[place % len(ports)]):
            return ports[place % len(ports)]
    raise AssertionError(f"no free port between {_FIRST_ALONE} and {_LAST_ALONE}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
