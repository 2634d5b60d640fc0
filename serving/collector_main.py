"""One Collector as a process: ``python -m serving.collector_main [--instance N]``, on its own port behind the balancer.

On SIGTERM it answers the balancer's check with 404, so that nothing new comes, finishes what runs, flushes, and ends.
"""

import argparse
import signal
import sys
import threading

from headway.adapters.kafka_publisher import KafkaPublisher
from headway.clock import SystemClock
from headway.logs import configure_logging
from headway.settings import LOOPBACK, Settings
from serving.balancer import CHECK_INTERVAL_MS
from serving.collector import ACKNOWLEDGE_TIMEOUT_S, Collector, collector_id
from serving.replica import ReplicaServer, Served

# The balancer's second look has gone by.
_DRAIN_S = 2.2 * CHECK_INTERVAL_MS / 1000


def main() -> int:
    """Collect events until SIGTERM or SIGINT. Exit code 0 when everything accepted is in the log."""
    parser = argparse.ArgumentParser(prog="python -m serving.collector_main", description=main.__doc__)
    parser.add_argument("--instance", type=int, default=0, help="number of this collector; chooses its port")
    instance = int(parser.parse_args().instance)
    configure_logging("collector")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    settings = Settings()
    publisher = KafkaPublisher(bootstrap=settings.kafka_bootstrap, delivery_timeout_s=ACKNOWLEDGE_TIMEOUT_S)
    served = Served(
        app=Collector(publisher, SystemClock(), collector_id=collector_id()),  # type: ignore[arg-type]  # ASGI's dict
        digest="collector",
        check_golden=lambda: None,
        close=publisher.close,
        lifespan="on",
    )
    server = ReplicaServer(served, host=LOOPBACK, port=settings.ports.collector_first + instance)
    server.start()
    stop.wait()
    server.leave(drain_s=_DRAIN_S, timeout_s=ACKNOWLEDGE_TIMEOUT_S + 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
