"""What a trial of the stream scorer reads back: questions, answers and plans, once nothing moves any more."""

import time
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from headway.adapters.lightgbm import LightGbm
from headway.clock import monotonic_s
from headway.events import Event, parse_event
from headway.letters import letter_of
from headway.manifest import Manifest
from headway.ports import LogReader, Message
from headway.predictor import open_predictor
from headway.product import Product
from headway.scores import Place, Plan, Score, decode_plan, decode_score
from headway.ticks import is_tick, tick_before_us, tick_us_of
from headway.topics import EVENTS_ENRICHED, EVENTS_ENRICHED_LETTERS, PARTITIONS, scores_state_topic, scores_topic
from orchestration.chaos.scoring import asked_us, is_bad
from orchestration.chaos.scoring_verdict import Asked, ScoringVerdict, judge_scoring
from streaming.handlers.score import PLAN_KEY

_UNMOVED_S = 60.0
_EVERY_S = 2.0


def settle_scores(reader: LogReader, product: str, *, asked: int, within_s: float, say: Callable[[str], None]) -> None:
    """Wait until every question has an answer, or until nothing has moved for a minute: that is for the verdict."""
    deadline_s = monotonic_s() + within_s
    before, moved_s = -1, monotonic_s()
    while monotonic_s() < deadline_s and monotonic_s() - moved_s < _UNMOVED_S:
        now = sum(1 for topic in (scores_topic(product), EVENTS_ENRICHED_LETTERS) for _ in reader.read(topic))
        if now != before:
            say(f"{now:,} answers to {asked:,} questions")
            before, moved_s = now, monotonic_s()
        if now >= asked:
            return
        time.sleep(_EVERY_S)


def judge_scores(reader: LogReader, product: Product, versions: Sequence[tuple[bytes, Manifest]]) -> ScoringVerdict:
    """Judge what stands in the log; ``versions`` are the models that may have answered."""
    predictors = {manifest.digest: open_predictor(text, manifest, load=LightGbm().load) for text, manifest in versions}
    reference = product.domain.load_reference()

    def recompute(score: Score) -> float:
        predictor = predictors[score.model.digest]
        request = product.parse_request(bytes(score.request))
        values = product.compute_request_features(request, reference, score.as_of_us)
        return predictor.predict(values, score.view_values, score.as_of_us).score

    return judge_scoring(
        list(_asked(reader, product)),
        [decode_score(message.value or b"") for message in reader.read(scores_topic(product.name))],
        [letter_of(message) for message in reader.read(EVENTS_ENRICHED_LETTERS)],
        plans={number: _plan(reader, product.name, number) for number in range(PARTITIONS)},
        recompute=recompute,
    )


def _asked(reader: LogReader, product: Product) -> Iterator[Asked]:
    ticks: dict[int, list[Message]] = {number: [] for number in range(PARTITIONS)}
    questions: list[tuple[Message, Event]] = []
    for message in reader.read(EVENTS_ENRICHED):
        if is_tick(message):
            ticks[message.partition].append(message)
        else:
            questions.append((message, parse_event(message.value or b"")))
    for message, event in questions:
        due_at = _due_at(message, event.time_us, asked_us(product, event), ticks[message.partition])
        place = Place(message.topic, message.partition, message.offset)
        yield Asked(place=place, subject=event.subject, bad=is_bad(event), due_at=due_at)


def _due_at(asked: Message, time_us: int, due_us: int, ticks: Sequence[Message]) -> int | None:
    """Return the offset of the first record that makes a question due: its own, or that of a tick after it."""
    if max(tick_before_us(asked) or 0, time_us) >= due_us:
        return asked.offset
    after = bisect(ticks, asked.offset, key=lambda tick: tick.offset)
    return next((tick.offset for tick in islice(ticks, after, None) if tick_us_of(tick) >= due_us), None)


def _plan(reader: LogReader, product: str, partition: int) -> Plan:
    kept = reader.read_compacted(scores_state_topic(product), partition)
    return next((decode_plan(message.value or b"") for message in kept if message.key == PLAN_KEY), Plan())
