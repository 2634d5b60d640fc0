"""The client against a server on loopback that answers as it is told: retries, budget, deadline, words and traces."""

from collections.abc import Iterator, Sequence

import msgspec
import pytest

from headway.client_call import Attempted, Call, NotAnswered, Predicted, RequestRefused
from headway.errors import InputRejected, TransientFailure
from headway.retry_budget import RetryBudget
from tests.free_ports import free_port
from tests.serving_world import FLIGHT
from tests.told_server import Ask, Server, Told, both, patient, told_server

FEATURES = {"watermark": None, "lag_s": None, "stale": ["weather.v1"], "missing": [], "degraded": False}
MODEL = {"name": "flight_delay", "version": 3, "digest": "d"}
PREDICTED = {
    "product": "flight_delay",
    "probability": 0.25,
    "as_of": "2013-07-01T14:00:00Z",
    "model": MODEL,
    "features": FEATURES,
    "receipt": "r-1",
}
PROBLEM = {"type": "urn:headway:problem:invalid-request", "title": "Bad Request", "status": 400, "detail": "dest: no"}


OK = Told(body=PREDICTED)


@pytest.fixture
def server() -> Iterator[Server]:
    with told_server(OK) as found:
        yield found


@both
def test_a_prediction_is_typed(server: Server, ask: Ask) -> None:
    found = ask(server.url, patient(), lambda client: client.predict(FLIGHT))

    assert isinstance(found, Predicted)
    assert (found.probability, found.model.version, found.features.stale) == (0.25, 3, ("weather.v1",))
    [(path, headers, body)] = server.asked
    assert (path, headers["content-type"], body) == ("/v1/flight_delay/predict", "application/json", FLIGHT)


@both
def test_several_requests_go_in_one_question_and_a_bad_one_fails_alone(server: Server, ask: Ask) -> None:
    row = {name: PREDICTED[name] for name in ("probability", "as_of", "features", "receipt")}
    rows = [{"index": 0, "status": 200, **row}, {"index": 1, "status": 400, "problem": PROBLEM}]
    server.tells = [Told(status=207, body={"product": "flight_delay", "model": MODEL, "rows": rows})]

    one, other = ask(server.url, patient(), lambda client: client.predict_each([FLIGHT, FLIGHT]))

    assert one == msgspec.convert(PREDICTED, Predicted)
    assert isinstance(other, RequestRefused)
    assert (str(other), other.problem.status) == ("dest: no", 400)
    assert server.asked[0][0] == "/v1/flight_delay/predict/rows"
    assert server.asked[0][2] == {"rows": [FLIGHT, FLIGHT]}


@both
def test_what_is_refused_is_not_asked_again(server: Server, ask: Ask) -> None:
    server.tells = [Told(status=400, body=PROBLEM)]

    with pytest.raises(RequestRefused, match="dest: no") as refused:
        ask(server.url, patient(), lambda client: client.predict(FLIGHT))

    assert (len(server.asked), refused.value.problem.type) == (1, PROBLEM["type"])
    assert isinstance(refused.value, InputRejected)


@both
@pytest.mark.parametrize(
    "trouble", [Told(status=503, body={"title": "busy"}), Told(status=502, body=b"?"), Told(status=0)]
)
def test_what_was_not_answered_is_asked_again(server: Server, ask: Ask, trouble: Told) -> None:
    server.tells = [trouble, trouble, OK]

    found = ask(server.url, patient(), lambda client: client.predict(FLIGHT))

    assert (found.receipt, len(server.asked)) == ("r-1", 3)


@both
def test_attempts_are_bounded_and_the_last_reason_is_told(server: Server, ask: Ask) -> None:
    server.tells = [Told(status=503, body={"title": "busy"})]

    with pytest.raises(NotAnswered, match=r"HTTP 503: busy \(attempts: 3\)") as failed:
        ask(server.url, patient(), lambda client: client.predict(FLIGHT))

    assert (failed.value.attempts, len(server.asked)) == (3, 3)
    assert isinstance(failed.value, TransientFailure)


@both
def test_retries_have_a_budget_over_all_calls(server: Server, ask: Ask) -> None:
    """Else a service that fails every call is asked three times as much as one that works."""
    server.tells = [Told(status=503, body={})]
    policy = patient(budget=RetryBudget(ratio=0.1, reserve=3.0))

    def exhaust() -> None:
        for _ in range(20):
            with pytest.raises(NotAnswered):
                ask(server.url, policy, lambda client: client.predict(FLIGHT))

    exhaust()

    # A first attempt each, the reserve, and a tenth of a retry for each call.
    assert 20 + 3 <= len(server.asked) <= 20 + 5


@both
def test_a_service_that_is_not_there_is_told_as_such(ask: Ask) -> None:
    with pytest.raises(NotAnswered, match="ConnectError"):
        ask(f"http://127.0.0.1:{free_port()}", patient(), lambda client: client.predict(FLIGHT))


@both
def test_an_answer_that_drips_ends_with_the_deadline(server: Server, ask: Ask) -> None:
    server.tells = [Told(body=PREDICTED, drip_s=0.05)]

    with pytest.raises(NotAnswered):
        ask(server.url, patient(deadline_s=0.3), lambda client: client.predict(FLIGHT))


@both
@pytest.mark.parametrize("body", [b"", b"[]", b'{"product": "flight_delay"}'])
def test_an_answer_that_cannot_be_read_is_not_asked_for_again(server: Server, ask: Ask, body: bytes) -> None:
    server.tells = [Told(body=body)]

    with pytest.raises(NotAnswered, match="cannot be read"):
        ask(server.url, patient(), lambda client: client.predict(FLIGHT))

    assert len(server.asked) == 1


@both
def test_every_attempt_is_a_span_of_one_trace(server: Server, ask: Ask) -> None:
    server.tells = [Told(status=503, body={}), OK]

    ask(server.url, patient(), lambda client: client.predict(FLIGHT))

    versions, traces, spans, flags = zip(*(h["traceparent"].split("-") for _, h, _ in server.asked), strict=True)
    assert ({*versions}, {*flags}, len({*traces}), len({*spans})) == ({"00"}, {"01"}, 1, 2)
    assert [len(trace) for trace in traces] == [32, 32]


@both
def test_a_callers_trace_is_gone_on_with(server: Server, ask: Ask) -> None:
    theirs = f"00-{'ab' * 16}-{'cd' * 8}-01"

    ask(server.url, patient(), lambda client: client.predict(FLIGHT, traceparent=theirs))

    [(_, headers, _)] = server.asked
    assert headers["traceparent"].startswith(f"00-{'ab' * 16}-")
    assert headers["traceparent"] != theirs


@both
def test_cohort_and_api_key_go_with_every_call(server: Server, ask: Ask) -> None:
    policy = patient(key="acme", api_key="secret")

    ask(server.url, policy, lambda client: client.predict(FLIGHT))

    [(_, headers, _)] = server.asked
    assert (headers["headway-key"], headers["x-api-key"]) == ("acme", "secret")


def test_a_traceparent_that_is_none_is_refused() -> None:
    with pytest.raises(InputRejected, match="W3C Trace Context"):
        Call(patient(), traceparent="me", now_s=0.0)


@pytest.mark.parametrize(
    ("failures", "waits"),
    [
        ([0.0, 0.0], [0.05, 0.1]),
        ([1.0, 0.0], [1.0, 0.1]),  # what the service asks for
    ],
)
def test_waits_double_and_are_never_shorter_than_asked_for(failures: Sequence[float], waits: Sequence[float]) -> None:
    call = Call(patient(jitter=lambda: 1.0), traceparent=None, now_s=0.0)
    found = []
    for after_s in failures:
        call.headers()
        found.append(call.wait_s(Attempted("HTTP 503", retry=True, retry_after_s=after_s), now_s=0.0))

    assert found == waits


def test_a_wait_beyond_the_deadline_is_not_begun() -> None:
    call = Call(patient(deadline_s=1.0), traceparent=None, now_s=0.0)
    call.headers()

    with pytest.raises(NotAnswered, match="attempts: 1"):
        call.wait_s(Attempted("HTTP 503", retry=True, retry_after_s=1.0), now_s=0.5)
