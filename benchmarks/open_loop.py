"""Open load on an HTTP server: ``python -m benchmarks.open_loop HOST PORT PATH BODIES RATE SECONDS``, one JSON line out.

Questions are asked at instants that are drawn beforehand, whatever has been answered, and how long one took counts from the
instant it was meant for. A closed loop asks nothing while a server stalls, so the stall costs it one slow answer; here it
costs everyone who came meanwhile. One process with `select`, whose clock is finer than the millisecond of epoll's; what
bites: on a busy machine this process is late itself, so it says by how much (``late_p99_ms``).
"""

import gc
import itertools
import json
import random
import select
import socket
import statistics
import sys
from collections import deque
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path

from headway.clock import monotonic_s
from headway.errors import PermanentFailure

# Enough for a stall of 0.1 s at some thousand questions a second; `select` takes no more than 1,024.
MOST_CONNECTIONS = 400
# Servers close idle connections after 5 s or more; a question must not meet one that is being closed.
_IDLE_AT_MOST_S = 2.0
_LAST_ANSWER_S = 10.0
_SEED = 20130701
_BROKEN = 0


def arrivals(rate: float, seconds: float) -> list[float]:
    """Instants, in seconds, of users who know nothing of each other: gaps are exponential, the same ones every time."""
    generator = random.Random(_SEED)
    instants = itertools.accumulate(generator.expovariate(rate) for _ in itertools.repeat(None))
    return list(itertools.takewhile(lambda at_s: at_s < seconds, instants))


def request_of(host: str, path: str, body: bytes) -> bytes:
    """Give a question as it goes over the wire."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def status_of(answer: bytes) -> int | None:
    """Read the status of an answer, or None while a part is missing.

    Raises:
        PermanentFailure: it does not say how long it is.
    """
    head, end, body = answer.partition(b"\r\n\r\n")
    if not end:
        return None
    lines = head.lower().split(b"\r\n")
    length = next((line.partition(b":")[2] for line in lines if line.startswith(b"content-length:")), None)
    if length is None:
        raise PermanentFailure(f"open_loop: got an answer without content-length, wanted one: {head[:200]!r}")
    return int(head.split(maxsplit=2)[1]) if len(body) >= int(length) else None


class Load:
    """Questions at their instants, over as many connections as are needed.

    Attributes:
        took_s: from the instant a question was meant for to its answer, of all that were answered.
        late_s: from that instant to the one this process took the question up, of all.
    """

    def __init__(
        self, address: tuple[str, int], questions: Sequence[bytes], due_s: Sequence[float], *, connections: int
    ) -> None:
        self.took_s: list[float] = []
        self.late_s: list[float] = []
        self.errors = 0
        self._address, self._connections = address, connections
        self._until_s = due_s[-1] + _LAST_ANSWER_S
        self._ahead = deque(zip(due_s, itertools.cycle(questions), strict=False))
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._idle: deque[_Link] = deque()
        self._busy: dict[socket.socket, _Link] = {}

    def run(self) -> None:
        """Ask everything and wait for the answers; what is not answered 10 s after the last question is an error."""
        began_s = monotonic_s()
        while (self._ahead or self._waiting or self._busy) and (now_s := monotonic_s() - began_s) < self._until_s:
            self._ask(now_s)
            wake_s = self._ahead[0][0] if self._ahead else self._until_s
            for readable in select.select(self._busy, (), (), max(wake_s - now_s, 0.0))[0]:
                self._hear(self._busy[readable], began_s)
        self.errors += len(self._ahead) + len(self._waiting) + len(self._busy)
        for link in (*self._idle, *self._busy.values()):
            link.socket.close()

    def _ask(self, now_s: float) -> None:
        while self._ahead and self._ahead[0][0] <= now_s:
            self.late_s.append(now_s - self._ahead[0][0])
            self._waiting.append(self._ahead.popleft())
        while self._waiting and len(self._busy) < self._connections:
            # The one that was used last, so that those a burst needed grow old and go.
            while self._idle and now_s - self._idle[0].since_s > _IDLE_AT_MOST_S:
                self._idle.popleft().socket.close()
            link = self._idle.pop() if self._idle else _Link(self._address)
            link.ask(*self._waiting.popleft())
            self._busy[link.socket] = link

    def _hear(self, link: "_Link", began_s: float) -> None:
        status = link.read()
        if status is None:
            return
        at_s = monotonic_s() - began_s
        if status == HTTPStatus.OK:
            self.took_s.append(at_s - link.since_s)
        else:
            self.errors += 1
        del self._busy[link.socket]
        if status == _BROKEN:
            link.socket.close()
        else:
            link.since_s = at_s
            self._idle.append(link)


class _Link:
    """One connection with one question under way at most; ``since_s`` is when that was due, or when it became idle."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=_LAST_ANSWER_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.since_s = 0.0
        self._read = b""

    def ask(self, due_s: float, question: bytes) -> None:
        self.since_s, self._read = due_s, b""
        self.socket.sendall(question)

    def read(self) -> int | None:
        """Return the status once all of the answer is here, and `_BROKEN` for a connection that ended."""
        try:
            more = self.socket.recv(65_536)
        except OSError:
            return _BROKEN
        self._read += more
        return status_of(self._read) if more else _BROKEN


def main() -> None:
    """Ask at this rate for so long."""
    host, port, path, file, rate, seconds = sys.argv[1:]
    bodies = json.loads(Path(file).read_text(encoding="utf-8"))
    questions = [request_of(f"{host}:{port}", path, json.dumps(body).encode()) for body in bodies]
    load = Load((host, int(port)), questions, arrivals(float(rate), float(seconds)), connections=MOST_CONNECTIONS)
    gc.freeze()
    gc.disable()
    load.run()
    took, late = (statistics.quantiles(each, n=100) for each in (load.took_s, load.late_s))
    said: dict[str, float] = {"answers": len(load.took_s), "errors": load.errors}
    said |= {"p50_ms": took[49] * 1e3, "p99_ms": took[98] * 1e3, "late_p99_ms": late[98] * 1e3}
    sys.stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main()
