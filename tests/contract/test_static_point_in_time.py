"""An aircraft's seats and an airport's altitude change in the middle of the year: whoever asks about before sees before.

Five readers of one truth: what the loads said (brute force), the dimension by SQL, Feast's offline join, the join that
training reads changelogs with, and the online store as it was at each question.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import polars as pl
import pytest

from domains.flights.dimensions import AIRPORTS, PLANES
from domains.flights.statics import AIRCRAFT
from headway.adapters.delta import Lake
from headway.adapters.duckdb import query
from headway.adapters.feast import FeastConfig, LakeTable, feature_store, historical
from headway.adapters.feast_registry import apply_views
from headway.adapters.redis_online import OnlineReader, OnlineRequest, OnlineWriter
from headway.adapters.redis_views import OnlineViews
from headway.clock import DAY_US, from_us, parse_instant_us
from headway.dimensions import feed_static, load_dimension
from headway.features.changelog import changelog_table
from headway.features.static import StaticView
from headway.lake import INSTANT
from headway.meanings import Meaning
from headway.training import AS_OF, values_from_changelog
from headway.warehouse import Dimension
from streaming.refreshing import refresh_static
from tests.valkey_world import running_valkey

# Feast and redis-py warn about their own deprecations.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.integration]

PLACE = StaticView(
    name="destination",
    version=1,
    keys=("dest",),
    columns={"lat": "float64", "altitude_ft": "int64"},
    meanings={
        "lat": Meaning(unit="deg", description="degrees north"),
        "altitude_ft": Meaning(unit="ft", description="above the sea"),
    },
    dimension="airports",
    owner="tests",
    description="Where a flight goes.",
)
LOADED_US = [parse_instant_us(f"2013-{month}-01T00:00:00Z", field="load") for month in ("01", "04", "07", "10")]
END_US = parse_instant_us("2014-01-01T00:00:00Z", field="end")
TAILS, DESTINATIONS = ("N14228", "N516JB", "N24211", "NOBODY"), ("IAH", "MIA", "BQN", "XXX")
QUESTIONS = 400


@dataclass(frozen=True, kw_only=True)
class Fed:
    """A static view, its dimension, and what the source of that said at each load."""

    view: StaticView
    dimension: Dimension
    said: tuple[pl.DataFrame, ...]

    def at_load(self, number: int) -> Dimension:
        return replace(self.dimension, load=lambda: self.said[number])

    def brute_force(self, entity: str, as_of_us: int) -> tuple[Any, ...]:
        """What the last load at or before an instant said of an entity; nulls where there was none, or it was not in it."""
        before = [said for at_us, said in zip(LOADED_US, self.said, strict=True) if at_us <= as_of_us]
        rows = before[-1].filter(pl.col(self.dimension.keys[0]) == entity) if before else None
        if rows is None or rows.is_empty():
            return (None,) * len(self.view.columns)
        return rows.select(list(self.view.columns)).row(0)


def changed(loaded: pl.DataFrame, key: str, of: str, **values: Any) -> pl.DataFrame:
    return loaded.with_columns(
        pl.when(pl.col(key) == of).then(pl.lit(value, loaded.schema[name])).otherwise(name).alias(name)
        for name, value in values.items()
    )


@pytest.fixture(scope="module")
def fed() -> tuple[Fed, Fed]:
    """The fleet is refitted in July, an aircraft goes in April and comes back in October; an airport is measured anew."""
    planes, airports = PLANES.load(), AIRPORTS.load()
    refitted = changed(planes, "tail", "N14228", seats=166)
    fleets = (planes, planes.filter(pl.col("tail") != "N516JB"), refitted.filter(pl.col("tail") != "N516JB"), refitted)
    measured = changed(airports, "airport", "IAH", altitude_ft=99)
    named = changed(changed(measured, "airport", "BQN", altitude_ft=237, lat=18.5), "airport", "MIA", name="Miami")
    return (
        Fed(view=AIRCRAFT, dimension=PLANES, said=fleets),
        Fed(view=PLACE, dimension=AIRPORTS, said=(airports, airports, measured, named)),
    )


def questions(entities: tuple[str, ...]) -> list[tuple[str, int]]:
    """Questions of the whole year and of the instants around each load, in order of time."""
    random = Random(20130701)
    anytime = [(random.choice(entities), random.randrange(LOADED_US[0] - DAY_US, END_US)) for _ in range(QUESTIONS)]
    around = [(entity, at_us + by) for entity in entities for at_us in LOADED_US for by in (-1, 0, 1)]
    return sorted([*anytime, *around], key=lambda asked: asked[1])


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, fed: tuple[Fed, Fed]) -> Lake:
    made = Lake(tmp_path_factory.mktemp("lake"))
    for each in fed:
        for number, at_us in enumerate(LOADED_US):
            load_dimension(made, each.at_load(number), at_us=at_us)
            feed_static(made, each.view, each.dimension)
    return made


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_valkey(tmp_path_factory.mktemp("valkey")) as url:
        yield url


def by_sql(lake: Lake, each: Fed, asked: list[tuple[str, int]]) -> list[tuple[Any, ...]]:
    """Join on valid_from <= T < valid_to, as an analyst writes it."""
    key, table = each.dimension.keys[0], each.dimension.table.name
    asking = ", ".join(f"({n}, '{entity}', make_timestamptz({at_us}))" for n, (entity, at_us) in enumerate(asked))
    found = query(
        lake,
        f"""
        SELECT {", ".join(each.view.columns)}
        FROM (VALUES {asking}) AS asked(n, entity, t)
        LEFT JOIN {table} d ON d.{key} = entity AND d.valid_from <= t AND (d.valid_to IS NULL OR t < d.valid_to)
        ORDER BY n
        """,
    )
    return found.rows()


def by_training(lake: Lake, each: Fed, asked: list[tuple[str, int]]) -> list[tuple[Any, ...]]:
    read = values_from_changelog({each.view.qualified: lake.read(changelog_table(each.view).name)})
    queries = pl.DataFrame(asked, schema={each.view.keys[0]: pl.String, AS_OF: pl.Int64}, orient="row")
    found = read(each.view, queries)  # type: ignore[arg-type]  # of a view it reads keys, columns and name
    return found.select(list(each.view.columns)).rows()


def by_feast(lake: Lake, each: Fed, asked: list[tuple[str, int]], folder: Path) -> list[tuple[Any, ...]]:
    config = FeastConfig(project="headway", repo_dir=folder, redis_url="redis://127.0.0.1:1/0", offline="lake")
    store, name = feature_store(config), each.view.online_name
    table = LakeTable(path=str(lake.path(changelog_table(each.view).name)), version=None)
    apply_views(store, [each.view], {name: table}, {"asked": [f"{name}:{column}" for column in each.view.columns]})
    requests = pl.DataFrame(
        [(entity, from_us(at_us)) for entity, at_us in asked],
        schema={each.view.keys[0]: pl.String, "event_timestamp": INSTANT},
        orient="row",
    )
    answered = pl.DataFrame(historical(store, "asked", requests.to_arrow()))
    return answered.select(f"{name}__{column}" for column in each.view.columns).rows()


async def online(url: str, each: Fed, asked: list[tuple[str, int]]) -> list[tuple[Any, ...]]:
    reader = OnlineReader(url, "headway")
    try:
        answers = await reader.read(
            [
                OnlineRequest(
                    view=each.view.online_name, keys={each.view.keys[0]: entity}, features=tuple(each.view.columns)
                )
                for entity, _ in asked
            ]
        )
    finally:
        await reader.close()
    return [answer.values for answer in answers]


def by_store(lake: Lake, url: str, each: Fed, asked: list[tuple[str, int]]) -> list[tuple[Any, ...]]:
    """Load as time goes by, and ask each question of the store while it holds what was true then (S7)."""
    writer, marks = OnlineWriter(url, "headway"), OnlineViews(url, "headway")
    answers = asyncio.run(online(url, each, [q for q in asked if q[1] < LOADED_US[0]]))
    try:
        for number, at_us in enumerate(LOADED_US):
            until_us = [*LOADED_US, END_US][number + 1]
            refresh_static(each.view, each.at_load(number), lake=lake, online=writer, marks=marks, at_us=at_us)
            answers += asyncio.run(online(url, each, [q for q in asked if at_us <= q[1] < until_us]))
    finally:
        writer.close()
        marks.close()
    return answers


@pytest.mark.parametrize(
    "number", [pytest.param(0, id="aircraft"), pytest.param(1, id="airport", marks=pytest.mark.long)]
)
def test_every_reader_sees_what_was_true_at_each_instant(
    lake: Lake, fed: tuple[Fed, Fed], valkey: str, tmp_path: Path, number: int
) -> None:
    each, asked = fed[number], questions((TAILS, DESTINATIONS)[number])
    truth = [each.brute_force(entity, at_us) for entity, at_us in asked]

    assert len(set(truth)) >= 5, "a test of one value would prove nothing"
    assert by_sql(lake, each, asked) == truth
    assert by_training(lake, each, asked) == truth
    assert by_feast(lake, each, asked, tmp_path / "feast") == truth
    assert by_store(Lake(tmp_path / "online"), valkey, each, asked) == truth


def test_a_training_row_before_the_change_has_the_seats_of_before(lake: Lake, fed: tuple[Fed, Fed]) -> None:
    """In words: UA 1545's aircraft has 149 seats until July, 166 from then on."""
    july_us = LOADED_US[2]
    asked = [("N14228", july_us + by * DAY_US) for by in (-30, -1, 0, 1, 30)]

    assert [seats for _, seats in by_training(lake, fed[0], asked)] == [149, 149, 166, 166, 166]


def test_what_the_view_does_not_show_is_no_change_of_it(lake: Lake, fed: tuple[Fed, Fed]) -> None:
    """Miami's name changes in October: a row of the dimension, none of the view."""
    miami = lake.read(AIRPORTS.table.name, predicate=pl.col("airport") == "MIA")

    assert miami["name"].to_list() == ["Miami Intl", "Miami"]
    assert lake.read(changelog_table(PLACE).name, predicate=pl.col("dest") == "MIA").height == 1


def test_a_view_that_joins_as_of_now_would_be_caught(lake: Lake, fed: tuple[Fed, Fed]) -> None:
    """The planted bug: everybody gets the newest row, whenever they ask about."""
    each, asked = fed[0], questions(TAILS)
    truth = [each.brute_force(entity, at_us) for entity, at_us in asked]

    leaked = by_training(lake, each, [(entity, END_US) for entity, _ in asked])

    wrong = sum(a != b for a, b in zip(leaked, truth, strict=True))
    assert wrong > QUESTIONS // 10


def test_a_view_made_later_has_the_past_of_its_dimension(lake: Lake, fed: tuple[Fed, Fed]) -> None:
    """A second version, fed at the end of the year: its past begins where the dimension's does."""
    later = replace(AIRCRAFT, version=2)
    feed_static(lake, later, PLANES)

    table = lake.read(changelog_table(later).name)
    assert table["event_timestamp"].min() == from_us(LOADED_US[0])
    asked = questions(TAILS)
    truth = [fed[0].brute_force(entity, at_us) for entity, at_us in asked]
    assert by_training(lake, replace(fed[0], view=later), asked) == truth
