"""How `headway.client` asks: over kept connections, each call until it is answered, given up, or its deadline is there.

`Connections` wait in a thread, `AsyncConnections` in an event loop; both count the same attempts against the same budget.
"""

import asyncio
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import httpx

from headway.client_call import MAX_ANSWER_BYTES, Attempted, Call, Policy, check_status
from headway.clock import monotonic_s

Answer = TypeVar("Answer")


class Connections:
    """Connections to one load balancer, for one thread."""

    def __init__(self, url: str, policy: Policy, authorities: Path | None) -> None:
        """Open none yet; over TLS, ``authorities`` is a PEM file of those to trust."""
        self._policy = policy
        self._http = httpx.Client(trust_env=False, verify=_trusted(url, authorities))

    def close(self) -> None:
        """Close them."""
        self._http.close()

    def call(self, url: str, body: bytes | None, decode: Callable[[bytes], Answer], traceparent: str | None) -> Answer:
        """Return what was answered to a body; without one, what there is to read.

        Raises:
            RequestRefused: it will be refused again.
            NotAnswered: nobody answered before the deadline.
        """
        call = Call(self._policy, traceparent=traceparent, now_s=monotonic_s())
        while True:
            try:
                return decode(self._attempt(call, url, body))
            except Attempted as failed:
                time.sleep(call.wait_s(failed, now_s=monotonic_s()))

    def _attempt(self, call: Call, url: str, body: bytes | None) -> bytes:
        try:
            with self._http.stream(
                _verb(body), url, content=body, headers=call.headers(), timeout=_left(call)
            ) as response:
                answer = b""
                for chunk in response.iter_bytes():
                    answer += chunk
                    _check_bounds(call, answer)
        except httpx.HTTPError as error:
            raise _unanswered(error) from error
        check_status(response.status_code, response.headers, answer)
        return answer


class AsyncConnections:
    """Connections to one load balancer, for one event loop."""

    def __init__(self, url: str, policy: Policy, authorities: Path | None) -> None:
        """Take the same as `Connections`."""
        self._policy = policy
        self._http = httpx.AsyncClient(trust_env=False, verify=_trusted(url, authorities))

    async def close(self) -> None:
        """Close them."""
        await self._http.aclose()

    async def call(
        self, url: str, body: bytes | None, decode: Callable[[bytes], Answer], traceparent: str | None
    ) -> Answer:
        """See `Connections.call`."""
        call = Call(self._policy, traceparent=traceparent, now_s=monotonic_s())
        while True:
            try:
                return decode(await self._attempt(call, url, body))
            except Attempted as failed:
                await asyncio.sleep(call.wait_s(failed, now_s=monotonic_s()))

    async def _attempt(self, call: Call, url: str, body: bytes | None) -> bytes:
        try:
            async with self._http.stream(
                _verb(body), url, content=body, headers=call.headers(), timeout=_left(call)
            ) as response:
                answer = b""
                async for chunk in response.aiter_bytes():
                    answer += chunk
                    _check_bounds(call, answer)
        except httpx.HTTPError as error:
            raise _unanswered(error) from error
        check_status(response.status_code, response.headers, answer)
        return answer


def _verb(body: bytes | None) -> str:
    return "GET" if body is None else "POST"


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
