"""The open load: nobody waits for somebody else's answer before asking, and a wait counts from the instant it was meant for."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest

from benchmarks.frame import Sample, Series, Target, Window
from benchmarks.offered import Waits, is_on_time, offered_rate
from benchmarks.open_loop import Load, arrivals, request_of, status_of
from benchmarks.report import outcome
from headway.errors import PermanentFailure

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
FAILED = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
QUESTION = request_of("here", "/predict", b"{}")


@contextmanager
def server(*answers: bytes, together: int) -> Iterator[tuple[str, int]]:
    """Answers nobody until so many have asked, then everybody; an empty answer closes the connection."""
    everyone = threading.Barrier(together)
    left = list(reversed(answers))

    def answer(link: socket.socket) -> None:
        with link:
            while (link.recv(65_536)) and left:
                everyone.wait(timeout=30)
                said = left.pop()
                if not said:
                    return
                link.sendall(said)

    def accept(door: socket.socket) -> None:
        while True:
            try:
                link, _ = door.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(link,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as door:
        threading.Thread(target=accept, args=(door,), daemon=True).start()
        try:
            yield door.getsockname()
        finally:
            door.shutdown(socket.SHUT_RDWR)


def loaded(*answers: bytes, together: int, due_s: list[float], connections: int = 10) -> Load:
    with server(*answers, together=together) as address:
        load = Load(address, [QUESTION], due_s, connections=connections)
        load.run()
    return load


def test_a_stall_costs_everyone_who_came_meanwhile() -> None:
    """A closed loop of one connection would wait for the first answer for ever."""
    due_s = [0.0, 0.05, 0.1, 0.2]

    load = loaded(*[OK] * 4, together=4, due_s=due_s)

    assert load.errors == 0
    waited_at_least_s = sorted(due_s[-1] - due for due in due_s)
    assert all(took >= least for took, least in zip(sorted(load.took_s), waited_at_least_s, strict=True))


def test_who_finds_no_connection_waits_from_the_instant_meant() -> None:
    load = loaded(OK, OK, OK, together=1, due_s=[0.0, 0.0, 0.0], connections=1)

    assert (len(load.took_s), len(load.late_s)) == (3, 3)
    assert all(earlier < later for earlier, later in pairwise(load.took_s))


def test_a_refusal_and_a_broken_connection_are_errors_and_no_waits() -> None:
    load = loaded(FAILED, b"", OK, together=3, due_s=[0.0, 0.0, 0.0])

    assert (load.errors, len(load.took_s)) == (2, 1)


def test_instants_are_the_same_every_time_at_the_rate_that_was_asked_for() -> None:
    drawn = arrivals(1_000.0, 20.0)

    assert drawn == arrivals(1_000.0, 20.0)
    assert drawn == sorted(drawn)
    assert drawn[-1] < 20.0
    assert len(drawn) == pytest.approx(20_000, rel=0.03)


def test_an_answer_counts_once_all_of_it_is_here() -> None:
    assert [status_of(OK[:-1]), status_of(OK), status_of(FAILED)] == [None, 200, 503]


def test_an_answer_of_unknown_length_is_refused() -> None:
    with pytest.raises(PermanentFailure, match="wanted one"):
        status_of(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")


def test_a_load_that_was_late_itself_says_nothing_about_the_server() -> None:
    assert is_on_time({"p99_ms": 5.0, "late_p99_ms": 1.0})
    assert not is_on_time({"p99_ms": 5.0, "late_p99_ms": 1.1})


def series(name: str, *values: float) -> Series:
    return Series(name=name, windows=[Window(sample=Sample(value=value), foreign=0.0) for value in values], redone=0)


def waits(ours: Series, peer: Series) -> Waits:
    return Waits(title="99 %", unit="ms", ours=ours, peers=[peer], targets=[Target(peer=peer.name, at_least=1.0)])


def test_waiting_less_is_a_ratio_above_one() -> None:
    found = waits(series("ours", 2.0, 1.0, 4.0), series("peer", 4.0, 4.0, 4.0))

    assert found.ratios("peer") == (2.0, 1.0, 4.0)
    assert outcome("P0", [found]).holds
    assert not waits(series("ours", 5.0), series("peer", 4.0)).met


def test_the_offered_rate_is_what_the_slower_one_bears() -> None:
    assert offered_rate(series("a", 2_000.0, 9.0, 2_100.0), series("b", 1_000.0)) == 600
