from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from headway.enrichment import CachedEnrichment, refused_field
from headway.errors import DependencyDown, InputRejected
from headway.ports import Enriched, EnrichmentAnswer, EnrichmentItem, EnrichmentRefused
from headway.retry_budget import RetryBudget
from tests.streaming_world import DOMAIN, Departed


@dataclass
class Upstream:
    """Answers with its version of now, and remembers what it was asked."""

    version: str = "v1"
    now_s: float = 1000.0
    asked: list[list[str]] = field(default_factory=list)
    down: bool = False
    items_at_once: int = 100

    def enrich(self, items: Sequence[EnrichmentItem]) -> list[EnrichmentAnswer]:
        if self.down:
            raise DependencyDown("upstream", "planted")
        origins = [item.body.origin for item in items if isinstance(item.body, Departed)]
        self.asked.append(origins)
        return [
            EnrichmentRefused("origin: got 'XXX', wanted another", "origin", self.version)
            if origin == "XXX"
            else Enriched({"region": origin}, self.version, self.now_s)
            for origin in origins
        ]

    def close(self) -> None:
        pass


def item(origin: str, delay: int = 1) -> EnrichmentItem:
    return EnrichmentItem("flight.departed.v1", Departed(origin=origin, dep_delay_min=delay))


def cached(upstream: Upstream, *, limit: int = 100) -> CachedEnrichment:
    from dataclasses import replace

    domain = replace(DOMAIN, enrichment_inputs=("origin",))
    return CachedEnrichment(upstream, domain, ttl_s=60.0, limit=limit, now_s=lambda: upstream.now_s)


def test_equal_inputs_are_asked_for_once_whatever_else_the_body_says() -> None:
    upstream = Upstream()
    cache = cached(upstream)

    first = cache.enrich([item("EWR", 1), item("EWR", 2), item("JFK", 3)])
    second = cache.enrich([item("JFK", 4)])

    assert upstream.asked == [["EWR", "JFK"]]
    assert [a.columns for a in [*first, *second] if isinstance(a, Enriched)] == [
        {"region": origin} for origin in ("EWR", "EWR", "JFK", "JFK")
    ]


def test_an_answer_states_its_age_and_is_asked_for_again_when_it_is_too_old() -> None:
    upstream = Upstream()
    cache = cached(upstream)
    cache.enrich([item("EWR")])
    upstream.now_s += 59

    [answer] = cache.enrich([item("EWR")])
    assert isinstance(answer, Enriched)
    assert answer.age_s(upstream.now_s) == 59
    upstream.now_s += 2
    cache.enrich([item("EWR")])

    assert upstream.asked == [["EWR"], ["EWR"]]


def test_a_new_version_empties_the_cache() -> None:
    upstream = Upstream()
    cache = cached(upstream)
    cache.enrich([item("EWR"), item("JFK")])
    upstream.version = "v2"

    cache.enrich([item("LGA")])
    answers = cache.enrich([item("EWR"), item("JFK"), item("LGA")])

    assert [answer.version for answer in answers if isinstance(answer, Enriched)] == ["v2"] * 3


def test_a_refusal_is_not_kept_since_the_next_version_may_know_it() -> None:
    upstream = Upstream()
    cache = cached(upstream)

    cache.enrich([item("XXX")])
    cache.enrich([item("XXX")])

    assert upstream.asked == [["XXX"], ["XXX"]]


def test_the_cache_is_bounded_and_a_batch_larger_than_it_is_answered() -> None:
    upstream = Upstream()
    cache = cached(upstream, limit=3)
    cache.enrich([item("A")])

    answers = cache.enrich([item(name) for name in "ABCDEFA"])

    assert [a.columns["region"] for a in answers if isinstance(a, Enriched)] == list("ABCDEFA")
    assert len(cache) == 3


def test_what_is_fresh_is_answered_while_the_service_is_down() -> None:
    upstream = Upstream()
    cache = cached(upstream)
    cache.enrich([item("EWR")])
    upstream.down = True

    assert len(cache.enrich([item("EWR")])) == 1
    with pytest.raises(DependencyDown):
        cache.enrich([item("JFK")])


def test_a_refusal_names_its_field_by_the_form_of_its_message() -> None:
    assert refused_field(InputRejected("dest: got 'X', wanted Y")) == "dest"
    assert refused_field(InputRejected("something else: here")) is None


def test_retries_are_a_tenth_of_the_calls_beyond_the_reserve() -> None:
    budget = RetryBudget(ratio=0.1, reserve=5.0)
    granted = 0

    for _ in range(1000):
        budget.called()
        while budget.take():
            granted += 1

    assert granted == pytest.approx(5 + 100, abs=1)
