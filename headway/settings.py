"""Where things are: the state folder, the ports, and the addresses of the services, each overridable by environment.

`Settings()` reads ``HEADWAY_*`` when it is called, not before: ``HEADWAY_STATE``, ``HEADWAY_PORT_BASE``,
``HEADWAY_PORTS__KAFKA``, ``HEADWAY_KAFKA_BOOTSTRAP`` and so on. The defaults are the one-machine stack; production sets
the addresses. Importing this costs 0.3 s (pydantic-settings), so the command line does it only when a verb needs it.
"""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

LOOPBACK = "127.0.0.1"
PORT_BASE = 18_000
PORT_BLOCK = 100

# A unix socket's path has 107 bytes at most, and Ray adds 65 of its own below the folder it is given.
_LONGEST_SOCKET_FOLDER = 35

Port = Annotated[int, Field(ge=1, le=65_535)]


def project_root() -> Path:
    """Folder that holds the checkout, whatever the working directory is."""
    return Path(__file__).resolve().parent.parent


def default_state() -> Path:
    """``.headway`` in the checkout; without a checkout (an installed package), the user's own state folder."""
    root = project_root()
    if (root / "pyproject.toml").is_file():
        return root / ".headway"
    return Path.home() / ".local" / "state" / "headway"


def brokers_of(state: Path) -> int:
    """How many brokers this state folder's Kafka was made with; 1 when there is none yet.

    A quorum's size is written into its storage, so it belongs to the folder and not to the next command's arguments.
    """
    try:
        return len((state / "kafka" / "voters").read_text(encoding="utf-8").split(","))
    except FileNotFoundError:
        return 1


class Ports(BaseModel):
    """One block of a hundred ports on loopback. A row of several (``_first``) says how many beside it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    load_balancer: Port = Field(default=18_000, description="the one door: REST APIs, intake, documentation")
    load_balancer_grpc: Port = Field(default=18_001, description="the same door for gRPC")
    load_balancer_tls: Port = Field(default=18_005, description="the door with TLS, when a certificate is configured")
    load_balancer_grpc_tls: Port = Field(default=18_006, description="the door for gRPC with TLS, likewise")
    load_balancer_metrics: Port = Field(default=18_002, description="HAProxy's metrics; its admin end is a unix socket")
    collector_first: Port = Field(default=18_010, description="collectors, 4")
    enrichment: Port = Field(default=18_014, description="enrichment API")
    enrichment_second: Port = Field(default=18_019, description="enrichment API, second replica")
    feature_api: Port = Field(default=18_015, description="real-time feature serving API")
    feature_api_second: Port = Field(default=18_003, description="feature serving API, second replica")
    feature_grpc: Port = Field(default=18_018, description="feature serving API, gRPC")
    feature_grpc_second: Port = Field(default=18_004, description="feature serving API, second replica, gRPC")
    receipts: Port = Field(default=18_009, description="what an answer was made of, by receipt")
    release: Port = Field(default=18_016, description="release guard: webhooks in, release table out")
    batch_api: Port = Field(default=18_007, description="batch results, for product applications")
    scaler: Port = Field(default=18_017, description="what the job scaler decided, as metrics")
    replica_first: Port = Field(default=18_020, description="model replicas that are not under Ray, 10")
    dagster: Port = Field(default=18_030, description="Dagster's web pages")
    dagster_code: Port = Field(default=18_031, description="Dagster's code server")
    job_first: Port = Field(default=18_040, description="health and metrics of the stream jobs, 10")
    mlflow: Port = Field(default=18_050, description="MLflow: tracking and registry")
    search: Port = Field(default=18_060, description="search node, HTTP")
    search_transport: Port = Field(default=18_061, description="search node, between nodes")
    ray_gcs: Port = Field(default=18_064, description="Ray's head")
    ray_metrics: Port = Field(default=18_065, description="Ray's metrics")
    ray_first: Port = Field(default=18_066, description="Ray's other listeners, 13")
    valkey: Port = Field(default=18_079, description="online store")
    spark_ui: Port = Field(default=18_080, description="a Spark driver's pages and REST API, 8")
    prometheus: Port = Field(default=18_090, description="Prometheus")
    alertmanager: Port = Field(default=18_091, description="Alertmanager")
    kafka: Port = Field(default=18_092, description="Kafka, first broker; with three brokers the others at +2 and +4")
    kafka_controller: Port = Field(default=18_093, description="Kafka, first controller; the others at +2 and +4")
    kafka_watch: Port = Field(default=18_089, description="what Kafka's replication looks like, as metrics")


class Settings(BaseSettings):
    """What differs between machines. Frozen: a value once read does not change under its reader."""

    model_config = SettingsConfigDict(
        env_prefix="HEADWAY_", env_nested_delimiter="__", frozen=True, extra="ignore", validate_default=True
    )

    state: Path = Field(default_factory=default_state, description="everything this machine keeps")
    port_base: int = Field(default=PORT_BASE, ge=1_024, le=65_535 - PORT_BLOCK, description="moves the whole block")
    ports: Ports = Field(default_factory=Ports, description="single ports, each given as it is")
    kafka_bootstrap: str = Field(default="", description="brokers, host:port,...; the local ones when empty")
    brokers: int = Field(
        default=0, ge=0, description="Kafka brokers; 0: as the state folder was made, 1 when it is new"
    )
    replication_factor: int = Field(default=0, ge=0, description="copies of every topic; 0: 1 of 1, 3 of more")
    min_insync_replicas: int = Field(default=0, ge=0, description="copies an acknowledgement needs; 0: 1 of 1, 2 of 3")
    online_store: str = Field(default="", description="Redis or Valkey, host:port; the local one when empty")
    search_url: str = Field(default="", description="Elasticsearch's API, URL; the local one when empty")
    mlflow_url: str = Field(default="", description="tracking server; the local one when empty")
    enrichment_url: str = Field(default="", description="Enrichment API; reference data in process when empty")
    load_balancer_url: str = Field(default="", description="the door clients use; the local one when empty")
    scaler_most: int = Field(
        default=2, ge=1, description="instances of one stream job that the scaler asks for, at most"
    )
    scaler_extra: int = Field(
        default=0, ge=0, description="instances beyond the first, over all jobs; 0: one less than processors"
    )
    replicas_most: int = Field(
        default=0, ge=0, description="replicas of one model version that load may bring; 0: as many as processors"
    )
    scaler_every_s: float = Field(
        default=5.0, gt=0, description="between two rounds of the scaler; three make a decision"
    )
    scaler_drain_s: float = Field(default=30.0, gt=0, description="a backlog that takes longer brings another instance")
    alertmanager_url: str = Field(default="", description="Alertmanager; alerts are only logged when empty")
    collectors: int = Field(default=2, ge=1, le=4, description="collector processes behind the door")
    feature_rows: int = Field(
        default=256, ge=1, le=10_000, description="rows in one question to the feature API, at most"
    )
    feature_body_bytes: int = Field(
        default=262_144, ge=1_024, description="size of one question to the feature API, at most"
    )
    feature_budget_s: float = Field(
        default=0.5, gt=0, description="a question to the feature API that takes longer is answered 503"
    )
    feature_rows_in_flight: int = Field(
        default=2_048, ge=1, description="rows one replica of the feature API works on at once; beyond them, 503"
    )
    predict_rows: int = Field(
        default=256, ge=1, le=10_000, description="requests in one question to a prediction API, at most"
    )
    predict_cache: int = Field(
        default=0, ge=0, description="scores one replica remembers, by the exact vector; 0 for none"
    )
    tls_certificate: str = Field(
        default="", description="PEM file of certificate and key; with it the load balancer has doors with TLS too"
    )
    feast_project: str = Field(default="headway", description="prefix of every key in the online store")
    feast_registry: str = Field(
        default="", description="Feast's registry, a database URL of SQLAlchemy; a file below the state when empty"
    )
    results_url: str = Field(
        default="",
        description="database of batch results, a URL of SQLAlchemy; a SQLite file below the state when empty",
    )
    lake: str = Field(default="", description="folder or URL of the Delta tables; <state>/lake when empty")
    backfill_engine: Literal["process", "spark"] = Field(
        default="process",
        description="what computes the past of features: this process, or Spark as HEADWAY_SPARK_* says",
    )
    group_protocol: Literal["consumer", "classic"] = Field(
        default="consumer", description="how stream jobs share partitions; classic for brokers before Kafka 4.0"
    )
    job_deadline_s: float = Field(
        default=60.0, ge=1.0, description="a stream job whose handler takes longer over one batch is started anew"
    )

    @model_validator(mode="after")
    def _fill_from_the_local_stack(self) -> Self:
        shift = self.port_base - PORT_BASE
        moved = {
            name: getattr(self.ports, name) + (0 if name in self.ports.model_fields_set else shift)
            for name in Ports.model_fields
        }
        ports = Ports(**moved)
        state = self.state.expanduser().absolute()
        brokers = self.brokers or brokers_of(state)
        filled = {
            "state": state,
            "ports": ports,
            "brokers": brokers,
            "kafka_bootstrap": self.kafka_bootstrap
            or ",".join(f"{LOOPBACK}:{ports.kafka + 2 * place}" for place in range(brokers)),
            "online_store": self.online_store or f"{LOOPBACK}:{ports.valkey}",
            "search_url": self.search_url or f"http://{LOOPBACK}:{ports.search}",
            "mlflow_url": self.mlflow_url or f"http://{LOOPBACK}:{ports.mlflow}",
            "load_balancer_url": self.load_balancer_url or f"http://{LOOPBACK}:{ports.load_balancer}",
        }
        filled["results_url"] = self.results_url or f"sqlite:///{state / 'results.sqlite'}"
        filled["lake"] = self.lake or str(Path(str(filled["state"])) / "lake")
        for name, value in filled.items():
            object.__setattr__(self, name, value)  # the model is frozen for everybody else
        return self

    @property
    def sockets(self) -> Path:
        """Folder for unix sockets: in the state folder when its path is short enough, else one of this user's own."""
        inside = self.state / "run"
        if len(os.fsencode(inside)) <= _LONGEST_SOCKET_FOLDER:
            return inside
        name = hashlib.sha256(os.fsencode(self.state)).hexdigest()[:10]
        return Path(tempfile.gettempdir()) / f"headway-{os.getuid()}-{name}"

    def environment(self) -> dict[str, str]:
        """The variables that make `Settings()` in another process equal to this one."""
        values = {name: str(getattr(self, name)) for name in Settings.model_fields if name != "ports"}
        values |= {f"ports__{name}": str(getattr(self.ports, name)) for name in Ports.model_fields}
        return {f"HEADWAY_{name.upper()}": value for name, value in values.items()}
