"""The stream's path for `orchestration.scoring_paths`: the scorer's own handler, given events that are due as they come."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

import msgspec

from headway.adapters.memory_registry import MemoryRegistry
from headway.clock import FrozenClock, from_us, to_us
from headway.events import TYPE_HEADER, Event, encode_event
from headway.path_parity import PathAnswer, Scored, Unanswered
from headway.ports import Message, Record
from headway.product import Product
from headway.registry import LIVE
from headway.scores import decode_score
from headway.ticks import TICK_BEFORE_HEADER
from headway.topics import EVENTS_ENRICHED, EVENTS_ENRICHED_LETTERS, scores_topic
from orchestration.asking import Asking, Recorder
from orchestration.request_paths import RowStore
from orchestration.scoring_rows import Row
from streaming.due_reads import OnlineReads
from streaming.handlers.score import ScoreHandler
from streaming.live_models import LiveModels


def by_stream(asking: Asking) -> list[PathAnswer]:
    """Have all rows asked by events of one batch."""
    records, recorder = ask_scorer(asking)
    return _answers(asking.product, records, recorder)


def ask_scorer(asking: Asking) -> tuple[Sequence[Record], Recorder]:
    """Return what the scorer would write, and what its model was given."""
    predictor, recorder = asking.open()
    # A row names its instant itself, where an event leaves it to the product.
    product = replace(asking.product, asked_at_us=lambda request: to_us(request.as_of))
    registry = MemoryRegistry()
    made = registry.register(asking.model, asking.manifest, metrics={}, params={}, tags={}, run=None)
    registry.set_alias(product.name, LIVE, made.version)
    models = LiveModels(product.name, registry, lambda _: predictor)
    models.look()
    with closing(OnlineReads(product, RowStore(asking))) as reads:
        scorer = ScoreHandler(
            product,
            models=models,
            reads=reads,
            reference=asking.reference,
            restore=lambda _topic, _partition: (),
            clock=FrozenClock(from_us(max(row.as_of_us for row in asking.rows))),
        )
        scorer.assigned([0])
        records = scorer.handle([_asked(product, row, place) for place, row in enumerate(asking.rows)])
    return records, recorder


def _asked(product: Product, row: Row, offset: int) -> Message:
    event = Event(
        id=row.name,
        source=product.domain.source,
        type=product.asked_by or "",
        subject=row.name,
        time_us=row.as_of_us,
        data=msgspec.to_builtins(row.request),
    )
    headers = ((TYPE_HEADER, event.type.encode()), (TICK_BEFORE_HEADER, b"%d" % row.as_of_us))
    return Message(EVENTS_ENRICHED, 0, offset, row.name.encode(), encode_event(event), headers, 0)


def _answers(product: Product, records: Sequence[Record], recorder: Recorder) -> list[PathAnswer]:
    """One answer per row, in the order of the rows; the vectors come in the order of the scores."""
    found: dict[int, PathAnswer] = {}
    vectors = iter(recorder.vectors)
    for record in records:
        if record.topic == scores_topic(product.name):
            score = decode_score(record.value or b"")
            found[score.input.offset] = Scored(score=score.probability, logged=score.probability, vector=next(vectors))
        elif record.topic == EVENTS_ENRICHED_LETTERS:
            told = dict(record.headers)
            found[int(told["letter_offset"])] = Unanswered(told["letter_detail"].decode())
    return [found[offset] for offset in sorted(found)]
