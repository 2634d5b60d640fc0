"""Headway's contestant of P7: the Enricher's own loop, log and handler, ``BROKER IN GROUP WINDOW_S [INSTANCE]``.

All of the job but its health port: transactions, dedupe state in its compacted topic, letters. Every window is a group
and a memory of its own, since the ids of the window before would all be repeats.
"""

import sys

from benchmarks.metered import Metered
from benchmarks.peers.meter import Meter
from domains.flights.domain import DOMAIN
from headway.adapters.kafka_log import KafkaEventLog
from headway.enrichment import ReferenceEnrichment
from headway.garbage import spare_long_lived
from headway.logs import configure_logging
from streaming.handlers.enrich import EnrichHandler
from streaming.runtime import HandlerWorker, partitions_of


def main(broker: str, source: str, group: str, window_s: str, instance: str = "0") -> None:
    """Work until the meter ends the process."""
    configure_logging("p7")
    enrichment = ReferenceEnrichment(DOMAIN.load_reference())
    handler = EnrichHandler(DOMAIN, enrichment, lambda _topic, _partition: [])
    worker = HandlerWorker(Metered(handler, Meter(float(window_s))))
    log = KafkaEventLog(
        bootstrap=broker,
        group=group,
        topics=[source],
        instance=instance,
        on_assign=lambda owned: worker.assigned(partitions_of(owned)),
        on_revoke=lambda owned: worker.revoked(partitions_of(owned)),
    )
    spare_long_lived()
    worker.run(log, stopped=lambda: False)


if __name__ == "__main__":
    main(*sys.argv[1:])
