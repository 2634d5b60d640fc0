"""Letters by cause: ten thousand letters are a handful of cases, each with a count and an example."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from headway.letter_causes import without_values
from headway.letter_fates import State
from headway.letter_replay import Filed
from headway.letters import Reason


@dataclass
class Cluster:
    """All letters of one cause.

    Attributes:
        cause: the detail they share, with values masked.
        states: how many of them are in which state.
        example: id of the newest of them.
    """

    fingerprint: str
    reason: Reason
    event_type: str | None
    path: str | None
    cause: str
    example: str
    first_us: int
    last_us: int
    count: int = 0
    states: Counter[State] = field(default_factory=Counter)


def cluster(letters: Iterable[Filed]) -> list[Cluster]:
    """Return the clusters of the letters, the largest first; holds one cluster each, and no letters."""
    found: dict[str, Cluster] = {}
    for each in letters:
        name = each.letter.fingerprint
        known = found.get(name)
        if known is None:
            known = found[name] = Cluster(
                fingerprint=name,
                reason=each.letter.reason,
                event_type=each.letter.event_type,
                path=each.letter.path,
                cause=without_values(each.letter.detail),
                example=each.id,
                first_us=each.written_us,
                last_us=each.written_us,
            )
        if each.written_us >= known.last_us:
            known.example, known.last_us = each.id, each.written_us
        known.first_us = min(known.first_us, each.written_us)
        known.count += 1
        known.states[each.fate.state] += 1
    return sorted(found.values(), key=lambda c: (-c.count, c.first_us, c.fingerprint))
