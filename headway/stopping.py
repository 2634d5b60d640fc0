"""How a long-running process of ours is told to stop: SIGTERM or SIGINT sets an event."""

import signal
import threading


def stop_event() -> threading.Event:
    """Give an event that SIGTERM and SIGINT set from now on; call it in the main thread.

    What bites: an SDK that handles these signals itself must be started before, or takes them away again.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop
