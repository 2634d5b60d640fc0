"""Predictions asked on a schedule through the load balancer, each once, and the right answer to each.

A question is a flight of history with its instant; the online store holds a row for everything it names, so the right
answer is the same at any time. What bites: nothing is asked twice by itself; what the load balancer repeats is its own.
"""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from functools import cache

import msgspec

from headway.adapters.lightgbm import LightGbm
from headway.adapters.redis_online import OnlineRow
from headway.clock import format_us, to_us
from headway.events import Event
from headway.manifest import Manifest
from headway.openloop import Answered, HttpRequest, LoadReport, offer_load
from headway.predictor import open_predictor
from headway.product import Product
from headway.settings import LOOPBACK, Settings
from headway.vector import Number, ViewValues
from orchestration.chaos.answer_verdict import Expected
from orchestration.chaos.scoring import asked_us, body_of
from serving.predict import VERSION_HEADER

_TIMEOUT_S = 4.0
_LONGEST_S = 3_600.0

# The values of every entity's row, by the view's name and the entity.
Rows = Mapping[tuple[str, tuple[str, ...]], tuple[Number, ...]]


def bodies_of(product: Product, events: Sequence[Event]) -> list[bytes]:
    """Return each event that asks as the body of a request, as of the instant it is asked for."""
    return [
        msgspec.json.encode({**body_of(product, event), "as_of": format_us(asked_us(product, event))})
        for event in events
    ]


class PredictionLoad:
    """Asks one product's questions in turn, in a thread of its own."""

    def __init__(self, settings: Settings, product: Product, bodies: Sequence[bytes], *, rate_per_s: float) -> None:
        self._settings, self._product, self._bodies, self._rate_per_s = settings, product, bodies, rate_per_s
        self._thread: threading.Thread | None = None
        self._report: LoadReport | None = None
        self._over = threading.Event()
        self.answers: list[Answered] = []

    def start(self) -> None:
        """Begin to ask."""
        self._thread = threading.Thread(target=self._run, name="asking", daemon=True)
        self._thread.start()

    def finish(self) -> LoadReport:
        """Ask no more, and return what became of the requests once each has."""
        assert self._thread is not None
        self._over.set()
        self._thread.join()
        assert self._report is not None, "the load ended with an error; it is on standard error"
        return self._report

    def _run(self) -> None:
        requests = [
            HttpRequest(
                method="POST",
                path=f"/v1/{self._product.name}/predict",
                headers={"content-type": "application/json"},
                body=body,
            )
            for body in self._bodies
        ]
        self._report = asyncio.run(
            offer_load(
                lambda place: requests[place % len(requests)],
                host=LOOPBACK,
                port=self._settings.ports.load_balancer,
                rate_per_s=self._rate_per_s,
                duration_s=_LONGEST_S,
                timeout_s=_TIMEOUT_S,
                tag_header=VERSION_HEADER,
                told=self.answers.append,
                stopped=self._over.is_set,
            )
        )


def expected_answers(
    product: Product, version: tuple[bytes, Manifest], bodies: Sequence[bytes], rows: Rows
) -> Expected:
    """Return the right answer to a question, computed row by row apart from the service."""
    text, manifest = version
    predictor = open_predictor(text, manifest, load=LightGbm().load)
    reference = product.domain.load_reference()

    @cache
    def answer(place: int, degraded: bool) -> float:  # noqa: FBT001 - what the answer says of itself
        request = product.parse_request(bodies[place])
        assert request.as_of is not None
        as_of_us = to_us(request.as_of)
        views: ViewValues = {
            name: None if degraded else _values(rows, name, view.keys, request, product)
            for name, view in product.feature_views.items()
        }
        values = product.compute_request_features(request, reference, as_of_us)
        return predictor.predict(values, views, as_of_us).score

    return lambda place, degraded: answer(place % len(bodies), degraded)


def rows_by_entity(product: Product, rows: Sequence[OnlineRow]) -> Rows:
    """Return what each view holds of each entity, as the vector wants it."""
    views = {view.online_name: view for view in product.feature_views.values()}
    found: dict[tuple[str, tuple[str, ...]], tuple[Number, ...]] = {}
    for row in rows:
        view = views[row.view]
        entity = tuple(row.keys[key] for key in view.keys)
        found[view.qualified, entity] = tuple(row.values[name] for name in product.use(view.qualified).features)
    return found


def _values(rows: Rows, view: str, keys: Sequence[str], request: msgspec.Struct, product: Product) -> Sequence[Number]:
    entity = tuple(getattr(request, key) for key in keys)
    return product.empty_rows[view] if None in entity else rows[view, entity]
