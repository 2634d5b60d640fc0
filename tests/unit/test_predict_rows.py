"""Several requests in one question of the JSON API: each row is answered, or refused, by itself."""

from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.clock import SECOND_US
from serving.predict import MAX_ROWS_BYTES
from serving.scoring import row_receipts
from tests.prediction_world import AS_OF, NOW_US, VIEWS, Service, Store
from tests.serving_world import FLIGHT, flight

RECEIPT = "0198c0de-7a00-7abc-9def-0123456789ab"
PATH = "/v1/flight_delay/predict/rows"


def ask(service: Service, *rows: dict[str, Any] | int, receipt: str = RECEIPT) -> httpx.Response:
    return service.post(PATH, msgspec.json.encode({"rows": rows}), headway_receipt=receipt)


def row(**changes: Any) -> dict[str, Any]:
    return {**FLIGHT, "as_of": AS_OF, **changes}


def test_every_row_is_answered_as_if_it_were_asked_alone() -> None:
    service = Service()
    rows = [row(), row(tail=None), row(dest="BOS", carrier="B6")]

    document = ask(service, *rows).json()

    alone = [service.predict(msgspec.json.encode(each)).json() for each in rows]
    for place, (together, single) in enumerate(zip(document["rows"], alone, strict=True)):
        assert (together["index"], together["status"]) == (place, 200)
        for name in ("probability", "as_of", "features"):
            assert together[name] == single[name]
    assert (document["product"], document["model"]) == (alone[0]["product"], alone[0]["model"])


def test_all_entities_of_all_rows_are_read_in_one_round_trip() -> None:
    service = Service()

    ask(service, row(), row(dest="BOS"), row(tail=None))

    assert [len(rows) for rows in service.store.asked] == [3]


def test_each_row_is_logged_once_under_its_own_receipt() -> None:
    service = Service()

    document = ask(service, row(), row(dest="BOS")).json()

    receipts = [each["receipt"] for each in document["rows"]]
    assert {p.receipt: p.probability for p in service.logged()} == {
        each["receipt"]: each["probability"] for each in document["rows"]
    }
    assert receipts == row_receipts(RECEIPT, 2)
    assert service.metric('headway_prediction_answers_total{outcome="ok"') == 2
    assert service.metric("headway_predictions_served_total") == 2


@pytest.mark.parametrize(
    ("bad", "status", "words"),
    [
        (row(carrier=7), 400, "carrier: Expected `str`, got `int`"),
        (row(dest="ZZZ"), 400, "dest"),
        (row(surprise=1), 400, "surprise"),
        (7, 400, "Expected `object`"),
        (row(as_of="2013-07-01T13:00:00Z"), 400, f"wanted {AS_OF} as in row 0"),
        (row(as_of=None), 400, "as_of: got None"),
        (row(tail="N1"), 409, "already holds"),
    ],
)
def test_a_bad_row_is_refused_by_itself(bad: Any, status: int, words: str) -> None:
    service = Service(Store(young_tail="N1"))

    answer = ask(service, row(), bad, row(dest="BOS"))

    document = answer.json()
    assert answer.status_code == 207
    assert [each["status"] for each in document["rows"]] == [200, status, 200]
    refused = document["rows"][1]
    assert set(refused) == {"index", "status", "problem"}
    assert words in refused["problem"]["detail"]
    assert refused["problem"]["status"] == status
    assert [p.receipt for p in service.logged()] == sorted(document["rows"][place]["receipt"] for place in (0, 2))


def test_when_every_row_is_bad_nothing_is_read_or_logged() -> None:
    service = Service()

    answer = ask(service, row(carrier=7), row(carrier=8))

    assert (answer.status_code, service.store.asked, service.logged()) == (207, [], [])


def test_rows_without_an_instant_are_asked_for_as_of_now() -> None:
    service = Service(Store(row_us=NOW_US + SECOND_US, watermarks_us=[NOW_US]))

    document = ask(service, dict(FLIGHT), {**FLIGHT, "dest": "BOS"}).json()

    assert {each["as_of"] for each in document["rows"]} == {"2013-07-02T14:00:01Z"}


def test_an_unreachable_store_degrades_every_row() -> None:
    service = Service(Store(away=True))

    document = ask(service, row(), row(tail=None)).json()

    assert [each["features"]["degraded"] for each in document["rows"]] == [True, True]
    assert [[view.values for view in each.views] for each in service.logged()] == [[None] * VIEWS] * 2


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b'{"rows": []}', 400, "rows: got 0, wanted 1 to 3"),
        (msgspec.json.encode({"rows": [FLIGHT] * 4}), 400, "rows: got 4, wanted 1 to 3"),
        (b'{"rows": {}}', 400, "Expected `array`"),
        (b'{"rows": [{}], "as_of": null}', 400, "as_of"),
        (flight(), 400, "wanted"),
        (b"[]", 400, "Expected `object`"),
        (b"{", 400, "body: "),
        (b'{"rows":' + b"[" * 5_000, 400, "body: "),
        (b" " * (MAX_ROWS_BYTES + 1), 413, str(MAX_ROWS_BYTES)),
    ],
)
def test_what_is_no_question_of_rows_is_refused_as_a_whole(body: bytes, status: int, words: str) -> None:
    service = Service(rows=3)

    answer = service.post(PATH, body)

    assert (answer.status_code, words in answer.json()["detail"]) == (status, True), answer.text
    assert service.logged() == []


@given(receipt=st.uuids(), rows=st.integers(1, 300))
def test_receipts_of_rows_follow_from_the_questions_and_are_all_different(receipt: UUID, rows: int) -> None:
    """A question that the load balancer sends twice must be logged once (S17)."""
    made = row_receipts(str(receipt), rows)

    assert made == row_receipts(str(receipt), rows)
    assert made[0] == str(receipt)
    assert len(set(made)) == rows
    for each in made[1:]:
        assert (UUID(each).version, UUID(each).variant, UUID(each).bytes[:6]) == (
            7,
            "specified in RFC 4122",
            receipt.bytes[:6],
        )


def test_a_receipt_of_another_maker_is_kept_readable() -> None:
    assert row_receipts("r-1", 3) == ["r-1", "r-1.1", "r-1.2"]
    assert row_receipts("r-1", 1) == ["r-1"]
