"""A view that breaks a rule cannot be built, and its refusal names field, got and wanted."""

from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any

import msgspec
import pytest

from domains.flights.domain import DOMAIN
from headway.contracts import Contract, Domain
from headway.errors import ContractViolation
from headway.features.changelog import changelog_table
from headway.features.definitions import Aggregate, FeatureView
from headway.features.wellformed import RESERVED
from headway.meanings import Meaning, meanings
from tests.streaming_world import Airports

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
COUNT = Aggregate(function="count", window=HOUR)
VIEW = FeatureView(
    name="delay",
    version=1,
    keys=("origin",),
    source="flight.departed.v1",
    fields={"delay_min": "int64", "gust_mph": "float64"},
    aggregates=(COUNT,),
    owner="tests",
    description="A view under test.",
)


def aggregate(function: Any, field: str | None = "delay_min", window: Any = HOUR) -> Aggregate:
    return Aggregate(function=function, field=field, window=window)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: aggregate("median"), "aggregate, function: got 'median', wanted one of .*'last_ever'"),
        (lambda: aggregate("mean", None), "aggregate mean, field: got None, wanted the field it reads"),
        (lambda: aggregate("mean", ""), "aggregate mean, field: got '', wanted a name like dep_delay_min"),
        (lambda: aggregate("mean", "Delay"), "field: got 'Delay', wanted a name"),
        (lambda: aggregate("mean", window=None), "window: got None, wanted whole minutes, one or more"),
        (lambda: aggregate("mean", window=timedelta(0)), "window: got '0:00:00', wanted whole minutes"),
        (lambda: aggregate("mean", window=-HOUR), "window: got '-1 day, 23:00:00', wanted whole minutes"),
        (lambda: aggregate("mean", window=timedelta(seconds=90)), "window: got '0:01:30', wanted whole minutes"),
        (lambda: aggregate("mean", window=60), "window: got 60, wanted whole minutes"),
        (lambda: aggregate("last_ever"), "aggregate last_ever, window: .*last_ever has no window"),
        (lambda: aggregate("last", "at_gate_min"), "got 'at_gate_min', wanted another name: last_at_gate_min reads as"),
        (lambda: aggregate("last", "ever"), "got 'ever', wanted another name"),
    ],
)
def test_an_aggregate_without_one_meaning_is_refused(made: Any, said: str) -> None:
    with pytest.raises(ContractViolation, match=said):
        made()


def test_two_aggregates_have_one_name_only_when_they_are_equal() -> None:
    """The hash covers aggregates by name: a shared name would let a meaning change unseen."""
    fields = [None, "at", "x", "at_x", "ever", "ever_x", "x_1h"]
    made: dict[str, Aggregate] = {}
    for function in ("count", "sum", "mean", "min", "max", "last", "last_at", "last_ever"):
        for field in fields:
            for window in (None, HOUR, 24 * HOUR, 48 * HOUR, 5 * MINUTE):
                try:
                    one = aggregate(function, field, window)
                except ContractViolation:
                    continue
                assert made.setdefault(one.name, one) == one
    assert len(made) > 100


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "Origin Delay"}, "feature view, name: got 'Origin Delay', wanted a name like origin_delay"),
        ({"name": ""}, "feature view, name: got '', wanted a name"),
        ({"version": 0}, "feature view delay, version: got 0, wanted a whole number from 1"),
        ({"version": True}, "version: got True, wanted a whole number"),
        ({"version": "1"}, "version: got '1', wanted a whole number"),
        ({"keys": ()}, r"feature view delay\.v1, keys: got \(\), wanted a tuple of event fields"),
        ({"keys": "origin"}, r"keys: got 'origin', .*needs its comma: \('origin',\)"),
        ({"keys": ("",)}, "keys: got '', wanted a name like origin"),
        ({"keys": ("origin", "origin")}, r"keys: got \('origin', 'origin'\), wanted each field once"),
        ({"keys": ("month",)}, r"keys: got \['month'\], wanted none of the columns every view has"),
        ({"keys": ("count_1h",)}, r"keys: got \['count_1h'\], wanted names that no feature of the view has"),
        ({"source": ""}, "source: got '', wanted an event type"),
        (
            {"fields": {"delay_min": "int32"}},
            r"fields\['delay_min'\]: got 'int32', wanted one of \('int64', 'float64'\)",
        ),
        ({"fields": {"": "int64"}}, "fields: got '', wanted a name"),
        ({"fields": {"origin": "int64"}}, r"fields: got \['origin'\], wanted fields that are no keys"),
        ({"aggregates": ()}, r"aggregates: got \(\), wanted at least one"),
        ({"aggregates": (COUNT, COUNT)}, r"aggregates: got \['count_1h', 'count_1h'\], wanted each once"),
        ({"aggregates": (aggregate("max", "carrier"),)}, r"max_carrier_1h, field: got 'carrier', wanted one of"),
        (
            {"aggregates": (aggregate("max", "origin"),)},
            "max_origin_1h, field: got 'origin', wanted a field that is no key",
        ),
        ({"aggregates": (aggregate("sum", "gust_mph"),)}, "got 'gust_mph: float64', wanted int64 in a declared unit"),
        ({"aggregates": (aggregate("mean", "gust_mph"),)}, r"float64.*\(S9\)"),
        ({"aggregates": (aggregate("max", window=7 * MINUTE),)}, "got '0:07:00', wanted a multiple of the hop 0:05:00"),
        ({"hop": timedelta(0)}, "hop: got '0:00:00', wanted whole minutes"),
        ({"lateness": -MINUTE}, "lateness: got .*, wanted whole minutes"),
        ({"max_lag": MINUTE}, "max_lag: got .*, wanted the hop 0:05:00 or more"),
        ({"max_lag": timedelta(0)}, "max_lag: "),
        ({"owner": " "}, "owner: got ' ', wanted a text"),
        ({"description": ""}, "description: got '', wanted a text"),
    ],
)
def test_a_view_that_breaks_a_rule_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ContractViolation, match=said):
        replace(VIEW, **change)


def test_floats_may_be_the_newest_the_least_the_greatest_and_dated() -> None:
    chosen = tuple(aggregate(function, "gust_mph") for function in ("last", "min", "max", "last_at", "count"))

    view = replace(VIEW, aggregates=chosen)

    assert list(view.columns.values()) == ["float64", "float64", "float64", "int64", "int64"]


def test_names_that_no_key_may_have_are_the_columns_every_view_has() -> None:
    assert changelog_table(VIEW).columns.keys() - {*VIEW.keys, *VIEW.columns} == RESERVED


@pytest.mark.parametrize(
    "change",
    [
        {"keys": ("dest",)},
        {"source": "flight.arrived.v1"},
        {"fields": {"delay_min": "int64"}},
        {"aggregates": (aggregate("mean"),)},
        {"hop": 10 * MINUTE},
        {"lateness": 3 * HOUR},
        {"version": 2},
    ],
)
def test_the_hash_covers_everything_that_changes_a_value(change: dict[str, Any]) -> None:
    assert replace(VIEW, **change).digest != VIEW.digest


def test_the_hash_does_not_cover_what_changes_no_value() -> None:
    other = replace(VIEW, owner="others", description="Said better.", max_lag=HOUR)

    assert other.digest == VIEW.digest


class Body(msgspec.Struct):
    origin: str
    delay_min: Annotated[int, msgspec.Meta(description="minutes, negative = early", extra={"unit": "min"})] | None
    gust_mph: float | None
    seen: int


def domain(view: FeatureView) -> Domain:
    contract = Contract(event_type="flight.departed.v1", body=Body, description="left", owner="tests")
    return Domain(
        name="small", source="/s", contracts=(contract,), enrichment={}, views=(view,), load_reference=Airports
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"keys": ("dest",)}, r"domain small, feature view delay\.v1: flight\.departed\.v1 has no field \['dest'\]"),
        ({"keys": ("gust_mph",), "fields": {}}, r"keys: got \{'gust_mph': 'float64'\}, wanted string or int64"),
        (
            {"fields": {"delay_min": "float64"}},
            r"fields: got \{'delay_min': 'float64'\}, wanted \{'delay_min': 'int64'\}",
        ),
        ({"lateness": HOUR}, "lateness: got 1:00:00, wanted 2:00:00"),
        (
            {"fields": {"seen": "int64"}, "aggregates": (aggregate("sum", "seen"),)},
            r"sum and mean of \['seen'\] without a unit \(S9\)",
        ),
    ],
)
def test_a_view_that_does_not_fit_its_events_is_refused_by_its_domain(change: dict[str, Any], said: str) -> None:
    domain(VIEW)

    with pytest.raises(ContractViolation, match=said):
        domain(replace(VIEW, **change))


def test_the_same_version_twice_is_refused() -> None:
    with pytest.raises(ContractViolation, match=r"declared twice in \['delay\.v1', 'delay\.v1'\]"):
        replace(domain(VIEW), views=(VIEW, replace(VIEW, aggregates=(aggregate("mean"),))))


def test_a_fields_meaning_is_what_its_contract_says() -> None:
    assert meanings(Body) == {
        "origin": Meaning(unit=None, description=None),
        "delay_min": Meaning(unit="min", description="minutes, negative = early"),
        "gust_mph": Meaning(unit=None, description=None),
        "seen": Meaning(unit=None, description=None),
    }


def test_every_measure_of_the_flights_has_a_unit_and_words() -> None:
    for view in DOMAIN.views:
        found = DOMAIN.contract(view.source).meanings
        assert all(found[field].unit and found[field].description for field in view.fields)
