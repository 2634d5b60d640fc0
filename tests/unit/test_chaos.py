"""The parts of the chaos harness that need no stack: plans, schedules, answers, reports, and the commands' refusals."""

import asyncio
import contextlib
import json
import random
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest

from headway.cli import main
from headway.clock import SystemClock
from headway.errors import InputRejected
from headway.events import MAX_EVENT_BYTES, parse_event
from orchestration.chaos.door import Answer, Door, Unreachable
from orchestration.chaos.driver import Schedule, outcome_of, statuses_of
from orchestration.chaos.failpoint_log import FailPointLog
from orchestration.chaos.faults import Fault, Injector, Planned, is_kind, plan_kills, process_state
from orchestration.chaos.letters_held import offences
from orchestration.chaos.load import USUAL_MIX, plan_sends
from orchestration.chaos.mutant import MUTANTS
from orchestration.chaos.report import Report, Trial
from orchestration.chaos.stack import free_block
from orchestration.chaos.stamps import longest_wait_s, seconds_to_resume
from orchestration.chaos.tests_table import TESTS


def sends_of(count: int, *, seed: int = 7) -> list[Any]:
    mix = {kind: share * 5 for kind, share in USUAL_MIX.items()}
    return list(islice(plan_sends(run="t", keys=9, mix=mix, generator=random.Random(seed)), count))


def test_a_plan_follows_its_seed_and_counts_up_per_key() -> None:
    sends = sends_of(3_000)

    assert sends == sends_of(3_000)
    assert sends != sends_of(3_000, seed=8)
    first: dict[str, list[int]] = {}
    for send in sends:
        if send.kind != "duplicate":
            first.setdefault(send.key, []).append(send.seq)
    assert all(seqs == list(range(1, len(seqs) + 1)) for seqs in first.values())
    assert {send.kind for send in sends} == {*USUAL_MIX, "valid"}


def test_every_kind_is_what_it_says() -> None:
    by_kind = {send.kind: send for send in sends_of(3_000)}

    assert len(by_kind["oversize"].body) > MAX_EVENT_BYTES
    assert parse_event(by_kind["valid"].body).id == by_kind["valid"].id
    assert parse_event(by_kind["unknown-type"].body).type == "chaos.unheard-of.v1"
    with pytest.raises(InputRejected, match="subject"):
        parse_event(by_kind["invalid-envelope"].body)


def test_a_repeat_is_byte_for_byte_an_earlier_send() -> None:
    seen: dict[str, bytes] = {}
    for send in sends_of(3_000):
        if send.kind == "duplicate":
            assert seen[send.id] == send.body
        seen.setdefault(send.id, send.body)


def test_a_schedule_mixes_batches_and_singles_at_their_rates() -> None:
    schedule = Schedule(batches_per_s=3, batch_size=20, singles_per_s=9)

    posts = schedule.cut(sends_of(690))

    assert schedule.events_per_s == 69
    assert Counter(map(len, posts)) == {20: 30, 1: 90}
    assert [send for post in posts for send in post] == sends_of(690)


@pytest.mark.parametrize(
    ("status", "outcome"), [(202, "acked"), (400, "refused"), (413, "refused"), (503, "unknown"), (502, "unknown")]
)
def test_a_5xx_promises_nothing_either_way(status: int, outcome: str) -> None:
    assert outcome_of(status) == outcome


def test_a_batch_is_told_event_by_event_and_silence_is_no_acknowledgement() -> None:
    results = {"results": [{"index": 1, "status": 400}, {"index": 0, "status": 202}]}
    answer = Answer(207, "application/json", orjson.dumps(results))
    refused = Answer(413, "application/problem+json", b'{"title": "too large"}')

    assert statuses_of(answer, 3, batch=True) == [202, 400, 500]
    assert statuses_of(refused, 2, batch=True) == [413, 413]
    assert statuses_of(Answer(202, "application/json", b"{}"), 1, batch=False) == [202]


async def served(answer: bytes, *, posts: int) -> tuple[list[Answer | str], int]:
    """Post to a server that gives one answer; return the answers, or the name of what was raised, and connections."""
    serving: list[Any] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\nbody"):
                writer.write(answer)
                if b"close" in answer or not answer:
                    break
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    door = Door(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    said: list[Answer | str] = []
    for _ in range(posts):
        try:
            said.append(await door.post("/v1/events", b"body", content_type="text/plain"))
        except (Unreachable, OSError, EOFError, ValueError) as error:
            said.append(type(error).__name__)
    door.close()
    await asyncio.gather(*serving)
    server.close()
    await server.wait_closed()
    return said, len(serving)


@pytest.mark.parametrize(
    ("answer", "said", "connections"),
    [
        (b"HTTP/1.1 202 Accepted\r\nContent-Type: a/b\r\ncontent-length: 2\r\n\r\nok", Answer(202, "a/b", b"ok"), 1),
        (b"HTTP/1.1 503 Away\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno", Answer(503, "", b"no"), 2),
        (b"HTTP/1.1 503 Away\r\nconnection: close\r\n\r\nuntil the end", Answer(503, "", b"until the end"), 2),
        (b"", "IncompleteReadError", 2),
    ],
)
def test_a_door_reuses_what_stays_open_and_never_asks_twice(
    answer: bytes, said: Answer | str, connections: int
) -> None:
    assert asyncio.run(served(answer, posts=2)) == ([said, said], connections)


def test_a_door_says_when_nothing_was_sent() -> None:
    async def ask() -> None:
        await Door(f"http://127.0.0.1:{free_block()}").post("/", b"", content_type="text/plain")

    with pytest.raises(Unreachable):
        asyncio.run(ask())


def test_kills_are_spread_and_every_kind_has_its_turn() -> None:
    kills = plan_kills(["a", "b", "c"], count=7, first_s=10, last_s=80, generator=random.Random(1))

    assert kills == plan_kills(["a", "b", "c"], count=7, first_s=10, last_s=80, generator=random.Random(1))
    assert [kill.at_s for kill in kills] == sorted(kill.at_s for kill in kills)
    assert kills[0].at_s >= 10
    assert kills[-1].at_s <= 80
    assert min(Counter(kill.kind for kill in kills).values()) >= 2


class Sleepers:
    """Processes that a stand-in for the supervisor starts again."""

    def __init__(self, *, restarts: bool) -> None:
        self.restarts = restarts
        self.process = self.start()

    def start(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])

    def status(self) -> dict[str, dict[str, Any]]:
        if self.process.poll() is not None and self.restarts:
            self.process = self.start()
        return {"job-1": {"name": "job-1", "pid": self.process.pid, "state": "ready"}}

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.mark.parametrize(("restarts", "proven"), [(True, True), (False, False)])
def test_a_kill_is_proven_by_another_pid_and_by_nothing_else(*, restarts: bool, proven: bool) -> None:
    sleepers = Sleepers(restarts=restarts)
    injector = Injector(sleepers.status, print)

    fault = injector.do(Planned(at_s=0, kind="job", what="kill"))
    injector.wait_until_proven(within_s=5 if restarts else 1)
    injector.close()
    sleepers.end()

    assert fault is not None
    assert (fault.name, fault.proof is not None) == ("job-1", proven)


def test_a_stop_is_proven_by_the_kernels_own_word() -> None:
    sleepers = Sleepers(restarts=False)
    injector = Injector(sleepers.status, print)

    fault = injector.do(Planned(at_s=0, kind="job", what="stop", hold_s=0.2))
    injector.close()
    state = process_state(sleepers.process.pid)
    sleepers.end()

    assert fault is not None
    assert fault.proof is not None
    assert fault.proof.startswith("state T for 0.2 s")
    assert state != "T"
    assert process_state(2**22 + 1) is None


def report_of(*, faults: list[Fault], violations: dict[str, list[str]], wants: dict[str, bool]) -> Report:
    return Report(
        trial=Trial(test="R1", short=True, seed=1, mutant=None, say=print),
        n=30_000,
        violations=violations,
        wants=wants,
        figures={"acked": 3},
        faults=faults,
        begun_s=0.0,
        seconds=1.0,
    )


def test_a_report_holds_only_with_proven_faults_no_violation_and_every_want() -> None:
    proven = Fault(kind="a", name="a", what="kill", at_s=1.0, pid=1, pid_after=2, down_s=0.5, proof="pid 1 -> 2")
    unproven = Fault(kind="a", name="a", what="kill", at_s=1.0, pid=1)

    assert report_of(faults=[proven], violations={}, wants={"w": True}).held
    assert not report_of(faults=[proven, unproven], violations={}, wants={}).held
    assert not report_of(faults=[proven], violations={"I1": ["lost"]}, wants={}).held
    assert not report_of(faults=[proven], violations={}, wants={"w": False}).held
    facts = json.loads(json.dumps(report_of(faults=[proven], violations={}, wants={}).facts()))
    assert (facts["held"], facts["n"], facts["bound"]) == (True, 30_000, 1e-4)
    assert facts["faults"][0]["proof"] == "pid 1 -> 2"


def test_every_test_can_be_loaded_and_names_mutants_that_exist() -> None:
    for entry in TESTS:
        assert callable(entry.load())
        assert entry.promise


def test_the_command_refuses_unknown_tests_and_mutants(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chaos", "R99"]) == 1
    assert "wanted one of R1" in capsys.readouterr().err
    assert main(["chaos", "R1", "--mutant", "none-such"]) == 1
    assert "ack-before-delivery" in capsys.readouterr().err


def test_what_a_sink_holds_not_exactly_once_is_named() -> None:
    assert offences(Counter(["a", "b"]), ["a", "b"]) == []
    assert offences(Counter(["a", "b", "b", "d"]), ["a", "b", "c"]) == ["missing: c", "2 times: b", "invented: d"]


def test_a_mutant_concerns_only_the_processes_it_is_about() -> None:
    loader = MUTANTS["commit-before-write"]

    assert loader.concerns("streaming.main", ["lake-loader", "--instance", "0"])
    assert not loader.concerns("streaming.main", ["enricher"])
    assert MUTANTS["ack-before-delivery"].concerns("serving.collector_main", [])


def test_a_fail_point_that_kills_or_hangs_is_a_fault_to_be_proven(tmp_path: Path) -> None:
    log = tmp_path / "enricher.log"
    log.write_text('{"event": "failpoint", "name": "enricher.before_commit", "action": "kill", "pid": 1}\n')
    watched = FailPointLog(log, kind="enricher")
    injector = Injector(dict, print)
    now = SystemClock().now().isoformat()
    with watched.watched(injector), log.open("a") as lines:
        for name, action in (("after_produce", "kill"), ("after_commit", "hang"), ("before_commit", "raise")):
            said = {"event": "failpoint", "name": f"enricher.{name}", "action": action, "pid": 7, "timestamp": now}
            lines.write(f"{json.dumps(said)}\n")
        lines.write('Traceback "failpoint"\n')
    injector.close()

    told = [(fault.name, fault.what, fault.point, fault.pid, fault.proof) for fault in injector.faults]
    assert told == [("enricher", "kill", "after_produce", 7, None), ("enricher", "hang", "after_commit", 7, None)]


STAMPS = {"partition": pl.Int32(), "raw_offset": pl.Int64(), "at_ms": pl.Int64()}


def test_waits_are_told_per_partition_and_resumption_per_outage() -> None:
    raw = pl.DataFrame([(0, 0, 1_000), (0, 1, 1_100), (1, 0, 1_000)], schema=STAMPS, orient="row")
    enriched = pl.DataFrame([(0, 0, 1_500), (0, 1, 4_100), (1, 0, 1_010)], schema=STAMPS, orient="row")

    assert longest_wait_s(raw, enriched) == {0: 3.0, 1: 0.01}
    assert seconds_to_resume(enriched, [1_600, 900, 5_000]) == [0.11, 2.5, float("inf")]
    assert seconds_to_resume(enriched, [3_900, 1_600]) == [0.2], "killed again before it was at work: one outage"


def test_names_of_instances_belong_to_their_kind_and_other_names_do_not() -> None:
    assert is_kind("kafka", "kafka")
    assert is_kind("kafka-2", "kafka")
    assert not is_kind("kafka-watch", "kafka")
