"""Training sets in the lake, and the checks that stop a model from learning from a broken one."""

from collections.abc import Callable
from functools import cache
from typing import cast

import polars as pl
import pytest

from assets.lake_reads import known_until
from assets.pictures import importance_picture, split_counts, training_pictures
from assets.training import CHECKS, PeriodConfig, build_parts, dataset_facts, read_dataset, save
from assets.training_checks import check_training_rows
from headway.clock import DAY_US, format_us
from headway.errors import ContractViolation
from headway.training import TrainingSet
from headway.training_table import DatasetFacts, Part, dataset_rows, facts_of, part_of, training_table
from products.catalogue import find_product
from tests.serving_world import trained
from tests.unit_lake import january

PRODUCT = find_product("flight_delay")
PERIOD = PeriodConfig(
    train_from="2013-01-02T05:00:00Z", train_until="2013-01-03T05:00:00Z", gate_until="2013-01-04T05:00:00Z"
)


@cache
def facts() -> DatasetFacts:
    return dataset_facts(PRODUCT, january(), PERIOD)


@cache
def parts() -> dict[Part, TrainingSet]:
    return build_parts(PRODUCT, january(), facts())


@cache
def rows() -> pl.DataFrame:
    return dataset_rows(PRODUCT, parts(), facts())


def findings(changed: pl.DataFrame) -> dict[str, bool]:
    return {finding.name: finding.passed for finding in check_training_rows(PRODUCT, changed)}


def test_a_dataset_comes_back_from_the_lake_as_it_was_built() -> None:
    save(PRODUCT, january(), rows(), dataset=facts().dataset)
    save(PRODUCT, january(), rows(), dataset=facts().dataset)

    found = read_dataset(PRODUCT, january(), facts().dataset)

    for part, built in parts().items():
        kept = part_of(found, part)
        assert kept.frame.equals(built.frame.select(kept.frame.columns))
        assert (kept.window, dict(kept.excluded)) == (built.window, dict(built.excluded))
        assert (kept.view_digests, kept.reference_version) == (built.view_digests, built.reference_version)


def test_the_same_snapshot_and_period_are_the_same_dataset_and_another_period_is_not() -> None:
    later = PeriodConfig(
        train_from=PERIOD.train_from, train_until=PERIOD.train_until, gate_until="2013-01-05T05:00:00Z"
    )

    assert dataset_facts(PRODUCT, january(), PERIOD).dataset == facts().dataset
    assert dataset_facts(PRODUCT, january(), later).dataset != facts().dataset


def test_a_dataset_pins_the_version_of_every_table_it_was_read_from() -> None:
    tables = {"events", *(f"features.{view}" for view in PRODUCT.feature_views)}

    assert facts().tables == {name: january().version(name) for name in tables}


def test_without_configuration_the_gate_ends_with_the_newest_mature_week() -> None:
    found = dataset_facts(PRODUCT, january(), PeriodConfig())

    assert format_us(found.gate_until_us) == "2013-01-07T05:00:00Z"
    assert found.gate_until_us - found.train_until_us == 28 * DAY_US
    assert found.known_at_us == known_until(january())


def test_sound_rows_pass_every_check() -> None:
    assert findings(rows()) == dict.fromkeys(CHECKS, True)


# The check that must turn red, and what is done to the rows.
PLANTED: dict[str, tuple[str, Callable[[pl.DataFrame], pl.DataFrame]]] = {
    "a column is gone": ("schema", lambda rows: rows.drop("origin_delay__count_1h")),
    "a column too many": ("schema", lambda rows: rows.with_columns(arr_delay_min=pl.lit(1))),
    "a label is null": ("schema", lambda rows: rows.with_columns(label=pl.lit(None, dtype=pl.Boolean))),
    "a negative count": ("ranges", lambda rows: rows.with_columns(origin_delay__count_1h=pl.lit(-1, dtype=pl.Int64))),
    "an infinite number": ("ranges", lambda rows: rows.with_columns(scheduled_mph=pl.lit(float("inf")))),
    "an empty category": ("ranges", lambda rows: rows.with_columns(carrier=pl.lit(""))),
    "everything is late": ("label_share", lambda rows: rows.with_columns(label=pl.lit(value=True))),
    "no rows held out": ("label_share", lambda rows: rows.filter(pl.col("part") != "gate")),
    "an outcome known before it was asked": (
        "no_leakage",
        lambda rows: rows.with_columns(label_known_at_us=pl.col("as_of_us") - 1),
    ),
    "a feature from the future": (
        "no_leakage",
        lambda rows: rows.with_columns(weather__last_at_6h=pl.col("as_of_us") + 1),
    ),
    "a label that may still change": (
        "label_maturity",
        lambda rows: rows.with_columns(due_us=pl.lit(facts().known_at_us)),
    ),
}


@pytest.mark.parametrize("what", sorted(PLANTED))
def test_a_planted_fault_turns_its_check_red(what: str) -> None:
    name, plant = PLANTED[what]

    assert findings(plant(rows()))[name] is False


def test_a_red_check_shows_rows_that_speak_against_it() -> None:
    broken = rows().with_columns(label_known_at_us=pl.col("as_of_us") - 1)
    [finding] = [f for f in check_training_rows(PRODUCT, broken) if f.name == "no_leakage"]

    assert finding.cases[0]["leak"] == "label known before it was asked"
    assert {"part", "subject", "as_of_us"} <= finding.cases[0].keys()


def test_a_part_nobody_made_is_named() -> None:
    with pytest.raises(ContractViolation, match="no rows of part 'yesterday'"):
        facts_of(rows().filter(pl.col("part") != "yesterday"), "yesterday")


def test_yesterday_s_rows_are_the_gate_s_asked_a_day_earlier() -> None:
    gate, yesterday = parts()["gate"].frame, parts()["yesterday"].frame

    assert gate["subject"].equals(yesterday["subject"])
    assert cast("int", (gate["as_of_us"] - yesterday["as_of_us"]).unique().item()) == DAY_US


def test_the_table_names_every_column_of_the_vector() -> None:
    columns = PRODUCT.columns(dict.fromkeys(PRODUCT.categories, ()))
    named = {c.source if c.view is None else f"{PRODUCT.feature_views[c.view].name}__{c.source}" for c in columns}

    assert named <= training_table(PRODUCT).columns.keys()


def test_split_counts_are_read_from_the_model_s_own_text() -> None:
    text = trained(7).text
    splits = [line for line in text.decode().splitlines() if line.startswith("split_feature=")]

    counts = split_counts(text)

    assert set(counts) == {"Column_0", "Column_43"}  # the two inputs its labels follow
    assert sum(counts.values()) == sum(len(line.split()) for line in splits)


def test_pictures_are_pngs() -> None:
    pictures = [*training_pictures(PRODUCT, parts()["train"]).values(), importance_picture(trained(7).text)]

    assert all(png.startswith(b"\x89PNG") for png in pictures)
