"""One Collector as a process: ``python -m serving.collector_main [--instance N]``, on its own port behind the balancer.

On SIGTERM it answers the balancer's check with 404, so that nothing new comes, finishes what runs, flushes, and ends.
"""

import argparse
import sys

from headway.adapters.kafka_publisher import KafkaPublisher
from headway.clock import SystemClock
from headway.garbage import spare_long_lived
from headway.logs import configure_logging
from headway.settings import LOOPBACK, Settings
from headway.stopping import stop_event
from serving.balancer import CHECK_INTERVAL_MS
from serving.collector import Collector, collector_id
from serving.collector_log import ACKNOWLEDGE_TIMEOUT_S
from serving.lean_http import LeanHttp
from serving.replica import ReplicaServer, Served

# The balancer's second look has gone by.
_DRAIN_S = 2.2 * CHECK_INTERVAL_MS / 1000
# Longer than a request waits, so that what comes in late still settles the client's retry the cheap way.
_DELIVERY_TIMEOUT_S = ACKNOWLEDGE_TIMEOUT_S + 0.5
# Half the processor time per event of 1 ms, here and in the broker, whose cost is per batch and not per record.
_LINGER_MS = 5.0


def main() -> int:
    """Collect events until SIGTERM or SIGINT. Exit code 0 when everything accepted is in the log."""
    parser = argparse.ArgumentParser(prog="python -m serving.collector_main", description=main.__doc__)
    parser.add_argument("--instance", type=int, default=0, help="number of this collector; chooses its port")
    instance = int(parser.parse_args().instance)
    configure_logging("collector")
    stop = stop_event()
    settings = Settings()
    publisher = KafkaPublisher(
        bootstrap=settings.kafka_bootstrap, linger_ms=_LINGER_MS, delivery_timeout_s=_DELIVERY_TIMEOUT_S
    )
    collector = Collector(publisher, SystemClock(), collector_id=collector_id())
    served = Served(
        app=collector,
        digest="collector",
        check_golden=lambda: None,
        close=publisher.close,
        lifespan="on",
        http=LeanHttp,
    )
    server = ReplicaServer(served, host=LOOPBACK, port=settings.ports.collector_first + instance)
    spare_long_lived()
    server.start()
    stop.wait()
    collector.drain()
    server.leave(drain_s=_DRAIN_S, timeout_s=ACKNOWLEDGE_TIMEOUT_S + 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
