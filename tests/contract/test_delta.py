"""What the lake promises, against real Delta tables on disk."""

import os
import re
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domains.flights.domain import DOMAIN
from headway.adapters.delta import Lake
from headway.clock import DAY_US, HOUR_US, to_us
from headway.errors import ContractViolation, Overtaken, PermanentFailure
from headway.lake import INSTANT, LakeTable, as_table, events_table

T0 = datetime(2013, 7, 31, 22, tzinfo=UTC)
T0_US = to_us(T0)
NUMBERS = LakeTable(name="numbers", columns={"n": pl.Int64(), "at": INSTANT, "note": pl.String()}, required=("n",))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path)
    lake.create(NUMBERS)
    return lake


def numbers(*values: int) -> pl.DataFrame:
    return pl.DataFrame(
        {"n": list(values), "at": [T0] * len(values), "note": [None] * len(values)},
        schema={"n": pl.Int64, "at": INSTANT, "note": pl.String},
    )


def kept(lake: Lake) -> list[int]:
    return sorted(lake.read("numbers")["n"])


def hours(*offsets: int, topic: str | None = None) -> pl.DataFrame:
    """One weather event per hour after T0, with its hour as id."""
    times = [T0 + timedelta(hours=offset) for offset in offsets]
    frame = pl.DataFrame(
        {
            "id": [f"w{offset}" for offset in offsets],
            "source": DOMAIN.source,
            "type": "weather.observed.v1",
            "subject": "EWR",
            "time": pl.Series(times, dtype=INSTANT),
            "topic": pl.Series([topic] * len(offsets), dtype=pl.String),
        }
    )
    return as_table(frame, events_table(DOMAIN))


def test_what_is_appended_is_read_back_with_its_types(lake: Lake) -> None:
    lake.append("numbers", numbers(1, 2))

    assert lake.read("numbers").sort("n").equals(numbers(1, 2))
    assert lake.read("numbers", columns=["n"], predicate=pl.col("n") > 1).rows() == [(2,)]


def test_a_batch_is_written_once_however_often_it_is_offered(lake: Lake) -> None:
    """delta-rs itself accepts the repeat: see the next test."""
    first = lake.append_once("numbers", numbers(1, 2), app_id="events.enriched-0", version=17)
    again = lake.append_once("numbers", numbers(1, 2), app_id="events.enriched-0", version=17)
    older = lake.append_once("numbers", numbers(1), app_id="events.enriched-0", version=11)

    assert (first, again, older) == (True, False, False)
    assert kept(lake) == [1, 2]
    assert lake.committed("numbers", "events.enriched-0") == 17


def test_delta_alone_would_take_a_repeat(lake: Lake) -> None:
    """The reason `append_once` reads first; the day this fails, that read may go."""
    for _ in range(2):
        write_deltalake(
            lake.path("numbers"),
            numbers(1),
            mode="append",
            commit_properties=CommitProperties(app_transactions=[Transaction("p-0", 5)]),
        )

    assert kept(lake) == [1, 1]


def test_two_writers_of_one_partition_at_once_write_one_copy(lake: Lake) -> None:
    """Both read, then both write: a lost lease. Delta refuses the second commit, and its repeat finds the first."""
    both = threading.Barrier(2)

    class Racing(Lake):
        def _append(self, *arguments: object) -> None:
            both.wait(timeout=20)
            super()._append(*arguments)  # type: ignore[arg-type]  # handed through

    outcomes: list[object] = []

    def write() -> None:
        try:
            outcomes.append(
                Racing(lake.path("numbers").parent).append_once("numbers", numbers(1), app_id="p-0", version=5)
            )
        except Overtaken as failure:
            outcomes.append(failure)

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(timeout=30)

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Overtaken", "bool"]
    assert lake.append_once("numbers", numbers(1), app_id="p-0", version=5) is False
    assert kept(lake) == [1]


def test_partitions_do_not_hide_each_other(lake: Lake) -> None:
    lake.append_once("numbers", numbers(1), app_id="p-0", version=100)

    assert lake.append_once("numbers", numbers(2), app_id="p-1", version=5) is True
    assert lake.committed("numbers", "p-2") is None


def test_several_partitions_go_in_one_commit_and_only_the_new_ones(lake: Lake) -> None:
    lake.append_once("numbers", numbers(1), app_id="p-0", version=5)
    before = lake.version("numbers")

    added = lake.append_each_once("numbers", {"p-0": (5, numbers(1)), "p-1": (7, numbers(2)), "p-2": (9, numbers(3))})

    assert added == {"p-1", "p-2"}
    assert lake.version("numbers") == before + 1
    assert kept(lake) == [1, 2, 3]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(offers=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4)), max_size=12))
def test_any_order_of_repeats_leaves_what_growing_versions_wrote(
    tmp_path_factory: pytest.TempPathFactory, offers: list[tuple[int, int]]
) -> None:
    lake = Lake(tmp_path_factory.mktemp("lake"))
    lake.create(NUMBERS)
    newest: dict[int, int] = {}
    expected = []
    for partition, version in offers:
        if version > newest.get(partition, 0):
            newest[partition] = version
            expected.append(partition * 10 + version)
        lake.append_once("numbers", numbers(partition * 10 + version), app_id=f"p-{partition}", version=version)

    assert kept(lake) == sorted(expected)


def test_overwriting_a_part_twice_gives_the_same_table(lake: Lake) -> None:
    lake.append("numbers", numbers(1, 2, 3))

    for _ in range(2):
        lake.overwrite_partition("numbers", numbers(2, 2), "n = 2")

    assert kept(lake) == [1, 2, 2, 3]


def test_overwriting_with_rows_outside_the_part_is_refused(lake: Lake) -> None:
    with pytest.raises(PermanentFailure, match=r"lake table numbers: refused: .*1 rows failed validation"):
        lake.overwrite_partition("numbers", numbers(2, 3), "n = 2")

    assert kept(lake) == []


def test_history_loaded_twice_is_there_once(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    for _ in range(2):
        assert lake.bulk_load(DOMAIN, hours(0, 1, 2, 3), start_us=T0_US, end_us=T0_US + 4 * HOUR_US) == 4

    assert lake.read("events").sort("time").equals(hours(0, 1, 2, 3))
    assert sorted(set(lake.read("events")["month"])) == ["2013-07", "2013-08"]


def test_loading_a_part_again_replaces_that_part_only(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.bulk_load(DOMAIN, hours(0, 1, 2, 3), start_us=T0_US, end_us=T0_US + DAY_US)
    lake.bulk_load(DOMAIN, hours(2), start_us=T0_US + HOUR_US, end_us=T0_US + 3 * HOUR_US)

    assert lake.read("events").sort("time").equals(hours(0, 2, 3))


def test_loading_history_leaves_streamed_rows_and_does_not_double_them(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.create(events_table(DOMAIN))
    lake.append("events", hours(1, topic="events.enriched"))
    for _ in range(2):
        lake.bulk_load(DOMAIN, hours(0, 1, 2), start_us=T0_US, end_us=T0_US + DAY_US)

    assert lake.read("events").sort("time").select("id", "topic").rows() == [
        ("w0", None),
        ("w1", "events.enriched"),
        ("w2", None),
    ]


def test_history_outside_its_interval_or_with_transport_is_refused(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    for frame in (hours(0, 5), hours(1, topic="events.enriched")):
        with pytest.raises(ContractViolation, match="lake table events: 1 rows of the bulk"):
            lake.bulk_load(DOMAIN, frame, start_us=T0_US, end_us=T0_US + 4 * HOUR_US)


def test_an_older_version_stays_readable_after_compaction(lake: Lake) -> None:
    for n in range(6):
        lake.append("numbers", numbers(n))
    pinned = lake.version("numbers")
    removed = lake.compact("numbers")
    lake.append("numbers", numbers(6))

    assert removed == 6
    assert len(DeltaTable(lake.path("numbers")).file_uris()) == 2
    assert sorted(lake.read("numbers", version=pinned)["n"]) == [0, 1, 2, 3, 4, 5]
    assert kept(lake) == [0, 1, 2, 3, 4, 5, 6]


def test_compaction_keeps_what_is_known_of_committed_batches(lake: Lake) -> None:
    for version in (1, 2, 3):
        lake.append_once("numbers", numbers(version), app_id="p-0", version=version)
    lake.compact("numbers")

    assert lake.append_once("numbers", numbers(3), app_id="p-0", version=3) is False


def test_what_is_known_of_committed_batches_outlives_the_log_they_were_written_in(lake: Lake) -> None:
    """A checkpoint carries it: log entries go after 30 days, here at once."""
    for version in range(1, 12):
        lake.append_once("numbers", numbers(version), app_id="p-0", version=version)
    table = DeltaTable(lake.path("numbers"))
    table.alter.set_table_properties({"delta.logRetentionDuration": "interval 0 days"})
    lake.compact("numbers")

    lake.forget("numbers", keep=timedelta(days=7))

    assert not (lake.path("numbers") / "_delta_log" / f"{1:020}.json").exists()
    assert lake.committed("numbers", "p-0") == 11
    assert lake.append_once("numbers", numbers(3), app_id="p-0", version=3) is False
    assert kept(lake) == list(range(1, 12))


def test_files_that_a_recent_version_uses_are_never_deleted(lake: Lake) -> None:
    for n in range(6):
        lake.append("numbers", numbers(n))
    pinned = lake.version("numbers")
    lake.compact("numbers")

    assert lake.forget("numbers", keep=timedelta(days=7)) == 0
    assert sorted(lake.read("numbers", version=pinned)["n"]) == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ContractViolation, match="wanted at least 7 days"):
        lake.forget("numbers", keep=timedelta(days=6))


def test_files_that_only_old_versions_use_are_deleted_and_no_row_with_them(lake: Lake) -> None:
    for n in range(6):
        lake.append("numbers", numbers(n))
    lake.compact("numbers")
    for file in lake.path("numbers").rglob("*.parquet"):
        os.utime(file, (0, 0))
    log = lake.path("numbers") / "_delta_log"
    for entry in log.glob("*.json"):
        aged = re.sub(r'"deletionTimestamp":\d+', '"deletionTimestamp":1000', entry.read_text())
        entry.write_text(aged)

    assert lake.forget("numbers", keep=timedelta(days=7)) == 6
    assert lake.files("numbers") == 1
    assert kept(lake) == [0, 1, 2, 3, 4, 5]


def test_a_batch_cut_after_a_version_that_is_no_longer_the_newest_is_refused_whole(lake: Lake) -> None:
    lake.append_once("numbers", numbers(1), app_id="p-0", version=1)

    with pytest.raises(Overtaken, match="another writer has come between"):
        lake.append_each_once(
            "numbers",
            {"p-0": (5, numbers(5)), "p-1": (2, numbers(2))},
            after={"p-0": None, "p-1": None},
        )
    assert kept(lake) == [1]
    assert {"p-0", "p-1"} == lake.append_each_once(
        "numbers", {"p-0": (5, numbers(5)), "p-1": (2, numbers(2))}, after={"p-0": 1, "p-1": None}
    )


def test_tables_are_found_by_their_logs(lake: Lake) -> None:
    lake.create(LakeTable(name="features.origin_delay.v1", columns={"n": pl.Int64()}))

    assert lake.tables() == ["features.origin_delay.v1", "numbers"]


def test_a_table_with_dots_lives_in_a_folder(lake: Lake, tmp_path: Path) -> None:
    lake.create(LakeTable(name="features.origin_delay.v1", columns={"n": pl.Int64()}))

    assert lake.path("features.origin_delay.v1") == tmp_path / "features" / "origin_delay.v1"
    assert lake.exists("features.origin_delay.v1")
    assert not lake.exists("features.origin_delay.v2")


def test_creating_again_changes_nothing_and_creating_otherwise_is_refused(lake: Lake) -> None:
    lake.append("numbers", numbers(1))
    lake.create(NUMBERS)

    assert kept(lake) == [1]
    with pytest.raises(ContractViolation, match="lake table numbers: has columns"):
        lake.create(LakeTable(name="numbers", columns={"n": pl.String()}))


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (numbers(1).drop("note"), r"lacks \['note'\]"),
        (numbers(1).with_columns(extra=1), r"unknown \['extra'\]"),
        (numbers(1).with_columns(pl.col("n").cast(pl.Int32)), "column 'n' got Int32, wanted Int64"),
        (numbers(1).with_columns(pl.col("at").dt.replace_time_zone(None)), "column 'at' got Datetime"),
    ],
)
def test_a_frame_that_does_not_fit_is_refused_by_table_and_column(lake: Lake, frame: pl.DataFrame, said: str) -> None:
    with pytest.raises(ContractViolation, match=f"lake table numbers.*{said}"):
        lake.append("numbers", frame)


def test_a_required_column_is_never_null(lake: Lake) -> None:
    with pytest.raises(PermanentFailure, match="1 rows failed validation"):
        lake.append("numbers", numbers(1).with_columns(n=pl.lit(None, dtype=pl.Int64)))


def test_asking_for_what_is_not_there_says_what_is(lake: Lake) -> None:
    with pytest.raises(ContractViolation, match="lake table nothing: not there"):
        lake.read("nothing")
    with pytest.raises(ContractViolation, match=r"no column \['m'\] \(found: \['n', 'at', 'note'\]\)"):
        lake.read("numbers", columns=["m"])
    with pytest.raises(ContractViolation, match="got version 9, wanted 0 to 0"):
        lake.read("numbers", version=9)
    with pytest.raises(ContractViolation, match="wanted a name like"):
        lake.path("../etc")


def test_a_type_the_lake_does_not_keep_is_refused_at_creation(lake: Lake) -> None:
    with pytest.raises(ContractViolation, match="lake table odd"):
        lake.create(LakeTable(name="odd", columns={"n": pl.Int8()}))


def test_a_table_that_lacks_columns_which_may_be_null_is_given_them(lake: Lake) -> None:
    lake.append("numbers", numbers(1))
    wider = LakeTable(name="numbers", columns={**NUMBERS.columns, "why": pl.String()}, required=("n",))

    lake.create(wider)
    lake.create(wider)
    lake.append("numbers", numbers(2).with_columns(why=pl.lit("late")))

    assert lake.read("numbers", columns=["n", "why"]).sort("n").rows() == [(1, None), (2, "late")]
    assert lake.read("numbers", version=1).columns == list(NUMBERS.columns)


@pytest.mark.parametrize(
    ("columns", "required"),
    [
        ({**NUMBERS.columns, "why": pl.String()}, ("n", "why")),
        ({"n": pl.Int64(), "at": INSTANT, "why": pl.String()}, ("n",)),
        ({**NUMBERS.columns, "note": pl.Int64(), "why": pl.String()}, ("n",)),
    ],
)
def test_no_other_change_of_a_table_is_made(
    lake: Lake, columns: dict[str, pl.DataType], required: tuple[str, ...]
) -> None:
    with pytest.raises(ContractViolation, match="has columns"):
        lake.create(LakeTable(name="numbers", columns=columns, required=required))

    assert lake.read("numbers").columns == list(NUMBERS.columns)
