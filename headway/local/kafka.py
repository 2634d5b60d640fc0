"""One Apache Kafka broker (KRaft, broker and controller in one JVM) on loopback, without Kafka's shell scripts.

Builds files and commands only: whoever supervises the broker starts and stops the process. Several configs
with the same ``quorum`` form a cluster (`local_brokers`). Sized for a laptop: small internal topics, a 384 MB heap,
group timeouts of seconds; a real cluster wants none of these numbers.

What bites: who votes is written into the storage when it is formatted, so a folder made for one broker stays that of
one broker; `format_storage` refuses another number.
"""

import base64
import hashlib
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from headway.errors import PermanentFailure
from headway.local.jars import KAFKA, ensure_bundle, java_binary

# Any constant will do: it only has to be the same for every broker that should find each other.
CLUSTER_ID = base64.urlsafe_b64encode(hashlib.sha256(b"headway local cluster").digest()[:16]).decode().rstrip("=")

FORMAT_TIMEOUT_S = 60.0
_MIB = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class BrokerConfig:
    """Where one broker keeps its data and listens.

    ``quorum`` maps node id to controller port for every broker of the cluster, this one included; empty means
    this broker alone.
    """

    data_dir: Path
    log_dir: Path
    port: int
    controller_port: int
    node_id: int = 1
    heap_mb: int = 384
    quorum: tuple[tuple[int, int], ...] = ()

    @property
    def bootstrap(self) -> str:
        """Address for clients, ``host:port``."""
        return f"127.0.0.1:{self.port}"

    @property
    def voters(self) -> tuple[tuple[int, int], ...]:
        """(node id, controller port) of every controller, in node order."""
        return tuple(sorted(self.quorum)) or ((self.node_id, self.controller_port),)


def local_brokers(state: Path, *, port: int, controller_port: int, count: int) -> tuple[BrokerConfig, ...]:
    """Give the brokers of one machine: the first as it is alone, the others beside it, two ports on each.

    Raises:
        PermanentFailure: two brokers, of which neither may fail, or more than three, which one machine has no use for.
    """
    if count not in (1, 3):
        raise PermanentFailure(
            f"brokers: got {count}, wanted 1 or 3. Two controllers tolerate no loss, so two brokers are less than one."
        )
    quorum = tuple((node, controller_port + 2 * (node - 1)) for node in range(1, count + 1))
    return tuple(
        BrokerConfig(
            data_dir=state / ("kafka" if node == 1 else f"kafka-{node}"),
            log_dir=state / "log",
            port=port + 2 * (node - 1),
            controller_port=controls,
            node_id=node,
            quorum=quorum,
        )
        for node, controls in quorum
    )


def broker_properties(config: BrokerConfig) -> dict[str, str]:
    """The broker's ``server.properties``, as a mapping."""
    copies = min(3, len(config.voters))
    return {
        "process.roles": "broker,controller",
        "node.id": str(config.node_id),
        "controller.quorum.bootstrap.servers": ",".join(f"127.0.0.1:{port}" for _, port in config.voters),
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://127.0.0.1:{config.port},CONTROLLER://127.0.0.1:{config.controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{config.port},CONTROLLER://127.0.0.1:{config.controller_port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": str(config.data_dir / "log"),
        "auto.create.topics.enable": "false",
        "unclean.leader.election.enable": "false",
        # Topics are declared with their own values; these are for whatever somebody creates by hand.
        "default.replication.factor": str(copies),
        "min.insync.replicas": str(max(1, copies - 1)),
        "offsets.topic.num.partitions": "4",
        "offsets.topic.replication.factor": str(copies),
        "transaction.state.log.num.partitions": "4",
        "transaction.state.log.replication.factor": str(copies),
        "transaction.state.log.min.isr": str(max(1, copies - 1)),
        "share.coordinator.state.topic.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": str(copies),
        "share.coordinator.state.topic.min.isr": str(max(1, copies - 1)),
        # A crashed job leaves its transaction open, and read_committed readers wait for it; the default sweep is 10 s.
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
        "group.initial.rebalance.delay.ms": "0",
        # With group.protocol=consumer these are the broker's, not the client's, and default to 45 s.
        "group.consumer.min.session.timeout.ms": "3000",
        "group.consumer.session.timeout.ms": "6000",
        "group.consumer.min.heartbeat.interval.ms": "500",
        "group.consumer.heartbeat.interval.ms": "1000",
        "group.min.session.timeout.ms": "3000",
        # A broker that was killed is refused until its old session ends. Alone, it has nobody to hand over to, so
        # the shortest outage wins; in a cluster a stall on two busy cores must not move every leader.
        "broker.session.timeout.ms": "5000" if copies > 1 else "3000",
        "broker.heartbeat.interval.ms": "500",
        # Sessions are kept by the leading controller, and start anew with it: when a broker that also leads the quorum
        # is killed, this comes before its session. With the defaults that took 3 to 4 s of an outage of 10.
        "controller.quorum.fetch.timeout.ms": "1500",
        "controller.quorum.election.timeout.ms": "500",
        "controller.quorum.election.backoff.max.ms": "300",
        # After a restart one broker leads everything, and the default waits 5 minutes before it evens that out.
        "leader.imbalance.check.interval.seconds": "60",
        # A killed broker first reads again what it had not flushed, which is every open segment: with the default of
        # 1 GiB that grows with all that was ever written. In a busy R1 it was back after 9 s, and two minutes later 19 s.
        "log.segment.bytes": str(16 * _MIB),
        "log.flush.offset.checkpoint.interval.ms": "5000",
        # Threads cost memory and switches on two cores; the defaults are sized for servers.
        "num.network.threads": "2",
        "num.io.threads": "4",
        "log.cleaner.threads": "1",
        # 8 MB rather than 128: the default is a quarter of the heap for compaction of topics this small.
        "log.cleaner.dedupe.buffer.size": str(8 * _MIB),
        "metrics.reporters": "",
    }


def format_storage(config: BrokerConfig) -> None:
    """Write the broker's files and format its storage; leaves existing data as it is.

    Call before every start: the files follow the config. Costs 2 s the first time, nothing later.

    Raises:
        PermanentFailure: no Java, or the storage cannot be formatted or belongs to another node.
        TransientFailure, ContractViolation: the jars could not be had (`ensure_bundle`).
    """
    config.data_dir.mkdir(parents=True, exist_ok=True)
    config.log_dir.mkdir(parents=True, exist_ok=True)
    _write_atomically(_properties_file(config), _properties_text(broker_properties(config)))
    _write_atomically(_logging_file(config), _properties_text(_logging_properties(config)))
    formatted_as = _formatted_node_id(config)
    if formatted_as == str(config.node_id):
        _check_voters(config)
        return
    if formatted_as is not None:
        raise PermanentFailure(
            f"{config.data_dir}: formatted for Kafka node {formatted_as}, wanted node {config.node_id}. "
            "Give this node another data_dir, or remove the folder if its events are not needed."
        )
    controllers = ",".join(f"{node}@127.0.0.1:{port}:{_directory_id(node)}" for node, port in config.voters)
    command = [
        *_java(config, heap_mb=128),
        *("kafka.tools.StorageTool", "format", "--cluster-id", CLUSTER_ID),
        *("--config", str(_properties_file(config)), "--initial-controllers", controllers),
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=FORMAT_TIMEOUT_S, check=False)
    if run.returncode != 0:
        said = (run.stdout + run.stderr).strip().splitlines()
        raise PermanentFailure(
            f"{config.data_dir}: Kafka's storage could not be formatted (exit {run.returncode}: "
            f"{said[-1] if said else 'no output'}). Check free space and permissions of that folder."
        )
    _write_atomically(_voters_file(config), _told_voters(config))


def broker_command(config: BrokerConfig) -> list[str]:
    """Command that runs the broker in the foreground; SIGTERM stops it cleanly. Needs `format_storage` first.

    The JVM's own last words go to standard error, everything else to ``log_dir/kafka-<node>.json`` (JSON lines).

    Raises:
        PermanentFailure, TransientFailure, ContractViolation: no Java, or no jars (`ensure_bundle`).
    """
    return [*_java(config, heap_mb=config.heap_mb), "kafka.Kafka", str(_properties_file(config))]


def broker_ready(bootstrap: str, *, timeout_s: float = 1.0) -> bool:
    """Whether a broker at ``host:port`` accepts connections and answers for the cluster's metadata."""
    host, _, port = bootstrap.rpartition(":")
    try:
        # A refused connection is known in microseconds; librdkafka would spend the whole timeout on it.
        socket.create_connection((host, int(port)), timeout=timeout_s).close()
    except OSError:
        return False
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    try:
        return bool(client.list_topics(timeout=timeout_s).brokers)
    except KafkaException:
        return False


def _java(config: BrokerConfig, *, heap_mb: int) -> list[str]:
    jars = ensure_bundle(KAFKA)
    return [
        java_binary(),
        f"-Xmx{heap_mb}m",
        f"-Xms{min(heap_mb, 128)}m",
        # One broker on two shared cores: the serial collector and the first compiler start sooner and hold
        # less memory; peak throughput, which they cost, is not what a laptop lacks.
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-XX:+ExitOnOutOfMemoryError",
        # Otherwise the JVM maps a file into /tmp for jps; Kafka's native codecs also unpack there.
        "-XX:-UsePerfData",
        f"-Djava.io.tmpdir={config.data_dir}",
        "-Djava.net.preferIPv4Stack=true",
        f"-Dlog4j2.configurationFile={_logging_file(config)}",
        *("-cp", f"{jars}/*"),
    ]


def _logging_properties(config: BrokerConfig) -> dict[str, str]:
    log_file = config.log_dir / f"kafka-{config.node_id}.json"
    return {
        "status": "error",
        "appender.file.type": "RollingFile",
        "appender.file.name": "file",
        "appender.file.fileName": str(log_file),
        "appender.file.filePattern": f"{log_file}.%i",
        "appender.file.layout.type": "JsonTemplateLayout",
        "appender.file.layout.eventTemplateUri": "classpath:EcsLayout.json",
        "appender.file.policies.type": "SizeBasedTriggeringPolicy",
        "appender.file.policies.size": "16MB",
        "appender.file.strategy.type": "DefaultRolloverStrategy",
        "appender.file.strategy.max": "2",
        "rootLogger.level": "info",
        "rootLogger.appenderRef.file.ref": "file",
    }


def _properties_text(properties: Mapping[str, str]) -> str:
    return "".join(f"{key}={value}\n" for key, value in properties.items())


def _properties_file(config: BrokerConfig) -> Path:
    return config.data_dir / "server.properties"


def _logging_file(config: BrokerConfig) -> Path:
    return config.data_dir / "log4j2.properties"


def _formatted_node_id(config: BrokerConfig) -> str | None:
    try:
        text = (config.data_dir / "log" / "meta.properties").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line).get("node.id")


def _check_voters(config: BrokerConfig) -> None:
    try:
        made_for = _voters_file(config).read_text(encoding="utf-8")
    except FileNotFoundError:  # formatted before there was a choice
        made_for = str(config.node_id)
    if made_for != _told_voters(config):
        raise PermanentFailure(
            f"{config.data_dir}: made for the quorum of nodes {made_for}, wanted {_told_voters(config)}. A quorum does "
            "not change its size on disk: start it with as many brokers as it was made with, or `headway reset`."
        )


def _voters_file(config: BrokerConfig) -> Path:
    return config.data_dir / "voters"


def _told_voters(config: BrokerConfig) -> str:
    return ",".join(str(node) for node, _ in config.voters)


def _directory_id(node_id: int) -> str:
    # Every node must name the others' directories when it formats its own, so they are derived, not drawn.
    digest = hashlib.sha256(f"headway local node {node_id}".encode()).digest()[:16]
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _write_atomically(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
