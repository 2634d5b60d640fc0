"""What the demo does to the running stack besides Dagster runs: stream, ask, promote, wait, and read the books."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import msgspec
import polars as pl

from headway.adapters.delta import Lake
from headway.adapters.kafka_publisher import KafkaPublisher
from headway.clock import monotonic_s
from headway.errors import PermanentFailure, TransientFailure
from headway.events import Event, encode_event
from headway.features.parity import ParityReport
from headway.ledger import JUDGED_HOURS, Ledger
from headway.local import lifecycle
from headway.openloop import LoadReport, offer_load
from headway.ports import Record
from headway.prediction_parity import check_predictions
from headway.predictions import predictions_table
from headway.product import Product
from headway.registry import ModelRegistry, ModelVersion
from headway.settings import Settings
from headway.topics import EVENTS_RAW
from orchestration.demo.calendar import Stretch
from streaming.accounts import open_stores, read_ledger
from streaming.bootstrapping import bootstrap
from streaming.commands import asks_between, replay
from streaming.jobs import AGGREGATE
from streaming.replay import Ask, ReplayReport, prediction_request

RELEASE_TIMEOUT_S = 180.0
SETTLE_TIMEOUT_S = 60.0
LOAD_RATE_PER_S = 25.0
# Until the release is through; the schedule is cut when it is, and what was offered by then is counted.
_LOAD_CHUNK_S = 2.0
_POLL_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Plane:
    """The running stack, as one product's demo uses it."""

    settings: Settings
    product: Product
    registry: ModelRegistry

    @property
    def lake(self) -> Lake:
        """The lake of the stack."""
        return Lake(Path(self.settings.lake))

    def register_again(self, version: int) -> ModelVersion:
        """Register a version's model once more under a new number, for a release that shows the release itself."""
        model, manifest = self.registry.load(self.product.name, version)
        again = msgspec.structs.replace(manifest, golden=manifest.golden[:-1])
        return self.registry.register(model, again, metrics={}, params={}, tags={"headway.demo": "forced"}, run=None)

    def start_stream_at(self, instant_us: int, *, tell: Callable[[str], None]) -> None:
        """Bootstrap the feature job and the online store, with the job stopped meanwhile (S11)."""
        lifecycle.direct(self.settings, "pause", AGGREGATE, within_s=30)
        try:
            written = bootstrap(self.settings, self.product.domain, until_us=instant_us, say=lambda _: None)
        finally:
            lifecycle.direct(self.settings, "resume", AGGREGATE, within_s=60)
        rows = sum(int(str(view["online_rows"])) for view in written)
        tell(f"{len(written)} views bootstrapped from the lake: {rows:,} online rows")

    def stream(self, stretch: Stretch, *, planted_from_us: int | None) -> ReplayReport:
        """Replay a stretch in lock-step, asking about everything the product is asked."""
        return replay(
            self.settings,
            self.product.domain,
            self.product,
            start_us=stretch.after_us,
            end_us=stretch.until_us,
            speed=None,
            planted_from_us=planted_from_us,
        )

    def send_bad_input(self, sample: Event) -> list[tuple[str, int, str]]:
        """Send an event without an id, one from an unknown airport, and a repeat; return what was answered to each."""
        without_id = encode_event(sample).replace(b'"id":', b'"identity":', 1)
        unknown = Event(
            id="demo/unknown-airport",
            source=sample.source,
            type=sample.type,
            subject=sample.subject,
            time_us=sample.time_us,
            data={**sample.data, "dest": "XXX"},
        )
        bodies = [
            ("an event without id", without_id),
            ("an unknown airport", encode_event(unknown)),
            ("the same event twice", encode_event(sample)),
        ]
        answers = []
        with httpx.Client(base_url=self.settings.load_balancer_url) as client:
            for what, body in bodies:
                kind = {"content-type": "application/cloudevents+json"}
                answer = client.post("/v1/events", content=body, headers=kind)
                answers.append((what, answer.status_code, str(answer.json().get("detail", "accepted"))))
        return answers

    def send_past_the_collector(self, raw: bytes) -> None:
        """Write bytes straight into events.raw, as a producer with a broken client might."""
        publisher = KafkaPublisher(bootstrap=self.settings.kafka_bootstrap)
        publisher.publish([Record(topic=EVENTS_RAW, key=b"stranger", value=raw)])
        publisher.close()

    def wait_until_live(self, version: int, *, tell: Callable[[str], None]) -> dict[str, Any]:
        """Wait until the release guard serves a version, telling each transition; return the product's release state.

        Raises:
            PermanentFailure: the release failed, or was not through in time; gives its reason.
        """
        told = 0
        deadline_s = monotonic_s() + RELEASE_TIMEOUT_S
        while True:
            state = self.release_state()
            lines = [line for line in state.get("transitions", []) if line["version"] == version]
            for line in lines[told:]:
                tell(f"release {line['release']}: {line['before']} -> {line['after']} {line['reason']}".rstrip())
            told = len(lines)
            live = state.get("live")
            if live is not None and live["version"] == version and state["state"] == "done":
                return state
            if state.get("state") == "failed" or monotonic_s() > deadline_s:
                raise PermanentFailure(f"version {version} is not live: {state.get('state')} {state.get('reason', '')}")
            time.sleep(_POLL_S)

    def release_state(self) -> dict[str, Any]:
        """Return the product's release state as the guard tells it; empty while the guard does not answer."""
        try:
            answer = httpx.get(f"{self.settings.load_balancer_url}/v1/releases", timeout=5)
        except httpx.TransportError:
            return {}
        if answer.is_error:
            return {}
        state: dict[str, Any] = answer.json()["products"].get(self.product.name, {})
        return state

    @contextmanager
    def under_load(self, asks: Sequence[Ask]) -> Iterator["Load"]:
        """Offer requests on a fixed schedule while the body runs, without retries; the load ends with the body."""
        load = Load(self, asks)
        load.start()
        try:
            yield load
        finally:
            load.stop()

    def asks(self, stretch: Stretch) -> list[Ask]:
        """Return everything the product is asked in a stretch."""
        return asks_between(self.product.domain, self.product, start_us=stretch.after_us, end_us=stretch.until_us)

    def settled_ledger(self, *, predictions: int) -> Ledger:
        """Wait until the books balance and the lake has so many served predictions; return the ledger as it is then."""
        deadline_s = monotonic_s() + SETTLE_TIMEOUT_S
        place = self.settings
        with open_stores(bootstrap=place.kafka_bootstrap, lake=place.lake, search_url=place.search_url) as stores:
            while True:
                ledger = read_ledger(stores, hours=JUDGED_HOURS)
                done = ledger.balanced and self.served().height >= predictions
                if done or monotonic_s() > deadline_s:
                    return ledger
                time.sleep(_POLL_S)

    def served(self) -> pl.DataFrame:
        """Return the rows of answered requests in the lake, one per receipt."""
        table = predictions_table(self.product.name).name
        if not self.lake.exists(table):
            raise TransientFailure(f"lake table {table}: not there yet")
        return self.lake.read(table, predicate=pl.col("source") == "request").unique("receipt")

    def parity(self) -> ParityReport:
        """Recompute every served prediction's features from the lake's events."""
        return check_predictions(self.served(), self.lake.read("events"), self.product.feature_views.values())


class Load:
    """Open-loop load in a thread of its own, in chunks, until stopped."""

    def __init__(self, plane: Plane, asks: Sequence[Ask]) -> None:
        self._plane = plane
        self._requests = [prediction_request(plane.product.name, ask) for ask in asks]
        self._stopping = False
        self._thread = Thread(target=self._run, name="load")
        self.reports: list[LoadReport] = []

    def start(self) -> None:
        """Begin to offer."""
        self._thread.start()

    def stop(self) -> None:
        """Let the chunk under way end."""
        self._stopping = True
        self._thread.join()

    @property
    def offered(self) -> int:
        """How many requests were offered."""
        return sum(report.offered for report in self.reports)

    @property
    def failed(self) -> int:
        """How many were not answered with a 2xx: other answers, resets, refusals and timeouts."""
        return sum(report.failed for report in self.reports)

    @property
    def by_version(self) -> dict[str, int]:
        """How many answers came from each model version."""
        counted: dict[str, int] = {}
        for report in self.reports:
            for version, n in report.by_tag.items():
                counted[version] = counted.get(version, 0) + n
        return counted

    def _run(self) -> None:
        door = httpx.URL(self._plane.settings.load_balancer_url)
        while not self._stopping:
            begun = self.offered
            report = asyncio.run(
                offer_load(
                    lambda place, begun=begun: self._requests[(begun + place) % len(self._requests)],  # type: ignore[misc]
                    host=door.host,
                    port=door.port or 80,
                    rate_per_s=LOAD_RATE_PER_S,
                    duration_s=_LOAD_CHUNK_S,
                    timeout_s=10,
                    tag_header="x-headway-version",
                )
            )
            self.reports.append(report)
