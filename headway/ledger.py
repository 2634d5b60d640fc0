"""The ledger: every raw record is accounted for, by the set of records and never by offset arithmetic (SEMANTICS S13).

``raw = enriched + enriched letters + duplicates + in flight``, and ``enriched = lake`` by id. Transactional topics have
gaps in their offsets, so a missing offset proves nothing; a missing *record* does. Raw letters stand apart: they never
were in events.raw.
"""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import NamedTuple


class Place(NamedTuple):
    """Where a raw record stands in ``events.raw``."""

    partition: int
    offset: int


@dataclass(frozen=True)
class RawRecord:
    """One accepted event as the ledger sees it; ``identity`` is (source, id)."""

    place: Place
    identity: tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """The account of a stretch of events.raw.

    Attributes:
        lost: raw records that became nothing although later ones of their partition were dealt with.
        twice: raw places with more than one effect.
        invented: effects that no raw record explains.
        not_in_lake, surplus_in_lake: raw places enriched but not in the lake, and the reverse.
    """

    raw: int
    enriched: int
    letters: int
    duplicates: int
    in_flight: int
    lake: int
    lost: tuple[RawRecord, ...]
    twice: tuple[Place, ...]
    invented: tuple[Place, ...]
    not_in_lake: tuple[Place, ...]
    surplus_in_lake: tuple[Place, ...]

    @property
    def balanced(self) -> bool:
        """Whether every accepted event is accounted for exactly once and nothing is still under way."""
        return not (
            self.in_flight or self.lost or self.twice or self.invented or self.not_in_lake or self.surplus_in_lake
        )


def settle(
    raw: Iterable[RawRecord], *, enriched: Iterable[Place], letters: Iterable[Place], lake: Iterable[Place]
) -> Ledger:
    """Account for raw records by what became of them; places name the raw record each effect came from."""
    enriched_places, letter_places, lake_places = list(enriched), list(letters), list(lake)
    effects = [*enriched_places, *letter_places]
    dealt_with = set(effects)
    newest: dict[int, int] = {}
    for place in dealt_with:
        newest[place.partition] = max(place.offset, newest.get(place.partition, -1))
    records = sorted(raw, key=lambda record: record.place)
    accepted = set(enriched_places)
    known = {record.identity for record in records if record.place in accepted}
    unexplained = [record for record in records if record.place not in dealt_with]
    duplicates = [record for record in unexplained if record.identity in known]
    rest = [record for record in unexplained if record.identity not in known]
    lost = [record for record in rest if record.place.offset < newest.get(record.place.partition, -1)]
    places = {record.place for record in records}
    return Ledger(
        raw=len(records),
        enriched=len(enriched_places),
        letters=len(letter_places),
        duplicates=len(duplicates),
        in_flight=len(rest) - len(lost),
        lake=len(lake_places),
        lost=tuple(lost),
        twice=_repeated(effects) + _repeated(lake_places),
        invented=_sorted(dealt_with - places),
        not_in_lake=_sorted(set(enriched_places) - set(lake_places)),
        surplus_in_lake=_sorted(set(lake_places) - set(enriched_places)),
    )


def _sorted(places: AbstractSet[Place]) -> tuple[Place, ...]:
    return tuple(sorted(places))


def _repeated(places: Iterable[Place]) -> tuple[Place, ...]:
    seen: set[Place] = set()
    again: set[Place] = set()
    for place in places:
        (again if place in seen else seen).add(place)
    return _sorted(again)
