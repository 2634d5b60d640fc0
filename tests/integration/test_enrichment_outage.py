"""Both replicas of the Enrichment API killed under a working Enricher: it waits, says why, and loses and blames nobody."""

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pytest

from headway.adapters.kafka_reader import KafkaReader
from headway.letters import letter_of
from headway.settings import LOOPBACK, Settings
from headway.topics import EVENTS_ENRICHED_LETTERS
from orchestration.chaos.driver import Schedule
from orchestration.chaos.load import LETTERS, USUAL_MIX, plan_sends
from orchestration.chaos.reconcile import Verdict
from orchestration.chaos.report import Trial
from orchestration.chaos.running import judge, load_on
from orchestration.chaos.stack import EVENT_PLANE, own_stack
from tests.held_down import held_down
from tests.job_processes import readiness, samples

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(900)]

REPLICAS = ("enrichment-0", "enrichment-1")
SCHEDULE = Schedule(batches_per_s=10, batch_size=20, singles_per_s=20)
LONGEST_S = 400
PATIENCE_S = 90.0
# Longer than the breaker takes to open, so that it is open for a while.
DOWN_S = 8.0


@dataclass(frozen=True, kw_only=True)
class Outage:
    """What the Enricher said while nobody answered it, and what the drive came to."""

    said: Mapping[str, Any]
    figures: Mapping[str, float]
    recovered: Mapping[str, Any]
    letters: Mapping[str, int]
    verdict: Verdict


def wait(holds: Callable[[], bool], *, within_s: float) -> bool:
    """Whether it came to hold in time."""
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def letters_by_reason(settings: Settings) -> Counter[str]:
    reader = KafkaReader(bootstrap=settings.kafka_bootstrap)
    found = Counter(letter_of(message).reason for message in reader.read(EVENTS_ENRICHED_LETTERS))
    reader.close()
    return Counter({str(reason): count for reason, count in found.items()})


def outage(mutant: str | None) -> Outage:
    trial = Trial(test="outage", short=False, seed=11, mutant=mutant, say=print)
    plan = plan_sends(run="outage", keys=200, mix=USUAL_MIX, generator=random.Random(trial.seed))
    sends = list(islice(plan, int(SCHEDULE.events_per_s * LONGEST_S)))
    with own_stack(EVENT_PLANE, mutant=mutant, environment={}, say=print) as settings:
        port = settings.ports.job_first
        said: dict[str, Any] = {}

        def enricher(name: str) -> float:
            return sum(samples(LOOPBACK, port, f"headway_job_{name}"))

        def stopped() -> bool:
            said.update(readiness(LOOPBACK, port))
            return said.get("breaker") == "open" and said["paused"] is not None

        with load_on(settings, trial, sends, SCHEDULE) as running:
            assert wait(lambda: enricher("messages_total") > 1_000, within_s=PATIENCE_S)
            with held_down(settings, REPLICAS, say=print):
                begun_s = time.monotonic()
                wait(stopped, within_s=PATIENCE_S if mutant is None else DOWN_S)
                figures = {name: enricher(name) for name in ("breaker_open", "breaker_opened_total")}
                running.wait_until(begun_s - running.begun_s + DOWN_S)
                trial.say(f"held down for {time.monotonic() - begun_s:.1f} s: {said}")
            acked = running.driver.acked
            assert wait(lambda: readiness(LOOPBACK, port)["ready"], within_s=PATIENCE_S)
            assert wait(lambda: running.driver.acked > acked + 1_000, within_s=PATIENCE_S)
        judged = judge(running)
        recovered, letters = readiness(LOOPBACK, port), letters_by_reason(settings)
    trial.say(
        f"{judged.verdict.acked:,} acknowledged; letters {dict(letters)}; broken: {judged.verdict.named() or 'nothing'}"
    )
    return Outage(said=said, figures=figures, recovered=recovered, letters=letters, verdict=judged.verdict)


def test_an_outage_of_the_whole_enrichment_api_pauses_the_enricher_and_makes_no_letter() -> None:
    done = outage(None)

    assert (done.said["ready"], done.said["breaker"]) == (False, "open"), done.said
    assert (done.figures["breaker_open"], done.figures["breaker_opened_total"] >= 1) == (1, True)
    assert "the Enrichment API is down" in done.said["paused"]["reason"]
    assert (done.recovered["ready"], done.recovered["breaker"]) == (True, "closed")
    assert done.verdict.held, done.verdict.facts()
    assert set(done.letters) <= set(LETTERS.values())
    assert done.verdict.counts["ledger"]["raw"] > 3_000


def test_an_enricher_that_takes_unavailable_for_refused_is_caught() -> None:
    """The planted bug: an outage becomes letters, and the breaker never hears of it."""
    done = outage("down-taken-for-refused")

    assert (done.figures["breaker_opened_total"], done.said["breaker"]) == (0, "closed")
    assert not done.verdict.held
    assert "valid and not enriched" in " ".join(done.verdict.named()["I4"])
