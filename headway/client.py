"""Ask a product for predictions: one request or many, from a thread or from an event loop, with a deadline that holds.

`subscribe` gives the stream's answers instead.

`Client` and `AsyncClient` answer alike and fail alike: `RequestRefused` for what will be refused again, `NotAnswered` when
nobody answered in time. Retries are bounded by attempts, by the deadline and by a budget, so that a service in trouble is
not asked twice as much. What bites: one client is for one thread, or one event loop; its budget is for all its calls.
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

import httpx

from headway.client_call import (
    MAX_ANSWER_BYTES,
    Attempted,
    Call,
    Policy,
    Predicted,
    RequestRefused,
    check_status,
    decode_predicted,
    decode_rows,
    encode_request,
    encode_rows,
)
from headway.clock import monotonic_s

if TYPE_CHECKING:
    from headway.subscription import Subscription

Answer = TypeVar("Answer")


class Client:
    """Asks one product. Close it, or use it in a ``with``."""

    def __init__(
        self, url: str, product: str, *, policy: Policy | None = None, authorities: Path | None = None
    ) -> None:
        """Ask ``product`` at the load balancer's ``url``; over TLS, ``authorities`` is a PEM file of those to trust."""
        self._path = f"{url.rstrip('/')}/v1/{product}/predict"
        self._policy = policy or Policy()
        self._http = httpx.Client(trust_env=False, verify=_trusted(url, authorities))

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
        return self._call(self._path, encode_request(request), decode_predicted, traceparent)

    def predict_each(
        self, requests: Sequence[object], *, traceparent: str | None = None
    ) -> list[Predicted | RequestRefused]:
        """Return for each request its prediction, or why it alone is refused; raises like ``predict`` for the whole."""
        return self._call(f"{self._path}/rows", encode_rows(requests), decode_rows, traceparent)

    def _call(self, url: str, body: bytes, decode: Callable[[bytes], Answer], traceparent: str | None) -> Answer:
        call = Call(self._policy, traceparent=traceparent, now_s=monotonic_s())
        while True:
            try:
                return decode(self._attempt(call, url, body))
            except Attempted as failed:
                time.sleep(call.wait_s(failed, now_s=monotonic_s()))

    def _attempt(self, call: Call, url: str, body: bytes) -> bytes:
        try:
            with self._http.stream("POST", url, content=body, headers=call.headers(), timeout=_left(call)) as response:
                answer = b""
                for chunk in response.iter_bytes():
                    answer += chunk
                    _check_bounds(call, answer)
        except httpx.HTTPError as error:
            raise _unanswered(error) from error
        check_status(response.status_code, response.headers, answer)
        return answer


class AsyncClient:
    """Asks one product from an event loop. Close it, or use it in an ``async with``."""

    def __init__(
        self, url: str, product: str, *, policy: Policy | None = None, authorities: Path | None = None
    ) -> None:
        """Take the same as `Client`."""
        self._path = f"{url.rstrip('/')}/v1/{product}/predict"
        self._policy = policy or Policy()
        self._http = httpx.AsyncClient(trust_env=False, verify=_trusted(url, authorities))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def predict(self, request: object, *, traceparent: str | None = None) -> Predicted:
        """See `Client.predict`."""
        return await self._call(self._path, encode_request(request), decode_predicted, traceparent)

    async def predict_each(
        self, requests: Sequence[object], *, traceparent: str | None = None
    ) -> list[Predicted | RequestRefused]:
        """See `Client.predict_each`."""
        return await self._call(f"{self._path}/rows", encode_rows(requests), decode_rows, traceparent)

    async def _call(self, url: str, body: bytes, decode: Callable[[bytes], Answer], traceparent: str | None) -> Answer:
        call = Call(self._policy, traceparent=traceparent, now_s=monotonic_s())
        while True:
            try:
                return decode(await self._attempt(call, url, body))
            except Attempted as failed:
                await asyncio.sleep(call.wait_s(failed, now_s=monotonic_s()))

    async def _attempt(self, call: Call, url: str, body: bytes) -> bytes:
        try:
            async with self._http.stream(
                "POST", url, content=body, headers=call.headers(), timeout=_left(call)
            ) as response:
                answer = b""
                async for chunk in response.aiter_bytes():
                    answer += chunk
                    _check_bounds(call, answer)
        except httpx.HTTPError as error:
            raise _unanswered(error) from error
        check_status(response.status_code, response.headers, answer)
        return answer


def subscribe(product: str, *, group: str, bootstrap: str | None = None, instance: str | None = None) -> "Subscription":
    """Subscribe an application to the stream's scores of a product; see `headway.subscription.subscribe`."""
    # Needs the extra ``kafka``, which who only asks does without.
    from headway import subscription

    return subscription.subscribe(product, group=group, bootstrap=bootstrap, instance=instance)


def _left(call: Call) -> float:
    return max(0.001, call.until_s - monotonic_s())


def _check_bounds(call: Call, answer: bytes) -> None:
    """Have a whole exchange end by the deadline, even when bytes drip one by one."""
    if monotonic_s() > call.until_s:
        raise Attempted("the answer did not come in time", retry=False)
    if len(answer) > MAX_ANSWER_BYTES:
        raise Attempted(f"the answer is longer than {MAX_ANSWER_BYTES} bytes", retry=False)


def _unanswered(error: httpx.HTTPError) -> Attempted:
    return Attempted(f"{type(error).__name__}: {error}".rstrip(": "), retry=isinstance(error, httpx.TransportError))


def _trusted(url: str, authorities: Path | None) -> ssl.SSLContext:
    if not url.startswith("https:"):
        # Trusts nobody and is not asked; reading the machine's authorities takes a tenth of a second.
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return ssl.create_default_context(cafile=authorities)
