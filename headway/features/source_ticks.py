"""How far each source partition has told the time, and how far all of them have (SEMANTICS S2)."""

from collections.abc import Iterable, Mapping

from headway.errors import ContractViolation


class SourceTicks:
    """The newest tick of every source partition; ``watermark_us`` is the least, None until each has ticked.

    Kept rather than found anew: it is asked several times per event and changes once per hop. Tasks that have heard the
    same may share one; ``advances`` counts its changes, so that each knows whether what it has written is still so.
    """

    __slots__ = ("advances", "by_partition", "watermark_us")

    def __init__(self, ticks: Mapping[int, int | None]) -> None:
        self.by_partition = {partition: ticks[partition] for partition in sorted(ticks)}
        self.watermark_us = self._least()
        self.advances = 0

    @classmethod
    def none_yet(cls, partitions: Iterable[int]) -> "SourceTicks":
        """Return the ticks of partitions of which none has told anything."""
        return cls(dict.fromkeys(partitions))

    def advance(self, partition: int, tick_us: int) -> bool:
        """Take a tick, unless the partition's last one is as new; return whether it moved the watermark.

        Raises:
            ContractViolation: there is no such source partition.
        """
        if partition not in self.by_partition:
            raise ContractViolation(
                f"tick of source partition {partition}, wanted one of {list(self.by_partition)}. Rebuild the state when "
                "the number of partitions changes."
            )
        known_us = self.by_partition[partition]
        if known_us is not None and tick_us <= known_us:
            return False
        self.by_partition[partition] = tick_us
        self.advances += 1
        # None both, as long as a partition is silent; and another may be as far behind.
        if known_us != self.watermark_us or known_us in self.by_partition.values():
            return False
        self.watermark_us = self._least()
        return True

    def _least(self) -> int | None:
        ticks = [tick for tick in self.by_partition.values() if tick is not None]
        return min(ticks) if ticks and len(ticks) == len(self.by_partition) else None
