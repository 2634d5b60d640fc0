"""What whoever shows alerts promises, tried on the one in memory and on a real Alertmanager."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple, Protocol
from uuid import uuid4

import httpx
import pytest

from headway.adapters.alertmanager import Alertmanager
from headway.adapters.memory_alerts import MemoryAlertmanager
from headway.clock import SystemClock, duration_us, parse_instant_us, to_us
from headway.errors import PermanentFailure, TransientFailure
from headway.letter_alerts import SHOWN_FOR_US, Alert, AlertReceiver, cause_of, new_cause_alert
from headway.letters import Letter, LetterPlace
from headway.topics import EVENTS_ENRICHED_LETTERS, EVENTS_RAW
from tests.free_ports import free_port
from tests.server_process import ServerProcess

START_TIMEOUT_S = 30.0
CLOCK = SystemClock()
NOBODY = """
route: {receiver: nobody}
receivers: [{name: nobody}]
"""


class Shown(NamedTuple):
    """An alert as a person sees it."""

    name: str
    summary: str
    facts: dict[str, str]
    started_us: int


class World(Protocol):
    receiver: AlertReceiver

    def shown(self, key: str) -> list[Shown]: ...
    def away(self) -> None: ...
    def back(self) -> None: ...


class MemoryWorld:
    def __init__(self) -> None:
        self.memory = MemoryAlertmanager(CLOCK)
        self.receiver: AlertReceiver = self.memory

    def shown(self, key: str) -> list[Shown]:
        standing = [alert for alert in self.memory.standing() if alert.key == key]
        return [Shown(f"letters-{each.kind}", each.summary, dict(each.facts), each.started_us) for each in standing]

    def away(self) -> None:
        self.memory.away = True

    def back(self) -> None:
        self.memory.away = False


@dataclass
class Server(ServerProcess):
    """A real Alertmanager; ended and started again it has forgotten what it was told."""

    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/-/ready", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    def start(self) -> None:
        found = shutil.which("prometheus-alertmanager")
        assert found, "prometheus-alertmanager is not on PATH. Debian: apt-get install prometheus-alertmanager"
        (self.folder / "alertmanager.yml").write_text(NOBODY, encoding="utf-8")
        flags = [f"--config.file={self.folder}/alertmanager.yml", f"--storage.path={self.folder}/data"]
        flags += [f"--web.listen-address=127.0.0.1:{self.port}", "--cluster.listen-address="]
        log = self.folder / "alertmanager.log"
        with log.open("ab") as output:
            self.process = subprocess.Popen([found, *flags], stdout=output, stderr=subprocess.STDOUT)
        self.wait_until_ready(timeout_s=START_TIMEOUT_S, log=log)


class RealWorld:
    def __init__(self, server: Server) -> None:
        self.away, self.back = server.kill, server.start
        self._url = server.url
        self.receiver: AlertReceiver = Alertmanager(server.url, CLOCK)

    def shown(self, key: str) -> list[Shown]:
        asked = {"filter": f'key="{key}"'}
        found = httpx.get(f"{self._url}/api/v2/alerts", params=asked, timeout=START_TIMEOUT_S)
        return [
            Shown(
                each["labels"]["alertname"],
                each["annotations"].pop("summary"),
                each["annotations"],
                parse_instant_us(each["startsAt"], field="startsAt"),
            )
            for each in found.raise_for_status().json()
        ]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    port = free_port()
    server = Server(tmp_path_factory.mktemp("alertmanager"), port)
    server.start()
    yield server
    server.kill()


@pytest.fixture(params=["memory", pytest.param("alertmanager", marks=pytest.mark.integration)])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "memory":
        yield MemoryWorld()
        return
    real = RealWorld(request.getfixturevalue("server"))
    yield real
    assert isinstance(real.receiver, Alertmanager)
    real.receiver.close()


def send(world: World, *alerts: Alert) -> None:
    """As whoever has alerts to tell does: what fails for a while is sent again; on a busy machine 2 s may be too few."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            return world.receiver.send(alerts)
        except TransientFailure:
            assert time.monotonic() < deadline, "Alertmanager takes nothing"


def now_us() -> int:
    return to_us(CLOCK.now())


def rate(key: str, *, started_us: int, resolved: bool = False, summary: str = "30 letters of 100 events") -> Alert:
    return Alert(
        kind="rate", key=key, summary=summary, at_us=now_us(), started_us=started_us, resolved=resolved,
        facts=(("since", "10:00"),),
    )  # fmt: skip


def a_key() -> str:
    """Of its own for each test: they share one Alertmanager."""
    return uuid4().hex


def test_a_new_cause_is_shown_with_all_that_leads_to_its_letters(world: World) -> None:
    detail = f"delay-{uuid4().hex}: got 'x\n\u2028\"', wanted a number"
    letter = Letter(reason="schema-violation", detail=detail, stage="enricher", original=b"{}", topic=EVENTS_RAW)
    cause = cause_of(LetterPlace(EVENTS_ENRICHED_LETTERS, 3, 120), letter, written_us=now_us())

    send(world, new_cause_alert(cause))

    [shown] = world.shown(letter.fingerprint)
    assert (shown.name, shown.started_us // 1000) == ("letters-new-cause", cause.first_us // 1000)
    assert shown.summary.startswith("letters of a new cause: schema-violation: ")
    assert shown.facts == {
        "reason": "schema-violation",
        "fingerprint": letter.fingerprint,
        "letter": "events.enriched.dlq-3-120",
    }


def test_a_repeat_is_no_second_alert_and_another_key_is(world: World) -> None:
    one, other = a_key(), a_key()
    started_us = now_us()

    send(world, rate(one, started_us=started_us))
    send(world, rate(one, started_us=started_us), rate(other, started_us=started_us))

    assert (len(world.shown(one)), len(world.shown(other))) == (1, 1)


def test_what_is_resolved_is_shown_no_more_and_may_be_raised_again(world: World) -> None:
    key, beside = a_key(), a_key()
    send(world, rate(key, started_us=now_us()), rate(beside, started_us=now_us()))
    raised = len(world.shown(key))

    send(world, rate(key, started_us=now_us(), resolved=True))
    resolved = len(world.shown(key))
    send(world, rate(key, started_us=now_us(), summary="again"))

    assert (raised, resolved) == (1, 0)
    assert [each.summary for each in world.shown(key)] == ["again"]
    assert len(world.shown(beside)) == 1


def test_what_began_long_before_it_could_be_sent_is_shown_all_the_same(world: World) -> None:
    """A watcher that was away for a night tells of letters of the evening, when nobody has seen them yet."""
    key = a_key()
    evening_us = now_us() - SHOWN_FOR_US - duration_us(timedelta(hours=1))

    send(world, Alert(kind="new-cause", key=key, summary="of yesterday", at_us=evening_us, started_us=evening_us))

    assert [each.summary for each in world.shown(key)] == ["of yesterday"]


def test_one_that_does_not_answer_may_be_asked_again(world: World) -> None:
    key = a_key()
    alert = rate(key, started_us=now_us())
    world.away()

    with pytest.raises(TransientFailure, match="send them again"):
        world.receiver.send([alert])
    world.back()
    send(world, alert)

    assert len(world.shown(key)) == 1


def test_what_can_never_be_taken_is_told_apart_and_costs_no_other_alert(world: World) -> None:
    good, bad = a_key(), a_key()
    nameless = Alert(kind="rate", key=bad, summary="", at_us=now_us(), started_us=now_us(), facts=(("no name", "x"),))

    with pytest.raises(PermanentFailure, match="refused"):
        send(world, nameless, rate(good, started_us=now_us()))

    assert (len(world.shown(good)), len(world.shown(bad))) == (1, 0)
