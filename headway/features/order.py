"""The order of a view's events as one int64 per event, so that sorting and searching are on plain numbers.

A place is (entity, instant) in one word, the entity in its upper bits. Where entities times the span of time does not fit, an instant is replaced by
its rank: slower, never wrong.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

Ints = npt.NDArray[np.int64]
_LARGEST = int(np.iinfo(np.int64).max)
# A table of all combinations of keys costs nothing beside the events up to here; beyond it the few there are get sorted.
_DENSE = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Places (entity, instant) in one order; entity -1 comes before everything."""

    entities: int
    first_us: int
    last_us: int
    bits: int
    ranks: Ints | None

    @classmethod
    def of(cls, time_us: Ints, *, entities: int, beyond_us: int) -> "Scale":
        """Return the scale of so many entities' events; rows may follow up to ``beyond_us`` after the last event."""
        if not len(time_us):
            return cls(entities=entities, first_us=0, last_us=0, bits=1, ranks=None)
        first_us, last_us = int(time_us.min()), int(time_us.max()) + beyond_us
        bits = (last_us - first_us + 1).bit_length()
        if (entities + 1) << bits <= _LARGEST:
            return cls(entities=entities, first_us=first_us, last_us=last_us, bits=bits, ranks=None)
        ranks = pl.Series(time_us).unique().sort().to_numpy()
        return cls(entities=entities, first_us=first_us, last_us=last_us, bits=len(ranks).bit_length(), ranks=ranks)

    def place(self, entity: Ints, at_us: Ints) -> Ints:
        """Return the word of each pair: not less than those of the entity's events up to then, less than the later ones'."""
        if self.ranks is not None:
            return (entity << self.bits) + np.searchsorted(self.ranks, at_us, side="right")
        before_us = self.first_us - 1
        return (entity << self.bits) + (np.clip(at_us, before_us, self.last_us) - before_us)

    @property
    def greatest(self) -> int:
        """The greatest place there can be."""
        return (self.entities + 1) << self.bits

    def pairs(self, places: Ints) -> tuple[Ints, Ints]:
        """Return (entity, instant) of places that were made without ranks."""
        return places >> self.bits, (places & ((1 << self.bits) - 1)) + (self.first_us - 1)


def number_entities(frame: pl.DataFrame, keys: Sequence[str]) -> tuple[pl.DataFrame, Ints]:
    """Return the distinct keys, sorted, and for each row of the frame the position of its own; keys are not null."""
    found = {key: frame[key].unique().sort() for key in keys}
    sizes = [len(values) for values in found.values()]
    if math.prod(sizes) > _DENSE:
        entities = frame.select(keys).unique().sort(keys)
        numbered = entities.with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias("entity"))
        joined = frame.select(keys).join(numbered, on=list(keys), how="left", maintain_order="left", validate="m:1")
        return entities, joined["entity"].to_numpy()
    codes = np.zeros(frame.height, dtype=np.int64)
    for key, values in found.items():
        codes = codes * len(values) + frame[key].cast(pl.Enum(values)).to_physical().cast(pl.Int64).to_numpy()
    seen = np.zeros(math.prod(sizes), dtype=np.bool_)
    seen[codes] = True
    parts = np.unravel_index(np.flatnonzero(seen), sizes)
    entities = pl.DataFrame(
        {key: values.gather(part) for (key, values), part in zip(found.items(), parts, strict=True)}
    )
    return entities, (np.cumsum(seen, dtype=np.int64) - 1)[codes]


def order_events(places: Ints, ids: pl.Series) -> Ints:
    """Return the positions that sort events by place, and by id where places are equal."""
    order = pl.Series(places).arg_sort().cast(pl.Int64).to_numpy().copy()
    ranked = places[order]
    same = ranked[1:] == ranked[:-1]
    if same.any():
        tied = np.zeros(len(order), dtype=np.bool_)
        tied[1:] |= same
        tied[:-1] |= same
        members = order[tied]
        frame = pl.DataFrame({"place": ranked[tied], "id": ids.gather(pl.Series(members)), "at": members})
        order[tied] = frame.sort("place", "id", "at")["at"].to_numpy()
    return order
