"""A view version serves only after its past was computed by the definition that stands in the code."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from headway.adapters.memory import MemoryPublisher
from headway.adapters.memory_online import MemoryOnlineStore
from headway.adapters.memory_registry import MemoryRegistry
from headway.adapters.release_table import ReleaseTable
from headway.clock import FrozenClock, monotonic_s
from headway.errors import ContractViolation, PermanentFailure, TransientFailure
from headway.features.readiness import ViewState, unready
from headway.lake import Transport, streamed_rows
from headway.registry import CHAMPION
from headway.release import PinnedVersion, ProductState
from headway.settings import Settings
from headway.topics import PARTITIONS, features_topic
from serving.release_guard import ReleaseGuard, Wishes
from serving.release_steps import ReleaseSteps, ViewsNotReady
from streaming.bootstrap import bootstrap_view
from streaming.freshness import ViewFreshness
from streaming.sinks.online import OnlineSink
from tests.serving_world import product, trained
from tests.streaming_world import DELAY, DOMAIN, World, departed, instant

NAME = product().name
CLOCK = FrozenClock(datetime(2026, 1, 1, tzinfo=UTC))


def state(**known: Any) -> ViewState:
    return replace(ViewState(watermark_us=1, bootstrapped_us=1, digest=DELAY.digest), **known)


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({}, "was never backfilled: headway features bootstrap --view delay.v1"),
        ({"delay_v1": state(bootstrapped_us=None, digest=None)}, "was never backfilled"),
        ({"delay_v1": state(digest="0123456789abcdef")}, f"was backfilled as 0123456789abcdef, wanted {DELAY.digest}"),
        ({"delay_v1": state(watermark_us=None)}, "is backfilled and has no watermark"),
    ],
)
def test_a_view_that_may_not_serve_says_why_and_what_to_do(known: dict[str, ViewState], said: str) -> None:
    assert unready([DELAY], known)["delay.v1"].startswith(said)


def test_a_backfilled_view_with_a_watermark_may_serve() -> None:
    assert unready([DELAY], {"delay_v1": state()}) == {}


def test_the_streams_watermark_alone_does_not_make_a_new_version_ready() -> None:
    """A tick gives it one within minutes, while its windows lack everything before the stream began."""
    world, store = World(), MemoryOnlineStore()
    world.send(departed("a", at="10:02"))
    world.tick("10:05")
    world.run()
    sink = OnlineSink(DOMAIN, store, ViewFreshness(DOMAIN, registry=CollectorRegistry(), clock=CLOCK))
    sink.offer(list(world.reader.read(features_topic(DELAY.qualified))))
    sink.flush()

    assert store.read_watermarks_us([DELAY.online_name]) == {DELAY.online_name: instant("10:05")}
    assert list(unready([DELAY], store.states([DELAY.online_name]))) == [DELAY.qualified]


def test_a_bootstrap_makes_it_ready() -> None:
    world, store = World(), MemoryOnlineStore()
    events = streamed_rows(DOMAIN, [(departed("a", at="10:02"), transport())])

    bootstrap_view(
        DELAY,
        events,
        until_us=instant("10:05"),
        restore=world.reader.read_compacted,
        publisher=MemoryPublisher(world.broker),
        online=store,
        marks=store,
    )

    assert unready([DELAY], store.states([DELAY.online_name])) == {}
    edited = replace(DELAY, aggregates=DELAY.aggregates[:1])
    assert "was backfilled as" in unready([edited], store.states([DELAY.online_name]))[DELAY.qualified]


def transport() -> Transport:
    return Transport(
        topic="events.enriched",
        partition=0,
        offset=0,
        raw_partition=0,
        raw_offset=0,
        tick_before_us=None,
        too_late=False,
    )


def backfill(store: MemoryOnlineStore, views: Sequence[str]) -> None:
    for name in views:
        view = product().domain.view(name)
        store.write_watermarks(view.online_name, dict.fromkeys(range(PARTITIONS), 1), PARTITIONS)
        store.mark_bootstrapped(view.online_name, digest=view.digest, until_us=1000)


@dataclass(frozen=True, kw_only=True)
class Steps(ReleaseSteps):
    """Replicas that are there as soon as they are asked for."""

    started: list[int] = field(default_factory=list)

    def start(self, product: str, model: PinnedVersion) -> None:  # noqa: ARG002 - one product
        self.started.append(model.version)


class Balancer:
    """A load balancer that finds every replica fit."""

    def reconcile(self, states: dict[str, ProductState]) -> None:
        self.states = dict(states)

    def fit(self, *_: object) -> int:
        return 1

    asked = fit

    def servers(self, *_: object) -> list[object]:
        return []


def steps_of(tmp_path: Path, view_states: Any) -> Steps:
    return Steps(
        settings=Settings(state=tmp_path),
        registry=MemoryRegistry(),
        products={NAME: product()},
        references={NAME: product().domain.load_reference()},
        replicas=1,
        view_states=view_states,
    )


@pytest.fixture
def store() -> MemoryOnlineStore:
    return MemoryOnlineStore()


@pytest.fixture
def steps(tmp_path: Path, store: MemoryOnlineStore) -> Steps:
    return steps_of(tmp_path, store.states)


@pytest.fixture
def guard(tmp_path: Path, steps: Steps) -> Iterator[ReleaseGuard]:
    wishes = Wishes(steps.registry, (NAME,))
    made = ReleaseGuard(
        steps=steps,
        traffic=Balancer(),  # type: ignore[arg-type] # what the guard asks of it
        table=ReleaseTable(tmp_path / "releases.sqlite"),
        wishes=wishes,
        clock=CLOCK,
    )
    steps.registry.set_alias(NAME, CHAMPION, trained(1).register(steps.registry))
    wishes.poll()
    yield made
    made.close()


def tick_until(guard: ReleaseGuard, wanted: str) -> ProductState:
    deadline_s = monotonic_s() + 20
    while (found := guard._states[NAME]).state != wanted:
        assert monotonic_s() < deadline_s, f"{found.state} {found.reason}, wanted {wanted}"
        CLOCK.advance(timedelta(seconds=1))  # what is held is tried again within 30 s
        guard.tick()
    return found


def test_a_release_is_held_until_the_last_of_its_views_was_backfilled(
    guard: ReleaseGuard, store: MemoryOnlineStore, steps: Steps
) -> None:
    *most, last = product().feature_views
    backfill(store, most)

    held = tick_until(guard, "held")

    assert held.reason.startswith(f"{NAME}: view {last} was never backfilled")
    assert not any(name in held.reason for name in most)
    assert (held.live, held.vetoes) == (None, {})

    for _ in range(100):  # replicas are started once, and not every time it is tried again
        CLOCK.advance(timedelta(seconds=1))
        guard.tick()
    assert steps.started == [1]

    backfill(store, [last])
    assert tick_until(guard, "done").live is not None


def test_a_store_that_holds_garbage_is_no_veto_on_the_model(tmp_path: Path, guard: ReleaseGuard) -> None:
    """A veto outlives the repair: the model would have to be registered anew."""

    def garbage(_: Sequence[str]) -> dict[str, ViewState]:
        raise ContractViolation("online store: a view's mark is b'yesterday'")

    guard._steps = steps_of(tmp_path, garbage)

    held = tick_until(guard, "held")

    assert "a view's mark is b'yesterday'" in held.reason
    assert held.vetoes == {}


def test_a_live_version_comes_back_over_a_store_that_forgot_its_views(
    guard: ReleaseGuard, store: MemoryOnlineStore, steps: Steps
) -> None:
    """It answers degraded, which is more than nothing."""
    backfill(store, list(product().feature_views))
    done = tick_until(guard, "done")
    store.__init__()  # type: ignore[misc] # all of it is gone
    assert done.release is not None
    assert done.live == done.release.target

    with pytest.raises(ViewsNotReady):
        steps.check_views(NAME)
    guard._starting(NAME, done.release)()

    assert steps.started == [1, 1]


@pytest.mark.parametrize(
    ("failure", "held"),
    [
        (TransientFailure("away"), False),
        (PermanentFailure("refused"), True),
        (ContractViolation("refused: a mark that nobody can read"), True),
    ],
)
def test_a_store_that_is_away_holds_nothing_up_and_one_that_refuses_does(
    tmp_path: Path, failure: Exception, *, held: bool
) -> None:
    def fails(_: Sequence[str]) -> dict[str, ViewState]:
        raise failure

    steps = steps_of(tmp_path, fails)
    if held:
        with pytest.raises(ViewsNotReady, match="refused"):
            steps.check_views(NAME)
    else:
        steps.check_views(NAME)
