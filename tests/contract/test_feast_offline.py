"""Our as-of join over Delta, Feast's own join over Parquet, and a search by brute force give the same values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import deltalake
import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from headway.adapters.feast import (
    FeastConfig,
    LakeTable,
    OfflineKind,
    created_timestamp_us,
    feature_store,
    historical,
    view_name,
    write_feature_repo,
)
from headway.adapters.feast_registry import apply_views
from headway.errors import ContractViolation, PermanentFailure

# Feast, its DuckDB reader and pandas warn about their own deprecations; they are not claims of ours.
pytestmark = pytest.mark.filterwarnings("ignore")

START = datetime(2013, 6, 1, tzinfo=UTC)
INSTANT = pl.Datetime("us", "UTC")
FEATURES = ("count_1h", "mean_delay_min_1h")


@dataclass(frozen=True, kw_only=True)
class View:
    name: str
    version: int
    keys: tuple[str, ...]
    columns: Mapping[str, Literal["int64", "float64"]]
    owner: str = "tests"
    description: str = "A view under test."
    digest: str = "0123456789abcdef"


COLUMNS: Mapping[str, Literal["int64", "float64"]] = {"count_1h": "int64", "mean_delay_min_1h": "float64"}
ORIGIN = View(name="origin_delay", version=1, keys=("origin",), columns=COLUMNS)
CARRIER = View(name="carrier_delay", version=2, keys=("origin", "carrier"), columns=COLUMNS)
VIEWS = (ORIGIN, CARRIER)


def changelog(n: int, seed: int) -> pl.DataFrame:
    """``n`` rows of 20 origins and 3 carriers on a coarse clock: about half share key and time with another."""
    generator = np.random.default_rng(seed)
    count = generator.integers(0, 50, n)
    return pl.DataFrame(
        {
            "origin": [f"K{i:02d}" for i in generator.integers(0, 20, n)],
            "carrier": [f"C{i}" for i in generator.integers(0, 3, n)],
            "event_timestamp": [START + timedelta(minutes=15 * int(i)) for i in generator.integers(0, 100, n)],
            "created_timestamp": [created_timestamp_us(int(i)) for i in generator.permutation(n)],
            "count_1h": count,
            "mean_delay_min_1h": [
                None if c < 5 else float(v) for c, v in zip(count, generator.normal(size=n), strict=True)
            ],
        },
        schema_overrides={"event_timestamp": INSTANT, "created_timestamp": INSTANT},
    )


def requests(n: int, seed: int) -> pa.Table:
    """Shuffled requests: unknown entities, times before the first row, times equal to a row's, repeated requests."""
    generator = np.random.default_rng(seed)
    frame = pl.DataFrame(
        {
            "origin": [f"K{i:02d}" for i in generator.integers(0, 22, n)],
            "carrier": [f"C{i}" for i in generator.integers(0, 3, n)],
            "event_timestamp": [START + timedelta(minutes=5 * int(i)) for i in generator.integers(-30, 330, n)],
            "label": generator.integers(0, 2, n),
        },
        schema_overrides={"event_timestamp": INSTANT},
    )
    return pl.concat([frame, frame[:10]]).to_arrow()


def by_brute_force(rows: pl.DataFrame, asked: pa.Table, keys: Sequence[str]) -> list[tuple[object, ...]]:
    """For each request the values of its entity's greatest (event_timestamp, created_timestamp) not after it."""
    known: dict[tuple[object, ...], list[tuple[object, ...]]] = {}
    for row in rows.sort("event_timestamp", "created_timestamp").iter_rows(named=True):
        known.setdefault(tuple(row[k] for k in keys), []).append((row["event_timestamp"], *(row[f] for f in FEATURES)))
    answers: list[tuple[object, ...]] = []
    for request in pl.DataFrame(asked).iter_rows(named=True):
        history = known.get(tuple(request[k] for k in keys), [])
        before = [row for row in history if row[0] <= request["event_timestamp"]]
        answers.append(before[-1][1:] if before else (None, None))
    return answers


def compacted(path: Path, rows: pl.DataFrame) -> LakeTable:
    """A Delta table written in six commits, then compacted and not vacuumed: its folder holds every row twice."""
    for part in range(6):
        deltalake.write_deltalake(str(path), rows.gather_every(6, part).to_arrow(), mode="append")
    deltalake.DeltaTable(str(path)).optimize.compact()
    return LakeTable(path=str(path), version=deltalake.DeltaTable(str(path)).version())


def ask(folder: Path, offline: OfflineKind, tables: Mapping[str, LakeTable], asked: pa.Table) -> pa.Table:
    config = FeastConfig(
        project="headway", repo_dir=folder / f"feast-{offline}", redis_url="redis://127.0.0.1:1/0", offline=offline
    )
    store = feature_store(config)
    apply_views(store, VIEWS, tables, {"flight_delay": [view_name(view) for view in VIEWS]})
    return historical(store, "flight_delay", asked)


def values(answer: pa.Table, view: View) -> list[tuple[object, ...]]:
    return list(pl.DataFrame(answer).select(f"{view_name(view)}__{feature}" for feature in FEATURES).iter_rows())


def test_the_lake_store_answers_as_brute_force_does_after_compaction(tmp_path: Path) -> None:
    rows, asked = changelog(3_000, seed=1), requests(500, seed=2)
    table = compacted(tmp_path / "lake", rows)

    answer = ask(tmp_path, "lake", {view_name(view): table for view in VIEWS}, asked)

    assert pl.read_parquet(tmp_path / "lake/*.parquet").height == 2 * rows.height
    assert rows.unique(["origin", "carrier", "event_timestamp"]).height < 0.9 * rows.height
    for view in VIEWS:
        assert values(answer, view) == by_brute_force(rows, asked, view.keys)


def test_feasts_own_duckdb_join_gives_the_same_table(tmp_path: Path) -> None:
    asked = requests(500, seed=4)
    table = compacted(tmp_path / "lake", changelog(3_000, seed=3))
    export = tmp_path / "rows.parquet"
    pl.scan_delta(table.path, version=table.version).sink_parquet(export)
    exported = LakeTable(path=str(export), version=None)

    ours = ask(tmp_path, "lake", {view_name(view): table for view in VIEWS}, asked)
    theirs = ask(tmp_path, "duckdb", {view_name(view): exported for view in VIEWS}, asked)

    assert pl.DataFrame(ours).equals(pl.DataFrame(theirs))
    assert ours.column_names == theirs.column_names


def test_requests_keep_their_order_and_columns(tmp_path: Path) -> None:
    asked = requests(200, seed=5)
    table = compacted(tmp_path / "lake", changelog(500, seed=6))

    answer = ask(tmp_path, "lake", {view_name(view): table for view in VIEWS}, asked)

    assert answer.select(asked.column_names).equals(asked)


def test_the_join_itself_keeps_the_order_of_requests(tmp_path: Path) -> None:
    from headway.features.as_of import join_as_of

    asked = pl.DataFrame(requests(200, seed=5))
    rows = changelog(500, seed=6).select("origin", "count_1h", at="event_timestamp", created="created_timestamp")

    joined = join_as_of(asked, rows.lazy(), keys=["origin"], order=["at", "created"])

    assert joined.select(asked.columns).equals(asked)


def test_a_pinned_table_version_does_not_see_later_rows(tmp_path: Path) -> None:
    rows, asked = changelog(1_000, seed=7), requests(200, seed=8)
    table = compacted(tmp_path / "lake", rows)
    before = ask(tmp_path, "lake", {view_name(view): table for view in VIEWS}, asked)

    deltalake.write_deltalake(table.path, changelog(1_000, seed=9).to_arrow(), mode="append")
    after = ask(tmp_path, "lake", {view_name(view): table for view in VIEWS}, asked)

    assert after.equals(before)


def test_rows_deleted_from_the_table_are_not_joined(tmp_path: Path) -> None:
    """A glob over the folder would bring them back: their files stay until a vacuum."""
    rows, asked = changelog(1_000, seed=10), requests(200, seed=11)
    table = compacted(tmp_path / "lake", rows)
    deltalake.DeltaTable(table.path).delete("count_1h >= 25")
    newest = LakeTable(path=table.path, version=None)

    answer = ask(tmp_path, "lake", {view_name(view): newest for view in VIEWS}, asked)

    kept = rows.filter(pl.col("count_1h") < 25)
    assert values(answer, ORIGIN) == by_brute_force(kept, asked, ORIGIN.keys)


def test_a_request_with_a_null_key_has_no_features(tmp_path: Path) -> None:
    rows = changelog(200, seed=12)
    table = compacted(tmp_path / "lake", rows)
    asked = pl.DataFrame(requests(3, seed=13)).with_columns(origin=pl.lit(None, pl.String)).to_arrow()

    answer = ask(tmp_path, "lake", {view_name(view): table for view in VIEWS}, asked)

    assert set(values(answer, ORIGIN)) == {(None, None)}


def test_integers_stay_integers_when_some_requests_have_no_row(tmp_path: Path) -> None:
    asked = requests(200, seed=14)
    table = compacted(tmp_path / "lake", changelog(500, seed=15))

    answer = ask(tmp_path, "lake", {view_name(view): table for view in VIEWS}, asked)

    assert answer["origin_delay_v1__count_1h"].null_count > 0
    assert answer.schema.field("origin_delay_v1__count_1h").type == pa.int64()


def test_a_store_that_loses_rows_is_refused() -> None:
    """Feast's dask store does: it drops requests older than their entity's first row."""

    class Job:
        def __init__(self, table: pa.Table) -> None:
            self._table = table

        def to_arrow(self) -> pa.Table:
            return self._table.slice(1)

    class LosingStore:
        def get_feature_service(self, name: str) -> str:
            return name

        def get_historical_features(self, entity_df: object, **_: object) -> Job:
            return Job(pa.Table.from_pandas(entity_df, preserve_index=False))

    with pytest.raises(ContractViolation, match="loses rows"):
        historical(LosingStore(), "flight_delay", requests(5, seed=16))  # type: ignore[arg-type] # a losing fake


def test_a_service_over_an_unknown_view_is_refused(tmp_path: Path) -> None:
    config = FeastConfig(project="headway", repo_dir=tmp_path, redis_url="redis://127.0.0.1:1/0", offline="lake")

    with pytest.raises(ContractViolation, match="origin_delay_v2"):
        apply_views(
            feature_store(config),
            [ORIGIN],
            {"origin_delay_v1": LakeTable(path="unread", version=None)},
            {"flight_delay": ["origin_delay_v2"]},
        )


def test_a_password_is_never_written_to_the_feature_repository(tmp_path: Path) -> None:
    url = "redis://:hunter2@127.0.0.1:1/0"
    config = FeastConfig(project="headway", repo_dir=tmp_path, redis_url=url, offline="lake")

    with pytest.raises(PermanentFailure, match="password"):
        write_feature_repo(config)

    assert not list(tmp_path.iterdir())


def test_feasts_command_line_reads_the_written_repository(tmp_path: Path) -> None:
    from feast.repo_config import load_repo_config

    config = FeastConfig(project="headway", repo_dir=tmp_path, redis_url="redis://127.0.0.1:1/3", offline="lake")

    written = write_feature_repo(config)

    loaded = load_repo_config(tmp_path, written)
    assert loaded.online_store.connection_string == "127.0.0.1:1,db=3"
    assert loaded.offline_store.type == "headway.adapters.feast_lake.LakeOfflineStore"
