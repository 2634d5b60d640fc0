"""From a receipt to everything an answer was made of, and to the same score again; each way that it can fail says why."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from headway.adapters.memory import MemoryReader
from headway.clock import SECOND_US
from headway.errors import ContractViolation, InputRejected
from headway.ports import Record
from headway.predictions import Prediction, prediction_record
from headway.receipt_view import receipt_facts, receipt_lines
from headway.receipts import NotRecomputed, Receipt, Recomputed, origin
from headway.topics import FEATURES_INPUT, scores_topic
from serving.receipt_api import ReceiptApi
from serving.receipt_command import sampled
from serving.receipts import NoSuchReceipt, NotYet
from tests.receipt_world import ASKED_US, Installation, answer, receipt_at
from tests.serving_world import product, trained

ID = receipt_at(ASKED_US)


@pytest.fixture
def place(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


def changed(**changes: object) -> Prediction:
    return msgspec.structs.replace(answer(ID), **changes)


def reason(receipt: Receipt) -> str:
    assert isinstance(receipt.verdict, NotRecomputed)
    assert not receipt.holds
    return receipt.verdict.reason


def test_an_answer_that_is_only_in_the_log_comes_out_again_bit_for_bit(place: Installation) -> None:
    place.log(answer(ID, number=3))

    receipt = place.desk().receipt(ID)

    assert receipt.verdict == Recomputed(probability=answer(ID, number=3).probability, difference=0.0)
    assert (receipt.holds, receipt.kept.where, receipt.kept.copies) == (True, "log", 1)


def test_once_the_lake_has_it_the_lake_answers_with_the_place_in_the_log(place: Installation) -> None:
    place.log(answer(receipt_at(ASKED_US, 1)), answer(ID))
    [logged] = [m for m in MemoryReader(place.broker).read(place.topic) if m.key == ID.encode()]
    place.load()

    kept = place.desk().receipt(ID).kept

    assert (kept.where, kept.topic, kept.partition, kept.offset) == (
        "lake",
        place.topic,
        logged.partition,
        logged.offset,
    )
    assert kept.prediction == answer(ID)


def test_a_record_that_moves_to_the_lake_meanwhile_is_not_missed(place: Installation) -> None:
    """How far the lake is, is read first: read last, it would hide what was loaded after the lake was asked."""
    place.log(answer(receipt_at(ASKED_US, 1)))
    place.load()
    place.log(answer(ID))
    desk, committed = place.desk(), place.lake.committed

    def loading(table: str, app_id: str) -> int | None:
        held = committed(table, app_id)
        place.load()
        return held

    place.lake.committed = loading  # type: ignore[method-assign]  # the loader's turn comes at the worst moment
    found = desk.receipt(ID)

    assert found.holds


def test_a_batch_row_has_no_place_in_a_log(place: Installation) -> None:
    place.batch([answer("batch-" + "0" * 32, source="batch")])

    receipt = place.desk().receipt("batch-" + "0" * 32)

    assert (receipt.holds, receipt.kept.topic, receipt_facts(receipt)["path"]) == (True, None, "batch")


def test_a_stream_score_is_found_in_its_own_topic_wherever_its_subject_put_it(place: Installation) -> None:
    receipt = "stream-" + "0" * 32
    scored = prediction_record(answer(receipt, source="stream"))
    place.broker.append(Record(scores_topic(product().name), b"a flight", scored.value, partition=2))

    kept = place.desk().receipt(receipt).kept

    assert (kept.prediction.source, kept.topic, kept.partition) == ("stream", scores_topic(product().name), 2)


def test_of_a_request_that_was_sent_again_the_last_answer_counts(place: Installation) -> None:
    place.log(answer(ID, number=1), answer(ID, number=2))

    for loaded in (False, True):
        if loaded:
            place.load()
        kept = place.desk().receipt(ID).kept
        assert (kept.prediction, kept.copies) == (answer(ID, number=2), 2)


@pytest.mark.parametrize(("after_us", "expected"), [(9 * SECOND_US, NotYet), (11 * SECOND_US, NoSuchReceipt)])
def test_what_was_asked_in_the_last_ten_seconds_may_still_come(
    place: Installation, after_us: int, expected: type[Exception]
) -> None:
    place.now_us += after_us

    with pytest.raises(expected, match=ID):
        place.desk().receipt(ID)


def test_what_is_no_receipt_is_refused_before_anything_is_read(place: Installation) -> None:
    with pytest.raises(InputRejected, match="wanted the id from an answer"):
        place.desk().receipt("1' OR '1'='1")


@pytest.mark.parametrize("part", ["probability", "request", "values"])
def test_a_record_that_was_changed_does_not_hold_and_says_by_how_much(place: Installation, part: str) -> None:
    logged = answer(ID)
    *others, last = logged.views
    changes: dict[str, Any] = {
        "probability": {"probability": logged.probability + 1e-16 * 2**3},
        "request": {"request": msgspec.Raw(bytes(logged.request).replace(b"T15:00", b"T04:00"))},
        "values": {"views": (*others, msgspec.structs.replace(last, values=(-99.0,) * len(last.values or ())))},
    }
    place.log(changed(**changes[part]))

    receipt = place.desk().receipt(ID)

    assert isinstance(receipt.verdict, Recomputed)
    assert (receipt.holds, receipt.verdict.difference != 0) == (False, True)
    assert "the record was changed since, or the code was (abc answered, this is def)" in receipt_lines(receipt)[-1]


def test_features_in_another_order_are_no_score_but_a_reason(place: Installation) -> None:
    first, *others = answer(ID).views
    place.log(changed(views=(msgspec.structs.replace(first, features=first.features[::-1]), *others)))

    assert "view origin_delay.v1: the record has ('mean_dep_delay_min_24h'" in reason(place.desk().receipt(ID))


def test_a_model_that_is_gone_is_named_and_the_record_is_shown_all_the_same(place: Installation) -> None:
    logged = answer(ID)
    place.log(changed(model=msgspec.structs.replace(logged.model, version=7)))

    receipt = place.desk().receipt(ID)

    assert "version 7 is gone from the registry (found: [1])" in reason(receipt)
    assert receipt_facts(receipt)["views"][0]["values"]["count_1h"] == 0
    assert receipt_lines(receipt)


def test_another_model_under_the_same_number_is_not_taken_for_it(place: Installation) -> None:
    place.log(changed(model=msgspec.structs.replace(answer(ID).model, digest="0" * 64)))

    assert "the record or the registry was changed" in reason(place.desk().receipt(ID))


def test_a_model_whose_bytes_were_exchanged_is_not_used(place: Installation) -> None:
    text, manifest = place.registry.stored[product().name, 1]
    place.registry.stored[product().name, 1] = (text.replace(b"num_leaves=7", b"num_leaves=6"), manifest)
    place.log(answer(ID))

    assert "do not serve it" in reason(place.desk().receipt(ID))


def test_other_reference_data_is_said_with_the_commit_to_go_back_to(place: Installation) -> None:
    place.log(changed(reference_version="old"))

    assert "reference data old" in reason(place.desk().receipt(ID))
    assert "check out commit abc" in reason(place.desk().receipt(ID))


def test_a_request_this_code_refuses_is_a_reason(place: Installation) -> None:
    place.log(changed(request=msgspec.Raw(b'{"carrier": 7}')))

    assert "this code refuses the logged request" in reason(place.desk().receipt(ID))


def test_a_model_is_fetched_once(place: Installation) -> None:
    place.log(answer(ID))
    desk = place.desk()

    assert all(desk.receipt(ID).holds for _ in range(3))
    assert place.asked_for_models == 1


def test_a_row_is_traced_to_the_record_that_caused_it_and_a_backfilled_one_to_none() -> None:
    caused, backfilled = answer(ID, number=42).views[0], answer(ID, number=0).views[0]

    found = origin(caused)

    assert found is not None
    assert (found.topic, found.offset) == (FEATURES_INPUT, 41)
    assert origin(backfilled) is None
    assert origin(msgspec.structs.replace(caused, key=None)) is None
    assert origin(msgspec.structs.replace(caused, revision=None)) is None


def test_a_receipt_names_model_run_tables_commits_and_places(place: Installation) -> None:
    place.log(answer(ID, number=42))

    facts = receipt_facts(place.desk().receipt(ID))

    assert facts["model"] == {
        "name": "flight_delay",
        "version": 1,
        "digest": trained(1).manifest.digest,
        "model_sha256": trained(1).manifest.model_sha256,
        "training_run": "run-of-training",
    }
    assert facts["training"]["commit"] == "c0de"
    assert facts["commit"] == {"answered": "abc", "recomputed": "def"}
    assert facts["views"][0]["event_time"] == "2013-07-01T13:00:00Z"
    assert facts["views"][0]["origin"]["offset"] == 41
    assert facts["recomputed"] == {"probability": facts["probability"], "difference": 0.0}


class Door:
    """The API as a client sees it."""

    def __init__(self, place: Installation) -> None:
        self._app: Any = ReceiptApi(place.desk())

    def get(self, path: str, *, method: str = "GET") -> httpx.Response:
        async def exchange() -> httpx.Response:
            transport = httpx.ASGITransport(app=self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://receipts") as client:
                return await client.request(method, path)

        return asyncio.run(exchange())


def test_the_api_gives_the_receipt_as_json(place: Installation) -> None:
    place.log(answer(ID))

    found = Door(place).get(f"/v1/predictions/{ID}")

    assert (found.status_code, found.json()["recomputed"]["difference"]) == (200, 0.0)
    assert found.json() == msgspec.to_builtins(receipt_facts(place.desk().receipt(ID)))


@pytest.mark.parametrize(
    ("path", "status", "kind", "retry"),
    [
        (receipt_at(ASKED_US, 9), 404, "not-yet", "1"),
        (receipt_at(ASKED_US - 60 * SECOND_US), 404, "unknown-receipt", None),
        ("batch-" + "f" * 32, 404, "unknown-receipt", None),
        ("%20", 400, "invalid-receipt", None),
        ("..%2Fmodels", 400, "invalid-receipt", None),
    ],
)
def test_the_api_says_what_is_wrong_with_a_receipt(
    place: Installation, path: str, status: int, kind: str, retry: str | None
) -> None:
    found = Door(place).get(f"/v1/predictions/{path}")

    assert (found.status_code, found.json()["type"]) == (status, f"urn:headway:problem:{kind}")
    assert found.headers.get("retry-after") == retry


def test_the_api_says_other_methods_other_paths_and_that_it_works(place: Installation) -> None:
    door = Door(place)

    assert door.get(f"/v1/predictions/{ID}", method="POST").status_code == 405
    assert door.get("/v1/elsewhere").status_code == 404
    assert door.get("/readyz").json() == {"status": "ready"}


def test_a_record_that_is_no_prediction_is_our_fault_and_says_so(place: Installation) -> None:
    place.log(answer(ID))
    [message] = MemoryReader(place.broker).read(place.topic)
    place.broker.append(Record(message.topic, message.key, b'{"receipt":"%b"}' % ID.encode()))

    assert Door(place).get(f"/v1/predictions/{ID}").status_code == 500
    with pytest.raises(ContractViolation, match="only Headway writes"):
        place.desk().receipt(ID)


def test_a_sample_takes_every_path_evenly_and_holds_when_all_scores_come_out(place: Installation) -> None:
    place.log(*(answer(receipt_at(ASKED_US, n), number=n) for n in range(6)))
    place.load()
    place.batch([answer(f"batch-{n:032x}", number=n, source="batch") for n in range(3)])

    outcome = sampled(place.desk(), product().name, 6, seed=1)

    assert (outcome.holds, outcome.facts["paths"]) == (True, {"request": 3, "batch": 3})
    assert outcome.facts["greatest_difference"] == 0.0


def test_a_sample_with_a_changed_record_does_not_hold_and_names_it(place: Installation) -> None:
    place.log(answer(ID), answer(receipt_at(ASKED_US, 1), probability=0.25))
    place.load()

    outcome = sampled(place.desk(), product().name, 10, seed=1)

    assert not outcome.holds
    assert [each.split(":")[0] for each in outcome.facts["failed"]] == [receipt_at(ASKED_US, 1)]


def test_a_sample_of_nothing_does_not_hold(place: Installation) -> None:
    assert not sampled(place.desk(), product().name, 10, seed=1).holds
