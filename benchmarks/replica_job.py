"""One replica of a prediction API in a process of its own, ``MODEL_FOLDER STORE PROJECT KAFKA REGISTRY``, until it is ended.

The same server as in the Ray Serve actor (`serving.replica.PortReplica`), without Ray around it: what Ray costs is what its
health check of a replica costs, once in some seconds, and its control plane's idling.
"""

import os
import sys
import threading
from pathlib import Path

from headway.garbage import spare_long_lived
from headway.logs import configure_logging
from headway.settings import LOOPBACK
from serving.predict import build
from serving.replica import ReplicaRecord, ReplicaServer

PRODUCT, VERSION = "flight_delay", 1
APPLICATION, REPLICA = f"{PRODUCT}.v{VERSION}", "bench"


def main(folder: str, store: str, project: str, kafka: str, registry: str) -> None:
    """Serve, and announce where."""
    configure_logging("replica")
    served = build(
        product=PRODUCT,
        version=str(VERSION),
        folder=folder,
        online_store=store,
        feast_project=project,
        kafka=kafka,
        rows="256",
        cache_entries="0",
    )
    server = ReplicaServer(served, host=LOOPBACK, port=0)
    server.start()
    spare_long_lived()
    record = ReplicaRecord(
        application=APPLICATION,
        replica=REPLICA,
        host=server.host,
        port=server.port,
        pid=os.getpid(),
        digest=server.digest,
        grpc_port=server.grpc_port,
    )
    record.write(Path(registry))
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
