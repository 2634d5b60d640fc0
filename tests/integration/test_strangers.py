"""kcat at both ends of the Enricher: what it writes past the Collector is accounted for, what it reads is committed."""

import base64
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from domains.flights.contracts import CONTRACTS, DEPARTED
from headway.adapters.kafka_reader import KafkaReader
from headway.adapters.kafka_topics import admin_client, apply_topics
from headway.cli import main
from headway.clock import parse_instant_us
from headway.events import Event, encode_event, parse_event
from headway.letters import letter_of, letter_place
from headway.ports import Message
from headway.settings import Settings
from headway.ticks import header, is_tick
from headway.topics import EVENTS_ENRICHED, EVENTS_ENRICHED_LETTERS, EVENTS_RAW, topic_table
from tests.contract.conftest import new_broker
from tests.job_processes import JobProcess, until
from tests.kcat import kcat

pytestmark = pytest.mark.integration

[BODY] = [dict(contract.example or {}) for contract in CONTRACTS if contract.event_type == DEPARTED]
# Holds the Enricher in its first transaction: everything is handed over, nothing committed.
HELD_IN_TRANSACTION = 'import os; os.environ["HEADWAY_FAILPOINTS"] = "enricher.before_commit=1:hang"'
# What is no event, and the words of its letter that say why; without a key, as kcat writes by default, under None.
NO_EVENTS: Sequence[tuple[str | None, tuple[str, ...], bytes, str]] = (
    ("garbage", (), b"\xff\x00\xfe not an event", "not JSON"),
    ("foreign-header", ("-H", "x-stranger=7"), b"{]", "not JSON"),
    ("half", (), b'{"specversion": "1.0", "id": "h"', "not JSON"),
    (
        "forged-letter",
        ("-H", "letter_reason=none", "-H", "letter_id=nobody"),
        b"[]",
        "got list, wanted one CloudEvents 1.0 JSON object",
    ),
    (None, ("-H", "ce_type=headway.tick"), b"tomorrow", "not JSON"),
    ("shape", (), b'{"id": "s"}', "specversion: missing"),
)
EMPTY = "not JSON"
BAD_DELAY = "Expected `int`, got `str` - at `$.dep_delay_min`"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    folder = tmp_path_factory.mktemp("strangers")
    broker = new_broker(folder / "kafka")
    broker.start()
    table = topic_table(views=[], products=[], replication_factor=1, min_insync_replicas=1)
    apply_topics(admin_client(broker.config.bootstrap), table)
    yield Settings(state=folder / "state", kafka_bootstrap=broker.config.bootstrap)
    broker.stop()


@contextmanager
def enricher(settings: Settings, *, before: str = "") -> Iterator[JobProcess]:
    job = JobProcess("enricher", 0, settings, before)
    job.start()
    try:
        yield job
    finally:
        if job.process is not None and job.process.poll() is None:
            assert job.stop() == 0


def departed(name: str, **data: object) -> bytes:
    time_us = parse_instant_us("2013-07-01T10:00:00Z", field="time")
    event = Event(id=name, source="/kcat", type=DEPARTED, subject=name, time_us=time_us, data={**BODY, **data})
    return encode_event(event)


def write(settings: Settings, value: bytes, *flags: str, key: str | None) -> None:
    keyed = () if key is None else ("-k", key)
    kcat(settings.kafka_bootstrap, "-P", "-t", EVENTS_RAW, *keyed, *flags, stdin=value)


def write_empty(settings: Settings, *flags: str) -> None:
    """A key and nothing after it; with ``-Z`` the value is not empty but missing."""
    kcat(settings.kafka_bootstrap, "-P", "-t", EVENTS_RAW, "-K", "|", *flags, stdin=b"e|\n")


def seen(settings: Settings, prefix: str, *, isolation: str) -> Counter[str]:
    """How often kcat reads each event under an isolation level, of those whose id begins so."""
    asked = ("-C", "-e", "-t", EVENTS_ENRICHED, "-J", "-X", f"isolation.level={isolation}")
    payloads = [json.loads(line)["payload"] for line in kcat(settings.kafka_bootstrap, *asked).splitlines()]
    ids = [json.loads(payload)["id"] for payload in payloads]
    return Counter(each for each in ids if each.startswith(prefix))


def places(settings: Settings) -> tuple[dict[tuple[int, int], Message], list[tuple[int, int]], dict[str, Any]]:
    """Every record of events.raw by its place, the places of those that were enriched, and the letters by id."""
    reader = KafkaReader(bootstrap=settings.kafka_bootstrap)
    raw = {(m.partition, m.offset): m for m in reader.read(EVENTS_RAW)}
    enriched = [m for m in reader.read(EVENTS_ENRICHED) if not is_tick(m)]
    letters = {letter_place(m).id: letter_of(m) for m in reader.read(EVENTS_ENRICHED_LETTERS)}
    reader.close()
    return raw, [(m.partition, int(header(m, "raw_offset") or b"")) for m in enriched], letters


def test_what_kcat_writes_into_the_intake_is_enriched_or_a_letter_that_says_why(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, variable in settings.environment().items():
        monkeypatch.setenv(name, variable)
    bad = departed("bad-delay", dep_delay_min="late")
    good = {"good-plain", "good-foreign", "good-keyless", "good-after"}
    with enricher(settings) as job:
        write(settings, departed("good-plain"), key="good-plain")
        for key, flags, value, _ in NO_EVENTS:
            write(settings, value, *flags, key=key)
        write_empty(settings)
        write_empty(settings, "-Z")
        write(settings, bad, "-H", "ce_type=another.v1", key="bad-delay")
        write(settings, departed("good-foreign"), "-H", "x-stranger=7", "-H", "letter_reason=none", key="good-foreign")
        write(settings, departed("good-keyless"), key=None)
        until(lambda: len(places(settings)[2]) == len(NO_EVENTS) + 3, told=lambda: places(settings)[2])
        write(settings, departed("good-after"), key="good-after")
        until(lambda: set(seen(settings, "good-", isolation="read_committed")) == good)
        assert job.process is not None
        assert job.process.poll() is None

    raw, enriched, letters = places(settings)
    assert Counter([*enriched, *(each.raw_place for each in letters.values())]) == Counter(raw.keys())
    assert {parse_event(raw[place].value or b"").source for place in enriched} == {"/kcat"}
    reasons = Counter(each.reason for each in letters.values())
    assert reasons == {"unparseable": len(NO_EVENTS) + 2, "schema-violation": 1}
    explained = {b"": EMPTY, bad: BAD_DELAY, **{value: words for *_, value, words in NO_EVENTS}}
    for name, letter in letters.items():
        report = tmp_path / "shown.json"
        assert main(["letters", "show", name, "--json", str(report)]) == 0
        shown = json.loads(report.read_text())
        original = raw[letter.raw_place].value or b""
        assert (shown["reason"], base64.b64decode(shown["original_base64"])) == (letter.reason, original)
        assert (shown["partition"], shown["offset"]) == letter.raw_place
        assert explained[original] in shown["detail"]


def test_kcat_reads_what_is_committed_and_an_aborted_transaction_only_when_it_asks_for_that(
    settings: Settings,
) -> None:
    sent = {f"hidden-{number}" for number in range(6)}
    lines = b"".join(each.encode() + b"|" + departed(each) + b"\n" for each in sorted(sent))
    kcat(settings.kafka_bootstrap, "-P", "-t", EVENTS_RAW, "-K", "|", stdin=lines)
    with enricher(settings, before=HELD_IN_TRANSACTION) as job:
        until(lambda: bool(seen(settings, "hidden-", isolation="read_uncommitted")))
        while_open = seen(settings, "hidden-", isolation="read_committed")
        job.kill()

    with enricher(settings):
        until(lambda: set(seen(settings, "hidden-", isolation="read_committed")) == sent)

    everything = seen(settings, "hidden-", isolation="read_uncommitted")
    assert while_open == Counter()
    assert seen(settings, "hidden-", isolation="read_committed") == Counter(sent)
    assert everything.total() > len(sent)
    assert set(everything) == sent
