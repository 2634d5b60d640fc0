"""The batch API's process: ``python -m serving.batch_main``.

On SIGTERM it answers the balancer's check with 404, so that nothing new comes, finishes what runs, and ends.
"""

import argparse
import sys

import structlog

from headway.adapters.results_database import ResultsDatabase
from headway.logs import configure_logging
from headway.settings import LOOPBACK, Settings
from headway.stopping import stop_event
from products.catalogue import all_products
from serving.balancer import CHECK_INTERVAL_MS
from serving.batch_openapi import batch_openapi
from serving.batch_results import BatchApi
from serving.replica import ReplicaServer, Served

# The balancer's second look has gone by.
_DRAIN_S = 2.2 * CHECK_INTERVAL_MS / 1000
_LOG = structlog.get_logger()


def main() -> int:
    """Answer until SIGTERM or SIGINT."""
    argparse.ArgumentParser(prog="python -m serving.batch_main", description=main.__doc__).parse_args()
    settings = Settings()
    configure_logging("batches")
    stop = stop_event()
    results, products = ResultsDatabase(settings.results_url), sorted(all_products())
    api = BatchApi(results, products, batch_openapi(products))
    served = Served(app=api, digest="batches", check_golden=lambda: None, close=results.close)
    server = ReplicaServer(served, host=LOOPBACK, port=settings.ports.batch_api)
    server.start()
    _LOG.info("serving", port=settings.ports.batch_api, database=results.address)
    stop.wait()
    api.draining = True
    server.leave(drain_s=_DRAIN_S, timeout_s=2.0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
