"""The Enrichment API's client: `headway.ports.Enrichment` over HTTP, with a deadline, a retry budget and a breaker.

What a caller sees is one of three: an answer per item; for an item on which the API fails while it answers others,
`EnrichmentFailed`; or `DependencyDown` for everything. What bites: a failed batch does not say which item it was, and
the API may simply be down. So a batch is divided only after the API has answered a question known to be good, and when
nothing at all is answered, no item is to blame.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal

import httpx
import msgspec
import pybreaker
import stamina
import structlog
from prometheus_client import Counter, Gauge, Histogram

from headway.clock import monotonic_s
from headway.errors import DependencyDown
from headway.ports import Enriched, EnrichmentAnswer, EnrichmentFailed, EnrichmentItem, EnrichmentRefused
from headway.retry_budget import RetryBudget

PATH = "/v1/enrich"
# The API takes 1,000 items and a few ms for them; smaller questions are divided faster.
BATCH_ITEMS = 500
ATTEMPTS = 3
# Ten times what the slowest answer took under load; a stream job can wait, but not for a hung connection.
CALL_TIMEOUT_S = 2.0
# For one `enrich`: well below the group's session, so that waiting never costs the partitions.
DEADLINE_S = 10.0
# Five failures in a row are no accident; half-open after this, with one call.
BREAKER_FAILURES = 5
BREAKER_RESET_S = 5.0
_MAX_ANSWER_BYTES = 16 * 1024 * 1024
_RETRIABLE = frozenset({429, 500, 502, 503, 504})

CALLS = Counter("headway_enrichment_calls_total", "Calls of the Enrichment API, by how they ended.", ["outcome"])
RETRIES = Counter("headway_enrichment_retries_total", "Retries granted by the budget, and not.", ["granted"])
CALL_SECONDS = Histogram("headway_enrichment_call_seconds", "How long a call took, failed ones included.")
BREAKER_OPEN = Gauge("headway_enrichment_breaker_open", "1 while calls are refused without being sent.")
_LOG = structlog.get_logger()


class _Result(msgspec.Struct):
    status: Literal["enriched", "refused", "failed"]
    columns: dict[str, Any] = {}
    field: str | None = None
    detail: str = ""


class _Reply(msgspec.Struct):
    version: str
    results: list[_Result]


class Unanswered(Exception):
    """One call that gave no answer; ``status`` 0 when there was no response at all."""

    def __init__(self, reason: str, *, status: int = 0, slow: bool = False, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.slow = slow
        self.retry_after_s = retry_after_s


class HttpEnrichment:
    """Asks the Enrichment API; for one thread."""

    # A whole batch of the Enricher: one request serves the misses of all of it.
    items_at_once = 2_000

    def __init__(
        self,
        url: str,
        *,
        deadline_s: float = DEADLINE_S,
        call_timeout_s: float = CALL_TIMEOUT_S,
        budget: RetryBudget | None = None,
        breaker_failures: int = BREAKER_FAILURES,
        breaker_reset_s: float = BREAKER_RESET_S,
        now_s: Callable[[], float] = monotonic_s,
    ) -> None:
        self._url = url.rstrip("/") + PATH
        self._deadline_s = deadline_s
        self._call_timeout_s = call_timeout_s
        self._budget = budget or RetryBudget()
        self._now_s = now_s
        # One line for every call is what its metrics are for.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        # A proxy of the environment is for the world outside, never for a service of ours.
        self._client = httpx.Client(trust_env=False, limits=httpx.Limits(max_connections=4))
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=breaker_failures, reset_timeout=breaker_reset_s, throw_new_error_on_trip=False
        )
        self._good: EnrichmentItem | None = None
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(_Reply).decode

    def enrich(self, items: Sequence[EnrichmentItem]) -> list[EnrichmentAnswer]:
        """See `headway.ports.Enrichment.enrich`."""
        until_s = self._now_s() + self._deadline_s
        answers: list[EnrichmentAnswer] = []
        for start in range(0, len(items), BATCH_ITEMS):
            answers += self._resolve(items[start : start + BATCH_ITEMS], until_s)
        if answers and all(isinstance(answer, EnrichmentFailed) for answer in answers) and not self._works(until_s):
            raise DependencyDown("the Enrichment API", f"none of {len(items)} items was answered ({answers[0]})")
        return answers

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @property
    def open(self) -> bool:
        """Whether calls are refused at present without being sent."""
        return bool(self._breaker.current_state == pybreaker.STATE_OPEN)

    def _resolve(self, items: Sequence[EnrichmentItem], until_s: float) -> list[EnrichmentAnswer]:
        try:
            answers = self._ask(items, until_s)
        except Unanswered as failure:
            if failure.slow or failure.status not in (0, 500, 502) or not self._answers(until_s):
                raise DependencyDown("the Enrichment API", f"{failure}, {ATTEMPTS} attempts at most") from failure
            _LOG.warning("enrichment batch divided", items=len(items), reason=str(failure))
            return self._divide(items, until_s)
        for attempt in range(2, ATTEMPTS + 1):
            failed = [place for place, answer in enumerate(answers) if isinstance(answer, EnrichmentFailed)]
            if not failed or not self._budget.take():
                break
            try:
                again = self._once([items[place] for place in failed], until_s)
            except Unanswered as failure:
                raise DependencyDown("the Enrichment API", f"{failure} on {len(failed)} items again") from failure
            for place, answer in zip(failed, again, strict=True):
                answers[place] = _counted(answer, attempt)
        return answers

    def _divide(self, items: Sequence[EnrichmentItem], until_s: float) -> list[EnrichmentAnswer]:
        """Find the items on which the API fails by halving; it works otherwise, so they alone are to blame."""
        if len(items) == 1:
            return [self._last_try(items[0], until_s)]
        middle = len(items) // 2
        halves = (items[:middle], items[middle:])
        # Both before either is divided on: the one that is answered proves that the other is to blame.
        asked = [self._half(half, until_s) for half in halves]
        answers: list[EnrichmentAnswer] = []
        for half, answered in zip(halves, asked, strict=True):
            answers += answered or self._divide(half, until_s)
        return answers

    def _half(self, items: Sequence[EnrichmentItem], until_s: float) -> list[EnrichmentAnswer] | None:
        try:
            return self._once(items, until_s)
        except Unanswered as failure:
            if failure.slow:
                raise DependencyDown("the Enrichment API", f"{failure} while a batch was divided") from failure
            return None

    def _last_try(self, item: EnrichmentItem, until_s: float) -> EnrichmentAnswer:
        try:
            return self._once([item], until_s)[0]
        except Unanswered as failure:
            if failure.slow or not self._works(until_s):
                raise DependencyDown("the Enrichment API", f"{failure} while a batch was divided") from failure
            return EnrichmentFailed(f"the Enrichment API fails on this body ({failure})", ATTEMPTS)

    def _works(self, until_s: float) -> bool:
        """Whether a question known to be good is answered now; a service that never answered one is not known to work."""
        return self._good is not None and self._answers(until_s)

    def _answers(self, until_s: float) -> bool:
        """Whether it answers the question known to be good; before there is one, an empty one."""
        try:
            answers = self._once([] if self._good is None else [self._good], until_s)
        except Unanswered:
            return False
        return not any(isinstance(answer, EnrichmentFailed) for answer in answers)

    def _ask(self, items: Sequence[EnrichmentItem], until_s: float) -> list[EnrichmentAnswer]:
        """Return the answers, after retries with backoff as far as the budget goes, through the breaker."""
        attempts = 0

        def may_retry(error: Exception) -> bool | float:
            if not isinstance(error, Unanswered) or error.status not in {0, *_RETRIABLE} or attempts >= ATTEMPTS:
                return False
            wait_s = error.retry_after_s or 0.0
            if self._now_s() + wait_s >= until_s or self._breaker.current_state == pybreaker.STATE_OPEN:
                return False
            granted = self._budget.take()
            RETRIES.labels("yes" if granted else "no").inc()
            return granted and (wait_s or True)

        self._budget.called()
        for attempt in stamina.retry_context(
            on=may_retry, attempts=ATTEMPTS, timeout=None, wait_initial=0.05, wait_max=1.0, wait_jitter=0.1
        ):
            with attempt:
                attempts += 1
                return self._through_breaker(items, until_s)
        raise AssertionError("a retry context ends with an answer or an error")

    def _through_breaker(self, items: Sequence[EnrichmentItem], until_s: float) -> list[EnrichmentAnswer]:
        try:
            answers: list[EnrichmentAnswer] = self._breaker.call(self._once, items, until_s)
        except pybreaker.CircuitBreakerError as error:
            CALLS.labels("not-sent").inc()
            detail = (
                f"the last {self._breaker.fail_max} calls failed; asked again within {self._breaker.reset_timeout:g} s"
            )
            raise DependencyDown("the Enrichment API", detail) from error
        finally:
            BREAKER_OPEN.set(self.open)
        return answers

    def _once(self, items: Sequence[EnrichmentItem], until_s: float) -> list[EnrichmentAnswer]:
        """Send one call and return its answers; raises `Unanswered`."""
        began_s = self._now_s()
        timeout_s = min(self._call_timeout_s, until_s - began_s)
        if timeout_s <= 0:
            raise Unanswered("the deadline has passed", slow=True)
        body = self._encode({"items": [{"type": each.event_type, "data": each.body} for each in items]})
        try:
            reply = self._decode(self._post(body, began_s + timeout_s))
        except Unanswered as failure:
            CALLS.labels("timeout" if failure.slow else str(failure.status or "no-response")).inc()
            raise
        except msgspec.MsgspecError as error:
            CALLS.labels("unreadable").inc()
            raise Unanswered(f"the answer cannot be read ({error})", status=502) from error
        finally:
            CALL_SECONDS.observe(self._now_s() - began_s)
        if len(reply.results) != len(items):
            raise Unanswered(f"{len(reply.results)} results for {len(items)} items", status=502)
        CALLS.labels("answered").inc()
        now_s = self._now_s()
        answers = [_answer(result, reply.version, now_s) for result in reply.results]
        self._good = next((i for i, a in zip(items, answers, strict=True) if isinstance(a, Enriched)), self._good)
        return answers

    def _post(self, body: bytes, until_s: float) -> bytes:
        """Return the body of a 200; the whole exchange ends by ``until_s``, even when bytes drip one by one."""
        timeout = httpx.Timeout(max(0.01, until_s - self._now_s()))
        headers = {"content-type": "application/json"}
        try:
            with self._client.stream("POST", self._url, content=body, headers=headers, timeout=timeout) as response:
                chunks, size = [], 0
                for chunk in response.iter_bytes():
                    chunks.append(chunk)
                    size += len(chunk)
                    if self._now_s() > until_s:
                        raise Unanswered("the answer did not come in time", slow=True)
                    if size > _MAX_ANSWER_BYTES:
                        raise Unanswered(f"the answer is longer than {_MAX_ANSWER_BYTES} bytes", status=502)
        except httpx.TimeoutException as error:
            raise Unanswered(f"no answer in time ({type(error).__name__})", slow=True) from error
        except httpx.HTTPError as error:
            raise Unanswered(f"{type(error).__name__}: {error}") from error
        content = b"".join(chunks)
        if response.status_code != httpx.codes.OK:
            said = content[:300].decode(errors="replace")
            raise Unanswered(
                f"HTTP {response.status_code} {said!r}",
                status=response.status_code,
                retry_after_s=_seconds(response.headers.get("retry-after")),
            )
        return content


def _answer(result: _Result, version: str, now_s: float) -> EnrichmentAnswer:
    if result.status == "enriched":
        return Enriched(result.columns, version, now_s)
    if result.status == "refused":
        return EnrichmentRefused(result.detail, result.field, version)
    return EnrichmentFailed(f"the Enrichment API fails on this body ({result.detail})", 1)


def _counted(answer: EnrichmentAnswer, attempts: int) -> EnrichmentAnswer:
    return EnrichmentFailed(answer.detail, attempts) if isinstance(answer, EnrichmentFailed) else answer


def _seconds(retry_after: str | None) -> float | None:
    """Return Retry-After in seconds; its other form, a date, is not sent by services of ours."""
    return float(retry_after) if retry_after is not None and retry_after.isdecimal() else None
