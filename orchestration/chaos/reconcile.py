"""Judges a drive: its journal against what the log and the stores hold, invariant by invariant. Pure.

``unknown`` sends may be there or not, but never in part and never twice; the ledger (S13) settles what follows from
events.raw on, and this settles that events.raw follows from the journal. Offenders are named with their offsets.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from headway.ledger import Books, settle
from orchestration.chaos.load import LETTERS

INVARIANTS: Mapping[str, str] = {
    "I1": "every acknowledged event became an enriched event or a letter; every 4xx for an envelope left its letter",
    "I2": "every event has exactly one effect in each store",
    "I3": "nothing is anywhere that was not sent",
    "I4": "every class landed where it should, for the right reason",
    "I5": "no event stands before one that was acknowledged before it was sent, per key",
    "I6": "letters hold the original bytes",
    "I7": "every row of a store names the record it came from",
    "I8": "what was refused appears nowhere",
}
_AT = ["raw_partition", "raw_offset"]
# Offenders named per invariant; all are counted.
_NAMED = 20


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a reconciliation found.

    Attributes:
        acked: events acknowledged at least once; the n of the claim.
        counts: sends and events by outcome and kind, and the ledger's totals.
        violations: one row per offence: ``invariant``, ``what``, ``id`` and ``at`` (partition@offset in events.raw).
    """

    acked: int
    counts: Mapping[str, Any]
    violations: pl.DataFrame

    @property
    def held(self) -> bool:
        """Whether no invariant was broken."""
        return self.violations.is_empty()

    def named(self) -> dict[str, list[str]]:
        """Return the offenders by invariant, in words, the first twenty of each."""
        named: dict[str, list[str]] = {}
        for row in self.violations.sort("invariant", "what", "id").iter_rows(named=True):
            lines = named.setdefault(row["invariant"], [])
            if len(lines) < _NAMED:
                lines.append(f"{row['what']}: {row['id'] or 'no id'} at {row['at'] or 'no raw record'}")
        return named

    def facts(self) -> dict[str, Any]:
        """Return it as plain values."""
        by = self.violations.group_by("invariant").len().rows() if self.violations.height else []
        return {**self.counts, "broken": dict(sorted(by)), "named": self.named()}


def reconcile(journal: pl.DataFrame, books: Books, raw_letters: pl.DataFrame) -> Verdict:
    """Judge a drive at quiescence.

    Args:
        journal: see `orchestration.chaos.journal.SCHEMA`.
        books: what `streaming.accounts.read_books` read.
        raw_letters: ``digest`` (of the original bytes) and ``reason``, one row per letter of events.raw.dlq.
    """
    events = _events(journal)
    at = pl.format("{}@{}", "raw_partition", "raw_offset").alias("at")
    raw = books.raw.with_columns(at)
    rejected = books.letters.filter(pl.col("kind") == "enriched").join(raw.select(*_AT, "id", "at"), on=_AT, how="left")
    enriched = books.enriched.with_columns(at)
    dealt_with = pl.concat([enriched.select("id", "at"), rejected.select("id", "at")])
    first_at = raw.group_by("id").agg(pl.col("at").first())
    valid = events.filter(pl.col("kind") == "valid")
    acked = events.filter("acked")
    enveloped = events.filter((pl.col("kind") == "invalid-envelope") & pl.col("refused_400"))
    kept = enveloped.join(raw_letters.unique("digest"), on="digest", how="semi")
    stores = {"lake": books.lake, **({} if books.search is None else {"search": books.search})}
    ledger = settle(books)
    offences = [
        _offence("I1", "acknowledged and lost", acked.join(dealt_with, on="id", how="anti"), first_at),
        _offence("I1", "4xx without its letter", enveloped.join(kept, on="id", how="anti"), None),
        _offence("I2", "several effects", _several(dealt_with), first_at),
        *(_offence("I2", f"several rows in {name}", _several(rows), first_at) for name, rows in stores.items()),
        _offence("I2", "several raw letters", _several_letters(events, raw_letters), None),
        *(
            _offence("I2", f"ledger: {what}", rows, None)
            for (what,), rows in ledger.differences.with_columns(at).group_by("what")
        ),
        *(
            _offence("I3", f"invented in {name}", rows.join(events, on="id", how="anti"), first_at)
            for name, rows in {"raw": raw, "enriched": enriched, **stores}.items()
        ),
        _offence("I4", "valid and not enriched", valid.join(rejected, on="id", how="semi"), first_at),
        _offence("I4", "valid and refused", valid.filter("refused_400"), None),
        _offence("I4", "another fate than its kind's", _misjudged(events, enriched, rejected, raw_letters), first_at),
        _offence("I5", "out of order", _disordered(events, enriched), None),
        _offence("I6", "letter with other bytes", _altered(rejected, raw), None),
        *(
            _offence("I7", f"{name} row without its source", _unplaced(rows, enriched), None)
            for name, rows in stores.items()
        ),
        _offence("I8", "refused and there", events.filter("only_refused").join(raw, on="id", how="semi"), first_at),
    ]
    unsettled = ledger.in_flight
    if unsettled:
        offences.append(_words("I2", f"{unsettled} raw records became nothing"))
    offences += [_words("I2", f"the lake lost {file}") for file in ledger.lost_files]
    counts = {
        "sends": journal.height,
        "by_outcome": dict(sorted(journal.group_by("outcome").len().rows())),
        "by_kind": dict(sorted(events.group_by("kind").len().rows())),
        "singles_acked": journal.filter(~pl.col("batch") & (pl.col("outcome") == "acked")).height,
        "ledger": {k: v for k, v in ledger.facts(limit=_NAMED).items() if k not in ("hours", "named")},
    }
    return Verdict(acked=acked.height, counts=counts, violations=pl.concat(offences))


def _events(journal: pl.DataFrame) -> pl.DataFrame:
    """One row per event: its kind is that of its first send, its times the earliest."""
    acked, refused = pl.col("outcome") == "acked", pl.col("outcome") == "refused"
    return journal.group_by("id", maintain_order=True).agg(
        pl.col("key").first(),
        pl.col("kind").first(),
        pl.col("digest").first(),
        sent_s=pl.col("sent_s").min(),
        acked_s=pl.col("answered_s").filter(acked).min(),
        acked=acked.any(),
        only_refused=refused.all() & ~(pl.col("kind").first() == "invalid-envelope"),
        # 429 says nothing about the event.
        refused_400=(refused & (pl.col("status") >= 400) & (pl.col("status") != 429)).any(),
    )


def _several(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.group_by("id").len().filter(pl.col("len") > 1)


def _several_letters(events: pl.DataFrame, raw_letters: pl.DataFrame) -> pl.DataFrame:
    again = raw_letters.group_by("digest").len().filter(pl.col("len") > 1)
    return events.join(again, on="digest", how="semi")


def _misjudged(
    events: pl.DataFrame, enriched: pl.DataFrame, rejected: pl.DataFrame, raw_letters: pl.DataFrame
) -> pl.DataFrame:
    """Faulty events that were enriched, or that became a letter for another reason than their own."""
    faulty = events.filter(pl.col("kind") != "valid")
    let_through = faulty.join(enriched, on="id", how="semi")
    wanted = pl.col("kind").replace_strict(LETTERS, default=None)
    other = events.join(rejected.select("id", "reason"), on="id").filter(pl.col("reason") != wanted)
    enveloped = events.join(raw_letters.select("digest", "reason"), on="digest").filter(
        (pl.col("reason") != "invalid-envelope") | (pl.col("kind") != "invalid-envelope")
    )
    return pl.concat([each.select("id") for each in (let_through, other, enveloped)])


def _disordered(events: pl.DataFrame, enriched: pl.DataFrame) -> pl.DataFrame:
    """Events that stand behind one of their key that was sent only after they had been acknowledged."""
    placed = enriched.join(events.select("id", "key", "sent_s", "acked_s"), on="id").sort("partition", "offset")
    behind = placed.with_columns(latest_before=pl.col("sent_s").cum_max().shift(1).over("key"))
    return behind.filter(pl.col("latest_before") > pl.col("acked_s"))


def _altered(rejected: pl.DataFrame, raw: pl.DataFrame) -> pl.DataFrame:
    both = rejected.join(raw.select(*_AT, raw_digest="digest"), on=_AT)
    return both.filter(pl.col("digest") != pl.col("raw_digest"))


def _unplaced(rows: pl.DataFrame, enriched: pl.DataFrame) -> pl.DataFrame:
    place = ["id", *_AT, "partition", "offset"]
    return rows.join(enriched, on=place, how="anti").with_columns(at=pl.format("{}@{}", "raw_partition", "raw_offset"))


def _offence(invariant: str, what: str, rows: pl.DataFrame, first_at: pl.DataFrame | None) -> pl.DataFrame:
    if "at" not in rows.columns:
        rows = (
            rows.with_columns(at=pl.lit(None, pl.String))
            if first_at is None
            else rows.join(first_at, on="id", how="left")
        )
    return rows.select(pl.lit(invariant).alias("invariant"), pl.lit(what).alias("what"), "id", "at")


def _words(invariant: str, what: str) -> pl.DataFrame:
    return pl.DataFrame(
        [(invariant, what, None, None)],
        schema=dict.fromkeys(("invariant", "what", "id", "at"), pl.String()),
        orient="row",
    )
