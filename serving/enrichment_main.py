"""One replica of the Enrichment API: ``python -m serving.enrichment_main [--domain NAME] [--instance N]``.

On SIGTERM it answers the balancer's check with 404, so that nothing new comes, finishes what runs, and ends.
"""

import argparse
import sys

import structlog

from domains.catalogue import all_domains, find_domain
from headway.clock import monotonic_s
from headway.logs import configure_logging
from headway.settings import LOOPBACK, Settings
from headway.stopping import stop_event
from serving.balancer import CHECK_INTERVAL_MS, enrichment_ports
from serving.enrichment import EnrichmentApi
from serving.replica import ReplicaServer, Served

# The balancer's second look has gone by.
_DRAIN_S = 2.2 * CHECK_INTERVAL_MS / 1000
_LOG = structlog.get_logger()


def main() -> int:
    """Answer until SIGTERM or SIGINT."""
    ports = enrichment_ports(Settings())
    parser = argparse.ArgumentParser(prog="python -m serving.enrichment_main", description=main.__doc__)
    parser.add_argument("--domain", default=None, help="default: the only domain there is")
    parser.add_argument("--instance", type=int, choices=range(len(ports)), default=0, help="chooses the port")
    arguments = parser.parse_args()
    configure_logging("enrichment")
    stop = stop_event()
    domain = find_domain(arguments.domain) if arguments.domain else next(iter(all_domains().values()))
    began_s = monotonic_s()
    reference = domain.load_reference()
    api = EnrichmentApi(domain, reference)
    _LOG.info("loaded", domain=domain.name, version=reference.version, seconds=round(monotonic_s() - began_s, 3))
    served = Served(app=api, digest=reference.version, check_golden=lambda: None, close=lambda: None)
    server = ReplicaServer(served, host=LOOPBACK, port=ports[arguments.instance])
    server.start()
    stop.wait()
    api.draining = True
    server.leave(drain_s=_DRAIN_S, timeout_s=2.0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
