"""A memory plan as text: bars to scale and figures, for a terminal. Pure. `headway.plots.memory_picture` draws the PNG."""

from collections.abc import Iterator

from headway.memory_configuration import told_size
from headway.memory_plan import MemoryPlan

_BAR = 56
_FILLS = {"reserved": "#", "user": ".", "storage": "=", "execution": "-"}
_BESIDE = {"off-heap storage": "=", "off-heap execution": "-", "PySpark": "p", "overhead": "o"}


def plan_lines(plan: MemoryPlan) -> Iterator[str]:
    """Give the plan as lines of at most a terminal's width."""
    segments = plan.segments()
    widest = max(each.size_bytes for each in segments)
    for region, title in (("heap", "heap"), ("beside", "beside the heap")):
        parts = [each for each in segments if each.region == region]
        yield f"{title:<20} {told_size(sum(each.size_bytes for each in parts)):>14}"
        for each in parts:
            fill = {**_FILLS, **_BESIDE}[each.name]
            bar = fill * max(round(_BAR * each.size_bytes / widest), 1)
            yield f"  {each.name:<18} {told_size(each.size_bytes):>14}  {bar}"
            yield f"  {'':<18} {'':>14}  {each.meaning}"
    yield ""
    yield from _sums(plan)


def _sums(plan: MemoryPlan) -> Iterator[str]:
    of = plan.configuration
    yield f"{'unified':<20} {told_size(plan.unified_bytes):>14}  storage and execution: (heap - 300 MiB) x {of.fraction:g}"
    share = plan.task_share(cached_bytes=0, tasks=of.tasks)
    pool = " (off-heap)" if of.off_heap_enabled else ""
    full = plan.task_share(cached_bytes=plan.unified_bytes, tasks=of.tasks)
    yield f"{'a task gets':<20} {told_size(share.most_bytes):>14}  of execution{pool} at most, with {of.tasks} running and nothing cached;"
    yield f"{'':<20} {told_size(full.least_bytes):>14}  is sure, however much is cached"
    if plan.worker_bytes is not None:
        yield f"{'a Python worker':<20} {told_size(plan.worker_bytes):>14}  of address space at most"
    where = {
        "kubernetes": "the pod's memory request and limit",
        "standalone": "expected of the process; a worker of Spark reserves the heap alone and limits nothing",
        "local": "expected of this process and its workers; nothing limits it",
    }[of.deployment]
    yield f"{'container':<20} {told_size(plan.container_bytes):>14}  {where}"
    if of.deployment == "kubernetes":
        yield f"{'spare overhead':<20} {told_size(plan.spare_overhead_bytes):>14}  beside the JVM's own, native libraries and workers"
