"""Whether a sort spills, told before it runs."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headway.memory_configuration import MIB, MemoryConfiguration
from headway.memory_forecast import Verdict, forecast_sort, row_bytes, rows_within, sort_bytes
from headway.memory_plan import plan_memory

# A busy machine is no failure.
calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

PLAN = plan_memory(MemoryConfiguration(heap_bytes=600 * MIB))
PAGE = PLAN.page_bytes
ROW = row_bytes(8)


@pytest.mark.parametrize(("rows", "peak_bytes"), [(500_000, 58_720_176), (1_000_000, 117_440_352)])
def test_the_need_is_the_peak_that_spark_4_3_reported(rows: int, peak_bytes: int) -> None:
    """Written down from a run of this sort on a heap of 600 MiB, where the page is 8 MiB less an array's header."""
    assert PAGE == 8_388_592
    assert abs(sort_bytes(rows, ROW, page=PAGE) - peak_bytes) < 1_024


def test_a_row_has_its_nulls_its_columns_and_its_strings() -> None:
    assert (row_bytes(8), row_bytes(64), row_bytes(65, variable_bytes=16)) == (72, 520, 552)


@calm
@given(st.integers(1, 3_000_000), st.integers(1, 1_000_000), st.integers(16, 4_096))
def test_more_rows_never_need_less(rows: int, more: int, row: int) -> None:
    assert sort_bytes(rows, row, page=PAGE) <= sort_bytes(rows + more, row, page=PAGE)


@calm
@given(st.integers(MIB, 4_096 * MIB), st.integers(16, 4_096))
def test_rows_within_a_size_are_the_most_that_fit(size_bytes: int, row: int) -> None:
    rows = rows_within(size_bytes, row, page=PAGE)

    assert rows == 0 or sort_bytes(rows, row, page=PAGE) <= size_bytes
    assert sort_bytes(rows + 1, row, page=PAGE) > size_bytes


@calm
@given(st.integers(1, 5_000_000), st.integers(1, 8))
def test_more_rows_or_more_neighbours_never_turn_a_spill_into_a_fit(rows: int, tasks: int) -> None:
    order: list[Verdict] = ["fits", "unclear", "spills"]
    first = forecast_sort(PLAN, rows=rows, row=ROW, tasks=tasks).verdict
    more_rows = forecast_sort(PLAN, rows=2 * rows, row=ROW, tasks=tasks).verdict
    more_tasks = forecast_sort(PLAN, rows=rows, row=ROW, tasks=tasks + 1).verdict

    assert order.index(first) <= min(order.index(more_rows), order.index(more_tasks))


def test_a_protected_cache_makes_a_sort_spill_and_a_borrowed_one_does_not() -> None:
    """Cached blocks beyond the protected part give way; within it they take memory away from the sort."""
    rows = rows_within(int(PLAN.execution_bytes * 1.4), ROW, page=PAGE)

    verdicts = [
        forecast_sort(PLAN, rows=rows, row=ROW, tasks=1, cached_bytes=cached).verdict
        for cached in (0, PLAN.storage_bytes // 8, PLAN.storage_bytes, PLAN.unified_bytes)
    ]

    assert verdicts == ["fits", "fits", "spills", "spills"]


def test_sorts_use_the_off_heap_pool_when_there_is_one() -> None:
    small = plan_memory(MemoryConfiguration(heap_bytes=4_096 * MIB, off_heap_enabled=True, off_heap_bytes=64 * MIB))

    assert forecast_sort(small, rows=1_000_000, row=ROW, tasks=1).verdict == "spills"
