"""Whether a sort will spill, told before it runs: what one task needs against what it gets. Pure.

Covers what Spark sorts in binary form: ``sort``, sort-merge joins, window functions. The need is that of Spark 4.3.0's
UnsafeExternalSorter, which takes memory in pages and keeps an array of pointers that doubles. Refuses to guess at
hash aggregations and object sorts, whose size depends on what is in the rows.
"""

from dataclasses import dataclass
from typing import Literal

from headway.memory_plan import MemoryPlan, TaskShare

# Each row lies in a page behind its length.
_LENGTH_BYTES = 4
# A pointer and an eight-byte prefix; radix sort wants as much again to sort in.
_POINTER_BYTES = 32
# Rows for which the array of pointers has room at the start: spark.shuffle.sort.initialBufferSize over two.
_FIRST_ROWS = 2_048

Verdict = Literal["fits", "spills", "unclear"]


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What one task needs to sort its rows without spilling, what it gets, and what follows."""

    needed_bytes: int
    share: TaskShare
    verdict: Verdict
    reason: str


def row_bytes(columns: int, *, variable_bytes: int = 0) -> int:
    """Return the size of a row as Spark keeps it: a null bit and eight bytes for each column, and what is longer.

    Args:
        columns: of all types.
        variable_bytes: of its strings and binaries together, each rounded up to eight.
    """
    return 8 * -(-columns // 64) + 8 * columns + variable_bytes


def sort_bytes(rows: int, row: int, *, page: int) -> int:
    """Return the most execution memory that sorting so many rows in one task holds at any moment.

    That is either the end, or a moment at which the array of pointers doubled: old and new are both held then.
    """
    moments = [_pages(rows, row, page=page) + _array(rows)]
    room = _FIRST_ROWS
    while room < rows:
        moments.append(_pages(room, row, page=page) + 3 * _POINTER_BYTES * room)
        room *= 2
    return max(moments)


def forecast_sort(plan: MemoryPlan, *, rows: int, row: int, tasks: int, cached_bytes: int = 0) -> Forecast:
    """Say whether ``tasks`` alike tasks, running at once, will spill when each sorts so many rows.

    Alike tasks get an equal part each, the most of the share. The plan's page rounding and a cache that changes
    underneath leave a band of one page around it in which nothing is promised.
    """
    share = plan.task_share(cached_bytes=cached_bytes, tasks=tasks)
    page = plan.page_bytes
    needed = sort_bytes(rows, row, page=page)
    told = f"needs {needed / 2**20:,.0f} MiB of the {share.most_bytes / 2**20:,.0f} MiB that a task gets"
    if needed + page <= share.most_bytes:
        return Forecast(needed_bytes=needed, share=share, verdict="fits", reason=told)
    if needed - page > share.most_bytes:
        return Forecast(needed_bytes=needed, share=share, verdict="spills", reason=told)
    return Forecast(
        needed_bytes=needed, share=share, verdict="unclear", reason=f"{told}: within one page of each other"
    )


def _pages(rows: int, row: int, *, page: int) -> int:
    in_a_page = max(page // (row + _LENGTH_BYTES), 1)
    return -(-rows // in_a_page) * max(page, row + _LENGTH_BYTES)


def _array(rows: int) -> int:
    room = _FIRST_ROWS
    while room < rows:
        room *= 2
    return room * _POINTER_BYTES


def rows_within(size_bytes: int, row: int, *, page: int) -> int:
    """Return the most rows that one task sorts within so much execution memory."""
    low, high = 0, max(size_bytes // row, 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if sort_bytes(middle, row, page=page) <= size_bytes else (low, middle - 1)
    return low
