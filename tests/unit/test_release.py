"""The release machine: examples of each rule of S15 and S16, and what holds whatever happens in whatever order."""

from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import given

from headway.adapters.release_table import ReleaseTable
from headway.release import (
    Change,
    PinnedVersion,
    Placed,
    ProductState,
    Release,
    advanced,
    delayed,
    due,
    leaving,
    lost,
    overridden,
    refused,
    traffic,
    wished,
)

V1, V2, V3 = (PinnedVersion(version=n, digest=f"d{n}") for n in (1, 2, 3))
EMPTY = ProductState(product="p")
SECOND_US = 1_000_000


def release_of(state: ProductState) -> Release:
    assert state.release is not None
    return state.release


def step(state: ProductState) -> ProductState:
    return advanced(state, release_of(state), at_us=0).state


def until(state: ProductState, phase: str) -> ProductState:
    while release_of(state).phase != phase:
        state = step(state)
    return state


def wish(state: ProductState, version: PinnedVersion | None) -> ProductState:
    return wished(state, version, at_us=0).state


def live(version: PinnedVersion) -> ProductState:
    return until(wish(EMPTY, version), "done")


def test_a_first_champion_goes_through_every_phase_to_live() -> None:
    state, seen = wish(EMPTY, V1), ["starting"]
    while release_of(state).phase != "done":
        state = step(state)
        seen.append(release_of(state).phase)

    assert seen == ["starting", "proving", "registered", "switched", "draining", "done"]
    assert state.live == Placed(model=V1, colour="blue")


def test_nothing_is_done_before_anybody_set_a_champion() -> None:
    assert wished(EMPTY, None, at_us=0) == Change(state=EMPTY)


def test_a_new_version_joins_the_other_backend_and_is_asked_only_after_the_switch() -> None:
    state = until(wish(live(V1), V2), "registered")

    before, after = traffic(state), traffic(step(state))

    assert (before.blue, before.green, before.serving) == (V1, V2, "blue")
    assert (after.blue, after.green, after.serving) == (None, V2, "green")
    assert leaving(release_of(until(state, "draining")), state.live) == Placed(model=V1, colour="blue")


def test_champion_equal_to_live_is_nothing_to_do() -> None:
    assert wished(live(V1), V1, at_us=0) == Change(state=live(V1))


def test_a_newer_wish_first_undoes_an_unfinished_release_then_goes_on() -> None:
    state = wish(until(wish(live(V1), V2), "registered"), V3)

    undone = step(state)

    assert (release_of(state).phase, release_of(undone).phase) == ("undoing", "superseded")
    assert (traffic(state).green, traffic(state).serving) == (None, "blue")
    assert release_of(wish(undone, V3)).target == Placed(model=V3, colour="green")


def test_a_wish_back_to_live_undoes_the_release() -> None:
    state = wish(until(wish(live(V1), V2), "proving"), V1)

    assert (release_of(state).phase, wish(step(state), V1).open_release) == ("undoing", None)


def test_a_switched_release_is_finished_before_the_next_begins() -> None:
    state = wish(until(wish(live(V1), V2), "switched"), V3)

    assert release_of(state).phase == "switched"
    assert release_of(wish(until(state, "done"), V3)).target.model == V3


def test_a_result_for_a_release_that_moved_on_is_ignored() -> None:
    """The start of version 2 ends after version 3 was wished: it must not push the undoing forward."""
    starting = wish(live(V1), V2)
    undoing = wish(starting, V3)

    assert advanced(undoing, release_of(starting), at_us=0) == Change(state=undoing)


def test_a_refused_version_is_vetoed_taken_out_and_held_until_somebody_insists() -> None:
    state = until(wish(live(V1), V2), "proving")
    state = refused(state, release_of(state), reason="golden answer differs", at_us=0).state

    held = wish(step(state), V2)

    assert release_of(state).phase == "undoing"
    assert (held.state, held.live) == ("held", Placed(model=V1, colour="blue"))
    assert "golden answer differs" in held.reason
    assert release_of(wish(overridden(held, V2.digest), V2)).phase == "starting"
    assert release_of(wish(held, V3)).phase == "starting"


def test_a_live_version_that_does_not_start_again_is_not_vetoed() -> None:
    state = lost(live(V1), reason="gone", at_us=0).state

    after = refused(state, release_of(state), reason="no memory", at_us=0).state

    assert (after.vetoes, after.state) == ({}, "held")


def test_a_deleted_alias_holds_once_and_keeps_serving() -> None:
    change = wished(live(V1), None, at_us=0)

    assert (change.state.state, change.state.reason) == ("held", "the champion alias is deleted")
    assert traffic(change.state).blue == V1
    assert wished(change.state, None, at_us=1).transitions == ()


def test_a_delayed_release_waits_longer_each_time_and_records_a_reason_once() -> None:
    state = wish(EMPTY, V1)
    waits_s, recorded, now_us = [], 0, 0
    for _ in range(7):
        change = delayed(state, release_of(state), reason="Ray is away", at_us=now_us)
        state, recorded = change.state, recorded + len(change.transitions)
        retry_at_us = release_of(state).retry_at_us
        assert retry_at_us is not None
        assert due(state, at_us=retry_at_us - 1) is None
        waits_s.append((retry_at_us - now_us) // SECOND_US)
        now_us = retry_at_us

    assert (waits_s, recorded) == ([2, 4, 8, 16, 30, 30, 30], 1)
    assert state.state == "held"
    assert (step(state).state, release_of(step(state)).retry_at_us) == ("proving", None)


def test_what_was_on_its_way_to_the_switch_starts_over_after_a_delay() -> None:
    state = until(wish(EMPTY, V1), "registered")

    assert release_of(delayed(state, release_of(state), reason="balancer away", at_us=0).state).phase == "starting"


def test_a_lost_live_version_is_started_where_it_was_and_takes_nothing_out() -> None:
    state = lost(live(V1), reason="cluster restarted", at_us=0).state

    assert (release_of(state).target, release_of(state).cause) == (
        Placed(model=V1, colour="blue"),
        "live version lost: cluster restarted",
    )
    assert leaving(release_of(until(state, "draining")), state.live) is None
    assert until(state, "done").live == Placed(model=V1, colour="blue")


def test_the_table_gives_back_states_and_transitions(tmp_path: Path) -> None:
    table = ReleaseTable(tmp_path / "release.sqlite")
    change = wished(replace(live(V1), vetoes={"d9": "why"}), V2, at_us=7)

    table.record(change)

    assert ReleaseTable(tmp_path / "release.sqlite").states() == {"p": change.state}
    assert table.transitions("p") == list(change.transitions)
    assert [(t.at_us, t.before, t.after, t.version) for t in change.transitions] == [(7, "done", "starting", 2)]


MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("wish"), st.sampled_from([None, V1, V2, V3])),
        st.tuples(st.sampled_from(["advance", "delay", "refuse", "lose"]), st.none()),
    ),
    max_size=60,
)


def moved(state: ProductState, move: str, version: PinnedVersion | None, at_us: int) -> Change:
    if move == "wish":
        return wished(state, version, at_us=at_us)
    if move == "lose":
        return lost(state, reason="gone", at_us=at_us)
    release = state.release
    if release is None:
        return Change(state=state)
    if move == "advance":
        return advanced(state, release, at_us=at_us)
    return (delayed if move == "delay" else refused)(state, release, reason="why", at_us=at_us)


@given(MOVES)
def test_whatever_happens_what_was_live_is_asked_until_something_else_is(
    moves: list[tuple[str, PinnedVersion | None]],
) -> None:
    state = EMPTY
    for at, (move, version) in enumerate(moves):
        before, change = state, moved(state, move, version, at)
        state = change.state
        asked = traffic(state)

        assert asked.serving == (None if state.live is None else state.live.colour)
        if state.live is not None:
            assert asked.behind(state.live.colour) == state.live.model
        if before.live is not None:
            assert state.live is not None, "nothing is live any more"
        if state.live != before.live:
            assert (release_of(before).phase, release_of(state).phase) == ("registered", "switched")
        assert all(line.before == before.state or line.after == state.state for line in change.transitions)


@given(MOVES, st.sampled_from([V1, V2, V3]))
def test_a_wish_that_stays_becomes_live_or_is_vetoed(
    moves: list[tuple[str, PinnedVersion | None]], version: PinnedVersion
) -> None:
    state = EMPTY
    for at, (move, wanted) in enumerate(moves):
        state = moved(state, move, wanted, at).state
    for _ in range(30):
        state = wish(state, version)
        release = due(state, at_us=10**15)
        state = state if release is None else advanced(state, release, at_us=0).state

    live_now = None if state.live is None else state.live.model
    assert live_now == version or version.digest in state.vetoes
    assert state.open_release is None
