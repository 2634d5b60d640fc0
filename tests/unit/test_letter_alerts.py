"""Alerts on a new cause and on rate, over the whole of the watcher on the in-memory log."""

import re
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from headway.adapters.memory import MemoryBroker, MemoryLog, MemoryReader, SimulatedCrash
from headway.clock import MINUTE_US, FrozenClock, from_us, parse_instant_us, to_us
from headway.errors import TransientFailure
from headway.letter_alerts import MAX_CAUSES, Alert, RatePolicy, RateWatch
from headway.letters import LETTER_TOPICS, Letter, Reason
from headway.ports import Record, TopicPartition
from headway.topics import EVENTS_ENRICHED_LETTERS, EVENTS_RAW, EVENTS_RAW_LETTERS, LETTERS_CAUSES, topic_table
from streaming.runtime import SinkWorker
from streaming.sinks.letter_watch import LetterMetrics, LetterWatchSink

START = from_us(parse_instant_us("2013-07-01T10:00:00Z", field="start"))
START_US = to_us(START)
RULES = Path(__file__).parents[2] / "deploy" / "alerts" / "letters.yml"


@dataclass
class Watched:
    """A log with its letter topics, and a watcher that can be stopped and started."""

    clock: FrozenClock = field(default_factory=lambda: FrozenClock(START))
    accepted: int = 0
    told: list[Alert] = field(default_factory=list)
    refuse: bool = False
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        self.broker = MemoryBroker(clock_ms=lambda: to_us(self.clock.now()) // 1000)
        self.broker.create(topic_table(views=[], products=[], replication_factor=1, min_insync_replicas=1))
        self.reader = MemoryReader(self.broker)
        self.start()

    def start(self) -> None:
        """Start the watcher as a new process would, knowing only what the log holds."""
        self.registry = CollectorRegistry()
        sink = LetterWatchSink(
            known=lambda: self.reader.read(LETTERS_CAUSES),
            accepted=lambda: self.accepted,
            send=self.take,
            clock=self.clock,
            registry=self.registry,
        )
        self.worker = SinkWorker(sink)
        self.log = MemoryLog(
            self.broker,
            group="watch",
            topics=LETTER_TOPICS,
            on_assign=lambda _: None,
            on_revoke=lambda _: None,
        )

    def take(self, alerts: Sequence[Alert]) -> None:
        if self.refuse:
            raise TransientFailure("alertmanager: down as planted")
        self.told += alerts

    def reject(self, count: int, *, reason: Reason = "schema-violation", detail: str = "x: got 1, wanted 2") -> None:
        for _ in range(count):
            letter = Letter(reason=reason, detail=detail, stage="enricher", original=b"{}", topic=EVENTS_RAW)
            self.broker.append(letter.to_record(EVENTS_ENRICHED_LETTERS))

    def run(self) -> None:
        """One turn of the worker; stopping makes it flush."""
        turns = iter((False, True))
        self.worker.run(self.log, stopped=lambda: next(turns))

    def metric(self, name: str, labels: dict[str, str] | None = None) -> float | None:
        return self.registry.get_sample_value(f"headway_letters_{name}", labels or {})


def kinds(alerts: Sequence[Alert]) -> list[tuple[str, bool]]:
    return [(alert.kind, alert.resolved) for alert in alerts]


def test_a_cause_is_told_once_however_many_letters_it_has() -> None:
    watched = Watched()
    for number in range(30):
        watched.reject(1, detail=f"delay: got '{number}', wanted a number")
    watched.run()
    watched.reject(1, reason="id-conflict")
    watched.run()

    assert kinds(watched.told) == [("new-cause", False)] * 2
    assert watched.metric("causes") == 2
    assert watched.metric("total", {"reason": "schema-violation"}) == 30
    assert watched.metric("new_cause_timestamp_seconds") == START_US / 1e6


def test_a_restart_tells_no_cause_again_and_still_tells_a_new_one() -> None:
    watched = Watched()
    watched.reject(3)
    watched.run()
    watched.log.close()
    watched.reject(3)
    watched.reject(1, reason="unknown-type")

    watched.start()
    watched.run()

    assert [dict(alert.facts)["reason"] for alert in watched.told] == ["schema-violation", "unknown-type"]
    assert watched.metric("causes") == 2


def test_a_cause_that_came_while_the_watcher_was_away_is_told_when_it_is_back() -> None:
    """Were history taken from the lake, whose loader ran on, it would count as known."""
    watched = Watched()
    watched.run()
    watched.log.close()
    watched.reject(1)
    watched.clock.advance(timedelta(hours=3))

    watched.start()
    watched.run()

    assert kinds(watched.told) == [("new-cause", False)]


def test_after_a_crash_an_alert_may_come_twice_and_is_never_left_out() -> None:
    watched = Watched()
    watched.reject(1)
    watched.broker.crash_before_commit = True
    with pytest.raises(SimulatedCrash):
        watched.run()
    watched.start()
    watched.run()
    watched.start()
    watched.run()

    assert kinds(watched.told) == [("new-cause", False)] * 2
    assert len(list(watched.reader.read(LETTERS_CAUSES))) == 1


def test_a_refused_commit_does_not_make_a_cause_known() -> None:
    watched = Watched()
    watched.reject(1)
    watched.broker.refuse_commits = 1
    watched.run()
    watched.run()

    assert kinds(watched.told) == [("new-cause", False)] * 2
    assert len(list(watched.reader.read(LETTERS_CAUSES))) == 1


def test_two_instances_tell_a_cause_once() -> None:
    watched = Watched()
    watched.reject(1)
    watched.run()
    first, watched.log = watched.log, watched.log
    first.close()
    knowing_nothing = watched.worker
    watched.start()
    watched.reject(1, reason="unknown-type")
    watched.run()

    watched.log.close()
    watched.worker = knowing_nothing
    watched.log = MemoryLog(watched.broker, group="watch", topics=LETTER_TOPICS)
    watched.reject(1, reason="unknown-type")
    watched.run()

    assert len(watched.told) == 2


def test_alerts_nobody_takes_are_kept_until_somebody_does_and_do_not_stop_the_watch() -> None:
    watched = Watched(refuse=True)
    watched.reject(1)
    watched.run()
    waiting = watched.metric("alerts_unsent")
    watched.refuse = False
    watched.run()

    assert (waiting, watched.metric("alerts_unsent")) == (1, 0)
    assert kinds(watched.told) == [("new-cause", False)]
    [message] = watched.reader.read(EVENTS_ENRICHED_LETTERS)
    assert watched.broker.committed("watch", TopicPartition(message.topic, message.partition)) == 1


def test_every_alert_is_one_json_line_of_the_log() -> None:
    watched = Watched()
    watched.reject(1)
    with structlog.testing.capture_logs() as lines:
        watched.run()

    [line] = [each for each in lines if each["event"] == "alert"]
    assert (line["kind"], line["reason"], line["resolved"]) == ("new-cause", "schema-violation", False)
    assert line["letter"].startswith("events.enriched.dlq-")


def test_a_record_that_is_no_letter_is_said_and_passed_over() -> None:
    watched = Watched()
    watched.broker.append(Record(topic=EVENTS_RAW_LETTERS, key=None, value=b"stranger"))
    watched.reject(1)
    watched.run()

    assert kinds(watched.told) == [("new-cause", False)]


def test_made_up_causes_end_in_one_alert_and_bounded_memory() -> None:
    watched = Watched()
    for number in range(MAX_CAUSES + 50):
        name = "".join(chr(97 + int(digit)) for digit in f"{number:04}")
        watched.reject(1, detail=f"unknown field `{name}`")
    watched.run()

    assert Counter(alert.kind for alert in watched.told) == {"new-cause": MAX_CAUSES, "too-many-causes": 1}
    assert watched.metric("causes") == MAX_CAUSES


def test_a_rate_is_told_when_it_is_unusual_and_taken_back_when_it_is_not() -> None:
    watched = Watched()
    watched.reject(1)
    watched.run()
    watched.told.clear()
    for accepted, letters in ((1000, 10), (1000, 200), (1000, 200), (20_000, 10), (20_000, 0)):
        watched.clock.advance(timedelta(minutes=3))
        watched.accepted += accepted
        watched.reject(letters)
        watched.run()

    assert kinds(watched.told) == [("rate", False), ("rate", True)]
    raised, resolved = watched.told
    assert raised.summary == "210 letters of 2,000 events in 5 min (10.5%)"
    assert resolved.started_us == raised.at_us
    assert watched.metric("rate_alert") == 0


def test_totals_do_not_alert() -> None:
    watched = Watched()
    for _ in range(20):
        watched.clock.advance(timedelta(minutes=1))
        watched.accepted += 100_000
        watched.reject(100)
        watched.run()

    assert kinds(watched.told) == [("new-cause", False)]
    assert watched.metric("total", {"reason": "schema-violation"}) == 2000


def test_letters_of_hours_ago_do_not_count_into_the_rate_of_now() -> None:
    watched = Watched()
    watched.reject(500)
    watched.clock.advance(timedelta(hours=2))
    watched.start()
    watched.run()

    assert kinds(watched.told) == [("new-cause", False)]
    assert watched.metric("rate_ratio") == 0


def test_few_letters_alert_nobody_however_large_their_share() -> None:
    watch = RateWatch()
    watch.note_accepted(0, at_us=START_US)
    watch.note_accepted(0, at_us=START_US + MINUTE_US)
    for _ in range(19):
        watch.note_letter("raw", written_us=START_US + 1)

    assert watch.decide(START_US + MINUTE_US) is None
    watch.note_letter("raw", written_us=START_US + 1)
    assert watch.decide(START_US + MINUTE_US) is not None


def test_a_rate_between_the_bounds_neither_raises_nor_resolves() -> None:
    watch = RateWatch(policy=RatePolicy(least_letters=1))
    told: list[bool | None] = []
    total = 0
    for minute, (accepted, letters) in enumerate([(97, 3), (94, 6), (97, 3), (98, 3), (99, 1)]):
        at_us = START_US + minute * 10 * MINUTE_US
        watch.note_accepted(total, at_us=at_us)
        for _ in range(letters):
            watch.note_letter("raw", written_us=at_us + 1)
        total += accepted
        watch.note_accepted(total, at_us=at_us + MINUTE_US)
        alert = watch.decide(at_us + 2 * MINUTE_US)
        told.append(None if alert is None else alert.resolved)

    assert told == [None, False, None, None, True]


@given(st.lists(st.tuples(st.integers(0, 600), st.integers(0, 40), st.booleans()), max_size=60))
def test_alerts_alternate_and_a_share_is_never_above_one(course: list[tuple[int, int, bool]]) -> None:
    watch, now_us, total, last = RateWatch(), START_US, 0, True
    for seconds, letters, at_the_door in course:
        now_us += seconds * 1_000_000
        total += 0 if at_the_door else letters
        watch.note_accepted(total, at_us=now_us)
        for _ in range(letters):
            watch.note_letter("raw" if at_the_door else "enriched", written_us=now_us)
        alert = watch.decide(now_us)
        assert 0 <= watch.rate(now_us).share <= 1
        if alert is not None:
            assert alert.resolved != last
            last = alert.resolved


def test_the_alert_rules_ask_only_for_what_the_watcher_exports() -> None:
    asked = set(re.findall(r"headway_letters_[a-z_]+", RULES.read_text(encoding="utf-8")))
    registry = CollectorRegistry()
    LetterMetrics(registry)
    exported = {name for metric in registry.collect() for name in (metric.name, f"{metric.name}_total")}

    assert asked
    assert asked <= exported


def test_the_alert_rules_hold_to_their_examples() -> None:
    subprocess.run(["promtool", "test", "rules", str(RULES.with_name("letters_test.yml"))], check=True)


def test_every_rule_of_every_alert_is_one_prometheus_reads() -> None:
    rules = [str(path) for path in sorted(RULES.parent.glob("*.yml")) if not path.stem.endswith("_test")]
    subprocess.run(["promtool", "check", "rules", *rules], check=True)
