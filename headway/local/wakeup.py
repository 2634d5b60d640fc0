"""Signals as something a selector can wait for: a socket that wakes it, and the stop signals that came."""

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stop_signals() -> Iterator[tuple[socket.socket, list[int]]]:
    """Give a socket that wakes a selector at each signal, and the list of stop signals received so far."""
    stops: list[int] = []
    reading, writing = socket.socketpair()
    handlers = dict.fromkeys(
        (signal.SIGTERM, signal.SIGINT, signal.SIGHUP), lambda number, _frame: stops.append(number)
    )
    handlers[signal.SIGCHLD] = lambda _number, _frame: None
    with reading, writing:
        for end in (reading, writing):
            end.setblocking(False)
        former = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        former_wakeup = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        try:
            yield reading, stops
        finally:
            signal.set_wakeup_fd(former_wakeup)
            for number, handler in former.items():
                signal.signal(number, handler)
