"""Enrichment behind its port: the reference data in process, and the cache in front of whatever answers.

An answer depends on the body's ``enrichment_inputs`` and on the version of the reference data alone, so equal inputs
need one answer. What bites: a cache must not outlive its version; the first answer of a newer one empties it.
"""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

from prometheus_client import Counter, Gauge

from headway.clock import monotonic_s
from headway.contracts import Domain, Reference
from headway.errors import InputRejected
from headway.ports import (
    Enriched,
    Enrichment,
    EnrichmentAnswer,
    EnrichmentItem,
    EnrichmentRefused,
)

# Distinct inputs of a year of flights are 36,000; at 0.5 kB each this is 30 MB at most.
CACHE_ITEMS = 65_536
# Reference data changes by the day; a correction is in the events five minutes later.
CACHE_TTL_S = 300.0

Key = tuple[Any, ...]
CACHED = Counter("headway_enrichment_cache_total", "Items answered from the cache, and not.", ["result"])
CACHE_OLDEST = Gauge("headway_enrichment_cache_oldest_seconds", "Age of the oldest answer that is kept.")


class ReferenceEnrichment:
    """`headway.ports.Enrichment` in process, on the reference data itself; never down."""

    # A call costs nothing here, and what so few events are made of stays in a processor's cache: 2,000 at once cost the
    # Enricher a third more (docs/enrichment.md).
    items_at_once = 50

    def __init__(self, reference: Reference, *, now_s: Callable[[], float] = monotonic_s) -> None:
        self._reference = reference
        self._now_s = now_s

    def enrich(self, items: Sequence[EnrichmentItem]) -> list[EnrichmentAnswer]:
        """See `headway.ports.Enrichment.enrich`."""
        now_s = self._now_s()
        reference, version = self._reference, self._reference.version
        answers: list[EnrichmentAnswer] = []
        for item in items:
            try:
                answers.append(Enriched(reference.enrich(item.body), version, now_s))
            except InputRejected as refusal:
                answers.append(EnrichmentRefused(str(refusal), refused_field(refusal), version))
        return answers

    def close(self) -> None:
        """Return: there is nothing to release."""


class CachedEnrichment:
    """`headway.ports.Enrichment` that asks another one only for inputs it has no fresh answer for."""

    def __init__(
        self,
        inner: Enrichment,
        domain: Domain,
        *,
        ttl_s: float = CACHE_TTL_S,
        limit: int = CACHE_ITEMS,
        now_s: Callable[[], float] = monotonic_s,
    ) -> None:
        self._inner = inner
        self._ttl_s = ttl_s
        self.items_at_once = inner.items_at_once
        self._limit = limit
        self._now_s = now_s
        self._inputs = {c.event_type: _inputs(domain, c.event_type) for c in domain.contracts}
        self._answers: dict[Key, Enriched] = {}
        self.version: str | None = None

    def __len__(self) -> int:
        """How many answers are kept."""
        return len(self._answers)

    def enrich(self, items: Sequence[EnrichmentItem]) -> list[EnrichmentAnswer]:
        """See `headway.ports.Enrichment.enrich`; asks once for equal inputs of a batch."""
        inputs = self._inputs
        keys = [inputs[item.event_type](item.body) for item in items]
        fresh_since_s = self._now_s() - self._ttl_s
        known = [self._answers.get(key) for key in keys]
        wanted = {
            key: item
            for key, item, answer in zip(keys, items, known, strict=True)
            if answer is None or answer.fetched_s < fresh_since_s
        }
        CACHED.labels("miss").inc(len(wanted))
        CACHED.labels("hit").inc(len(items) - len(wanted))
        if not wanted:
            return [answer for answer in known if answer is not None]
        asked = dict(zip(wanted, self._inner.enrich(list(wanted.values())), strict=True))
        self._keep(asked)
        return [
            asked[key] if answer is None or key in asked else answer for key, answer in zip(keys, known, strict=True)
        ]

    def close(self) -> None:
        """Close the other one."""
        self._inner.close()

    def _keep(self, answers: dict[Key, EnrichmentAnswer]) -> None:
        """Keep the answers of the newest version; while replicas of two versions answer, each change empties the cache."""
        enriched = {key: answer for key, answer in answers.items() if isinstance(answer, Enriched)}
        for key, answer in enriched.items():
            if answer.version != self.version:
                self._answers.clear()
                self.version = answer.version
            self._answers.pop(key, None)
            self._answers[key] = answer
        while len(self._answers) > self._limit:
            del self._answers[next(iter(self._answers))]
        oldest = next(iter(self._answers.values()), None)
        CACHE_OLDEST.set(0.0 if oldest is None else oldest.age_s(self._now_s()))


def refused_field(refusal: InputRejected) -> str | None:
    """Return the field that a refusal names, by the form of its message: ``field: got ..., wanted ...``."""
    field, colon, _ = str(refusal).partition(":")
    return field if colon and field.isidentifier() else None


def _inputs(domain: Domain, event_type: str) -> Callable[[Any], Key]:
    body = domain.contract(event_type).body
    read = [
        name for name in body.__struct_fields__ if domain.enrichment_inputs is None or name in domain.enrichment_inputs
    ]
    # The body's own class stands for the event type in the key: two types may have the same inputs.
    return attrgetter("__class__", *read) if read else lambda _: (body,)
