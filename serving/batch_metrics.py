"""What the batch API counts: answers by status, and rows read by product."""

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from serving.asgi import Answer


class BatchMetrics:
    """Counters of one process, in a registry of their own. No label is a client's choice."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._answers = Counter(
            "headway_batch_answers", "Answers of the batch API by status", ["status"], registry=self._registry
        )
        self._rows = Counter(
            "headway_batch_rows", "Batch results read by applications", ["product"], registry=self._registry
        )

    def answered(self, status: int) -> None:
        """Count an answer."""
        self._answers.labels(str(status)).inc()

    def rows(self, product: str, count: int) -> None:
        """Count the rows of an answer."""
        self._rows.labels(product).inc(count)

    def page(self) -> Answer:
        """Give the metrics page."""
        return Answer(200, generate_latest(self._registry), ((b"content-type", CONTENT_TYPE_LATEST.encode()),))
