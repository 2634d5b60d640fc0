"""One replica of the feature API: ``python -m serving.features_main [--instance N]``, HTTP and gRPC on two ports.

On SIGTERM it answers the balancer's check with 404 and gRPC's health with NOT_SERVING, so that nothing new comes,
finishes what runs, and ends.
"""

import argparse
import sys

import structlog

from domains.catalogue import all_domains
from headway.adapters.redis_online import OnlineReader
from headway.clock import Clock, SystemClock
from headway.features.catalogue import catalogue
from headway.features.online import FeatureReader
from headway.features.services import feature_service
from headway.garbage import spare_long_lived
from headway.logs import configure_logging
from headway.settings import LOOPBACK, Settings
from headway.stopping import stop_event
from products.catalogue import all_products
from serving.balancer import CHECK_INTERVAL_MS, feature_ports
from serving.feature_answers import FeatureAnswers, FeatureLimits, feature_limits
from serving.feature_grpc import FeatureGrpc
from serving.features import FeatureApi
from serving.lean_http import LeanHttp
from serving.replica import ReplicaServer, Served

# The balancer's second look has gone by.
_DRAIN_S = 2.2 * CHECK_INTERVAL_MS / 1000
_LOG = structlog.get_logger()


class FeatureReplica:
    """Both doors over one reader."""

    def __init__(
        self, reader: FeatureReader, clock: Clock, limits: FeatureLimits, *, host: str, port: int, grpc_port: int
    ) -> None:
        products = all_products().values()
        answers = FeatureAnswers(map(feature_service, products), reader, clock, limits)
        self._reader = reader
        self.grpc = FeatureGrpc(answers, host=host, port=grpc_port)
        found = catalogue(all_domains().values(), products)
        self.api = FeatureApi(answers, found, start=self.grpc.start, close=self._close)
        served = Served(
            app=self.api,
            digest="features",
            check_golden=lambda: None,
            close=lambda: None,
            lifespan="on",
            http=LeanHttp,
        )
        self.server = ReplicaServer(served, host=host, port=port)

    def leave(self, *, drain_s: float) -> None:
        """Take nothing new, finish what runs, end."""
        self.api.draining = True
        self.grpc.leave()
        self.server.leave(drain_s=drain_s, timeout_s=2.5)

    async def _close(self) -> None:
        await self.grpc.stop()
        await self._reader.close()


def main() -> int:
    """Answer until SIGTERM or SIGINT."""
    settings = Settings()
    ports = feature_ports(settings)
    parser = argparse.ArgumentParser(prog="python -m serving.features_main", description=main.__doc__)
    parser.add_argument("--instance", type=int, choices=range(len(ports)), default=0, help="chooses the ports")
    instance = int(parser.parse_args().instance)
    configure_logging("features")
    stop = stop_event()
    port, grpc_port = ports[instance]
    reader = OnlineReader(f"redis://{settings.online_store}", settings.feast_project)
    replica = FeatureReplica(
        reader, SystemClock(), feature_limits(settings), host=LOOPBACK, port=port, grpc_port=grpc_port
    )
    spare_long_lived()
    replica.server.start()
    _LOG.info("serving", port=port, grpc_port=grpc_port)
    stop.wait()
    replica.leave(drain_s=_DRAIN_S)
    return 0


if __name__ == "__main__":
    sys.exit(main())
