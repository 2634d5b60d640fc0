import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.errors import ContractViolation
from headway.local.plan import (
    LONGEST_BACKOFF_S,
    RECOVERED_AFTER_S,
    Process,
    backoff_s,
    failures_in_a_row,
    start_order,
)
from headway.local.stack import PARTS, Part, choose
from headway.settings import Settings


def process(name: str, *depends_on: str) -> Process:
    return Process(name=name, command=lambda: ["true"], ready=None, depends_on=depends_on)


def part(name: str, *needs: str, group: str = "group") -> Part:
    return Part(name=name, group=group, processes=lambda _settings: [], ports=(), needs=needs)


@given(st.permutations([process("a"), process("b", "a"), process("c", "b"), process("d", "a")]))
def test_a_process_comes_after_everything_it_depends_on(processes: list[Process]) -> None:
    order = [each.name for each in start_order(processes)]

    assert all(order.index(needed) < order.index(each.name) for each in processes for needed in each.depends_on)
    assert {"a", "b", "c", "d"} == set(order)


@pytest.mark.parametrize(
    "processes", [[process("a", "b"), process("b", "a")], [process("a", "nobody")], [process("a"), process("a")]]
)
def test_a_plan_that_could_never_start_is_refused_before_anything_starts(processes: list[Process]) -> None:
    with pytest.raises(ContractViolation):
        start_order(processes)


@given(st.integers(0, 10_000))
def test_waiting_grows_with_failures_up_to_a_limit(failures: int) -> None:
    assert 0 < backoff_s(failures) <= backoff_s(failures + 1) <= LONGEST_BACKOFF_S


def test_what_a_part_needs_is_started_with_it() -> None:
    parts = [part("log"), part("store"), part("job", "log"), part("page", "job")]

    assert [each.name for each in choose(["page"], parts=parts)] == ["log", "job", "page"]


def test_a_group_stands_for_its_parts_and_no_name_for_all() -> None:
    parts = [part("log", group="events"), part("intake", group="events"), part("store", group="features")]

    assert [each.name for each in choose(["events"], parts=parts)] == ["log", "intake"]
    assert parts == list(choose([], parts=parts))


def test_an_unknown_part_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ContractViolation, match=r"'kafak'.*log"):
        choose(["kafak"], parts=[part("log")])


def test_the_table_can_be_started_and_its_ports_are_its_own() -> None:
    """Two parts on one port would start today and fail on the day both are asked for."""
    settings = Settings()
    ports = [port for each in PARTS for port in each.port_numbers(settings)]

    assert len(set(ports)) == len(ports)
    assert start_order(each for part in PARTS for each in part.processes(settings))


def test_what_has_done_its_work_is_started_again_at_once_and_a_crash_loop_is_not() -> None:
    """Killed every ten seconds, a job is back in seconds each time; dying at each start, it waits longer and longer."""
    assert failures_in_a_row(7, RECOVERED_AFTER_S) == 1
    assert failures_in_a_row(7, RECOVERED_AFTER_S - 0.1) == 8
