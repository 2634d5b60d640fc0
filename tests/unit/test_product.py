from dataclasses import replace

import msgspec
import pytest

from domains.flights.domain import DOMAIN
from domains.flights.reference import load_reference
from headway.clock import MINUTE_US, parse_instant_us
from headway.errors import ContractViolation, InputRejected
from headway.product import Product, ViewUse
from products.flight_delay.product import PRODUCT
from products.flight_delay.request import request_features

FLIGHT = {
    "carrier": "UA",
    "flight": 1545,
    "tail": "N14228",
    "origin": "EWR",
    "dest": "IAH",
    "sched_dep": "2013-07-01T21:08:00Z",
    "sched_arr": "2013-07-02T01:15:00Z",
    "distance_mi": 1400,
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "Flight Delay"}, "wanted a name like flight_delay"),
        ({"slices": ("airline",)}, r"slice \['airline'\] is no category"),
        ({"drift_slice": "hour"}, r"drift slice \['hour'\] is no category"),
        ({"numbers": ("carrier",)}, "each named once"),
        ({"golden_requests": 0}, "golden requests"),
        ({"asked_by": "flight.teleported.v1"}, "'flight.teleported.v1' is no event type of flights"),
        ({"asked_by": "weather.observed.v1"}, r"weather.observed.v1 lacks \['carrier'"),
        ({"views": (ViewUse(view="origin_delay.v9", features=("count_1h",)),)}, r"no view 'origin_delay\.v9'"),
        ({"views": (ViewUse(view="origin_delay.v1", features=("count_2h",)),)}, r"no feature \['count_2h'\]"),
        ({"views": PRODUCT.views[:1] * 2}, "view named twice"),
        (
            {"views": (ViewUse(view="origin_delay.v1", features=("count_1h",), defaults={"count_3h": 1.0}),)},
            r"defaults for \['count_3h'\]",
        ),
    ],
)
def test_a_wrong_product_cannot_be_built(change: dict[str, object], said: str) -> None:
    with pytest.raises(ContractViolation, match=said):
        replace(PRODUCT, **change)  # type: ignore[arg-type]


def test_a_request_without_as_of_or_without_a_views_key_is_refused() -> None:
    with pytest.raises(ContractViolation, match="no field 'as_of'"):
        replace(PRODUCT, request=DOMAIN.contract("flight.scheduled.v1").body)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("carrier", "United", "carrier: "),
        ("flight", "1545", "flight: Expected `int`, got `str`"),
        ("sched_dep", "2013-07-01T21:08:00", "sched_dep: "),
        ("sched_arr", "2013-07-01T20:08:00Z", "sched_arr: got"),
        ("distance_mi", -1, "distance_mi: "),
        ("surprise", 1, "surprise"),
    ],
)
def test_a_refused_request_names_its_field(field: str, value: object, said: str) -> None:
    with pytest.raises(InputRejected, match=said):
        PRODUCT.request_from(FLIGHT | {field: value})


def test_bytes_and_documents_are_refused_for_the_same_reason() -> None:
    with pytest.raises(InputRejected) as by_document:
        PRODUCT.request_from({"carrier": "UA"})
    with pytest.raises(InputRejected) as by_bytes:
        PRODUCT.parse_request(b'{"carrier": "UA"}')

    assert str(by_document.value) == str(by_bytes.value)
    with pytest.raises(InputRejected, match="request: "):
        PRODUCT.parse_request(b"not json")


def test_a_flight_is_asked_an_hour_before_on_the_quarter() -> None:
    request = PRODUCT.request_from(FLIGHT)

    assert PRODUCT.asked_at_us(request) == parse_instant_us("2013-07-01T20:00:00Z", field="wanted")


def test_request_features_are_those_declared_and_local() -> None:
    request = PRODUCT.request_from(FLIGHT)
    as_of_us = PRODUCT.asked_at_us(request)

    found = PRODUCT.compute_request_features(request, load_reference(), as_of_us)

    assert set(found) == {*PRODUCT.numbers, *PRODUCT.categories}
    assert found["local_hour"] == 17 + 8 / 60
    assert found["weekday"] == 0.0
    assert found["lead_min"] == 68.0
    assert found["scheduled_min"] == 247.0
    assert found["plane_age_years"] == 2013 - 1999
    assert found["dest"] == "IAH"


def test_an_airport_nobody_knows_is_the_clients_error() -> None:
    request = PRODUCT.request_from(FLIGHT | {"dest": "QQQ"})

    with pytest.raises(InputRejected, match="dest: got 'QQQ'"):
        PRODUCT.compute_request_features(request, load_reference(), 0)


def test_features_nobody_declared_are_an_error_of_the_product() -> None:
    product = replace(
        PRODUCT, request_features=lambda request, reference, at: request_features(request, reference, at) | {"x": 1.0}
    )

    with pytest.raises(ContractViolation, match=r"differ in \['x'\]"):
        product.compute_request_features(product.request_from(FLIGHT), load_reference(), 0)


def test_an_entity_has_its_keys_as_text_and_a_flight_without_tail_has_no_aircraft() -> None:
    request = PRODUCT.request_from(FLIGHT | {"tail": None})

    assert PRODUCT.entity("origin_carrier_delay.v1", request) == {"origin": "EWR", "carrier": "UA"}
    assert PRODUCT.entity("aircraft_arrival.v1", request) is None


def test_ages_and_counts_are_known_by_their_columns() -> None:
    columns = {c.name: c for c in PRODUCT.columns(dict.fromkeys(PRODUCT.categories, ("A",)))}

    assert columns["aircraft_arrival__seconds_since_last_24h"].kind == "age"
    assert columns["aircraft_arrival__seconds_since_last_24h"].source == "last_at_24h"
    assert columns["origin_delay__count_1h"].kind == "count"
    assert len(columns) == len(PRODUCT.numbers) + len(PRODUCT.categories) + sum(len(u.features) for u in PRODUCT.views)


def test_empty_rows_are_as_wide_as_what_is_used() -> None:
    product: Product = PRODUCT

    assert {view: len(row) for view, row in product.empty_rows.items()} == {
        use.view: len(use.features) for use in product.views
    }


def test_a_specs_digest_covers_its_seed_and_its_numbers() -> None:
    spec = PRODUCT.model

    assert spec.digest == replace(spec).digest
    assert len({spec.digest, replace(spec, seed=spec.seed + 1).digest, replace(spec, l2=spec.l2 + 1).digest}) == 3


def test_asking_never_looks_past_the_as_of() -> None:
    request = PRODUCT.request_from(FLIGHT)

    assert PRODUCT.asked_at_us(request) <= parse_instant_us(FLIGHT["sched_dep"], field="wanted") - 60 * MINUTE_US  # type: ignore[arg-type]


def test_an_event_that_asks_is_a_request_whatever_else_is_in_its_body() -> None:
    enriched = msgspec.json.encode({**FLIGHT, "dest_lat": 29.98, "plane_year": None})

    asked = msgspec.json.decode(enriched, type=PRODUCT.asking)

    assert isinstance(asked, PRODUCT.request)
    assert msgspec.json.encode(asked) == msgspec.json.encode(PRODUCT.request_from(FLIGHT))
