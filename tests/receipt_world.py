"""Logged answers of a small model, and where they are kept: the lake, the log, the registry."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import polars as pl

from headway.adapters.delta import Lake
from headway.adapters.lightgbm import LightGbm
from headway.adapters.memory import MemoryBroker, MemoryPublisher, MemoryReader
from headway.adapters.memory_registry import MemoryRegistry
from headway.clock import HOUR_US, FrozenClock, from_us, parse_instant_us
from headway.commit import COMMIT_TAG
from headway.ports import Message
from headway.predictions import (
    ModelId,
    Prediction,
    ServedView,
    prediction_record,
    prediction_rows,
    predictions_table,
)
from headway.topics import predictions_topic, scores_topic, topic_table
from serving.receipts import ReceiptDesk, ReceiptSources
from tests.serving_world import Trained, flight, product, trained

AS_OF_US = parse_instant_us("2013-07-01T14:00:00Z", field="as_of")
# Made at ASKED_US by the bits of a UUIDv7: its first 48 are milliseconds.
ASKED_US = AS_OF_US + HOUR_US


def receipt_at(instant_us: int, number: int = 0) -> str:
    """A receipt as the load balancer makes them."""
    digits = f"{instant_us // 1000:012x}7{0:03x}8{0:03x}{number:012x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def answer(receipt: str, *, number: int = 0, **changes: object) -> Prediction:
    """An answer as the API logs it; ``number`` makes its values differ."""
    made, reference = product(), product().domain.load_reference()
    request = made.parse_request(flight())
    views = tuple(
        ServedView(
            view=use.view,
            key=made.entity(use.view, request),
            features=use.features,
            values=tuple(
                AS_OF_US if name.startswith("last_at") else None if place == 1 else number + place
                for place, name in enumerate(use.features)
            ),
            row_time_us=AS_OF_US - HOUR_US,
            watermark_us=AS_OF_US,
            revision=number,
        )
        for use in made.views
    )
    features = made.compute_request_features(request, reference, AS_OF_US)
    predictor = trained(1).predictor()
    prediction = Prediction(
        receipt=receipt,
        product=made.name,
        as_of_us=AS_OF_US,
        requested_at_us=ASKED_US,
        model=ModelId(name=made.name, version=1, digest=predictor.digest),
        reference_version=reference.version,
        request=msgspec.Raw(msgspec.json.encode(request)),
        views=views,
        probability=predictor.predict(features, {view.view: view.values for view in views}, AS_OF_US).score,
        degraded=False,
        stale=(),
        source="request",
        commit="abc",
    )
    return msgspec.structs.replace(prediction, **changes)


@dataclass
class Installation:
    """A lake below ``root``, a log, a registry with one version, and a clock."""

    root: Path
    now_us: int = ASKED_US
    model: Trained = field(default_factory=lambda: trained(1))
    registry: MemoryRegistry = field(default_factory=MemoryRegistry)
    broker: MemoryBroker = field(default_factory=MemoryBroker)
    asked_for_models: int = 0

    def __post_init__(self) -> None:
        self.lake = Lake(self.root)
        self.topic = predictions_topic(product().name)
        self.broker.create(
            topic_table(views=[], products=[product().name], replication_factor=1, min_insync_replicas=1)
        )
        self.registry.register(
            self.model.text,
            self.model.manifest,
            metrics={},
            params={},
            tags={COMMIT_TAG: "c0de"},
            run="run-of-training",
        )

    def log(self, *predictions: Prediction) -> None:
        MemoryPublisher(self.broker).publish([prediction_record(each) for each in predictions])

    def load(self) -> None:
        """What the lake loader does with everything that is in the log."""
        table = predictions_table(product().name)
        self.lake.create(table)
        topics = (self.topic, scores_topic(product().name))
        places = [(topic, each) for topic in topics for each in range(self.broker.partition_count(topic))]
        for topic, partition in places:
            app_id = f"{topic}-{partition}"
            held = Lake(self.root).committed(table.name, app_id)
            new = list(MemoryReader(self.broker).read_after(topic, partition, -1 if held is None else held))
            if new:
                self.lake.append_once(table.name, prediction_rows(new), app_id=app_id, version=new[-1].offset)

    def batch(self, predictions: Sequence[Prediction]) -> None:
        table = predictions_table(product().name)
        self.lake.create(table)
        messages = [
            Message(record.topic, 0, 0, record.key, record.value, record.headers, 0)
            for record in map(prediction_record, predictions)
        ]
        nowhere = {name: pl.lit(None, dtype=table.columns[name]) for name in ("topic", "partition", "offset")}
        self.lake.append(table.name, prediction_rows(messages).with_columns(**nowhere))

    def desk(self) -> ReceiptDesk:
        def registry() -> MemoryRegistry:
            self.asked_for_models += 1
            return self.registry

        return ReceiptDesk(
            ReceiptSources(
                lake=self.lake,
                log=MemoryReader(self.broker),
                registry=registry,
                products={product().name: product()},
                references={product().name: product().domain.load_reference()},
                load=LightGbm().load,
                clock=FrozenClock(from_us(self.now_us)),
                commit="def",
            )
        )
