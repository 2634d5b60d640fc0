from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.clock import HOUR_US, MINUTE_US
from headway.errors import ContractViolation
from headway.identities import HORIZON_US, Identities


def identity(number: int) -> bytes:
    return number.to_bytes(16, "big")


CONTENT = b"8 bytes."


def remembered(numbers_at: Iterable[tuple[int, int]], *, tick_us: int | None = None) -> Identities:
    identities = Identities()
    for number, time_us in numbers_at:
        identities.remember(identity(number), CONTENT, time_us=time_us, tick_us=tick_us)
    return identities


def test_an_identity_is_known_for_48_hours_and_at_most_five_minutes_longer() -> None:
    identities = remembered([(1, HOUR_US)])

    identities.forget(HOUR_US + HORIZON_US)
    assert identities.content(identity(1)) == CONTENT
    identities.forget(HOUR_US + HORIZON_US + 5 * MINUTE_US)
    assert identities.content(identity(1)) is None


def test_an_event_older_than_the_horizon_is_remembered_from_the_newest_tick_on() -> None:
    """Its client may retry too, however late the event is."""
    now_us = 1000 * HOUR_US
    identities = remembered([(1, 0)], tick_us=now_us)

    identities.forget(now_us + HOUR_US)

    assert identities.content(identity(1)) == CONTENT


def test_a_tick_costs_what_expires_and_not_what_is_known() -> None:
    identities = remembered((number, number * 5 * MINUTE_US) for number in range(1, 1001))

    identities.forget(10 * 5 * MINUTE_US + HORIZON_US)

    assert len(identities) == 1000 - 9


def test_a_pack_is_deleted_when_its_youngest_identity_is_forgotten() -> None:
    identities = remembered([(1, HOUR_US), (2, 2 * HOUR_US)])
    [(key, _)] = identities.packs(7)

    assert identities.forget(HOUR_US + HORIZON_US + 5 * MINUTE_US) == []
    assert identities.forget(2 * HOUR_US + HORIZON_US + 5 * MINUTE_US) == [key]


def test_many_identities_of_one_batch_make_packs_that_a_topic_takes() -> None:
    identities = remembered((number, HOUR_US) for number in range(25_000))

    packs = dict(identities.packs(0))

    assert len(packs) == 3
    assert max(map(len, packs.values())) < 500_000


def test_state_of_another_version_is_refused_with_the_way_out() -> None:
    with pytest.raises(ContractViolation, match=r"Delete the topic state\.dedupe"):
        Identities().restore(b"/source\x1fid", b"[1,2]", tick_us=None)


Step = tuple[int, int]
steps = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 120)), min_size=1, max_size=40)


@settings(deadline=None)
@given(steps, st.lists(st.integers(0, 200), max_size=40))
def test_what_is_restored_is_what_was_known(events: list[Step], tick_hours: list[int]) -> None:
    """Whatever comes in which order: the log's packs and tick give back exactly what the process knew."""
    identities, log, tick_us = Identities(), dict[bytes, bytes](), None
    for offset, (number, hour) in enumerate(events):
        if identities.content(identity(number)) is None:
            identities.remember(identity(number), CONTENT, time_us=hour * HOUR_US, tick_us=tick_us)
        log.update(identities.packs(offset))
        if offset < len(tick_hours):
            tick_us = max(tick_us or 0, tick_hours[offset] * HOUR_US)
            for key in identities.forget(tick_us):
                del log[key]

    restored = Identities()
    for key, value in log.items():
        restored.restore(key, value, tick_us=tick_us)

    assert {n for n in range(9) if restored.content(identity(n))} == {
        n for n in range(9) if identities.content(identity(n))
    }
    later_us = (tick_us or 0) + HOUR_US
    assert sorted(restored.forget(later_us)) == sorted(identities.forget(later_us))
    assert len(restored) == len(identities)
