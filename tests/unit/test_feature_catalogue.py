"""The catalogue says what the definitions say, and the committed page is the catalogue."""

import json
from dataclasses import asdict, replace

import pytest

from domains.catalogue import all_domains
from domains.flights.domain import DOMAIN
from headway.errors import ContractViolation
from headway.features.catalogue import Catalogue, FeatureEntry, ViewEntry, catalogue, markdown
from headway.features.definitions import Aggregate
from headway.meanings import Meaning
from headway.settings import project_root
from products.catalogue import all_products
from products.flight_delay.product import PRODUCT
from tests.scripts import script

PAGE = project_root() / "docs" / "features" / "catalogue.md"


@pytest.fixture
def found() -> Catalogue:
    return catalogue([DOMAIN], [PRODUCT])


def view(found: Catalogue, name: str) -> ViewEntry:
    return next(each for each in found.views if each.view == name)


def test_the_committed_page_is_made_from_the_definitions() -> None:
    """Write it again with: headway features catalogue --markdown > docs/features/catalogue.md."""
    assert PAGE.read_text() == markdown(catalogue(all_domains().values(), all_products().values()))


def test_make_docs_says_so_when_the_page_is_not_the_catalogue() -> None:
    check = script("check_docs")

    assert list(check.stale_catalogue(PAGE.read_text())) == []
    [problem] = check.stale_catalogue(PAGE.read_text().replace("15m", "20m"))
    assert "headway features catalogue --markdown" in problem


def test_a_view_is_told_with_all_that_a_user_asks(found: Catalogue) -> None:
    weather = view(found, "weather.v1")

    assert (weather.entity, weather.source) == (("origin",), "weather.observed.v1")
    assert (weather.hop, weather.stale_after, weather.lateness) == ("5m", "15m", "2h")
    assert (weather.owner, weather.hash) == ("flight-features", DOMAIN.view("weather.v1").digest)
    assert weather.used_by == {"flight_delay": PRODUCT.use("weather.v1").features}


def test_a_feature_is_told_with_unit_window_and_meaning(found: Catalogue) -> None:
    features = {f.name: f for f in (*view(found, "origin_delay.v1").features, *view(found, "weather.v1").features)}

    assert features["mean_dep_delay_min_3h"] == FeatureEntry(
        name="mean_dep_delay_min_3h",
        dtype="float64",
        unit="min",
        meaning="mean of `dep_delay_min` (minutes, negative = early) in the last 3 hours",
        window="3h",
    )
    assert (features["count_1h"].unit, features["count_1h"].meaning) == ("events", "events in the last hour")
    assert features["last_at_6h"].meaning == "time of the newest event in the last 6 hours"
    assert features["sum_precip_hundredths_in_6h"].unit == "0.01 in"


def test_what_has_no_window_is_told_without_one() -> None:
    ever = Aggregate(function="last_ever", field="dep_delay_min")
    counted = Aggregate(function="count", field="dep_delay_min", window=DOMAIN.views[0].hop)
    changed = replace(DOMAIN, views=(replace(DOMAIN.views[0], aggregates=(ever, counted)),))

    first, second = catalogue([changed], []).views[0].features

    assert (first.window, first.meaning) == (
        None,
        "newest `dep_delay_min` (minutes, negative = early) that is not null, however old",
    )
    assert second.meaning == "events with `dep_delay_min` (minutes, negative = early) in the last 5 minutes"


def test_a_view_that_nobody_uses_says_so() -> None:
    [entry, *_] = catalogue([DOMAIN], []).views

    assert entry.used_by == {}
    assert "| feature services | none |" in markdown(catalogue([DOMAIN], []))


def test_a_product_that_takes_a_part_says_which() -> None:
    part = replace(PRODUCT.views[0], features=("count_1h",), defaults={})
    product = replace(PRODUCT, views=(part,))

    assert "| feature services | `flight_delay` (`count_1h`) |" in markdown(catalogue([DOMAIN], [product]))


def test_request_features_are_told_too(found: Catalogue) -> None:
    told = {entry.name: (entry.kind, entry.unit) for entry in found.requests}

    assert list(told) == [*PRODUCT.numbers, *PRODUCT.categories]
    assert told["scheduled_min"] == ("number", "min")
    assert told["carrier"] == ("category", None)


def test_a_request_feature_without_a_meaning_is_refused() -> None:
    meanings = {**PRODUCT.request_meanings, "moon": Meaning(unit=None, description="phase")}

    with pytest.raises(ContractViolation, match=r"request_meanings and the declared names differ in \['moon'\]"):
        replace(PRODUCT, request_meanings=meanings)


def test_the_catalogue_is_json_as_it_is(found: Catalogue) -> None:
    assert json.loads(json.dumps(asdict(found)))["views"][0]["view"] == "origin_delay.v1"
