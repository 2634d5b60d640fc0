"""What every Enrichment answers, in process and over HTTP; the reference is real, and so is the server."""

import json
from collections.abc import Callable, Iterator

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domains.flights.domain import DOMAIN
from domains.flights.reference import load_reference
from headway.adapters.enrichment_http import HttpEnrichment
from headway.enrichment import CachedEnrichment, ReferenceEnrichment
from headway.ports import Enriched, Enrichment, EnrichmentItem, EnrichmentRefused
from serving.enrichment import EnrichmentApi
from serving.replica import ReplicaServer, Served

REFERENCE = load_reference()


@pytest.fixture(scope="module")
def api_url() -> Iterator[str]:
    api = EnrichmentApi(DOMAIN, REFERENCE)
    served = Served(app=api, digest=REFERENCE.version, check_golden=lambda: None, close=lambda: None)
    server = ReplicaServer(served, host="127.0.0.1", port=0)
    server.start()
    yield f"http://127.0.0.1:{server.port}"
    server.leave(drain_s=0, timeout_s=5)


@pytest.fixture(params=["in-process", "http", "cached-http"], scope="module")
def enrichment(request: pytest.FixtureRequest) -> Iterator[Enrichment]:
    if request.param == "in-process":
        yield ReferenceEnrichment(REFERENCE)
        return
    client = HttpEnrichment(request.getfixturevalue("api_url"))
    yield client if request.param == "http" else CachedEnrichment(client, DOMAIN)
    client.close()


def item(event_type: str = "flight.departed.v1", **fields: object) -> EnrichmentItem:
    contract = DOMAIN.contract(event_type)
    body = {**(contract.example or {}), **fields}
    return EnrichmentItem(event_type, msgspec.convert(body, contract.body))


def test_every_example_of_a_contract_is_enriched_with_every_declared_column(enrichment: Enrichment) -> None:
    items = [item(contract.event_type) for contract in DOMAIN.contracts]

    answers = enrichment.enrich(items)

    assert [set(answer.columns) for answer in answers if isinstance(answer, Enriched)] == [
        set(DOMAIN.enrichment)
    ] * len(items)
    assert {answer.version for answer in answers if isinstance(answer, Enriched)} == {REFERENCE.version}


def test_a_body_the_reference_does_not_know_is_refused_and_the_others_are_answered(enrichment: Enrichment) -> None:
    first, second, third = enrichment.enrich([item(), item(dest="XXX"), item(carrier="ZZ")])

    assert isinstance(first, Enriched)
    assert isinstance(second, EnrichmentRefused)
    assert isinstance(third, EnrichmentRefused)
    assert (second.field, third.field) == ("dest", "carrier")
    assert "got 'XXX', wanted one of the" in second.detail


def test_no_item_is_no_question(enrichment: Enrichment) -> None:
    assert enrichment.enrich([]) == []


def test_more_items_than_one_call_takes_are_answered_in_order(enrichment: Enrichment) -> None:
    tails = [f"N{number}" for number in range(1201)]

    answers = enrichment.enrich([item(tail=tail) for tail in [*tails, "N14228"]])

    assert len(answers) == 1202
    last = answers[-1]
    assert isinstance(last, Enriched)
    assert last.columns["plane_year"] == 1999


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from([code for code in sorted(REFERENCE.airports) if code.isalpha()]),
            st.sampled_from([*sorted(REFERENCE.planes)[:50], None, "NOPLANE"]),
            st.sampled_from(sorted(REFERENCE.airlines)),
            st.integers(-100, 100),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_columns_are_those_of_the_reference_to_the_last_bit(
    enrichment: Enrichment, flights: list[tuple[str, str | None, str, int]]
) -> None:
    """Bulk history is enriched in process, the stream over HTTP: the lake must not show which."""
    items = [item(dest=dest, tail=tail, carrier=carrier, dep_delay_min=delay) for dest, tail, carrier, delay in flights]

    answers = enrichment.enrich(items)

    assert [a.columns for a in answers if isinstance(a, Enriched)] == [REFERENCE.enrich(i.body) for i in items]


def test_what_is_declared_as_read_is_all_the_reference_reads() -> None:
    """The cache answers for equal inputs; an input that is not declared would give one flight another's columns."""
    read: set[str] = set()

    for contract in DOMAIN.contracts:
        fields = contract.body.__struct_fields__
        spy = type("Spy", (contract.body,), {"__getattribute__": _noting(read, fields)}, frozen=True, kw_only=True)
        REFERENCE.enrich(msgspec.convert(contract.example, spy))

    assert read == set(DOMAIN.enrichment_inputs or ())


def _noting(read: set[str], fields: tuple[str, ...]) -> Callable[[object, str], object]:
    def get(self: object, name: str) -> object:
        if name in fields and not _in_post_init():
            read.add(name)
        return object.__getattribute__(self, name)

    return get


def _in_post_init() -> bool:
    import sys

    return any(sys._getframe(depth).f_code.co_name == "__post_init__" for depth in range(1, 4))


def test_the_document_of_the_api_has_an_example_that_the_api_answers(api_url: str) -> None:
    import http.client
    from urllib.parse import urlsplit

    connection = http.client.HTTPConnection(urlsplit(api_url).netloc, timeout=5)
    connection.request("GET", "/openapi.json")
    document = json.loads(connection.getresponse().read())
    example = document["paths"]["/v1/enrich"]["post"]["requestBody"]["content"]["application/json"]["example"]
    connection.request("POST", "/v1/enrich", json.dumps(example), {"content-type": "application/json"})
    reply = json.loads(connection.getresponse().read())
    connection.close()

    assert [result["status"] for result in reply["results"]] == ["enriched"] * len(DOMAIN.contracts)
    assert reply["version"] == REFERENCE.version
    assert reply["age_s"] >= 0
