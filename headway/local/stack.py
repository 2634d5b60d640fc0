"""The parts of the one-machine stack: what each runs, which ports it takes, what it needs, where to look at it.

The composition root of ``headway up``: the only place that knows all parts. Adding one is one entry in `PARTS`; only
what can be started now belongs there. Commands are built when a part starts, so `status` never needs Java or a network.
"""

import http.client
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from headway.announcement import read_announcement
from headway.errors import ContractViolation
from headway.local.jars import KAFKA, OPENSEARCH, ensure_bundle
from headway.local.kafka import BrokerConfig, broker_command, broker_ready, format_storage, local_brokers
from headway.local.plan import Process, Scalable
from headway.local.search import NodeConfig, node_command, node_ready, prepare_node
from headway.local.valkey import valkey_command, valkey_ready
from headway.scaling import ALONE
from headway.settings import LOOPBACK, Settings, project_root
from headway.topics import PARTITIONS

_PROBE_TIMEOUT_S = 1.0
# A module, and arguments of it, that is given every module to run: for tests that change what production code does
# without production code knowing of it.
THROUGH_VARIABLE = "HEADWAY_RUN_THROUGH"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One entry of the table.

    ``group`` is what ``--only`` may name instead of the part. ``needs`` names other parts, which are started with it.
    ``ports`` are fields of `headway.settings.Ports`, ``beside`` gives further ports of theirs. ``fetch`` downloads what
    the part needs and the environment does not hold. ``page`` is a path a person may open, on the first of ``ports``.
    ``scalable`` names those of its processes that may have several instances.
    """

    name: str
    group: str
    processes: Callable[[Settings], Sequence[Process]]
    ports: tuple[str, ...]
    needs: tuple[str, ...] = ()
    beside: Callable[[Settings], Sequence[int]] = lambda _: ()
    fetch: Callable[[], object] | None = None
    page: str | None = None
    scalable: Callable[[Settings], Sequence[Scalable]] = lambda _: ()

    def port_numbers(self, settings: Settings) -> tuple[int, ...]:
        """The ports it listens on; the first is that of its page."""
        return (*(getattr(settings.ports, name) for name in self.ports), *self.beside(settings))

    def link(self, settings: Settings) -> str | None:
        """Where a person looks at it, if anywhere."""
        return None if self.page is None else f"http://{LOOPBACK}:{self.port_numbers(settings)[0]}{self.page}"


def choose(only: Iterable[str], *, parts: Sequence[Part]) -> tuple[Part, ...]:
    """Give the parts named by part or group, and what they need, in the table's order; all when none is named.

    Raises:
        ContractViolation: a name is neither a part nor a group.
    """
    by_name = {part.name: part for part in parts}
    groups = {part.group for part in parts}
    wanted = list(only) or list(by_name)
    if unknown := [name for name in wanted if name not in by_name and name not in groups]:
        raise ContractViolation(
            f"stack: no part or group {', '.join(map(repr, unknown))} "
            f"(parts: {', '.join(by_name)}; groups: {', '.join(sorted(groups))})"
        )
    chosen = {part.name for part in parts if part.name in wanted or part.group in wanted}
    waiting = sorted(chosen)
    while waiting:
        needed = set(by_name[waiting.pop()].needs) - chosen
        chosen |= needed
        waiting += sorted(needed)
    return tuple(part for part in parts if part.name in chosen)


def answers(port: int, path: str) -> Callable[[], bool]:
    """Give a probe: whether HTTP on this port of loopback answers 200 for this path."""

    def ready() -> bool:
        connection = http.client.HTTPConnection(LOOPBACK, port, timeout=_PROBE_TIMEOUT_S)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    return ready


def module(name: str, *arguments: object) -> list[str]:
    """Give the command that runs one of our modules with this interpreter, through another when `THROUGH_VARIABLE` says."""
    through = os.environ.get(THROUGH_VARIABLE, "").split()
    return [sys.executable, "-m", *through, name, *map(str, arguments)]


def _brokers(settings: Settings) -> tuple[BrokerConfig, ...]:
    first, controller = settings.ports.kafka, settings.ports.kafka_controller
    return local_brokers(settings.state, port=first, controller_port=controller, count=settings.brokers)


def _kafka(settings: Settings) -> list[Process]:
    def process(broker: BrokerConfig) -> Process:
        def command() -> list[str]:
            format_storage(broker)
            return broker_command(broker)

        return Process(
            name=broker.data_dir.name,
            command=command,
            ready=lambda: broker_ready(broker.bootstrap),
            # An orderly stop syncs the log, so that the next start need not recover it.
            stop_timeout_s=8.0,
        )

    return [process(broker) for broker in _brokers(settings)]


def _more_broker_ports(settings: Settings) -> list[int]:
    return [port for broker in _brokers(settings)[1:] for port in (broker.port, broker.controller_port)]


def _valkey(settings: Settings) -> list[Process]:
    port = settings.ports.valkey

    def command() -> list[str]:
        return valkey_command(_folder(settings.state / "valkey"), port)

    return [Process(name="valkey", command=command, ready=lambda: valkey_ready(port))]


def _mlflow(settings: Settings) -> list[Process]:
    port = settings.ports.mlflow
    env = {
        # The job runner is eight more processes, for features that are not used here.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    command = module("headway.local.mlflow_server", "--port", port, "--data", settings.state / "mlflow")
    return [
        Process(name="mlflow", command=lambda: command, env=env, ready=answers(port, "/health"), start_timeout_s=120.0)
    ]


# MLflow's client otherwise retries a failing server for minutes, which looks like a hang.
_MLFLOW_CLIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


def dagster_environment(settings: Settings) -> dict[str, str]:
    """What every Dagster process, and a Dagster command by hand, needs to find the instance and the tracking server."""
    return {
        "DAGSTER_HOME": str(settings.state / "dagster"),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "MLFLOW_TRACKING_URI": settings.mlflow_url,
        **_MLFLOW_CLIENT,
    }


def _dagster(settings: Settings) -> list[Process]:
    home = settings.state / "dagster"
    env = dagster_environment(settings)
    ports = settings.ports

    def code() -> list[str]:
        shutil.copyfile(project_root() / "dagster.yaml", _folder(home) / "dagster.yaml")
        # Webserver and daemon share this one code server: loaded once, and reloaded from the page for both.
        server = {"host": LOOPBACK, "port": ports.dagster_code, "location_name": "headway"}
        (home / "workspace.yaml").write_text(json.dumps({"load_from": [{"grpc_server": server}]}))
        return module(
            "dagster",
            *("code-server", "start", "--host", LOOPBACK, "--port", ports.dagster_code),
            *("--module-name", "orchestration.definitions", "--location-name", "headway"),
        )

    workspace = ("-w", home / "workspace.yaml")
    web = ("-h", LOOPBACK, "-p", ports.dagster, *workspace)
    after_code = ("dagster-code",)
    return [
        Process(name="dagster-code", command=code, env=env, ready=lambda: _listens(ports.dagster_code)),
        Process(
            name="dagster-web",
            command=lambda: module("dagster_webserver", *web),
            env=env,
            ready=answers(ports.dagster, "/server_info"),
            depends_on=after_code,
        ),
        Process(
            name="dagster-daemon",
            command=lambda: module("dagster._daemon", "run", *workspace),
            env=env,
            ready=lambda: _daemons_healthy(ports.dagster),
            depends_on=after_code,
        ),
    ]


def _ray(settings: Settings) -> list[Process]:
    log = settings.state / "log" / "ray.log"
    said_before = 0

    def command() -> list[str]:
        nonlocal said_before
        said_before = log.stat().st_size if log.exists() else 0
        return module(
            "serving.ray_cluster",
            # Ray appends its sockets' names to this folder's, and they must stay short.
            *("--temp-dir", settings.sockets / "ray"),
            *("--token-file", settings.state / "ray" / "token"),
            *("--gcs-port", settings.ports.ray_gcs, "--metrics-port", settings.ports.ray_metrics),
            *("--cpus", max(2, os.cpu_count() or 2)),
            # Replicas are asked over their own ports; nothing of size goes through Ray's store.
            *("--object-store-bytes", 128 * 1024 * 1024),
        )

    def ready() -> bool:
        with log.open("rb") as output:
            output.seek(said_before)
            return b'"event": "ready"' in output.read()

    return [
        Process(
            name="ray",
            command=command,
            ready=ready,
            # A Ray that cannot start says why after up to 160 s on a busy machine; ended sooner, its log is empty.
            start_timeout_s=180.0,
            # Draining replicas takes as long as the load balancer needs to notice, twice.
            stop_timeout_s=8.0,
        )
    ]


def _collector(settings: Settings) -> list[Process]:
    return [
        Process(
            name=f"collector-{n}",
            command=lambda n=n: module("serving.collector_main", "--instance", n),  # type: ignore[misc]  # bound
            env=settings.environment(),
            ready=answers(settings.ports.collector_first + n, "/readyz"),
            # A second of drain, and the three it may wait for the broker.
            stop_timeout_s=6.0,
            depends_on=("topics",),
        )
        for n in range(settings.collectors)
    ]


def _enrichment(settings: Settings) -> list[Process]:
    return [
        Process(
            name=f"enrichment-{n}",
            command=lambda n=n: module("serving.enrichment_main", "--instance", n),  # type: ignore[misc]  # bound
            env=settings.environment(),
            ready=answers(port, "/readyz"),
        )
        for n, port in enumerate((settings.ports.enrichment, settings.ports.enrichment_second))
    ]


def _feature_api(settings: Settings) -> list[Process]:
    # Whether the store answers is not asked: without it the answer is a problem that says so, and is not the API's fault.
    return [
        Process(
            name=f"feature-api-{n}",
            command=lambda n=n: module("serving.features_main", "--instance", n),  # type: ignore[misc]  # bound
            env=settings.environment(),
            ready=answers(port, "/readyz"),
        )
        for n, port in enumerate((settings.ports.feature_api, settings.ports.feature_api_second))
    ]


def _batch_api(settings: Settings) -> list[Process]:
    port = settings.ports.batch_api
    return [
        Process(
            name="batch-api",
            command=lambda: module("serving.batch_main"),
            env=settings.environment(),
            ready=answers(port, "/readyz"),
        )
    ]


def _haproxy(settings: Settings) -> list[Process]:
    return [
        Process(
            name="haproxy",
            # Writes the configuration of now, then becomes HAProxy; the log is one JSON object per request.
            command=lambda: module("serving.balancer"),
            env=settings.environment(),
            ready=answers(settings.ports.load_balancer, "/livez"),
            # Takes nothing new and finishes what runs; clients that keep idle connections are not waited for.
            stop_signal=signal.SIGUSR1,
            stop_timeout_s=3.0,
        )
    ]


def _receipts(settings: Settings) -> list[Process]:
    return [
        Process(
            name="receipts",
            command=lambda: module("serving.receipts_main"),
            env=settings.environment() | _MLFLOW_CLIENT,
            ready=answers(settings.ports.receipts, "/readyz"),
        )
    ]


def _release_guard(settings: Settings) -> list[Process]:
    return [
        Process(
            name="release-guard",
            command=lambda: module("serving.release_guard"),
            env=settings.environment() | _MLFLOW_CLIENT,
            ready=answers(settings.ports.release, "/readyz"),
        )
    ]


def _listens(port: int) -> bool:
    # Dagster's code server opens its port when the definitions are loaded, and not before.
    try:
        socket.create_connection((LOOPBACK, port), timeout=_PROBE_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def _daemons_healthy(webserver_port: int) -> bool:
    """Whether every daemon this instance requires has sent its heartbeat, as the web page would show it."""
    query = "{instance{daemonHealth{allDaemonStatuses{required healthy}}}}"
    connection = http.client.HTTPConnection(LOOPBACK, webserver_port, timeout=_PROBE_TIMEOUT_S)
    try:
        connection.request("POST", "/graphql", json.dumps({"query": query}), {"content-type": "application/json"})
        answer = json.loads(connection.getresponse().read())
        daemons = answer["data"]["instance"]["daemonHealth"]["allDaemonStatuses"]
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return False  # the page is not up yet, or answers with an error instead of data
    finally:
        connection.close()
    return all(daemon["healthy"] for daemon in daemons if daemon["required"])


# In the order of streaming.jobs.JOBS: a job's port is job_first plus its place.
STREAM_JOBS = (
    "enricher",
    "features-fan-out",
    "features-aggregate",
    "online-writer",
    "lake-loader",
    "letters-watch",
    "search-loader",
    "scorer",
)
# Useless without the node beside them, so they are started with it.
_SEARCH_JOBS = ("search-loader",)
# Asks the registry which version is live.
_SCORE_JOBS = ("scorer",)
_EVENT_JOBS = tuple(name for name in STREAM_JOBS if name not in (*_SEARCH_JOBS, *_SCORE_JOBS))
# They write in bulk, and nobody waits for it: a second of theirs at both cores is a second later online for an event.
_BULK_JOBS = ("lake-loader", "search-loader")
_BULK_NICENESS = 5


def _topics(settings: Settings) -> list[Process]:
    env = settings.environment()
    # Not before every broker is there: what is created then has all its copies from the start.
    after = tuple(broker.data_dir.name for broker in _brokers(settings))
    provision = Process(
        name="topics", command=lambda: module("streaming.provision"), env=env, ready=None, depends_on=after
    )
    watch = Process(
        name="kafka-watch",
        command=lambda: module("streaming.kafka_watch"),
        env=env,
        ready=answers(settings.ports.kafka_watch, "/readyz"),
        depends_on=("topics",),
    )
    return [provision, watch]


def _streams(settings: Settings) -> list[Process]:
    return [_job(settings, name, 0) for name in _EVENT_JOBS]


def _scorer(settings: Settings) -> list[Process]:
    return [_job(settings, name, 0) for name in _SCORE_JOBS]


def _search(settings: Settings) -> list[Process]:
    node = NodeConfig(
        data_dir=settings.state / "search",
        port=settings.ports.search,
        transport_port=settings.ports.search_transport,
    )

    def command() -> list[str]:
        prepare_node(node)
        return node_command(node)

    # The loader does not wait for the node: it holds its records back until there is one.
    return [
        Process(name="search", command=command, ready=lambda: node_ready(node.port)),
        *(_job(settings, name, 0) for name in _SEARCH_JOBS),
    ]


def _scalable(settings: Settings, *, names: Sequence[str]) -> list[Scalable]:
    shared = f"its topics have {PARTITIONS} partitions each, and an instance beyond them would idle."
    return [
        Scalable(
            name=name,
            instance=lambda number, name=name: _job(settings, name, number),  # type: ignore[misc]  # bound per job
            most=1 if name in ALONE else PARTITIONS,
            limit=ALONE.get(name, shared),
        )
        for name in names
    ]


def _scaler(settings: Settings) -> list[Process]:
    return [
        Process(
            name="job-scaler",
            command=lambda: module(
                "streaming.scaler", "--fleet", "headway.local.fleet:supervised", "--at", control_socket(settings)
            ),
            env=settings.environment(),
            ready=answers(settings.ports.scaler, "/readyz"),
            depends_on=("topics",),
        )
    ]


def _job(settings: Settings, name: str, instance: int) -> Process:
    """One instance of a job: the first at its own port, another at a port it chooses and announces."""
    command = module("streaming.main", name, "--instance", instance)
    env, depends_on = settings.environment(), ("topics",)
    # Through the load balancer, which knows the replicas that are ready.
    env |= {"HEADWAY_ENRICHMENT_URL": settings.enrichment_url or settings.load_balancer_url}
    niceness = _BULK_NICENESS if name in _BULK_JOBS else 0
    if instance == 0:
        port = settings.ports.job_first + STREAM_JOBS.index(name)
        return Process(
            name=name,
            command=lambda: command,
            env=env,
            ready=answers(port, "/readyz"),
            depends_on=depends_on,
            niceness=niceness,
        )
    announced = announcements(settings) / f"{name}-{instance}.json"

    def prepared() -> list[str]:
        announced.unlink(missing_ok=True)
        return [*command, "--health-port", "0", "--announce", str(announced)]

    def ready() -> bool:
        said = read_announcement(announced)
        return said is not None and answers(said.port, "/readyz")()

    return Process(
        name=f"{name}-{instance}",
        command=prepared,
        env=env,
        ready=ready,
        depends_on=depends_on,
        vital=False,
        niceness=niceness,
    )


def control_socket(settings: Settings) -> Path:
    """Where the stack's supervisor is asked."""
    return settings.sockets / "control.sock"


def announcements(settings: Settings) -> Path:
    """Where processes that chose their own ports say which."""
    return settings.state / "jobs"


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


PARTS: tuple[Part, ...] = (
    Part(
        name="kafka",
        group="events",
        processes=_kafka,
        ports=("kafka", "kafka_controller"),
        beside=_more_broker_ports,
        fetch=lambda: ensure_bundle(KAFKA),
    ),
    Part(name="valkey", group="features", processes=_valkey, ports=("valkey",)),
    Part(
        name="feature-api",
        group="features",
        processes=_feature_api,
        ports=("feature_api", "feature_api_second", "feature_grpc", "feature_grpc_second"),
        needs=("valkey", "haproxy"),
        page="/v1/features",
    ),
    Part(
        name="batch-api",
        group="serving",
        processes=_batch_api,
        ports=("batch_api",),
        needs=("haproxy",),
        page="/v1/batches",
    ),
    Part(name="topics", group="events", processes=_topics, ports=("kafka_watch",), needs=("kafka",)),
    Part(
        name="enrichment",
        group="events",
        processes=_enrichment,
        ports=("enrichment", "enrichment_second"),
        page="/openapi.json",
    ),
    Part(
        name="streams",
        group="events",
        processes=_streams,
        ports=("job_first",),
        needs=("topics", "valkey", "enrichment", "haproxy"),
        scalable=partial(_scalable, names=_EVENT_JOBS),
    ),
    Part(
        name="search",
        group="search",
        processes=_search,
        ports=("search", "search_transport"),
        needs=("topics",),
        fetch=lambda: ensure_bundle(OPENSEARCH),
        page="/_cat/indices?v",
        scalable=partial(_scalable, names=_SEARCH_JOBS),
    ),
    Part(
        name="scorer",
        group="serving",
        processes=_scorer,
        ports=(),
        beside=lambda settings: [settings.ports.job_first + STREAM_JOBS.index(name) for name in _SCORE_JOBS],
        needs=("topics", "valkey", "mlflow"),
        scalable=partial(_scalable, names=_SCORE_JOBS),
    ),
    Part(name="scaler", group="events", processes=_scaler, ports=("scaler",), needs=("streams",)),
    Part(name="mlflow", group="training", processes=_mlflow, ports=("mlflow",), page="/"),
    Part(
        name="dagster",
        group="training",
        processes=_dagster,
        ports=("dagster", "dagster_code"),
        needs=("mlflow",),
        page="/",
    ),
    Part(name="ray", group="serving", processes=_ray, ports=("ray_gcs", "ray_metrics")),
    Part(
        name="haproxy",
        group="serving",
        processes=_haproxy,
        ports=(
            "load_balancer",
            "load_balancer_grpc",
            "load_balancer_tls",
            "load_balancer_grpc_tls",
            "load_balancer_metrics",
        ),
        page="/v1/releases",
    ),
    Part(name="collector", group="events", processes=_collector, ports=("collector_first",), needs=("topics",)),
    Part(name="receipts", group="serving", processes=_receipts, ports=("receipts",), needs=("haproxy", "mlflow")),
    Part(
        name="release-guard",
        group="serving",
        processes=_release_guard,
        ports=("release",),
        needs=("haproxy", "ray", "mlflow", "valkey", "kafka"),
    ),
)
