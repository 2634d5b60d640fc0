"""The reconciler against drives whose outcome is known: it must hold on a clean one and name each planted offence."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from headway.ledger import EFFECT_SCHEMA, LETTER_SCHEMA, RAW_SCHEMA, Books
from orchestration.chaos.journal import Journal, read_journal
from orchestration.chaos.reconcile import Verdict, reconcile

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
# send: (id, kind, outcome, status, sent, answered); all of one key and partition
Told = tuple[str, str, str, int, float, float]
CLEAN: list[Told] = [
    ("a", "valid", "acked", 202, 0.0, 0.1),
    ("b", "valid", "unknown", 503, 1.0, 1.1),
    ("a", "duplicate", "acked", 202, 2.0, 2.1),
    ("c", "schema-violation", "acked", 202, 3.0, 3.1),
    ("d", "invalid-envelope", "refused", 400, 4.0, 4.1),
    ("e", "oversize", "refused", 413, 5.0, 5.1),
    ("f", "valid", "refused", 0, 6.0, 6.1),
    ("g", "valid", "acked", 202, 7.0, 7.1),
]
DIGESTS = {name: number for number, name in enumerate("abcdefgx")}


def journal_of(tmp_path: Path, sends: list[Told]) -> pl.DataFrame:
    journal = Journal(tmp_path / "journal.jsonl")
    for seq, (name, kind, outcome, status, sent_s, answered_s) in enumerate(sends):
        send = journal.intend(
            id=name, key="k", seq=seq, kind=kind, digest=DIGESTS[name], sent_s=sent_s, batch=seq % 2 == 0
        )
        journal.told(send, outcome, status=status, answered_s=answered_s)  # type: ignore[arg-type]
    journal.close()
    return read_journal(journal.path)


class Plane:
    """What became of the clean drive; tests spoil one list."""

    def __init__(self) -> None:
        self.raw = [(0, "a"), (1, "b"), (2, "a"), (3, "c"), (4, "g")]
        self.enriched = [(0, "a", 10), (1, "b", 11), (4, "g", 12)]
        self.lake = list(self.enriched)
        self.letters = [(3, "schema-violation", DIGESTS["c"])]
        self.raw_letters = [(DIGESTS["d"], "invalid-envelope")]

    def judge(self, journal: pl.DataFrame) -> Verdict:
        raw = [(0, offset, "/s", name, NOON, DIGESTS[name], None) for offset, name in self.raw]
        letters = [(0, at, "enriched", "enricher", why, digest, 0, at) for at, why, digest in self.letters]
        books = Books(
            raw=pl.DataFrame(raw, schema=dict(RAW_SCHEMA), orient="row"),
            enriched=self.effects(self.enriched),
            letters=pl.DataFrame(letters, schema=dict(LETTER_SCHEMA), orient="row"),
            lake=self.effects(self.lake),
            search=None,
        )
        kept = pl.DataFrame(self.raw_letters, schema={"digest": pl.UInt64(), "reason": pl.String()}, orient="row")
        return reconcile(journal, books, kept)

    @staticmethod
    def effects(rows: list[tuple[int, str, int]]) -> pl.DataFrame:
        return pl.DataFrame(
            [(0, raw, "/s", name, 0, offset) for raw, name, offset in rows], schema=dict(EFFECT_SCHEMA), orient="row"
        )


def test_a_clean_drive_holds_with_every_class_where_it_belongs(tmp_path: Path) -> None:
    verdict = Plane().judge(journal_of(tmp_path, CLEAN))

    assert verdict.held, verdict.named()
    assert verdict.acked == 3
    assert verdict.counts["by_outcome"] == {"acked": 4, "refused": 3, "unknown": 1}


def lose_acked(plane: Plane) -> None:
    plane.raw.pop()
    plane.enriched.pop()
    plane.lake.pop()


def lose_letter(plane: Plane) -> None:
    plane.raw_letters.clear()


def double(plane: Plane) -> None:
    plane.raw.append((5, "g"))
    plane.enriched.append((5, "g", 13))
    plane.lake.append((5, "g", 13))


def double_in_lake(plane: Plane) -> None:
    plane.lake.append(plane.lake[0])


def invent(plane: Plane) -> None:
    plane.raw.append((5, "x"))
    plane.enriched.append((5, "x", 13))
    plane.lake.append((5, "x", 13))


def misname_reason(plane: Plane) -> None:
    plane.letters[0] = (3, "unknown-type", DIGESTS["c"])


def reorder(plane: Plane) -> None:
    plane.enriched[0], plane.enriched[2] = (0, "a", 12), (4, "g", 10)
    plane.lake[:] = plane.enriched


def alter_letter(plane: Plane) -> None:
    plane.letters[0] = (3, "schema-violation", 99)


def misplace(plane: Plane) -> None:
    plane.lake[0] = (0, "a", 77)


def keep_refused(plane: Plane) -> None:
    plane.raw.append((5, "e"))
    plane.letters.append((5, "schema-violation", DIGESTS["e"]))


def lose_in_lake(plane: Plane) -> None:
    plane.lake.pop()


@pytest.mark.parametrize(
    ("spoil", "invariant", "offender"),
    [
        (lose_acked, "I1", "acknowledged and lost: g at no raw record"),
        (lose_letter, "I1", "4xx without its letter: d at no raw record"),
        (double, "I2", "several effects: g at 0@4"),
        (double_in_lake, "I2", "several rows in lake: a at 0@0"),
        (lose_in_lake, "I2", "ledger: not-in-lake: g at 0@4"),
        (invent, "I3", "invented in raw: x at 0@5"),
        (misname_reason, "I4", "another fate than its kind's: c at 0@3"),
        (reorder, "I5", "out of order: a at 0@0"),
        (alter_letter, "I6", "letter with other bytes: c at 0@3"),
        (misplace, "I7", "lake row without its source: a at 0@0"),
        (keep_refused, "I8", "refused and there: e at 0@5"),
    ],
)
def test_each_offence_is_named_with_its_record(
    tmp_path: Path, spoil: Callable[[Plane], None], invariant: str, offender: str
) -> None:
    plane = Plane()
    spoil(plane)

    verdict = plane.judge(journal_of(tmp_path, CLEAN))

    assert not verdict.held
    assert offender in verdict.named()[invariant]


def test_an_unknown_send_may_be_absent(tmp_path: Path) -> None:
    plane = Plane()
    plane.raw.remove((1, "b"))
    plane.enriched.remove((1, "b", 11))
    plane.lake.remove((1, "b", 11))

    assert plane.judge(journal_of(tmp_path, CLEAN)).held


def test_an_unknown_send_may_land_late_without_being_out_of_order(tmp_path: Path) -> None:
    """b was given up by its client and reached the log after g: nobody was promised its place."""
    plane = Plane()
    plane.enriched[1], plane.enriched[2] = (1, "b", 12), (4, "g", 11)
    plane.lake[:] = plane.enriched

    assert plane.judge(journal_of(tmp_path, CLEAN)).held


def test_a_send_without_a_result_is_unknown(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.intend(id="a", key="k", seq=1, kind="valid", digest=1, sent_s=0.0, batch=False)
    journal.close()

    assert read_journal(journal.path)["outcome"].to_list() == ["unknown"]
