"""The plan beside what a running Spark says of itself, figure by figure. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from headway.memory_plan import MemoryPlan
from headway.memory_reading import ExecutorReading

# Spark and the plan do the same arithmetic; what is over 1 % is another configuration, or a JVM that is not on G1.
TOLERANCE = 0.01


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One figure, planned and told. Sizes are bytes."""

    where: str
    name: str
    planned_bytes: int
    told_bytes: int

    @property
    def off_by(self) -> float:
        """The difference as a part of what was planned; of a byte when nothing was."""
        return abs(self.told_bytes - self.planned_bytes) / max(self.planned_bytes, 1)

    @property
    def holds(self) -> bool:
        """Whether both are the same, within 1 %."""
        return self.off_by <= TOLERANCE


def compare_executor(plan: MemoryPlan, executor: ExecutorReading) -> Iterator[Compared]:
    """Give what an executor told at its start beside the plan; figures it did not tell are left out."""
    pairs = (
        ("unified", plan.unified_bytes, executor.maximum_on_heap_bytes),
        ("off-heap", plan.off_heap_bytes, executor.maximum_off_heap_bytes),
    )
    where = f"executor {executor.name}"
    for name, planned, told in pairs:
        if told is not None:
            yield Compared(where=where, name=name, planned_bytes=planned, told_bytes=told)
