"""What the release guard tells: ``GET /v1/releases``, and whether it works. Read from the table, never from the loop."""

from typing import Any, Protocol

import msgspec

from headway.adapters.release_table import ReleaseTable
from headway.problem import Problem
from headway.release import ProductState, Transition
from serving.asgi import Answer, Receive, Scope, Send, json_answer, problem_answer, send_answer
from serving.replica import Served

_ALIVE = {"status": "alive"}
# A page of history; the table keeps all of it.
_TRANSITIONS = 200


class RegistryContact(Protocol):
    """Says why the registry could not be read; empty when it could."""

    @property
    def trouble(self) -> str:
        """The reason, or nothing."""
        ...


class ReleaseApi:
    """The ASGI application."""

    def __init__(self, table: ReleaseTable, registry: RegistryContact) -> None:
        self._table = table
        self._registry = registry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        del receive
        if scope["method"] not in ("GET", "HEAD"):
            problem = Problem(405, "method-not-allowed", f"{scope['path']}: got {scope['method']}, wanted GET")
            await send_answer(send, problem_answer(problem, (b"allow", b"GET")))
            return
        await send_answer(send, self._get(str(scope["path"])))

    def _get(self, path: str) -> Answer:
        match path:
            case "/v1/releases":
                products = {name: self._product(state) for name, state in self._table.states().items()}
                return json_answer({"products": products, "registry": {"trouble": self._registry.trouble}})
            case "/livez":
                return json_answer(_ALIVE)
            case "/readyz":
                return json_answer({"status": "ready"})
            case _:
                return problem_answer(Problem(404, "not-found", f"{path}: wanted /v1/releases, /livez or /readyz"))

    def _product(self, state: ProductState) -> dict[str, Any]:  # Any: a JSON document
        live = state.live
        return {
            "wish": msgspec.to_builtins(state.wish),
            "live": None if live is None else {**msgspec.to_builtins(live.model), "colour": live.colour},
            "state": state.state,
            "reason": state.reason,
            "release": msgspec.to_builtins(state.release),
            "vetoes": dict(state.vetoes),
            "transitions": [_line(line) for line in self._table.transitions(state.product)[-_TRANSITIONS:]],
        }

    def served(self) -> Served:
        """Give what a server on a port needs."""
        return Served(app=self, digest="release-guard", check_golden=lambda: None, close=lambda: None)


def _line(line: Transition) -> dict[str, Any]:  # Any: a JSON document
    document: dict[str, Any] = msgspec.to_builtins(line)
    return document
