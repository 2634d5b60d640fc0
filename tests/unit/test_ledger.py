from collections.abc import Iterable
from datetime import UTC, datetime

import polars as pl
import pytest

from headway.ledger import EFFECT_SCHEMA, LETTER_SCHEMA, RAW_SCHEMA, Books, settle

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
Place = tuple[int, int]


def raw_of(*records: tuple[int, int, str], hour: datetime = NOON) -> pl.DataFrame:
    rows = [(partition, offset, "/source", name, hour, 7, None) for partition, offset, name in records]
    return pl.DataFrame(rows, schema=dict(RAW_SCHEMA), orient="row")


def books(
    raw: pl.DataFrame,
    *,
    enriched: Iterable[Place],
    letters: Iterable[Place] = (),
    refused: Iterable[Place] = (),
    lake: Iterable[Place] | None = None,
    search: Iterable[Place] | None = None,
    lost_files: tuple[str, ...] = (),
) -> Books:
    enriched = list(enriched)
    names = {(p, o): name for p, o, _, name, *_ in raw.iter_rows()}

    def effects(places: Iterable[Place]) -> pl.DataFrame:
        rows = [(*place, "/source", names.get(place, "?"), *place) for place in places]
        return pl.DataFrame(rows, schema=dict(EFFECT_SCHEMA), orient="row")

    return Books(
        raw=raw,
        enriched=effects(enriched),
        letters=pl.DataFrame(
            [
                *((*place, "enriched", "enricher", "unparseable", 7, *place) for place in letters),
                *((*place, "sink", "search-loader", "mapping", 7, *place) for place in refused),
            ],
            schema=dict(LETTER_SCHEMA),
            orient="row",
        ),
        lake=effects(enriched if lake is None else lake),
        search=None if search is None else effects(search),
        lost_files=lost_files,
    )


def test_a_clean_stretch_balances_with_letters_and_duplicates_apart() -> None:
    raw = raw_of((0, 0, "a"), (0, 2, "b"), (0, 3, "a"), (1, 0, "c"))

    ledger = settle(books(raw, enriched=[(0, 0), (1, 0)], letters=[(0, 2)]))

    assert (ledger.raw, ledger.enriched, ledger.letters, ledger.duplicates, ledger.lake) == (4, 2, 1, 1, 2)
    assert ledger.balanced


def test_a_record_that_became_nothing_is_named_as_lost_once_later_ones_were_dealt_with() -> None:
    ledger = settle(books(raw_of((0, 0, "a"), (0, 1, "b"), (0, 2, "c")), enriched=[(0, 0), (0, 2)]))

    assert ledger.named("lost", limit=9) == ["b at 0@1"]
    assert not ledger.balanced


def test_a_record_at_the_end_is_in_flight_and_not_lost() -> None:
    ledger = settle(books(raw_of((0, 0, "a"), (0, 1, "b")), enriched=[(0, 0)]))

    assert (ledger.in_flight, ledger.count("lost")) == (1, 0)
    assert not ledger.balanced


def test_a_repeat_is_a_duplicate_only_after_the_one_that_was_accepted() -> None:
    """First write wins: an earlier record of the same id that became nothing is lost, whatever came later."""
    ledger = settle(books(raw_of((0, 0, "a"), (0, 1, "a")), enriched=[(0, 1)]))

    assert (ledger.duplicates, ledger.named("lost", limit=9)) == (0, ["a at 0@0"])


def test_effects_without_a_cause_and_double_effects_are_named() -> None:
    ledger = settle(books(raw_of((0, 0, "a")), enriched=[(0, 0)], letters=[(0, 0), (0, 9)]))

    assert ledger.named("twice", limit=9) == ["a at 0@0"]
    assert ledger.named("invented", limit=9) == ["no id at 0@9"]


def test_the_lake_is_compared_in_both_directions_and_its_double_rows_are_named() -> None:
    raw = raw_of((0, 0, "a"), (0, 1, "b"))

    ledger = settle(books(raw, enriched=[(0, 0), (0, 1)], lake=[(0, 1), (0, 1), (0, 7)]))

    assert ledger.named("not-in-lake", limit=9) == ["a at 0@0"]
    assert ledger.named("surplus-in-lake", limit=9) == ["? at 0@7"]
    assert ledger.named("twice", limit=9) == ["b at 0@1"]


def test_the_search_index_is_compared_by_id_and_left_out_when_there_is_none() -> None:
    raw = raw_of((0, 0, "a"), (0, 1, "b"))
    without = settle(books(raw, enriched=[(0, 0), (0, 1)]))
    ledger = settle(books(raw, enriched=[(0, 0), (0, 1)], search=[(0, 1), (0, 5)]))

    assert (without.search, without.balanced) == (None, True)
    assert ledger.named("not-in-search", limit=9) == ["a at 0@0"]
    assert ledger.named("surplus-in-search", limit=9) == ["? at 0@5"]
    assert not ledger.balanced


def test_a_letter_of_a_sink_explains_what_is_missing_there_and_nowhere_else() -> None:
    raw = raw_of((0, 0, "a"), (0, 1, "b"))

    ledger = settle(books(raw, enriched=[(0, 0), (0, 1)], refused=[(0, 1)], lake=[(0, 0)], search=[(0, 0)]))

    assert (ledger.letters, ledger.count("not-in-search")) == (0, 0)
    assert ledger.named("not-in-lake", limit=9) == ["b at 0@1"]


def test_a_lost_file_of_the_lake_unbalances_even_when_no_row_is_missed() -> None:
    ledger = settle(books(raw_of((0, 0, "a")), enriched=[(0, 0)], lost_files=("month=2026-05/x.parquet",)))

    assert not ledger.balanced


def test_counts_are_told_per_partition_and_hour_of_receipt() -> None:
    raw = pl.concat([raw_of((0, 0, "a"), (1, 0, "b")), raw_of((0, 1, "c"), hour=NOON.replace(hour=13))])

    ledger = settle(books(raw, enriched=[(0, 0), (1, 0), (0, 1)]))

    told = ledger.hours.select("hour", "partition", "raw", "lake").rows()
    assert told == [(NOON, 0, 1, 1), (NOON, 1, 1, 1), (NOON.replace(hour=13), 0, 1, 1)]


def test_only_the_newest_hours_are_judged_and_what_expired_before_them_is_no_loss() -> None:
    """Segments of raw and enriched records expire apart: an old raw record without its effect is no loss."""
    raw = pl.concat([raw_of((0, 0, "a"), (1, 4, "z"), hour=NOON.replace(hour=1)), raw_of((0, 1, "b"))])

    ledger = settle(books(raw, enriched=[(0, 1)], lake=[(0, 0), (0, 1), (1, 3)]), hours=2)

    assert (ledger.raw, ledger.balanced) == (1, True)


@pytest.mark.parametrize("missing", ["in_flight", "lost"])
def test_facts_are_plain_and_carry_hours_and_names(missing: str) -> None:
    kept = [(0, 0)] if missing == "in_flight" else [(0, 0), (0, 2)]

    facts = settle(
        books(raw_of((0, 0, "a"), (0, 1, "b"), *([(0, 2, "c")] if missing == "lost" else [])), enriched=kept)
    )

    told = facts.facts(limit=5)
    assert told["balanced"] is False
    assert told["hours"][0]["hour"] == "2026-05-01T12:00Z"
    assert told["named"] == ({"lost": ["b at 0@1"]} if missing == "lost" else {})
