"""The ledger: every raw record is accounted for, by the set of records and never by offset arithmetic (SEMANTICS S13).

Per raw (partition, hour of ``receivedat``): ``raw = enriched + enriched letters + duplicates + in flight``, and
``enriched = lake = search`` by the set of records. Transactional topics have gaps in their offsets, so a missing offset
proves nothing; a missing *record* does. Raw letters stand apart: they never were in events.raw.

Frames, not objects: a million records are some ten columns of numbers and their ids. What bites: raw and enriched
records expire by segment and not together, so only the newest hours can be judged (`JUDGED_HOURS`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from headway.lake import INSTANT

# Events are kept for seven days; the last of them may have lost a segment of one topic and not yet of the other.
JUDGED_HOURS = 6 * 24

_PLACE = {"raw_partition": pl.Int32(), "raw_offset": pl.Int64()}
_NAME = {"source": pl.String(), "id": pl.String()}
# ``digest`` is of the record's bytes; a letter keeps those of the raw record it came from.
RAW_SCHEMA: Mapping[str, pl.DataType] = {
    **_PLACE,
    **_NAME,
    "hour": INSTANT,
    "digest": pl.UInt64(),
    "fixes": pl.String(),
}
EFFECT_SCHEMA: Mapping[str, pl.DataType] = {**_PLACE, **_NAME, "partition": pl.Int32(), "offset": pl.Int64()}
LETTER_SCHEMA: Mapping[str, pl.DataType] = {
    **_PLACE,
    "kind": pl.String(),
    "stage": pl.String(),
    "reason": pl.String(),
    "digest": pl.UInt64(),
    "partition": pl.Int32(),
    "offset": pl.Int64(),
}
_AT = ["raw_partition", "raw_offset"]
_COUNTED = ("raw", "enriched", "letters", "duplicates", "in_flight", "lake", "search")
# Differences that make the books wrong, and what each says of a record.
DIFFERENCES: Mapping[str, str] = {
    "lost": "became nothing, although later records of its partition were dealt with",
    "twice": "has more than one effect",
    "invented": "is an effect that no raw record explains",
    "not-in-lake": "was enriched and is not in the lake",
    "surplus-in-lake": "is in the lake and was not enriched",
    "not-in-search": "was enriched and is not in the search index",
    "surplus-in-search": "is in the search index and was not enriched",
}


@dataclass(frozen=True, kw_only=True)
class Books:
    """What the log and the stores hold, one row per record; ticks and bulk rows left out.

    Attributes:
        raw: `RAW_SCHEMA`; ``fixes`` names the letter that a replayed record stands for.
        enriched, lake: `EFFECT_SCHEMA`; partition and offset are those of the enriched record.
        letters: `LETTER_SCHEMA`, of the Enricher and of sinks; partition and offset are those of the letter.
        search: as ``enriched``; None when there is no search node to ask.
        lost_files: files of the lake's table that its log names and the disk does not hold.
    """

    raw: pl.DataFrame
    enriched: pl.DataFrame
    letters: pl.DataFrame
    lake: pl.DataFrame
    search: pl.DataFrame | None
    lost_files: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """The account of a stretch of events.raw.

    Attributes:
        hours: one row per (raw partition, hour) with the counts.
        differences: one row per record that is not as it should be: ``what`` (see `DIFFERENCES`), ``id``, ``source``,
            ``raw_partition``, ``raw_offset``, and ``hour``, null when no raw record explains it.
        searched: whether a search index was read.
    """

    hours: pl.DataFrame
    differences: pl.DataFrame
    searched: bool
    lost_files: tuple[str, ...]

    @property
    def balanced(self) -> bool:
        """Whether every accepted event is accounted for exactly once and nothing is still under way."""
        return self.in_flight == 0 and self.differences.is_empty() and not self.lost_files

    @property
    def raw(self) -> int:
        """Count the accepted events."""
        return self._sum("raw")

    @property
    def enriched(self) -> int:
        """Count those that were enriched."""
        return self._sum("enriched")

    @property
    def letters(self) -> int:
        """Count those that became letters."""
        return self._sum("letters")

    @property
    def duplicates(self) -> int:
        """Count those that repeat an enriched one."""
        return self._sum("duplicates")

    @property
    def in_flight(self) -> int:
        """Count those that nothing has become of yet, at the end of their partition."""
        return self._sum("in_flight")

    @property
    def lake(self) -> int:
        """Count the rows in the lake."""
        return self._sum("lake")

    @property
    def search(self) -> int | None:
        """Count the documents in the search index; None when it was not read."""
        return self._sum("search") if self.searched else None

    def count(self, what: str) -> int:
        """Count one kind of difference."""
        return self.differences.filter(pl.col("what") == what).height

    def named(self, what: str, *, limit: int) -> list[str]:
        """Name records of one kind of difference, ``id at partition@offset``, at most ``limit``."""
        rows = self.differences.filter(pl.col("what") == what).head(limit)
        return [
            f"{row['id'] or 'no id'} at {row['raw_partition']}@{row['raw_offset']}"
            for row in rows.iter_rows(named=True)
        ]

    def facts(self, *, limit: int) -> dict[str, Any]:
        """Return totals, hours and named differences as plain values."""
        by_hour = self.hours.with_columns(pl.col("hour").dt.to_string("%Y-%m-%dT%H:00Z")).to_dicts()
        return {
            **{name: getattr(self, name) for name in _COUNTED},
            "balanced": self.balanced,
            "differences": {what: n for what in DIFFERENCES if (n := self.count(what))},
            "named": {what: self.named(what, limit=limit) for what in DIFFERENCES if self.count(what)},
            "lost_files": list(self.lost_files),
            "hours": by_hour,
        }

    def _sum(self, column: str) -> int:
        return int(self.hours[column].sum())


def settle(books: Books, *, hours: int = JUDGED_HOURS) -> Ledger:
    """Account for the raw records of the newest ``hours`` hours by what became of them."""
    first = _first_judged(books.raw, hours)
    raw = _judged(books.raw, first)
    enriched, letters, lake = (_judged(frame, first) for frame in (books.enriched, books.letters, books.lake))
    search = None if books.search is None else _judged(books.search, first)
    rejected, refused = letters.filter(pl.col("kind") == "enriched"), letters.filter(pl.col("kind") == "sink")
    effects = pl.concat([enriched.select(_AT), rejected.select(_AT)])
    accounted = _what_became(raw, enriched, effects)
    differences = [
        _difference("lost", accounted.filter(pl.col("fate") == "lost")),
        _difference("twice", _repeated(effects, raw)),
        _difference("twice", _repeated(lake.select(_AT), raw)),
        _difference("invented", effects.unique().join(raw, on=_AT, how="anti")),
        _difference("not-in-lake", _wanted(enriched, refused, "lake-loader").join(lake, on=_AT, how="anti")),
        _difference("surplus-in-lake", lake.join(enriched, on=_AT, how="anti")),
    ]
    if search is not None:
        # Beyond the dedupe horizon an id may be enriched again; the document of the first stands for both.
        wanted = _wanted(enriched, refused, "search-loader")
        differences += [
            _difference("not-in-search", wanted.join(search, on=["source", "id"], how="anti")),
            _difference("surplus-in-search", search.join(enriched, on=_AT, how="anti")),
        ]
    return Ledger(
        hours=_by_hour(accounted, lake, search),
        differences=pl.concat(differences)
        .join(raw.select(*_AT, "hour"), on=_AT, how="left")
        .sort("what", *_AT, nulls_last=True),
        searched=search is not None,
        lost_files=books.lost_files,
    )


def _first_judged(raw: pl.DataFrame, hours: int) -> pl.DataFrame:
    """First raw offset per partition that is judged; records from there on are, whatever their hour."""
    since = pl.col("hour").max() - pl.duration(hours=hours - 1)
    newest = raw.with_columns(since=since)
    return newest.group_by("raw_partition").agg(
        first=pl.col("raw_offset")
        .filter(pl.col("hour") >= pl.col("since"))
        .min()
        .fill_null(pl.col("raw_offset").max() + 1)
    )


def _judged(frame: pl.DataFrame, first: pl.DataFrame) -> pl.DataFrame:
    """Leave out what lies before the judged stretch; a partition that events.raw does not know is judged whole."""
    known = frame.join(first, on="raw_partition", how="left")
    return known.filter(pl.col("raw_offset").is_null() | (pl.col("raw_offset") >= pl.col("first").fill_null(0))).drop(
        "first"
    )


def _what_became(raw: pl.DataFrame, enriched: pl.DataFrame, effects: pl.DataFrame) -> pl.DataFrame:
    """Add each raw record's ``fate``: enriched, letter, duplicate, lost or in-flight."""
    newest = effects.group_by("raw_partition").agg(newest=pl.col("raw_offset").max())
    accepted = raw.join(enriched.select(_AT).unique(), on=_AT, how="semi")
    known = accepted.group_by("raw_partition", "source", "id").agg(accepted_at=pl.col("raw_offset").min())
    return (
        raw.join(accepted.select(*_AT, is_enriched=pl.lit(value=True)), on=_AT, how="left")
        .join(effects.unique().with_columns(has_effect=pl.lit(value=True)), on=_AT, how="left")
        .join(known, on=["raw_partition", "source", "id"], how="left")
        .join(newest, on="raw_partition", how="left")
        .with_columns(
            fate=pl.when("is_enriched")
            .then(pl.lit("enriched"))
            .when("has_effect")
            .then(pl.lit("letter"))
            .when(pl.col("accepted_at") < pl.col("raw_offset"))
            .then(pl.lit("duplicate"))
            .when(pl.col("raw_offset") < pl.col("newest"))
            .then(pl.lit("lost"))
            .otherwise(pl.lit("in-flight"))
        )
        .select(*_AT, *_NAME, "hour", "fate")
    )


def _wanted(enriched: pl.DataFrame, refused: pl.DataFrame, stage: str) -> pl.DataFrame:
    """Enriched records that a store should hold: those its loader has made no sink letter of."""
    return enriched.join(refused.filter(pl.col("stage") == stage), on=_AT, how="anti")


def _repeated(places: pl.DataFrame, raw: pl.DataFrame) -> pl.DataFrame:
    again = places.group_by(_AT).len().filter(pl.col("len") > 1).drop("len")
    return again.join(raw.select(*_AT, *_NAME), on=_AT, how="left")


def _difference(what: str, rows: pl.DataFrame) -> pl.DataFrame:
    name = [pl.col(column) if column in rows.columns else pl.lit(None, pl.String()).alias(column) for column in _NAME]
    return rows.select(pl.lit(what).alias("what"), *name, *_AT)


def _by_hour(accounted: pl.DataFrame, lake: pl.DataFrame, search: pl.DataFrame | None) -> pl.DataFrame:
    def counted(fate: str) -> pl.Expr:
        return (pl.col("fate") == fate).sum()

    cell = ["raw_partition", "hour"]
    totals = accounted.group_by(cell).agg(
        raw=pl.len(),
        enriched=counted("enriched"),
        letters=counted("letter"),
        duplicates=counted("duplicate"),
        in_flight=counted("in-flight"),
    )
    hours = accounted.select(*_AT, "hour")
    for name, store in (("lake", lake), ("search", search)):
        if store is None:
            totals = totals.with_columns(pl.lit(None, pl.UInt32()).alias(name))
            continue
        held = store.join(hours, on=_AT).group_by(cell).agg(pl.len().alias(name))
        totals = totals.join(held, on=cell, how="left").with_columns(pl.col(name).fill_null(0))
    return (
        totals.rename({"raw_partition": "partition"}).sort("hour", "partition").select("hour", "partition", *_COUNTED)
    )
