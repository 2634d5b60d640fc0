"""How far each source partition has told the time, and how far all of them have (SEMANTICS S2)."""

from collections.abc import Iterable, Mapping


class SourceTicks:
    """The newest tick of every source partition; ``watermark_us`` is the least, None until each has ticked.

    Kept rather than found anew: it is asked several times per event and changes once per hop.
    """

    __slots__ = ("by_partition", "watermark_us")

    def __init__(self, ticks: Mapping[int, int | None]) -> None:
        self.by_partition = {partition: ticks[partition] for partition in sorted(ticks)}
        self.watermark_us = self._least()

    @classmethod
    def none_yet(cls, partitions: Iterable[int]) -> "SourceTicks":
        """Return the ticks of partitions of which none has told anything."""
        return cls(dict.fromkeys(partitions))

    def advance(self, partition: int, tick_us: int) -> bool:
        """Take a tick; return whether it is newer than the partition's last one."""
        known_us = self.by_partition[partition]
        if known_us is not None and tick_us <= known_us:
            return False
        self.by_partition[partition] = tick_us
        if known_us == self.watermark_us:  # None both, as long as a partition is silent; or this was the one behind
            self.watermark_us = self._least()
        return True

    def _least(self) -> int | None:
        ticks = [tick for tick in self.by_partition.values() if tick is not None]
        return min(ticks) if ticks and len(ticks) == len(self.by_partition) else None
