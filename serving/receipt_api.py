"""``GET /v1/predictions/{receipt}``: what an answer was made of, and its score computed again, for whoever got it.

Reading the lake and loading a model block, so they happen in threads, a few at a time; beyond them a caller waits for
his turn, and the load balancer says 504 when it does not come.
"""

import asyncio

import structlog

from headway.errors import HeadwayError, InputRejected, TransientFailure
from headway.problem import Problem
from headway.receipt_view import receipt_facts
from serving.asgi import Answer, Receive, Scope, Send, json_answer, problem_answer, send_answer
from serving.receipts import NoSuchReceipt, NotYet, ReceiptDesk
from serving.replica import Served

PREFIX = "/v1/predictions/"
_AT_ONCE = 4
_RETRY = (b"retry-after", b"1")
_LOG = structlog.get_logger()


class ReceiptApi:
    """The ASGI application. For one event loop."""

    def __init__(self, desk: ReceiptDesk) -> None:
        self._desk = desk
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        del receive
        path = str(scope["path"])
        if scope["method"] not in ("GET", "HEAD"):
            problem = Problem(405, "method-not-allowed", f"{path}: got {scope['method']}, wanted GET")
            answer = problem_answer(problem, (b"allow", b"GET"))
        elif path in ("/livez", "/readyz"):
            answer = json_answer({"status": path[1:-1]})
        elif path.startswith(PREFIX):
            async with self._turns:
                answer = await asyncio.to_thread(self._receipt, path.removeprefix(PREFIX))
        else:
            answer = problem_answer(Problem(404, "not-found", f"{path}: wanted GET {PREFIX}RECEIPT"))
        await send_answer(send, answer)

    def _receipt(self, receipt: str) -> Answer:
        try:
            return json_answer(receipt_facts(self._desk.receipt(receipt)))
        except InputRejected as error:
            return problem_answer(Problem(400, "invalid-receipt", str(error)))
        except NotYet as error:
            return problem_answer(Problem(404, "not-yet", str(error)), _RETRY)
        except NoSuchReceipt as error:
            return problem_answer(Problem(404, "unknown-receipt", str(error)))
        except TransientFailure as error:
            return problem_answer(Problem(503, "unavailable", str(error)), _RETRY)
        except HeadwayError as error:
            _LOG.error("no receipt", receipt=receipt, reason=str(error))
            return problem_answer(Problem(500, "internal", f"receipt {receipt}: {error}"))

    def served(self) -> Served:
        """Give what a server on a port needs."""
        return Served(app=self, digest="receipts", check_golden=lambda: None, close=lambda: None)
