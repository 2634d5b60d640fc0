"""Ask a product for predictions: one request or many, from a thread or from an event loop, with a deadline that holds.

`Client` and `AsyncClient` answer alike and fail alike: `RequestRefused` for what will be refused again, `NotAnswered` when
nobody answered in time. Retries are bounded by attempts, by the deadline and by a budget, so that a service in trouble is
not asked twice as much. What batches answered is read in the same way; `subscribe` gives the stream's answers instead. What
bites: one client is for one thread, or one event loop; its budget is for all its calls.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from headway.client_call import (
    Policy,
    Predicted,
    RequestRefused,
    decode_predicted,
    decode_rows,
    encode_request,
    encode_rows,
)
from headway.client_http import AsyncConnections, Connections
from headway.client_results import (
    BatchRefused,
    BatchResult,
    Page,
    Row,
    decode_refused,
    decode_results,
    page_query,
    page_url,
)

if TYPE_CHECKING:
    from headway.subscription import Subscription


class Client:
    """Asks one product. Close it, or use it in a ``with``."""

    def __init__(
        self, url: str, product: str, *, policy: Policy | None = None, authorities: Path | None = None
    ) -> None:
        """Ask ``product`` at the load balancer's ``url``; over TLS, ``authorities`` is a PEM file of those to trust."""
        self._path = f"{url.rstrip('/')}/v1/{product}/predict"
        self._batches = f"{url.rstrip('/')}/v1/batches/{product}"
        self._http = Connections(url, policy or Policy(), authorities)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def predict(self, request: object, *, traceparent: str | None = None) -> Predicted:
        """Return the prediction for a request: a mapping of its fields, or the product's own Struct.

        Raises:
            RequestRefused: the request is wrong; names the field.
            NotAnswered: nobody answered before the deadline.
        """
        return self._http.call(self._path, encode_request(request), decode_predicted, traceparent)

    def predict_each(
        self, requests: Sequence[object], *, traceparent: str | None = None
    ) -> list[Predicted | RequestRefused]:
        """Return for each request its prediction, or why it alone is refused; raises like ``predict`` for the whole."""
        return self._http.call(f"{self._path}/rows", encode_rows(requests), decode_rows, traceparent)

    def batch_results(
        self, start: datetime, until: datetime, *, model_version: int | None = None, traceparent: str | None = None
    ) -> Iterator[BatchResult]:
        """Yield what batches answered for as-of instants in [start, until), in their order, of a version or the newest run.

        Every page is a call of its own. One that is not answered ends the rows; to go on, start at the last row's as-of.

        Raises:
            RequestRefused: the question is wrong, or there is no such product.
            NotAnswered: nobody answered before a page's deadline.
        """
        query = page_query(start, until, model_version=model_version)
        return self._pages(self._batches, query, decode_results, traceparent)

    def batch_refused(
        self, start: datetime, until: datetime, *, traceparent: str | None = None
    ) -> Iterator[BatchRefused]:
        """Yield what batches did not answer, and why, like ``batch_results``."""
        return self._pages(f"{self._batches}/refused", page_query(start, until), decode_refused, traceparent)

    def _pages(
        self, url: str, query: dict[str, str], decode: Callable[[bytes], Page[Row]], traceparent: str | None
    ) -> Iterator[Row]:
        after: str | None = None
        while True:
            page = self._http.call(page_url(url, query, after=after), None, decode, traceparent)
            yield from page.rows
            after = page.after
            if after is None:
                return


class AsyncClient:
    """Asks one product from an event loop. Close it, or use it in an ``async with``."""

    def __init__(
        self, url: str, product: str, *, policy: Policy | None = None, authorities: Path | None = None
    ) -> None:
        """Take the same as `Client`."""
        self._path = f"{url.rstrip('/')}/v1/{product}/predict"
        self._batches = f"{url.rstrip('/')}/v1/batches/{product}"
        self._http = AsyncConnections(url, policy or Policy(), authorities)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()

    async def predict(self, request: object, *, traceparent: str | None = None) -> Predicted:
        """See `Client.predict`."""
        return await self._http.call(self._path, encode_request(request), decode_predicted, traceparent)

    async def predict_each(
        self, requests: Sequence[object], *, traceparent: str | None = None
    ) -> list[Predicted | RequestRefused]:
        """See `Client.predict_each`."""
        return await self._http.call(f"{self._path}/rows", encode_rows(requests), decode_rows, traceparent)

    def batch_results(
        self, start: datetime, until: datetime, *, model_version: int | None = None, traceparent: str | None = None
    ) -> AsyncIterator[BatchResult]:
        """See `Client.batch_results`."""
        query = page_query(start, until, model_version=model_version)
        return self._pages(self._batches, query, decode_results, traceparent)

    def batch_refused(
        self, start: datetime, until: datetime, *, traceparent: str | None = None
    ) -> AsyncIterator[BatchRefused]:
        """See `Client.batch_refused`."""
        return self._pages(f"{self._batches}/refused", page_query(start, until), decode_refused, traceparent)

    async def _pages(
        self, url: str, query: dict[str, str], decode: Callable[[bytes], Page[Row]], traceparent: str | None
    ) -> AsyncIterator[Row]:
        after: str | None = None
        while True:
            page = await self._http.call(page_url(url, query, after=after), None, decode, traceparent)
            for row in page.rows:
                yield row
            after = page.after
            if after is None:
                return


def subscribe(product: str, *, group: str, bootstrap: str | None = None, instance: str | None = None) -> "Subscription":
    """Subscribe an application to the stream's scores of a product; see `headway.subscription.subscribe`."""
    # Needs the extra ``kafka``, which who only asks does without.
    from headway import subscription

    return subscription.subscribe(product, group=group, bootstrap=bootstrap, instance=instance)
