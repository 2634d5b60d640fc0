"""What a replica counts about its own predictions; few labels, and none that a client chooses.

`headway_predictions_served_total - headway_predictions_logged_total{outcome="acknowledged"}` is what is under way or lost
of the prediction log (SEMANTICS S17).
"""

from http import HTTPStatus
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from headway.predictions import ModelId
from headway.problem import Problem
from serving.asgi import Answer

Protocol = Literal["json", "inference_http", "inference_grpc"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

# A prediction takes 1-3 ms; the wait for a watermark ends at 200 ms, a store that is away at 250 ms.
_SECONDS = (0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)


class PredictionMetrics:
    """Counters of one replica, in a registry of their own."""

    def __init__(self, product: str, model: ModelId) -> None:
        self._registry = CollectorRegistry()
        info = Gauge(
            "headway_model_info",
            "The model version that answers here; always 1",
            ["product", "version", "digest"],
            registry=self._registry,
        )
        info.labels(product, str(model.version), model.digest).set(1)
        answers = Counter(
            "headway_prediction_answers",
            "Answers by outcome, one for each row of a question: ok, stale, degraded, or why it was refused",
            ["product", "outcome"],
            registry=self._registry,
        )
        logged = Counter(
            "headway_predictions_logged",
            "Predictions whose record was acknowledged by the log, or failed",
            ["product", "outcome"],
            registry=self._registry,
        )
        served = Counter(
            "headway_predictions_served",
            "Predictions handed to the prediction log",
            ["product"],
            registry=self._registry,
        )
        latency = Histogram(
            "headway_prediction_seconds",
            "Time from a question's head to its answer, whatever the number of its rows",
            ["product", "protocol"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        looked_up = Counter(
            "headway_prediction_cache_lookups",
            "Vectors whose score was remembered, or not; nothing without a cache",
            ["product", "outcome"],
            registry=self._registry,
        )
        self._product = product
        self._answers = answers
        # Looked up once: a label look-up costs more than the counting.
        self._latency = {protocol: latency.labels(product, protocol) for protocol in PROTOCOLS}
        self.cache_hit = looked_up.labels(product, "hit").inc
        self.cache_missed = looked_up.labels(product, "miss").inc
        self._served = served.labels(product)
        self._acknowledged = logged.labels(product, "acknowledged")
        self._failed = logged.labels(product, "failed")

    def answered(self, outcome: str) -> None:
        """Count one answer."""
        self._answers.labels(self._product, outcome).inc()

    def refused(self, problem: Problem) -> None:
        """Count one refusal."""
        self.answered(HTTPStatus(problem.status).phrase.lower().replace(" ", "_"))

    def took(self, protocol: Protocol, seconds: float) -> None:
        """Note how long a question took."""
        self._latency[protocol].observe(seconds)

    def served(self) -> None:
        """Count one prediction."""
        self._served.inc()

    def logged(self, *, failed: bool) -> None:
        """Count one settled record of the prediction log."""
        (self._failed if failed else self._acknowledged).inc()

    def page(self) -> Answer:
        """Give the metrics page."""
        return Answer(200, generate_latest(self._registry), ((b"content-type", CONTENT_TYPE_LATEST.encode()),))
