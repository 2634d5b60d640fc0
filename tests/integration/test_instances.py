"""Several instances of a job on a real broker: partitions split, the fifth idles, and nothing is lost, twice or reordered.

Rebalances happen under load: an instance is killed with SIGKILL (its exit code proves it) and one is added.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from domains.flights.domain import DOMAIN
from domains.flights.source import iter_events
from headway.adapters.kafka_backlog import read_backlogs
from headway.adapters.kafka_publisher import KafkaPublisher
from headway.adapters.kafka_reader import KafkaReader
from headway.adapters.kafka_topics import admin_client, apply_topics
from headway.clock import HOUR_US, parse_instant_us
from headway.events import encode_event, parse_event
from headway.ports import Record
from headway.settings import Settings
from headway.ticks import header, is_tick
from headway.topics import EVENTS_ENRICHED, EVENTS_ENRICHED_LETTERS, EVENTS_RAW, PARTITIONS, topic_table
from products.catalogue import all_products
from streaming.jobs import group_name
from tests.contract.conftest import new_broker
from tests.job_processes import Crew, until

pytestmark = pytest.mark.integration

START_US = parse_instant_us("2013-07-01T12:00:00Z", field="start")
# Planted into every instance: one that takes a partition over does not ask what was seen there before.
FORGETFUL = """
from streaming.handlers.enrich import EnrichHandler
restored = EnrichHandler.assigned
def assigned(self, partitions):
    restore, self._restore = self._restore, lambda topic, partition: []
    restored(self, partitions)
    self._restore = restore
EnrichHandler.assigned = assigned
"""


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    broker = new_broker(tmp_path / "kafka")
    broker.start()
    views = [view.qualified for view in DOMAIN.views]
    table = topic_table(views=views, products=list(all_products()), replication_factor=1, min_insync_replicas=1)
    apply_topics(admin_client(broker.config.bootstrap), table)
    yield Settings(state=tmp_path / "state", kafka_bootstrap=broker.config.bootstrap)
    broker.stop()


class Intake:
    """Accepted events, as the Collector would write them; remembers what there is to account for."""

    def __init__(self, settings: Settings) -> None:
        self._publisher = KafkaPublisher(bootstrap=settings.kafka_bootstrap)
        self.events = list(iter_events(START_US, START_US + 4 * HOUR_US))

    def send(self, first: int, last: int) -> None:
        records = [Record(EVENTS_RAW, each.subject.encode(), encode_event(each)) for each in self.events[first:last]]
        self._publisher.publish(records)

    def send_unreadable(self, count: int) -> None:
        self._publisher.publish([Record(EVENTS_RAW, b"%d" % n, b"no event %d" % n) for n in range(count)])

    def close(self) -> None:
        self._publisher.close()


class Account:
    """What became of everything in events.raw, by id and in order."""

    def __init__(self, settings: Settings) -> None:
        reader = KafkaReader(bootstrap=settings.kafka_bootstrap)
        self.enriched: list[str] = []
        self.reordered: list[tuple[int, int]] = []
        newest: defaultdict[int, int] = defaultdict(lambda: -1)
        for message in reader.read(EVENTS_ENRICHED):
            if is_tick(message):
                continue
            self.enriched.append(parse_event(message.value or b"").id)
            raw_offset = int(header(message, "raw_offset") or b"")
            if raw_offset <= newest[message.partition]:
                self.reordered.append((message.partition, raw_offset))
            newest[message.partition] = raw_offset
        self.letters = sum(1 for _ in reader.read(EVENTS_ENRICHED_LETTERS))
        reader.close()

    def twice(self) -> dict[str, int]:
        return {event_id: count for event_id, count in Counter(self.enriched).items() if count > 1}

    def lost(self, ids: Sequence[str]) -> set[str]:
        return set(ids) - set(self.enriched)


def waiting(settings: Settings) -> int:
    """Raw records that no enricher has committed; exact, as nobody writes events.raw in transactions."""
    group = group_name(DOMAIN, "enricher")
    backlog = read_backlogs(admin_client(settings.kafka_bootstrap), {group: [EVENTS_RAW]})[group]
    return backlog.written - backlog.done


def story(settings: Settings, *, before: str) -> tuple[Account, Intake]:
    """Five instances, load, one killed, one added, the first stretch sent again; what all that came to."""
    crew, intake = Crew(settings, before=before), Intake(settings)
    third = len(intake.events) // 3
    try:
        crew.add("enricher", range(PARTITIONS + 1))
        shares = crew.until_shared("enricher", working=PARTITIONS, idle=1)
        assert sorted(place for owned in shares.values() for place in owned) == [
            f"{EVENTS_RAW}/{partition}" for partition in range(PARTITIONS)
        ]
        (spare,) = (each for each in crew.members if not shares[each.instance])
        assert (spare.says()["ready"], spare.says()["idle"]) == (True, True)
        until(lambda: spare.metric("headway_job_idle") == 1)

        intake.send(0, third)
        intake.send_unreadable(10)
        until(lambda: waiting(settings) == 0, told=lambda: waiting(settings))
        victim = next(each for each in crew.members if shares[each.instance])
        intake.send(third, 2 * third)
        victim.kill()
        crew.members.remove(victim)
        taken_over = crew.until_shared("enricher", working=PARTITIONS, idle=0)
        assert taken_over[spare.instance] == shares[victim.instance]
        assert spare.says()["idle"] is False
        until(lambda: spare.metric("headway_job_idle") == 0)

        crew.add("enricher", [victim.instance])
        intake.send(2 * third, len(intake.events))
        crew.until_shared("enricher", working=PARTITIONS, idle=1)
        intake.send(0, third)  # a client that never saw its answers

        intake.send_unreadable(1)
        until(lambda: waiting(settings) == 0, told=lambda: waiting(settings))
        return Account(settings), intake
    finally:
        crew.close()
        intake.close()


def test_five_enrichers_one_killed_one_added_lose_nothing_double_nothing_and_keep_order(settings: Settings) -> None:
    account, intake = story(settings, before="")

    assert account.lost([each.id for each in intake.events]) == set()
    assert account.twice() == {}
    assert account.reordered == []
    assert (len(account.enriched), account.letters) == (len(intake.events), 11)


@pytest.mark.long
def test_an_instance_that_takes_over_without_restoring_what_was_seen_is_caught(settings: Settings) -> None:
    """The planted bug: after the kill the new owner does not know what its predecessor accepted."""
    account, _ = story(settings, before=FORGETFUL)

    assert account.twice() != {}
