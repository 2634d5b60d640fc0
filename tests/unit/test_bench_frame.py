"""The frame's own arithmetic, with contestants that only count: a benchmark that cannot fail proves nothing."""

from collections.abc import Callable
from itertools import cycle

import pytest

from benchmarks.frame import Comparison, Contestant, Plan, Sample, Target, Watch, compare
from benchmarks.machine import with_foreign_cpu
from benchmarks.report import outcome
from headway import bench_command
from headway.errors import ContractViolation

PLAN = Plan(windows=3, window_s=0.0, warmup_s=0.0)


def contestant(name: str, *values: float, errors: int = 0, order: list[str] | None = None) -> Contestant:
    """The first value is what the warm-up gives."""
    given = cycle(values)

    def measure(_seconds: float) -> Sample:
        if order is not None:
            order.append(name)
        return Sample(value=next(given), errors=errors)

    return Contestant(name=name, measure=measure)


def quiet(*shares: float) -> Watch:
    given = cycle(shares or (0.0,))

    def watch(work: Callable[[], Sample]) -> tuple[Sample, float]:
        return work(), next(given)

    return watch


def versus(ours: Contestant, peer: Contestant, *, at_least: float = 1.0, watch: Watch | None = None) -> Comparison:
    return compare(
        "work",
        unit="events/s",
        ours=ours,
        peers=[peer],
        targets=[Target(peer=peer.name, at_least=at_least)],
        plan=PLAN,
        say=lambda _: None,
        watch=watch or quiet(),
    )


def test_contestants_take_turns_and_the_warm_up_is_not_counted() -> None:
    order: list[str] = []

    found = versus(contestant("a", 1, 4, 5, 6, order=order), contestant("b", 9, 2, 2, 2, order=order))

    assert order == ["a", "b"] * 4
    assert found.ours.values == [4, 5, 6]
    assert found.ratios("b") == (2.5, 2.0, 3.0)


def test_a_target_is_met_by_the_ratio_of_medians() -> None:
    reached = versus(contestant("a", 10), contestant("b", 5), at_least=2.0)
    missed = versus(contestant("a", 10), contestant("b", 5), at_least=2.1)

    assert (outcome("P0", [reached]).holds, outcome("P0", [reached]).facts["met"]) == (True, True)
    assert (outcome("P0", [reached, missed]).holds, outcome("P0", [missed]).facts["met"]) == (False, False)


def test_an_error_of_ours_loses_whatever_the_ratio() -> None:
    assert not versus(contestant("a", 10, errors=1), contestant("b", 1)).met


def test_a_window_others_disturbed_is_taken_again_three_times_at_most_and_then_counted_as_noisy() -> None:
    found = versus(contestant("a", 1), contestant("b", 1), watch=quiet(0.2))

    assert [(s.redone, s.facts()["noisy"], len(s.windows)) for s in (found.ours, *found.peers)] == [(3, 3, 3)] * 2


def test_a_disturbed_window_leaves_no_trace_but_its_count() -> None:
    found = versus(contestant("a", 0, 1, 10, 10, 10), contestant("b", 1), watch=quiet(0.5, 0, 0, 0, 0, 0, 0))

    assert (found.ours.values, found.ours.redone, found.ours.facts()["noisy"]) == ([10, 10, 10], 1, 0)


def test_the_json_names_ours_peers_ratio_target_met_n_and_spread() -> None:
    facts = outcome("P0", [versus(contestant("a", 10), contestant("b", 5))]).facts

    assert {"ours", "peers", "ratio", "target", "met", "n", "spread", "also", "run"} <= set(facts)
    assert facts["spread"] == [2.0, 2.0]


def test_what_came_with_the_windows_is_shown_as_medians() -> None:
    costs = cycle([99.0, 3.0, 1.0, 2.0])
    costly = Contestant(name="a", measure=lambda _: Sample(value=1.0, facts={"cpu_us_per_event": next(costs)}))

    found = versus(costly, contestant("b", 1.0))

    assert found.lines()[2].strip() == "cpu_us_per_event 2.0"
    assert found.ours.facts()["cpu_us_per_event"] == 2.0


def test_a_target_for_a_peer_that_is_not_there_is_refused() -> None:
    with pytest.raises(ContractViolation, match="targets name \\['c'\\]"):
        compare(
            "work",
            unit="events/s",
            ours=contestant("a", 1),
            peers=[contestant("b", 1)],
            targets=[Target(peer="c", at_least=1.0)],
            plan=PLAN,
            say=lambda _: None,
        )


def test_work_of_our_own_is_not_foreign() -> None:
    def work() -> int:
        return sum(range(3_000_000))

    shares = [with_foreign_cpu(work)[1] for _ in range(3)]

    assert all(0 <= share <= 1 for share in shares)


def test_every_benchmark_says_in_one_line_what_it_measures() -> None:
    found = bench_command.found(bench_command._folder())

    assert found
    assert all(purpose.endswith(".") for purpose in found.values())
