"""Feast's registry from the definitions of the flights: in a file or in a database, it is the same and reads the same."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pytest

from domains.flights.dimensions import PLANES
from domains.flights.domain import DOMAIN
from domains.flights.statics import AIRCRAFT
from headway.adapters.delta import Lake
from headway.adapters.feast import FeastConfig, feature_store, feature_store_config, historical, write_feature_repo
from headway.adapters.feast_registry import DIGEST_TAG, apply_views
from headway.adapters.feast_services import Registration, register, service_of
from headway.adapters.memory_online import MemoryOnlineStore
from headway.adapters.redis_online import OnlineRow, OnlineWriter
from headway.clock import DAY_US, parse_instant_us
from headway.errors import ContractViolation, PermanentFailure
from headway.features.changelog import backfilled_rows, changelog_table
from headway.features.offline import changelog
from headway.settings import Settings
from products.flight_delay.product import PRODUCT
from streaming.refreshing import refresh_static
from tests.valkey_world import running_valkey

if TYPE_CHECKING:
    from feast import FeatureStore

# Feast and its dependencies warn about their own deprecations; they are not claims of ours.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.integration]

NOON_US = parse_instant_us("2013-01-02T17:00:00Z", field="noon")
KEYS = [
    {"origin": "EWR", "carrier": "UA", "dest": "IAH", "tail": "N14228"},
    {"origin": "JFK", "carrier": "B6", "dest": "FLL", "tail": "N516JB"},
    {"origin": "LGA", "carrier": "DL", "dest": "ATL", "tail": "NOBODY"},
]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Two days of January, backfilled, and the aircraft as of the second: one of them has changed since the first."""
    made = Lake(tmp_path_factory.mktemp("lake"))
    assert DOMAIN.load_history is not None
    events = DOMAIN.load_history().events_between(NOON_US - 2 * DAY_US, NOON_US + DAY_US // 4)
    for view in DOMAIN.views:
        made.create(changelog_table(view))
        rows = changelog(events, view, start_us=NOON_US - DAY_US, until_us=NOON_US)
        made.append(changelog_table(view).name, backfilled_rows(view, rows))
    store, older = MemoryOnlineStore(), PLANES.load().filter(pl.col("tail") != "N516JB")
    refitted = older.with_columns(seats=pl.when(pl.col("tail") == "N14228").then(1).otherwise("seats"))
    for at_us, load in ((NOON_US - DAY_US, lambda: refitted), (NOON_US, PLANES.load)):
        refresh_static(AIRCRAFT, replace(PLANES, load=load), lake=made, online=store, marks=store, at_us=at_us)
    return made


@pytest.fixture(scope="module")
def registration(lake: Lake) -> Registration:
    return register(DOMAIN, [PRODUCT], lake)


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_valkey(tmp_path_factory.mktemp("valkey")) as url:
        yield url


def config(folder: Path, redis_url: str, registry_url: str | None) -> FeastConfig:
    return FeastConfig(
        project="headway", repo_dir=folder, redis_url=redis_url, offline="lake", registry_url=registry_url
    )


@pytest.fixture(scope="module")
def stores(
    tmp_path_factory: pytest.TempPathFactory, redis_url: str, registration: Registration
) -> "dict[str, FeatureStore]":
    """One store over a file, and one over a database that another process has written: a second store of the same."""
    folder = tmp_path_factory.mktemp("feast")
    configs = {
        "file": config(folder / "file", redis_url, None),
        "sql": config(folder / "sql", redis_url, f"sqlite:///{folder / 'registry.sqlite'}"),
    }
    for each in configs.values():
        apply_views(feature_store(each), registration.views, registration.tables, registration.services)
    return {name: feature_store(each) for name, each in configs.items()}


def told(store: "FeatureStore") -> dict[str, Any]:
    """What a registry says, but for when and where."""
    return {
        "entities": sorted((e.name, e.join_key) for e in store.list_entities() if e.name != "__dummy"),
        "views": sorted(
            (v.name, v.owner, v.description, v.tags[DIGEST_TAG], [(f.name, str(f.dtype)) for f in v.features])
            for v in store.list_feature_views()
        ),
        "sources": sorted((s.name, s.file_options.uri) for s in store.list_data_sources()),  # type: ignore[attr-defined]
        "services": sorted(
            (s.name, [(p.name, [f.name for f in p.features]) for p in s.feature_view_projections])
            for s in store.list_feature_services()
        ),
    }


def test_both_registries_say_what_the_definitions_say(stores: "dict[str, FeatureStore]") -> None:
    said = told(stores["file"])

    assert told(stores["sql"]) == said
    assert [(name, owner, digest) for name, owner, _, digest, _ in said["views"]] == sorted(
        (view.online_name, view.owner, view.digest) for view in DOMAIN.every_view
    )
    assert [name for name, _ in said["entities"]] == ["carrier", "dest", "origin", "tail"]
    assert len(said["sources"]) == len(DOMAIN.every_view)


def test_a_products_service_is_exactly_what_it_takes_in_the_order_of_its_vector(
    stores: "dict[str, FeatureStore]",
) -> None:
    [(name, projections)] = told(stores["sql"])["services"]

    assert name == PRODUCT.name
    assert projections == [(PRODUCT.feature_views[use.view].online_name, list(use.features)) for use in PRODUCT.views]


def test_both_registries_give_equal_training_rows(stores: "dict[str, FeatureStore]") -> None:
    asked = pl.DataFrame(KEYS).with_columns(event_timestamp=pl.lit(NOON_US).cast(pl.Datetime("us", "UTC"))).to_arrow()

    by_file, by_sql = (historical(stores[name], PRODUCT.name, asked) for name in ("file", "sql"))

    assert by_sql.equals(by_file)
    assert set(by_file.column_names) - set(asked.column_names) == {
        reference.replace(":", "__") for reference in service_of(PRODUCT)
    }
    counts: pa.ChunkedArray = by_file["origin_delay_v1__count_3h"]
    assert counts.null_count == 0
    assert counts.to_pylist()[0] > 0


def test_a_slow_dimension_is_what_it_was_at_each_instant(stores: "dict[str, FeatureStore]") -> None:
    """Joined as of now, a model of the past would learn from what nobody knew then."""
    instants = [NOON_US - DAY_US - 1, NOON_US - DAY_US, NOON_US - 1, NOON_US, NOON_US + 30 * DAY_US]
    asked = pl.DataFrame(
        {
            "tail": [tail for tail in ("N14228", "N516JB") for _ in instants],
            "event_timestamp": instants * 2,
        },
        schema_overrides={"event_timestamp": pl.Datetime("us", "UTC")},
    ).to_pandas()

    found = (
        stores["file"]
        .get_historical_features(entity_df=asked, features=["aircraft_v1:seats"])
        .to_arrow()
        .column("seats")
        .to_pylist()
    )

    assert found == [None, 1, 1, 149, 149, None, None, None, 200, 200]


def test_both_registries_give_equal_online_rows(stores: "dict[str, FeatureStore]", redis_url: str) -> None:
    writer = OnlineWriter(redis_url, "headway")
    for number, view in enumerate(DOMAIN.views):
        values = {name: number if dtype == "int64" else number / 2 for name, dtype in view.columns.items()}
        keys = {key: KEYS[0][key] for key in view.keys}
        writer.write(
            [OnlineRow(view=view.online_name, keys=keys, event_timestamp_us=NOON_US, revision=1, values=values)]
        )
    writer.close()

    answers = [
        store.get_online_features(
            store.get_feature_service(PRODUCT.name), entity_rows=[dict(KEYS[0])], full_feature_names=True
        ).to_dict()
        for store in stores.values()
    ]

    assert answers[0] == answers[1]
    assert answers[0]["weather_v1__last_at_6h"] == [6]
    assert answers[0]["dest_delay_v1__mean_arr_delay_min_3h"] == [1.0]


@pytest.mark.parametrize("kind", ["file", "sql"])
def test_another_meaning_of_a_registered_version_is_refused(
    stores: "dict[str, FeatureStore]", registration: Registration, kind: str
) -> None:
    """Two checkouts that share a registry: the second must not quietly redefine what models of the first read."""
    view = DOMAIN.views[0]
    edited = replace(view, lateness=view.lateness * 2)
    before = told(stores[kind])

    with pytest.raises(ContractViolation, match=rf"origin_delay_v1 is registered with hash {view.digest}"):
        apply_views(stores[kind], [edited], registration.tables, {})

    assert told(stores[kind]) == before


def test_a_feature_that_a_view_has_not_is_refused(
    stores: "dict[str, FeatureStore]", registration: Registration
) -> None:
    with pytest.raises(ContractViolation, match=r"service odd: origin_delay_v1 has no feature \['count_2h'\]"):
        apply_views(stores["file"], registration.views, registration.tables, {"odd": ["origin_delay_v1:count_2h"]})


def test_a_version_that_was_not_backfilled_is_held_with_the_services_that_need_it(lake: Lake) -> None:
    """Joined from an empty table its features would be nulls, and a model would learn from them."""
    view = DOMAIN.views[0]
    later = replace(DOMAIN, views=(*DOMAIN.views, replace(view, version=2)))
    uses = (replace(PRODUCT.views[0], view="origin_delay.v2"), *PRODUCT.views[1:])
    product = replace(PRODUCT, name="flight_delay_next", domain=later, views=uses)

    found = register(later, [PRODUCT, product], lake)

    assert [each.qualified for each in found.views] == [each.qualified for each in DOMAIN.every_view]
    assert list(found.services) == [PRODUCT.name]
    assert found.held["origin_delay.v2"].startswith("has no rows in the lake")
    assert found.held["flight_delay_next"] == "needs origin_delay.v2"

    lake.create(changelog_table(replace(view, version=2)))
    assert "origin_delay.v2" in register(later, [PRODUCT], lake).held


def test_settings_choose_the_registry(tmp_path: Path) -> None:
    by_file = feature_store_config(Settings(state=tmp_path))
    by_sql = feature_store_config(Settings(state=tmp_path, feast_registry="postgresql+psycopg2://db/feast"))

    assert (by_file.registry_url, by_file.repo_dir) == (None, tmp_path / "feast")
    assert by_sql.registry_url == "postgresql+psycopg2://db/feast"


def test_a_registrys_password_is_never_written_to_the_feature_repository(tmp_path: Path) -> None:
    secret = config(tmp_path / "repo", "redis://127.0.0.1:1/0", "postgresql+psycopg2://me:hunter2@db/feast")

    with pytest.raises(PermanentFailure, match="registry URL carries a password"):
        write_feature_repo(secret)

    assert not (tmp_path / "repo").exists()
