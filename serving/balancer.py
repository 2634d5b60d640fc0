"""What stands behind the one door of this machine: the load balancer's table from settings, products and releases.

``python -m serving.balancer`` writes the configuration, has HAProxy read it, and becomes HAProxy. The table lists the
servers of now, from the release table and the replicas' records, so that a restarted load balancer starts with them.
Refuses to change weights: the release guard does, and writes the same table again. What bites: HAProxy's own lines on
the log are no JSON (`count_answers` skips them), and an answer that was cut off may have no line at all (ADR 0003).
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from headway.adapters.haproxy import (
    BUCKETS,
    Backend,
    LoadBalancerTable,
    RetryOn,
    Route,
    Server,
    Split,
    check_load_balancer,
    haproxy_command,
    write_load_balancer,
)
from headway.adapters.release_table import ReleaseTable
from headway.release import Colour, PinnedVersion, ProductState, traffic
from headway.settings import LOOPBACK, Settings
from products.catalogue import all_products
from serving.replica import GOLDEN_PATH, ReplicaRecord, read_records

COLOURS: tuple[Colour, ...] = ("blue", "green")
SERVING_WEIGHT = 100
CHECK_INTERVAL_MS = 500
_MAX_CONNECTIONS = 2_000
# A read changes nothing, so an unanswered one may be sent again.
_READS: tuple[RetryOn, ...] = ("conn-failure", "empty-response")
# Health and reflection name no service in their path: reflection of the feature API tells of all of them, and health
# of the models is asked where they are (headway.adapters.haproxy_inference).
FEATURE_GRPC = (
    "/headway.features.v1.FeatureService",
    "/grpc.health.v1.Health",
    "/grpc.reflection.v1alpha.ServerReflection",
)

# Application name -> the replicas that announced themselves.
Records = Callable[[str], Sequence[ReplicaRecord]]


def application_name(product: str, model: PinnedVersion) -> str:
    """Give the Ray Serve application of a model version: one for each, never redeployed under its name (ADR 0003)."""
    return f"{product}.v{model.version}"


def backend_name(product: str, colour: Colour) -> str:
    """Give the name of one of a product's two backends."""
    return f"{product}.{colour}"


def grpc_backend_name(product: str, colour: Colour) -> str:
    """Give the name of one of a product's two backends for gRPC, whose servers are the same replicas."""
    return f"{backend_name(product, colour)}-grpc"


def product_backends(state: ProductState, colour: Colour, records: Records) -> tuple[Backend, Backend]:
    """Give the two backends of a product's colour, for HTTP and for gRPC: weight 0 until its version is asked."""
    wanted = traffic(state)
    model = wanted.behind(colour)
    weight = SERVING_WEIGHT if colour == wanted.serving else 0
    found = () if model is None else tuple(records(application_name(state.product, model)))
    http = tuple(Server(name=r.replica, host=r.host, port=r.port, weight=weight) for r in found)
    # One fitness for both: the golden answer, which HTTP tells.
    grpc = tuple(
        Server(name=r.replica, host=r.host, port=r.grpc_port, weight=weight, check_port=r.port)
        for r in found
        if r.grpc_port
    )
    # A prediction changes nothing and its record is deduplicated by receipt, so an unanswered one may be sent again.
    backend = partial(_backend, answer_timeout_ms=2_000, retry_on=_READS)
    return (
        backend(backend_name(state.product, colour), http),
        backend(grpc_backend_name(state.product, colour), grpc, speaks="grpc"),
    )


def green_share(state: ProductState) -> int:
    """Give the share of green: all or nothing."""
    return BUCKETS if traffic(state).serving == "green" else 0


def load_balancer_table(
    settings: Settings, *, products: Iterable[str], states: Mapping[str, ProductState], records: Records
) -> LoadBalancerTable:
    """Give all the load balancer should know now."""
    backends = [
        _backend(
            "collectors",
            tuple(
                Server(name=f"collector-{n}", host=LOOPBACK, port=settings.ports.collector_first + n, weight=100)
                for n in range(settings.collectors)
            ),
            # The collector gives up on the broker after 2.5 s, on a slow body after 10, and says so; a retry could store an event twice.
            answer_timeout_ms=14_000,
            retry_on=("conn-failure",),
            balance="roundrobin",
        ),
        _backend(
            "enrichment",
            tuple(
                Server(name=f"enrichment-{n}", host=LOOPBACK, port=port, weight=100)
                for n, port in enumerate(enrichment_ports(settings))
            ),
            # Its client gives up after 2 s. A body that ends a replica must not end the other one too.
            answer_timeout_ms=2_000,
            retry_on=("conn-failure",),
        ),
        *_feature_backends(settings),
        _backend(
            "batches",
            (Server(name="batch-api", host=LOOPBACK, port=settings.ports.batch_api, weight=100),),
            # Longer than a database's wait for a writer is patient with, which the API tells.
            answer_timeout_ms=35_000,
            retry_on=_READS,
        ),
        _backend(
            "release-guard",
            (Server(name="release-guard", host=LOOPBACK, port=settings.ports.release, weight=100),),
            answer_timeout_ms=5_000,
            retry_on=("conn-failure",),
        ),
        _backend(
            "receipts",
            (Server(name="receipts", host=LOOPBACK, port=settings.ports.receipts, weight=100),),
            # A model that nobody asked about before is fetched and proven first; a log that is away says so in 10 s.
            answer_timeout_ms=15_000,
            retry_on=_READS,
        ),
    ]
    splits = []
    for product in products:
        state = states.get(product, ProductState(product=product))
        backends += [backend for colour in COLOURS for backend in product_backends(state, colour, records)]
        splits.append(
            Split(
                name=product,
                prefix=f"/v1/{product}",
                blue=backend_name(product, "blue"),
                green=backend_name(product, "green"),
                green_share=green_share(state),
                further=(f"/v2/models/{product}",),
                grpc_blue=grpc_backend_name(product, "blue"),
                grpc_green=grpc_backend_name(product, "green"),
            )
        )
    return LoadBalancerTable(
        host=LOOPBACK,
        port=settings.ports.load_balancer,
        grpc_port=settings.ports.load_balancer_grpc,
        metrics_port=settings.ports.load_balancer_metrics,
        directory=settings.sockets / "lb",
        max_connections=_MAX_CONNECTIONS,
        routes=(
            Route(prefix="/v1/events", backend="collectors"),
            Route(prefix="/v1/enrich", backend="enrichment"),
            Route(prefix="/v1/features", backend="features"),
            Route(prefix="/v1/predictions", backend="receipts"),
            Route(prefix="/v1/batches", backend="batches"),
            Route(prefix="/v1/releases", backend="release-guard"),
        ),
        grpc_routes=tuple(Route(prefix=prefix, backend="features-grpc") for prefix in FEATURE_GRPC),
        splits=tuple(splits),
        backends=tuple(backends),
        certificate=Path(settings.tls_certificate) if settings.tls_certificate else None,
        tls_port=settings.ports.load_balancer_tls,
        grpc_tls_port=settings.ports.load_balancer_grpc_tls,
    )


def enrichment_ports(settings: Settings) -> tuple[int, ...]:
    """Where the replicas of the Enrichment API listen."""
    return settings.ports.enrichment, settings.ports.enrichment_second


def feature_ports(settings: Settings) -> tuple[tuple[int, int], ...]:
    """Where the replicas of the feature API listen, each for HTTP and for gRPC."""
    ports = settings.ports
    return (ports.feature_api, ports.feature_grpc), (ports.feature_api_second, ports.feature_grpc_second)


def release_table_path(settings: Settings) -> Path:
    """Where the release table is."""
    return settings.state / "release.sqlite"


def replica_registry(settings: Settings) -> Path:
    """Where replicas announce themselves."""
    return settings.state / "replicas"


@dataclass(frozen=True, kw_only=True)
class AnswerCount:
    """The load balancer's own count: answers by status, and by how the exchange ended (``--`` = in order)."""

    by_status: Mapping[int, int]
    by_end: Mapping[str, int]

    @property
    def failed(self) -> int:
        """Answers of 5xx, and what never became an answer (-1)."""
        return sum(n for status, n in self.by_status.items() if status < 100 or status >= 500)


def count_answers(log_path: Path, path_prefix: str) -> AnswerCount:
    """Count the requests under a path in the load balancer's log; lines that are no request are skipped."""
    statuses: Counter[int] = Counter()
    ends: Counter[str] = Counter()
    with log_path.open(encoding="utf-8", errors="replace") as log:
        for line in log:
            if not line.startswith("{"):
                continue
            try:
                entry = json.loads(line)
            except ValueError:  # a line cut off by a kill
                continue
            if str(entry.get("path", "")).startswith(path_prefix):
                statuses[int(entry["status"])] += 1
                ends[str(entry["ended"])] += 1
    return AnswerCount(by_status=dict(sorted(statuses.items())), by_end=dict(sorted(ends.items())))


def main() -> None:
    """Write the table of now, check it, and become HAProxy."""
    settings = Settings()
    registry = replica_registry(settings)
    table = load_balancer_table(
        settings,
        products=all_products(),
        states=ReleaseTable(release_table_path(settings)).states(),
        records=lambda application: read_records(registry, application),
    )
    write_load_balancer(table)
    check_load_balancer(table)
    command = haproxy_command(table)
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted


def _feature_backends(settings: Settings) -> tuple[Backend, Backend]:
    ports = feature_ports(settings)
    named = [(f"feature-api-{n}", *pair) for n, pair in enumerate(ports)]
    http = [Server(name=name, host=LOOPBACK, port=port, weight=100) for name, port, _ in named]
    # One fitness for both: the replica's own, which HTTP tells.
    grpc = [Server(name=n, host=LOOPBACK, port=g, weight=100, check_port=p) for n, p, g in named]
    # Longer than its own budget, so that it says itself what took so long.
    timeout_ms = 1_000 + round(1_000 * settings.feature_budget_s)
    backend = partial(_backend, answer_timeout_ms=timeout_ms, retry_on=_READS, balance="roundrobin")
    return backend("features", tuple(http)), backend("features-grpc", tuple(grpc), speaks="grpc")


def _backend(
    name: str,
    servers: tuple[Server, ...],
    *,
    answer_timeout_ms: int,
    retry_on: tuple[RetryOn, ...],
    balance: Literal["leastconn", "roundrobin"] = "leastconn",
    speaks: Literal["http", "grpc"] = "http",
) -> Backend:
    return Backend(
        name=name,
        servers=servers,
        check_path=GOLDEN_PATH,
        check_interval_ms=CHECK_INTERVAL_MS,
        answer_timeout_ms=answer_timeout_ms,
        queue_timeout_ms=500,
        max_in_flight=64,
        retry_on=retry_on,
        balance=balance,
        speaks=speaks,
    )


if __name__ == "__main__":
    main()
