"""A block of a hundred ports for one test's own stack, out of the way of the machine's stack and of other tests."""

import os
import socket

_FIRST, _LAST, _STEP = 20_000, 31_000, 100


def free_block() -> int:
    """Return the first port of a block in which nothing listens; starts at a place that differs per process."""
    blocks = range(_FIRST, _LAST, _STEP)
    shift = os.getpid() % len(blocks)
    for place in range(len(blocks)):
        base = blocks[(place + shift) % len(blocks)]
        if all(_is_free(base + offset) for offset in range(_STEP)):
            return base
    raise AssertionError(f"no free block of {_STEP} ports between {_FIRST} and {_LAST}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
