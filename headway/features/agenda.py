"""What is due when: finding due expiries costs what is due, not what is known (SEMANTICS S2)."""

import heapq

from headway.features.tiles import Key


class Agenda:
    """Keys by the instant at which something is due; what is not due costs nothing."""

    def __init__(self) -> None:
        self._keys: dict[int, set[Key]] = {}
        self._instants: list[int] = []

    def put(self, at_us: int, key: Key) -> None:
        """Note a key at an instant, once."""
        keys = self._keys.get(at_us)
        if keys is None:
            keys = self._keys[at_us] = set()
            heapq.heappush(self._instants, at_us)
        keys.add(key)

    def pop_until(self, until_us: int) -> list[tuple[int, Key]]:
        """Return and forget what is due, in (instant, key) order."""
        due = []
        while self._instants and self._instants[0] <= until_us:
            at_us = heapq.heappop(self._instants)
            due += [(at_us, key) for key in sorted(self._keys.pop(at_us))]
        return due
