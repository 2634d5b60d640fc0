"""The breaker opens for causes of ours, on enough records, and closes on the first that pass again (S22)."""

import pytest

from headway.breaker import FIRST_DELAY_S, LONGEST_DELAY_S, Breaker, retry_delay_s


def failed(breaker: Breaker, records: int) -> bool:
    return breaker.note_failed(records, cause="handler", detail="KeyError: 'x'")


def opened() -> Breaker:
    breaker = Breaker()
    failed(breaker, 500)
    return breaker


def test_it_opens_at_95_percent_of_500_records_and_says_why() -> None:
    breaker = Breaker()
    breaker.note_passed(25)

    assert not failed(breaker, 474)
    assert (breaker.state, breaker.reason) == ("closed", None)
    assert failed(breaker, 1)

    assert (breaker.state, breaker.cause) == ("open", "handler")
    assert breaker.reason == "475 of the last 500 records failed for a cause of ours; newest: KeyError: 'x'"


@pytest.mark.parametrize(("passed", "ours"), [(26, 474), (0, 499), (500, 470)])
def test_it_stays_closed_below_either_bound(passed: int, ours: int) -> None:
    breaker = Breaker()
    breaker.note_passed(passed)

    failed(breaker, ours)

    assert breaker.state == "closed"


def test_what_producers_send_never_opens_it() -> None:
    """A letter for a broken contract is a record that was done."""
    breaker = Breaker()

    for _ in range(100):
        breaker.note_passed(1000)

    assert breaker.state == "closed"


def test_old_records_leave_the_window() -> None:
    breaker = Breaker()
    breaker.note_passed(1_000_000)

    assert failed(breaker, 500)


def test_failures_in_small_batches_add_up() -> None:
    breaker = Breaker()

    assert [failed(breaker, 50) for _ in range(10)] == [False] * 9 + [True]


def test_half_open_one_good_batch_closes_it_and_forgets_the_past() -> None:
    breaker = opened()
    breaker.try_again()
    assert breaker.state == "half-open"

    assert breaker.note_passed(1)

    assert (breaker.state, breaker.reason) == ("closed", None)
    assert not failed(breaker, 499)


def test_half_open_one_bad_batch_opens_it_again() -> None:
    breaker = opened()
    breaker.try_again()

    assert failed(breaker, 1)

    assert breaker.state == "open"


def test_an_open_breaker_opens_once() -> None:
    assert not failed(opened(), 500)


def test_a_closed_breaker_has_nothing_to_try() -> None:
    breaker = Breaker()

    breaker.try_again()

    assert breaker.state == "closed"


def test_waits_double_with_a_bound_and_a_draw() -> None:
    assert [retry_delay_s(n, draw=lambda: 1.0) for n in (1, 2, 3)] == [FIRST_DELAY_S, 1.0, 2.0]
    assert retry_delay_s(10_000, draw=lambda: 1.0) == LONGEST_DELAY_S
    assert retry_delay_s(1, draw=lambda: 0.0) == FIRST_DELAY_S / 2
