"""From requests to predictions, whatever protocol asked: read the views, assemble, predict, and log one record per answer.

JSON and the Open Inference Protocol over HTTP and gRPC all answer through this, so that they cannot differ. Several
requests are read at one instant and predicted together; one that cannot be answered is a problem by itself. What bites:
nothing is logged before it is asked for with `log`, because a protocol that refuses a whole question has given no answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
import structlog

from headway.clock import Clock, format_us, to_us
from headway.contracts import Reference
from headway.errors import HeadwayError, InputRejected, TransientFailure
from headway.features.online import FeatureReader
from headway.manifest import sha256
from headway.online_features import GivenViews, OnlineFeatures, ViewsRead
from headway.ports import Publisher
from headway.prediction_cache import PredictionCache
from headway.predictions import ModelId, Prediction, Source, prediction_record
from headway.predictor import Predictor
from headway.problem import Problem
from headway.product import Product
from headway.service_reads import AsOfInThePast
from headway.vector import RequestValues, ViewValues
from serving.prediction_metrics import PredictionMetrics

FLUSH_TIMEOUT_S = 5.0
_LOG = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What answering needs; put together by `serving.predict.build`, or by a test from memory.

    ``commit`` is of this code, if known. ``rows`` is how many requests one question may hold, ``cache_entries`` how many
    scores are remembered (0: none), and ``grpc_port`` where gRPC is served (0: the system chooses).
    """

    product: Product
    version: int
    predictor: Predictor
    reference: Reference
    reader: FeatureReader
    publisher: Publisher
    clock: Clock
    commit: str | None = None
    rows: int = 256
    cache_entries: int = 0
    grpc_port: int = 0


class Arrival(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """When a question came, under which receipt, and by which path."""

    at_us: int
    receipt: str
    source: Source


class Scored(msgspec.Struct, frozen=True, gc=False):
    """A prediction with how its features were read."""

    prediction: Prediction
    read: ViewsRead


class Scoring:
    """Answers requests with one model version. For one event loop."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.model = ModelId(name=parts.product.name, version=parts.version, digest=parts.predictor.digest)
        self.metrics = PredictionMetrics(parts.product.name, self.model)
        self._features = OnlineFeatures(parts.product, parts.reader)
        if parts.cache_entries:
            metrics, entries = self.metrics, parts.cache_entries
            parts.predictor.answer_through(
                lambda scorer: PredictionCache(
                    scorer, entries=entries, hit=metrics.cache_hit, missed=metrics.cache_missed
                )
            )

    def now_us(self) -> int:
        """Return the instant, in microseconds UTC."""
        return to_us(self.parts.clock.now())

    async def one(self, request: Any, arrival: Arrival) -> Scored:
        """Return the prediction for one request.

        Raises:
            InputRejected: the request names what nobody knows, or an instant that is gone (`AsOfInThePast`).
            HeadwayError: it failed on our side.
        """
        if request.as_of is None:
            read = await self._features.now(request, arrival.at_us)
        else:
            read = await self._features.at(request, to_us(request.as_of))
        values = self._values(request, read)
        views: ViewValues = {view.view: view.values for view in read.views}
        score = self.parts.predictor.predict(values, views, read.as_of_us).score
        return self._scored(request, read, score, arrival, arrival.receipt)

    async def each(
        self, requests: Sequence[Any | InputRejected], arrival: Arrival, given: Sequence[GivenViews] | None = None
    ) -> list[Scored | Problem]:
        """Return a prediction for each request, or why there is none, in their order.

        All are read at one instant, that of the first: a request that names another is refused. With ``given``, the views
        of each request, nothing is read.
        """
        answers: list[Scored | Problem | None] = [None] * len(requests)
        asked: list[tuple[int, Any]] = []
        as_of = None
        for place, request in enumerate(requests):
            if isinstance(request, InputRejected):
                answers[place] = problem_of(request)
            elif asked and request.as_of != as_of:
                answers[place] = problem_of(_other_instant(request.as_of, as_of, asked[0][0]))
            else:
                as_of = request.as_of
                asked.append((place, request))
        as_of_us = None if as_of is None else to_us(as_of)
        reads: Sequence[ViewsRead | AsOfInThePast] = []
        if asked and given is None:
            reads = await self._features.each([request for _, request in asked], arrival.at_us, as_of_us)
        elif given is not None:
            at_us = arrival.at_us if as_of_us is None else as_of_us
            reads = [self._features.given(request, at_us, given[place]) for place, request in asked]
        ready: list[tuple[int, Any, ViewsRead, RequestValues]] = []
        for (place, request), read in zip(asked, reads, strict=True):
            try:
                if isinstance(read, AsOfInThePast):
                    raise read
                ready.append((place, request, read, self._values(request, read)))
            except HeadwayError as error:
                answers[place] = self.refused(error, arrival)
        receipts = row_receipts(arrival.receipt, len(requests))
        for (place, request, read, _), score in zip(ready, self._scores(ready), strict=True):
            answers[place] = self._scored(request, read, score, arrival, receipts[place])
        return [answer for answer in answers if answer is not None]

    def log(self, scored: Scored) -> None:
        """Hand a prediction to the log, which is not waited for (S17), and count it."""
        read = scored.read
        self.metrics.answered("degraded" if read.degraded else "stale" if read.stale else "ok")
        self.metrics.served()
        acknowledged = self.parts.publisher.publish_async(prediction_record(scored.prediction))
        acknowledged.add_done_callback(self._logged)

    def refused(self, error: HeadwayError, arrival: Arrival) -> Problem:
        """Return the problem a client is told; what is our fault goes into the log."""
        if not isinstance(error, InputRejected):
            _LOG.error("not predicted", receipt=arrival.receipt, reason=str(error))
        return problem_of(error)

    def close(self) -> None:
        """Flush the prediction log."""
        try:
            self.parts.publisher.flush(FLUSH_TIMEOUT_S)
        except TransientFailure as error:
            _LOG.error("predictions lost", reason=str(error))
        self.parts.publisher.close()

    def _values(self, request: Any, read: ViewsRead) -> RequestValues:
        return self.parts.product.compute_request_features(request, self.parts.reference, read.as_of_us)

    def _scores(self, ready: Sequence[tuple[int, Any, ViewsRead, RequestValues]]) -> list[float]:
        if not ready:
            return []
        asked = [(values, {view.view: view.values for view in read.views}) for _, _, read, values in ready]
        return self.parts.predictor.predict_each(asked, ready[0][2].as_of_us)

    def _scored(self, request: Any, read: ViewsRead, score: float, arrival: Arrival, receipt: str) -> Scored:
        prediction = Prediction(
            receipt=receipt,
            product=self.model.name,
            as_of_us=read.as_of_us,
            requested_at_us=arrival.at_us,
            model=self.model,
            reference_version=self.parts.reference.version,
            request=msgspec.Raw(msgspec.json.encode(request)),
            views=read.views,
            probability=score,
            degraded=read.degraded,
            stale=read.stale,
            source=arrival.source,
            commit=self.parts.commit,
        )
        return Scored(prediction, read)

    def _logged(self, acknowledged: Any) -> None:  # Any: asyncio's Future of a position, in callback position
        failure = None if acknowledged.cancelled() else acknowledged.exception()
        self.metrics.logged(failed=failure is not None)
        if failure is not None:
            _LOG.warning("prediction not logged", reason=str(failure))


def row_receipts(receipt: str, rows: int) -> list[str]:
    """Return a receipt for every row of a question: the first has the question's own.

    They follow from it alone, so that a question sent twice by the load balancer is logged once (S17), and keep its
    milliseconds, so that they sort with it.
    """
    try:
        whole = UUID(receipt).bytes
    except ValueError:  # not the load balancer's
        return [receipt, *(f"{receipt}.{place}" for place in range(1, rows))][:rows]
    return [receipt, *(_derived(whole, f"{receipt}/{place}") for place in range(1, rows))][:rows]


def problem_of(error: HeadwayError) -> Problem:
    """Return what a client is told of an error."""
    if isinstance(error, AsOfInThePast):
        return Problem(409, "as-of-in-the-past", str(error))
    if isinstance(error, InputRejected):
        return Problem(400, "invalid-request", str(error))
    return Problem(500, "internal", "the prediction failed on our side; the log has it under its receipt")


def _derived(whole: bytes, name: str) -> str:
    """A UUIDv7 (RFC 9562): milliseconds and version of ``whole``, the rest from the name."""
    rest = bytes.fromhex(sha256(name.encode()))[:10]
    made = bytearray(whole[:6] + rest)
    made[6] = 0x70 | made[6] & 0x0F
    made[8] = 0x80 | made[8] & 0x3F
    return str(UUID(bytes=bytes(made)))


def _other_instant(got: Any, wanted: Any, place: int) -> InputRejected:
    named = [None if each is None else format_us(to_us(each)) for each in (got, wanted)]
    return InputRejected(f"as_of: got {named[0]}, wanted {named[1]} as in row {place}; rows are read at one instant")
