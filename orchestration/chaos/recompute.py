"""Values of the feature job held to those recomputed from the events, by the judge of parity (S8).

An answer is what the changelog, or the online store, says of an entity as of an instant. Each mismatch names view,
feature, entity, and the first event after which the two differ, with its offset.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import polars as pl

from headway.clock import format_us
from headway.contracts import Domain
from headway.features.as_of import REQUEST_TIME, join_as_of
from headway.features.changelog import streamed_changelog
from headway.features.definitions import FeatureView
from headway.features.offline import AS_OF
from headway.features.parity import RECEIPT, Mismatch, ServedView, check_parity
from headway.features.tiles import empty_values
from headway.ports import LogReader, Message
from headway.topics import EVENTS_ENRICHED, features_topic
from streaming.sinks.lake import event_rows

_UNTIL, _ROW_TIME = "served_until_us", "row_time"
_POLARS = {"int64": pl.Int64(), "float64": pl.Float64()}
# Records become columns in parts, so that a year costs the memory of its columns and not of its records.
_PART = 50_000
_NAMED = 20


@dataclass(frozen=True, kw_only=True)
class Compared:
    """How many answers were compared, of how many entities, how many values differ, and the first of those."""

    answers: int
    entities: int
    values: int
    wrong: int
    named: Sequence[str]


def read_events(reader: LogReader, domain: Domain) -> pl.DataFrame:
    """Return the lake rows of events.enriched, with the columns that views and the judge read."""
    read = {"id", "type", "time", "topic", "partition", "offset", "tick_before", "too_late"}
    read |= {name for view in domain.views for name in (*view.keys, *view.fields)}
    parts = (event_rows(domain, part) for part in _parts(reader.read(EVENTS_ENRICHED)))
    return pl.concat([part.select(sorted(read)) for part in parts], rechunk=True)


def read_changelog(reader: LogReader, view: FeatureView) -> pl.DataFrame:
    """Return the rows of a view's changelog as the lake would hold them: keys, instants, revision, features."""
    wanted = [*view.keys, "event_timestamp", "revision", "known_at", *view.columns, "partition"]
    parts = (streamed_changelog(view, part) for part in _parts(reader.read(features_topic(view.qualified))))
    empty = streamed_changelog(view, [])
    return pl.concat([part.select(wanted) for part in (empty, *parts)], rechunk=True)


def draw_questions(
    rows: pl.DataFrame, view: FeatureView, *, count: int, start_us: int, end_us: int, seed: int
) -> pl.DataFrame:
    """Return ``count`` random pairs of entity and instant: half anywhere, half at a row's instant or 1 us beside it."""
    draw = np.random.default_rng(seed)
    keys = rows.select(view.keys).unique().sort(view.keys)
    anywhere = keys[draw.integers(keys.height, size=count // 2)].with_columns(
        pl.Series(AS_OF, draw.integers(start_us + 1, end_us + 1, size=count // 2))
    )
    chosen = rows[draw.integers(rows.height, size=count - count // 2)]
    beside = pl.Series(draw.integers(-1, 2, size=chosen.height))
    at_rows = chosen.select(*view.keys, (pl.col("event_timestamp").dt.timestamp("us") + beside).alias(AS_OF))
    return pl.concat([anywhere, at_rows]).with_columns(pl.col(AS_OF).clip(start_us, end_us))


def joined_answers(rows: pl.DataFrame, view: FeatureView, questions: pl.DataFrame) -> pl.DataFrame:
    """Return what a point-in-time join finds for each question: the newest row's values, or those of no row (S10)."""
    requests = questions.with_columns(pl.col(AS_OF).cast(pl.Datetime("us", "UTC")).alias(REQUEST_TIME))
    renamed = rows.lazy().select(
        *view.keys, pl.col("event_timestamp").alias(_ROW_TIME), pl.col("revision"), *view.columns
    )
    found = join_as_of(requests, renamed, keys=view.keys, order=[_ROW_TIME, "revision"])
    absent = pl.col(_ROW_TIME).is_null()
    return found.select(
        *view.keys,
        AS_OF,
        *(
            pl.when(absent).then(pl.lit(value, _POLARS[view.columns[name]])).otherwise(pl.col(name)).alias(name)
            for name, value in empty_values(view).items()
        ),
    )


def entities_of(events: pl.DataFrame, view: FeatureView) -> pl.DataFrame:
    """Return the entities that events touch, one row each, in key order."""
    mine = events.filter(pl.col("type") == view.source)
    return mine.select(pl.col(key).cast(pl.String) for key in view.keys).drop_nulls().unique().sort(view.keys)


def answers_of(
    view: FeatureView, entities: pl.DataFrame, values: Sequence[tuple[object, ...]], *, as_of_us: int
) -> pl.DataFrame:
    """Return values, one row per entity in the view's order of features, as answers as of one instant.

    What the store has no row of is null throughout, and says the same as a row of empty windows (S10).
    """
    schema = {name: _POLARS[dtype] for name, dtype in view.columns.items()}
    empty = tuple(empty_values(view).values())
    filled = [empty if all(value is None for value in each) else each for each in values]
    said = pl.DataFrame(filled, schema=schema, orient="row")
    return entities.with_columns(pl.lit(as_of_us, pl.Int64).alias(AS_OF)).hstack(said)


def compare(view: FeatureView, answers: pl.DataFrame, events: pl.DataFrame, *, until_us: int, who: str) -> Compared:
    """Hold answers, given when everything up to ``until_us`` was known, to the values that the events give."""
    log = answers.with_columns(
        pl.format("{} {}", pl.lit(who), pl.int_range(pl.len())).alias(RECEIPT),
        pl.lit(until_us, pl.Int64).alias(_UNTIL),
    )
    names = {name: name for name in view.columns}
    served = ServedView(view=view, keys={key: key for key in view.keys}, features=names, watermark=_UNTIL)
    told = check_parity(log, events, [served])
    return Compared(
        answers=answers.height,
        entities=answers.select(view.keys).unique().height,
        values=told.checked,
        wrong=told.mismatched,
        named=[_line(mismatch, who) for mismatch in told.mismatches[:_NAMED]],
    )


def _line(wrong: Mismatch, who: str) -> str:
    place = wrong.first.position
    named = "no event" if place is None else f"{place.event_id} at {place.topic}[{place.partition}]@{place.offset}"
    return (
        f"{wrong.view} {wrong.feature} of {'/'.join(map(str, wrong.key))} at {format_us(wrong.as_of_us)}: {who} "
        f"{wrong.served}, events say {wrong.expected}; first {named} ({wrong.first.cause}: {wrong.first.says})"
    )


def _parts(messages: Iterator[Message]) -> Iterator[list[Message]]:
    while part := list(islice(messages, _PART)):
        yield part
