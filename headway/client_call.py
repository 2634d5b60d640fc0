"""What one call of `headway.client` is, without any network: its bytes, its answer, and whether it is worth another try.

A prediction changes nothing and its record is deduplicated by receipt, so a call that failed may be sent again: as far as
its attempts, its deadline and the client's budget go. Refuses to try again what will be refused again.
"""

import random
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from headway.errors import InputRejected, TransientFailure
from headway.retry_budget import RetryBudget

Answer = TypeVar("Answer")

MAX_ANSWER_BYTES = 16 * 1024 * 1024
_RETRIABLE = frozenset({429, 502, 503, 504})
# Doubled with every attempt, and each time something between nothing and that: clients that failed together spread out.
_FIRST_WAIT_S = 0.05
_LONGEST_WAIT_S = 1.0


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """The model version that answered; ``digest`` is the hash of its bytes."""

    name: str
    version: int
    digest: str


class Features(msgspec.Struct, frozen=True, kw_only=True):
    """How fresh the features were: oldest watermark and its lag, stale views, views without a row; degraded: none read."""

    watermark: str | None
    lag_s: float | None
    stale: tuple[str, ...]
    missing: tuple[str, ...]
    degraded: bool


class Predicted(msgspec.Struct, frozen=True, kw_only=True):
    """One prediction; from its receipt it can be recomputed."""

    product: str
    probability: float
    as_of: str
    model: Model
    features: Features
    receipt: str


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request was refused (RFC 9457): ``detail`` names field, got and wanted."""

    type: str = "about:blank"
    title: str = ""
    status: int = 0
    detail: str = ""


class RequestRefused(InputRejected):
    """The service refuses this request, and will again; ``problem`` says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail or f"{problem.status} {problem.title}")
        self.problem = problem


class NotAnswered(TransientFailure):
    """Nobody answered in time; ``attempts`` were sent."""

    def __init__(self, reason: str, *, attempts: int) -> None:
        super().__init__(f"{reason} (attempts: {attempts})")
        self.attempts = attempts


class Attempted(Exception):
    """One attempt that gave no answer; ``retry_after_s`` is what the service asks for."""

    def __init__(self, reason: str, *, retry: bool, retry_after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.retry = retry
        self.retry_after_s = retry_after_s


class _Row(msgspec.Struct, frozen=True, kw_only=True):
    status: int
    probability: float | None = None
    as_of: str = ""
    features: Features | None = None
    receipt: str = ""
    problem: Problem | None = None


class _Rows(msgspec.Struct, frozen=True, kw_only=True):
    product: str
    model: Model
    rows: list[_Row]


_PREDICTED = msgspec.json.Decoder(Predicted)
_ROWS = msgspec.json.Decoder(_Rows)
_PROBLEM = msgspec.json.Decoder(Problem)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How a client asks.

    Attributes:
        deadline_s: for a call, its retries and the waits between them.
        attempts: for a call, the first included.
        key: the cohort this client belongs to while a release is divided (S23); none when empty.
        jitter: a number from 0 to 1; of the wait before a retry that much is waited.
    """

    deadline_s: float = 2.0
    attempts: int = 3
    key: str = ""
    api_key: str = ""
    budget: RetryBudget = field(default_factory=RetryBudget)
    jitter: Callable[[], float] = random.random


class Call:
    """One call on its way: what is sent with every attempt, and whether there is another one."""

    def __init__(self, policy: Policy, *, traceparent: str | None, now_s: float) -> None:
        self._policy = policy
        self._trace = secrets.token_hex(16) if traceparent is None else _trace_of(traceparent)
        self.until_s = now_s + policy.deadline_s
        self.attempts = 0
        policy.budget.called()

    def headers(self) -> dict[str, str]:
        """Return what goes with the next attempt, which is a span of its own in the call's trace."""
        self.attempts += 1
        headers = {
            "content-type": "application/json",
            "traceparent": f"00-{self._trace}-{secrets.token_hex(8)}-01",
        }
        if self._policy.key:
            headers["headway-key"] = self._policy.key
        if self._policy.api_key:
            headers["x-api-key"] = self._policy.api_key
        return headers

    def wait_s(self, failed: Attempted, *, now_s: float) -> float:
        """Return how long to wait before the next attempt.

        Raises:
            NotAnswered: there is none: attempts, deadline or budget are used up, or another would not help.
        """
        backoff_s = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** (self.attempts - 1)) * self._policy.jitter()
        wait_s = max(failed.retry_after_s, backoff_s)
        over = self.attempts >= self._policy.attempts or now_s + wait_s >= self.until_s
        if not failed.retry or over:
            raise NotAnswered(str(failed), attempts=self.attempts) from failed
        if not self._policy.budget.take():
            raise NotAnswered(f"{failed}; the budget of retries is used up", attempts=self.attempts) from failed
        return wait_s


def encode_request(request: object) -> bytes:
    """Return a request's bytes: a mapping, or the product's own Struct."""
    return msgspec.json.encode(request)


def encode_rows(requests: Sequence[object]) -> bytes:
    """Return the bytes of several requests in one question."""
    return msgspec.json.encode({"rows": requests})


def decode_predicted(body: bytes) -> Predicted:
    """Return the prediction in an answer; raises `Attempted` for what is none."""
    return decode_answer(_PREDICTED, body)


def decode_rows(body: bytes) -> list[Predicted | RequestRefused]:
    """Return for each row its prediction, or why it was refused; raises `Attempted` for what is no such answer."""
    answer = decode_answer(_ROWS, body)
    return [_row(answer, row) for row in answer.rows]


def decode_answer(decoder: "msgspec.json.Decoder[Answer]", body: bytes) -> Answer:
    """Return what an answer says; raises `Attempted` for what is none of its kind."""
    try:
        return decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise Attempted(f"the answer cannot be read ({error})", retry=False) from error


def check_status(status: int, headers: Mapping[str, str], body: bytes) -> None:
    """Let an answer through that is one.

    Raises:
        RequestRefused: it will be refused again.
        Attempted: it was not answered; another attempt may help.
    """
    if status in (200, 207):
        return
    try:
        problem = msgspec.structs.replace(_PROBLEM.decode(body), status=status)
    except msgspec.MsgspecError:
        problem = Problem(status=status, title=body[:200].decode(errors="replace"))
    if 400 <= status < 500 and status not in _RETRIABLE:
        raise RequestRefused(problem)
    said = problem.detail or problem.title
    after = headers.get("retry-after", "")
    raise Attempted(
        f"HTTP {status}: {said}",
        retry=status in _RETRIABLE,
        retry_after_s=float(after) if after.isdecimal() else 0.0,
    )


def _row(answer: _Rows, row: _Row) -> Predicted | RequestRefused:
    if row.probability is None or row.features is None:
        return RequestRefused(row.problem or Problem(status=row.status))
    return Predicted(
        product=answer.product,
        probability=row.probability,
        as_of=row.as_of,
        model=answer.model,
        features=row.features,
        receipt=row.receipt,
    )


def _trace_of(traceparent: str) -> str:
    parts = traceparent.split("-")
    if len(parts) < 4 or len(parts[1]) != 32:
        raise InputRejected(
            f"traceparent: got {traceparent!r}, wanted 00-<32 hex>-<16 hex>-<2 hex> (W3C Trace Context)"
        )
    return parts[1]
