"""What the lake promises of files: rows that come from some, in one commit, and files that another reader may read."""

import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable

from headway.adapters.delta import Lake
from headway.adapters.delta_files import plain_files, replace_rows, staging, write_file
from headway.errors import ContractViolation, Overtaken
from headway.lake import INSTANT, LakeTable

T0 = datetime(2013, 7, 31, 22, tzinfo=UTC)
NUMBERS = LakeTable(
    name="numbers",
    columns={"n": pl.Int64(), "m": pl.Int64(), "at": INSTANT, "month": pl.String()},
    partition_by=("month",),
    required=("n", "at", "month"),
)


# What a writer of files replaces here; negative numbers came from elsewhere.
OURS = pl.col("n") > 0


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path)
    lake.create(NUMBERS)
    return lake


def numbers(*values: int, month: str = "2013-07") -> pl.DataFrame:
    return pl.DataFrame({"n": list(values), "m": list(values), "at": T0, "month": month}, schema=dict(NUMBERS.columns))


def staged(folder: Path, *frames: pl.DataFrame) -> Iterator[tuple[str, Path]]:
    for place, frame in enumerate(frames):
        file = folder / f"part-{place}.parquet"
        write_file(frame.drop("month"), file, required=NUMBERS.required)
        yield frame["month"][0], file


def replace(lake: Lake, *frames: pl.DataFrame, months: Sequence[str] = ("2013-07",), going: pl.Expr = OURS) -> int:
    with staging(lake) as folder:
        return replace_rows(lake, "numbers", staged(folder, *frames), going=going, months=months)


def kept(lake: Lake) -> list[int]:
    return sorted(lake.read("numbers")["n"])


def rows_files(lake: Lake) -> set[Path]:
    return set(lake.path("numbers").glob("*/*.parquet"))


def test_files_take_the_place_of_rows_in_one_commit_however_often(lake: Lake) -> None:
    lake.append("numbers", pl.concat([numbers(1, 2), numbers(-3), numbers(3, month="2013-08")]))
    before = lake.version("numbers")

    counts = [replace(lake, numbers(*range(10, 200_000)), numbers(7)) for _ in range(2)]

    assert counts == [199_991, 199_991]
    assert kept(lake) == [-3, 3, 7, *range(10, 200_000)]
    assert lake.version("numbers") == before + 2


def test_every_month_has_its_files(lake: Lake) -> None:
    made = [numbers(7), numbers(8, month="2013-08")]

    replace(lake, *made, months=("2013-07", "2013-08"))
    replace(lake, *made, months=("2013-07", "2013-08"))

    assert lake.read("numbers").sort("n").equals(pl.concat(made))
    assert lake.read("numbers", predicate=pl.col("month") == "2013-08")["n"].to_list() == [8]


def test_no_files_take_the_rows_away_and_nothing_to_do_is_no_commit(lake: Lake) -> None:
    lake.append("numbers", pl.concat([numbers(1, 2), numbers(3, month="2013-08")]))

    assert replace(lake) == 0
    assert kept(lake) == [3]
    before = lake.version("numbers")
    assert replace(lake) == 0
    assert lake.version("numbers") == before


def test_a_row_of_which_nobody_knows_whether_it_goes_stays(lake: Lake) -> None:
    lake.append("numbers", numbers(1, 2).with_columns(m=pl.when(pl.col("n") == 2).then("m")))

    replace(lake, numbers(7), going=pl.col("m") == 2)

    assert kept(lake) == [1, 7]


def test_a_column_without_values_is_left_out_of_the_file_and_reads_null(lake: Lake) -> None:
    lake.append("numbers", numbers(-1))
    bare = numbers(7, 8).with_columns(m=pl.lit(None, dtype=pl.Int64()))

    replace(lake, bare)

    [file] = [file for file in rows_files(lake) if n_of(file) == [7, 8]]
    assert list(pl.read_parquet_schema(file)) == ["n", "at"]
    assert lake.read("numbers", predicate=OURS).sort("n").equals(bare)
    assert lake.compact("numbers") == 2
    assert lake.read("numbers").sort("n").equals(pl.concat([numbers(-1), bare]))


def test_delta_reads_changes_and_compacts_files_that_it_did_not_write(lake: Lake) -> None:
    replace(lake, numbers(7, 8), numbers(9))

    assert lake.delete("numbers", "n = 8") == 1
    assert lake.compact("numbers") == 2
    assert kept(lake) == [7, 9]
    assert replace(lake, numbers(1)) == 1
    assert kept(lake) == [1]


@pytest.mark.parametrize("us", [-1, 0, 1, 999, 1_000, 1_374_000_000_123_456])
def test_a_reader_that_goes_by_the_bounds_of_files_finds_their_instants(lake: Lake, us: int) -> None:
    """Delta has bounds in milliseconds; cut off, they would hide the newest rows from whoever asks for those."""
    at = pl.lit(us, dtype=pl.Int64()).cast(INSTANT)
    replace(lake, numbers(7).with_columns(at=at))

    opened = DeltaTable(lake.path("numbers"))
    [least], [greatest] = (
        pl.DataFrame(opened.get_add_actions(flatten=True))[f"{bound}.at"].dt.timestamp("us") for bound in ("min", "max")
    )
    assert least <= us <= greatest
    assert greatest - least <= 1_000
    assert lake.read("numbers", predicate=pl.col("at") == at)["n"].to_list() == [7]


def test_a_file_that_does_not_fit_changes_nothing(lake: Lake) -> None:
    lake.append("numbers", numbers(1))
    before = rows_files(lake)

    with pytest.raises(ContractViolation, match="lake table numbers: column 'n' got Int32, wanted Int64"):
        replace(lake, numbers(2), numbers(3).with_columns(pl.col("n").cast(pl.Int32)))
    with pytest.raises(ContractViolation, match="lake table numbers: column 'n' got 1 nulls in part-0"):
        replace(lake, numbers(2, 3).with_columns(n=pl.when(pl.col("n") == 2).then("n")))

    assert kept(lake) == [1]
    assert rows_files(lake) == before


@pytest.mark.parametrize("there", [[], [1]], ids=["nothing to replace", "the same rows to replace"])
def test_of_two_writers_at_once_the_second_is_refused(lake: Lake, there: list[int]) -> None:
    if there:
        lake.append("numbers", numbers(*there))

    def overtaken(folder: Path) -> Iterator[tuple[str, Path]]:
        yield from staged(folder, numbers(8))
        assert replace(lake, numbers(7)) == 1

    with staging(lake) as folder, pytest.raises(Overtaken, match="lake table numbers: another writer came first"):
        replace_rows(lake, "numbers", overtaken(folder), going=OURS, months=["2013-07"])

    assert kept(lake) == [7]
    assert rows_files(lake) - set(lake.file_paths("numbers")) == {f for f in rows_files(lake) if n_of(f) == there}


def n_of(file: Path) -> list[int]:
    return pl.read_parquet(file, hive_partitioning=False)["n"].to_list()


def test_a_stream_and_a_writer_of_another_month_go_on_meanwhile(lake: Lake) -> None:
    lake.append("numbers", numbers(1))

    def meanwhile(folder: Path) -> Iterator[tuple[str, Path]]:
        yield from staged(folder, numbers(7))
        lake.append_once("numbers", numbers(-5), app_id="events-0", version=3)
        replace(lake, numbers(8, month="2013-08"), months=["2013-08"])

    with staging(lake) as folder:
        replace_rows(lake, "numbers", meanwhile(folder), going=OURS, months=["2013-07"])

    assert kept(lake) == [-5, 7, 8]


def test_stagings_that_come_and_go_at_once_leave_each_other_alone(lake: Lake) -> None:
    """One looks for what was left behind while another takes its own away."""

    def come_and_go(_: int) -> None:
        with staging(lake) as folder:
            (folder / "file").touch()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(come_and_go, range(400)))

    assert not list((lake.root / ".staging").iterdir())


def test_a_staging_folder_goes_with_its_block_and_what_was_left_a_day_later(lake: Lake, tmp_path: Path) -> None:
    left = tmp_path / ".staging" / "left"
    recent = tmp_path / ".staging" / "recent"
    for folder in (left, recent):
        folder.mkdir(parents=True)
    os.utime(left, (time.time() - 25 * 3600,) * 2)

    with staging(lake) as mine:
        (mine / "part").write_text("rows")
        assert {folder.name for folder in mine.parent.iterdir()} == {"recent", mine.name}

    assert [folder.name for folder in recent.parent.iterdir()] == ["recent"]
    assert lake.tables() == ["numbers"]


def test_files_of_some_months_hold_the_rows_of_those_months(lake: Lake) -> None:
    for month in ("2013-06", "2013-07", "2013-08"):
        lake.append("numbers", numbers(int(month[-1]), month=month))
    lake.overwrite_partition("numbers", numbers(70), "month = '2013-07'")

    found = plain_files(lake, "numbers", months=("2013-07", "2013-08"))

    assert sorted(pl.read_parquet(found, hive_partitioning=False)["n"]) == [8, 70]


def commit(lake: Lake, *actions: dict[str, Any]) -> None:
    log = lake.path("numbers") / "_delta_log"
    (log / f"{lake.version('numbers') + 1:020}.json").write_text("\n".join(map(json.dumps, actions)))


def test_a_table_whose_files_alone_lie_is_refused_as_files(lake: Lake) -> None:
    """Rows that a vector deletes are still in the file; Spark would have brought them back."""
    lake.append("numbers", numbers(1))
    features = {"readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}
    commit(lake, {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, **features}})

    with pytest.raises(ContractViolation, match="lake table numbers: uses deletionVectors, wanted files"):
        plain_files(lake, "numbers", months=("", "9"))


def test_a_table_whose_columns_have_other_names_in_files_is_refused_as_files(lake: Lake) -> None:
    lake.append("numbers", numbers(1))
    first = lake.path("numbers") / "_delta_log" / f"{0:020}.json"
    [told] = [json.loads(line)["metaData"] for line in first.read_text().splitlines() if "metaData" in line]
    commit(lake, {"metaData": told | {"configuration": {"delta.columnMapping.mode": "name"}}})

    with pytest.raises(ContractViolation, match="uses columnMapping, wanted files"):
        plain_files(lake, "numbers", months=("", "9"))
