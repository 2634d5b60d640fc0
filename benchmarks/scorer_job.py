"""Headway's contestant of P6: the stream scorer's own loop, log and handler, ``BROKER MODEL_FOLDER IN GROUP WINDOW_S``.

All of the job but its health port and its look at a registry: transactions, the plan of versions in its compacted topic,
letters, and scores that say all they say in production.
"""

import sys
from functools import partial
from pathlib import Path

from benchmarks.asked_events import product, registry_of
from benchmarks.metered import Metered
from benchmarks.peers.meter import Meter
from headway.adapters.kafka_log import KafkaEventLog
from headway.adapters.lightgbm import LightGbm
from headway.clock import SystemClock
from headway.garbage import spare_long_lived
from headway.logs import configure_logging
from headway.predictions import ModelId
from headway.predictor import Predictor, open_predictor
from headway.registry import ModelSource
from streaming.due_reads import NoReads
from streaming.handlers.score import ScoreHandler
from streaming.live_models import LiveModels
from streaming.runtime import HandlerWorker, partitions_of


def main(broker: str, folder: str, source: str, group: str, window_s: str) -> None:
    """Work until the meter ends the process."""
    configure_logging("p6")
    asked, registry = product(), registry_of(Path(folder))
    models = LiveModels(asked.name, registry, partial(_opened, registry))
    models.look()
    handler = ScoreHandler(
        asked,
        models=models,
        reads=NoReads(),
        reference=asked.domain.load_reference(),
        restore=lambda _topic, _partition: [],
        clock=SystemClock(),
    )
    worker = HandlerWorker(Metered(handler, Meter(float(window_s))))
    log = KafkaEventLog(
        bootstrap=broker,
        group=group,
        topics=[source],
        instance="0",
        on_assign=lambda owned: worker.assigned(partitions_of(owned)),
        on_revoke=lambda owned: worker.revoked(partitions_of(owned)),
    )
    spare_long_lived()
    worker.run(log, stopped=lambda: False)


def _opened(registry: ModelSource, model: ModelId) -> Predictor:
    text, manifest = registry.load(model.name, model.version)
    return open_predictor(text, manifest, load=LightGbm().load)


if __name__ == "__main__":
    main(*sys.argv[1:])
