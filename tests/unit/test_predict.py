"""What a client of the prediction API sees, with the online store and the log in memory."""

import re
from typing import Any

import msgspec
import pytest

from headway.clock import HOUR_US, SECOND_US, parse_instant_us
from headway.errors import ContractViolation
from headway.manifest import MANIFEST_FILE, MODEL_FILE, encode_manifest
from serving.docs_page import asked_at
from serving.predict import MAX_REQUEST_BYTES, load_predictor
from tests.prediction_world import AS_OF, AS_OF_US, NOW_US, VIEWS, Service, Store
from tests.serving_world import flight, product, trained


def test_an_answer_names_probability_model_features_and_receipt() -> None:
    service = Service()

    answer = service.predict(flight(as_of=AS_OF), headway_receipt="r-1")

    document = answer.json()
    assert answer.status_code == 200
    assert answer.headers["x-headway-version"] == "3"
    assert document["model"] == {"name": "flight_delay", "version": 3, "digest": trained(1).manifest.digest}
    assert document["features"] == {"watermark": AS_OF, "lag_s": 0.0, "stale": [], "missing": [], "degraded": False}
    assert (document["product"], document["as_of"], document["receipt"]) == ("flight_delay", AS_OF, "r-1")
    assert 0 < document["probability"] < 1


def test_all_entities_are_read_in_one_round_trip() -> None:
    service = Service()

    service.predict(flight(as_of=AS_OF))

    [[row]] = service.store.asked
    assert set(row) == {key for view in product().feature_views.values() for key in view.keys}


def test_the_logged_record_gives_the_same_score_again() -> None:
    service = Service()

    answer = service.predict(flight(as_of=AS_OF))
    [logged] = service.logged()

    request = product().parse_request(bytes(logged.request))
    features = product().compute_request_features(request, service.reference, logged.as_of_us)
    again = trained(1).predictor().predict(features, {v.view: v.values for v in logged.views}, logged.as_of_us)
    assert again.score == answer.json()["probability"] == logged.probability
    assert (logged.receipt, logged.as_of_us, logged.requested_at_us) == (answer.json()["receipt"], AS_OF_US, NOW_US)
    assert {view.watermark_us for view in logged.views} == {AS_OF_US}


def test_without_as_of_the_arrival_is_asked_for_and_not_waited_for() -> None:
    """In production the watermark is always behind now; waiting for it would cost every request the whole budget."""
    service = Service(Store(watermarks_us=[NOW_US - 60 * SECOND_US]))

    document = service.predict(flight()).json()

    assert (len(service.store.asked), document["features"]["lag_s"], document["features"]["stale"]) == (1, 60.0, [])
    assert parse_instant_us(document["as_of"], field="as_of") == NOW_US


def test_without_as_of_a_view_beyond_its_max_lag_is_stale() -> None:
    service = Service(Store(watermarks_us=[NOW_US - HOUR_US]))

    assert len(service.predict(flight()).json()["features"]["stale"]) == VIEWS


def test_a_named_as_of_waits_for_the_watermark() -> None:
    """Watermarks alone are asked for meanwhile; rows again once they were worth it."""
    service = Service(Store(watermarks_us=[AS_OF_US - HOUR_US, AS_OF_US - HOUR_US, AS_OF_US]))

    document = service.predict(flight(as_of=AS_OF)).json()

    assert ([len(rows) for rows in service.store.asked], document["features"]["stale"]) == ([1, 0, 0, 1], [])


@pytest.mark.parametrize("watermark_us", [AS_OF_US - HOUR_US, None])
def test_a_watermark_that_does_not_come_makes_a_stale_answer_with_the_lag(watermark_us: int | None) -> None:
    service = Service(Store(watermarks_us=[watermark_us]))

    features = service.predict(flight(as_of=AS_OF)).json()["features"]

    assert len(features["stale"]) == VIEWS
    assert features["lag_s"] == (None if watermark_us is None else 3600.0)
    assert [len(p.stale) for p in service.logged()] == [VIEWS]


def test_a_row_younger_than_the_as_of_is_never_used() -> None:
    service = Service(Store(row_us=AS_OF_US + 1))

    answer = service.predict(flight(as_of=AS_OF))

    assert (answer.status_code, answer.json()["type"]) == (409, "urn:headway:problem:as-of-in-the-past")
    assert service.logged() == []


def test_a_producers_clock_a_second_ahead_does_not_refuse_now() -> None:
    service = Service(Store(row_us=NOW_US + SECOND_US, watermarks_us=[NOW_US]))

    document = service.predict(flight()).json()

    assert parse_instant_us(document["as_of"], field="as_of") == NOW_US + SECOND_US


def test_an_unreachable_store_degrades_to_declared_defaults() -> None:
    service = Service(Store(away=True))

    document = service.predict(flight(as_of=AS_OF)).json()

    assert (document["features"]["degraded"], document["features"]["watermark"]) == (True, None)
    assert [view.values for view in service.logged()[0].views] == [None] * VIEWS


def test_an_entity_without_rows_is_missing_and_not_degraded() -> None:
    service = Service(Store(row_us=None))

    features = service.predict(flight(as_of=AS_OF)).json()["features"]

    assert (len(features["missing"]), features["degraded"]) == (VIEWS, False)


def test_a_flight_without_an_aircraft_is_answered_without_reading_one() -> None:
    service = Service()

    features = service.predict(flight(tail=None, as_of=AS_OF)).json()["features"]

    assert service.store.asked[0][0]["tail"] is None
    assert features["missing"] == ["aircraft_arrival.v1", "aircraft_departure.v1"]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (flight(carrier=7), "carrier"),
        (flight(dest="ZZZ"), "dest"),
        (flight(as_of="yesterday"), "as_of"),
        (flight(surprise=1), "surprise"),
        (flight(sched_arr="2013-07-01T15:00:00Z"), "sched_arr"),
        (b'{"carrier": "UA"}', "flight"),
        (b"carrier=UA", "request"),
    ],
)
def test_a_wrong_request_is_a_400_that_names_the_field(body: bytes, named: str) -> None:
    service = Service()

    answer = service.predict(body)

    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    assert named in answer.json()["detail"]
    assert service.logged() == []


def test_a_large_body_is_413_and_another_media_type_415() -> None:
    service = Service()

    assert service.predict(b" " * (MAX_REQUEST_BYTES + 1)).status_code == 413
    assert service.predict(flight(), content_type="text/plain").status_code == 415


def test_another_method_says_which_is_allowed() -> None:
    answer = Service().send("GET", "/v1/flight_delay/predict")

    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_a_receipt_is_made_where_no_load_balancer_made_one() -> None:
    receipt = Service().predict(flight(as_of=AS_OF)).json()["receipt"]

    assert receipt[14] == "7"


def test_a_log_that_is_away_costs_no_answer_and_is_counted() -> None:
    service = Service(deaf=True)

    answer = service.predict(flight(as_of=AS_OF))

    assert answer.status_code == 200
    assert service.metric("headway_predictions_served_total") == 1
    assert service.metric('headway_predictions_logged_total{outcome="failed"') == 1
    assert service.metric('headway_prediction_answers_total{outcome="ok"') == 1


def test_golden_requests_are_neither_logged_nor_counted() -> None:
    service = Service()

    service.api.served().check_golden()

    assert (service.logged(), service.metric("headway_predictions_served_total"), service.store.asked) == ([], 0, [])


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/v1/flight_delay/readyz", "/metrics"])
def test_health_is_answered_with_and_without_the_public_prefix(path: str) -> None:
    assert Service().send("GET", path).status_code == 200


def test_the_openapi_document_describes_the_request_by_its_own_type() -> None:
    document = Service().send("GET", "/openapi.json").json()

    operation = document["paths"]["/v1/flight_delay/predict"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    assert set(document["components"]["schemas"][schema]["required"]) == set(msgspec.json.decode(flight()))


def test_the_examples_of_the_openapi_document_run_as_they_stand() -> None:
    service = Service(Store(watermarks_us=[NOW_US]))
    document = service.send("GET", "/v1/flight_delay/openapi.json").json()

    for path, methods in document["paths"].items():
        operation = methods["post"]
        asked = operation["requestBody"]["content"]["application/json"]["example"]
        answer = service.post(path, msgspec.json.encode(asked))
        shown = operation["responses"]["200"]["content"]["application/json"]["example"]
        assert answer.status_code == 200, answer.text
        assert shape(answer.json()) == shape(shown)


def shape(document: Any) -> Any:
    """The names in a document and where they are."""
    if isinstance(document, dict):
        return {name: shape(value) for name, value in document.items()}
    return [shape(value) for value in document[:1]] if isinstance(document, list) and document else None


def test_the_page_for_people_shows_a_command_and_a_form_for_every_operation_and_asks_nobody_for_anything() -> None:
    service = Service()
    answer = service.send("GET", "/v1/flight_delay/docs", headers={"host": "door:18000"})

    paths = service.send("GET", "/openapi.json").json()["paths"]
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert [path for path in paths if f"curl -s http://door:18000{path} \\\n" not in answer.text] == []
    assert re.findall("data-path='(.+?)'", answer.text) == list(paths)
    assert re.findall("https?://[^/ <]+", answer.text) == ["http://door:18000"] * len(paths)
    assert [word for word in ("src=", "@import", "url(") if word in answer.text] == []


def test_the_page_for_people_says_what_a_field_means_and_may_be() -> None:
    page = Service().send("GET", "/v1/flight_delay/docs").text

    assert "<td>distance_mi</td><td>integer</td><td>needed</td><td>statute miles; 1 to 12000</td>" in page
    assert (
        "<td>tail</td><td>string or null</td><td>needed</td><td>aircraft registration; matches ^[A-Z0-9]{2,8}$</td>"
        in page
    )
    assert "<td>model</td><td><a href='#Model'>Model</a></td>" in page


@pytest.mark.parametrize(
    ("headers", "base"),
    [
        ({b"host": b"127.0.0.1:18000"}, "http://127.0.0.1:18000"),
        ({b"host": b"[::1]:18005", b"x-forwarded-proto": b"https"}, "https://[::1]:18005"),
        ({b"host": b"a; rm -rf ~"}, ""),
        ({}, ""),
    ],
)
def test_commands_ask_where_the_page_was_asked_for_unless_that_is_no_address(
    headers: dict[bytes, bytes], base: str
) -> None:
    assert asked_at(headers) == base


def test_a_folder_with_other_bytes_than_its_manifest_is_not_served(tmp_path: Any) -> None:
    (tmp_path / MODEL_FILE).write_bytes(trained(2).text)
    (tmp_path / MANIFEST_FILE).write_bytes(encode_manifest(trained(1).manifest))

    with pytest.raises(ContractViolation, match="manifest says"):
        load_predictor(product(), product().domain.load_reference(), tmp_path)


def test_a_model_of_other_views_is_not_served(tmp_path: Any) -> None:
    views = {**trained(1).manifest.views, "weather.v1": "f" * 16}
    (tmp_path / MODEL_FILE).write_bytes(trained(1).text)
    (tmp_path / MANIFEST_FILE).write_bytes(encode_manifest(msgspec.structs.replace(trained(1).manifest, views=views)))

    with pytest.raises(ContractViolation, match=r"weather\.v1"):
        load_predictor(product(), product().domain.load_reference(), tmp_path)
