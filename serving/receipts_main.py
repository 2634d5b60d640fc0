"""The receipt API as one process: ``python -m serving.receipts_main``; reads lake, log and registry, and writes nothing."""

import argparse
import sys
from functools import cache
from pathlib import Path

from headway.adapters.delta import Lake
from headway.adapters.kafka_reader import KafkaReader
from headway.adapters.lightgbm import LightGbm
from headway.clock import SystemClock
from headway.commit import code_commit
from headway.logs import configure_logging
from headway.registry import ModelRegistry
from headway.settings import LOOPBACK, Settings
from headway.stopping import stop_event
from products.catalogue import all_products
from serving.balancer import CHECK_INTERVAL_MS
from serving.receipt_api import ReceiptApi
from serving.receipts import ReceiptDesk, ReceiptSources
from serving.replica import ReplicaServer

# The balancer's second look has gone by.
_DRAIN_S = 2.2 * CHECK_INTERVAL_MS / 1000
# A caller waits; what takes longer is answered 503.
_LOG_TIMEOUT_S = 3.0


def receipt_sources(settings: Settings) -> ReceiptSources:
    """Return where this installation keeps answers and models."""

    @cache
    def registry() -> ModelRegistry:
        from headway.adapters.mlflow import MlflowRegistry

        return MlflowRegistry(settings.mlflow_url)

    products = all_products()
    return ReceiptSources(
        lake=Lake(Path(settings.lake)),
        log=KafkaReader(bootstrap=settings.kafka_bootstrap, timeout_s=_LOG_TIMEOUT_S),
        registry=registry,
        products=products,
        references={name: product.domain.load_reference() for name, product in products.items()},
        load=LightGbm().load,
        clock=SystemClock(),
        commit=code_commit(),
    )


def main() -> int:
    """Answer until SIGTERM or SIGINT."""
    argparse.ArgumentParser(prog="python -m serving.receipts_main", description=main.__doc__).parse_args()
    configure_logging("receipts")
    stop = stop_event()
    settings = Settings()
    sources = receipt_sources(settings)
    server = ReplicaServer(ReceiptApi(ReceiptDesk(sources)).served(), host=LOOPBACK, port=settings.ports.receipts)
    server.start()
    sources.registry()  # its import takes two seconds, which the first caller should not wait for
    stop.wait()
    server.leave(drain_s=_DRAIN_S, timeout_s=3.0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
