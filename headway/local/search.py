"""One search node (OpenSearch, Elasticsearch's API) on loopback, without its shell scripts: files, command, probe.

Builds files and commands only: whoever supervises the node starts and stops it. Sized for a laptop: a heap of 256 MB,
no mapped files, one node that never looks for others. Plain HTTP without security, so it must not leave loopback.

What bites: the server refuses to run as root. Started by root it becomes ``nobody``, which owns the data folder only;
where that user may not pass the folders above (a home of mode 700) it keeps the one capability to pass them (ADR 0013).
"""

import http.client
import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from headway.errors import PermanentFailure
from headway.local.jars import OPENSEARCH, ensure_bundle, java_binary

LOOPBACK = "127.0.0.1"
UNPRIVILEGED_USER = "nobody"
_PROBE_TIMEOUT_S = 1.0
# linux/capability.h; either lets a process pass a folder, the second is the smaller and the rarer one.
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 1, 2


@dataclass(frozen=True, kw_only=True)
class NodeConfig:
    """Where the node keeps its data and listens."""

    data_dir: Path
    port: int
    transport_port: int
    heap_mb: int = 256


def node_settings(config: NodeConfig) -> dict[str, str]:
    """The node's ``opensearch.yml``, as a mapping."""
    return {
        "cluster.name": "headway",
        "node.name": "headway-0",
        # Elects itself at once, and turns the checks of production hosts (vm.max_map_count, ...) into warnings.
        "discovery.type": "single-node",
        "network.host": LOOPBACK,
        "http.port": str(config.port),
        "transport.port": str(config.transport_port),
        "path.data": str(config.data_dir / "data"),
        "path.logs": str(config.data_dir / "tmp"),
        "node.store.allow_mmap": "false",
        # At 95 % of a disk somebody else filled, every index would turn read-only and stay so.
        "cluster.routing.allocation.disk.threshold_enabled": "false",
        # Threads follow the cores; the queue bounds what waits, and its end is the 429 that clients back off from.
        "thread_pool.write.queue_size": "200",
    }


def prepare_node(config: NodeConfig) -> None:
    """Write the node's files and give its folder to the user it will run as; call before every start.

    Raises:
        PermanentFailure: started by root, and there is no unprivileged user.
    """
    for name in ("config", "data", "tmp"):
        (config.data_dir / name).mkdir(parents=True, exist_ok=True)
    settings = "".join(f"{key}: {value}\n" for key, value in node_settings(config).items())
    (config.data_dir / "config" / "opensearch.yml").write_text(settings, encoding="utf-8")
    (config.data_dir / "config" / "log4j2.properties").write_text(_LOGGING, encoding="utf-8")
    if os.geteuid() == 0:
        user = _unprivileged()
        for path in (config.data_dir, *config.data_dir.rglob("*")):
            os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)


def node_command(config: NodeConfig) -> list[str]:
    """Command that runs the node in the foreground, logging JSON lines to stdout; SIGTERM stops it cleanly.

    Raises:
        PermanentFailure, TransientFailure, ContractViolation: no Java, no files (`ensure_bundle`), no ``setpriv``.
    """
    home = ensure_bundle(OPENSEARCH)
    command = [
        java_binary(),
        *(f"-Xms{config.heap_mb}m", f"-Xmx{config.heap_mb}m", "-XX:MaxDirectMemorySize=64m"),
        # As for the broker: on two shared cores the serial collector and the first compiler start sooner and hold less.
        *("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError", "-XX:-UsePerfData"),
        # What the distribution's own start script sets.
        *("-Djava.security.manager=allow", "-Djava.awt.headless=true", "-Dfile.encoding=UTF-8"),
        *("-Dopensearch.networkaddress.cache.ttl=60", "-Dopensearch.networkaddress.cache.negative.ttl=10"),
        *("-Djna.nosys=true", f"-Djna.tmpdir={config.data_dir / 'tmp'}", f"-Djava.io.tmpdir={config.data_dir / 'tmp'}"),
        *("-Dio.netty.noUnsafe=true", "-Dio.netty.noKeySetOptimization=true"),
        *("-Dio.netty.recycler.maxCapacityPerThread=0", "-Dio.netty.allocator.numDirectArenas=0"),
        *("-Dlog4j.shutdownHookEnabled=false", "-Dlog4j2.disable.jmx=true", "-Djava.locale.providers=SPI,COMPAT"),
        f"-Dopensearch.path.home={home}",
        f"-Dopensearch.path.conf={config.data_dir / 'config'}",
        *("-Dopensearch.distribution.type=zip", "-Dopensearch.bundled_jdk=false"),
        *("-cp", f"{home}/lib/*", "org.opensearch.bootstrap.OpenSearch"),
    ]
    return command if os.geteuid() != 0 else [*_as_unprivileged(home, config.data_dir), *command]


def node_ready(port: int) -> bool:
    """Whether the node on loopback answers, and every index it holds can be read and written."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=_PROBE_TIMEOUT_S)
    try:
        connection.request("GET", "/_cluster/health?wait_for_status=yellow&timeout=500ms")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _as_unprivileged(*folders: Path) -> list[str]:
    """Give the prefix that runs a command as the unprivileged user, which dies with its parent.

    A process that changes its user loses the kernel's promise to end with its parent, so it is made again here.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise PermanentFailure(
            "search node: started by root, and setpriv (util-linux 2.33 or later) is not on PATH to run it as "
            f"{UNPRIVILEGED_USER}. Install util-linux, or start the stack as an ordinary user."
        )
    user = _unprivileged()
    plain = [
        *(setpriv, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--pdeathsig=KILL"),
        "--no-new-privs",
    ]
    if all(_may_pass(plain, folder) for folder in folders):
        return plain
    capability = "dac_read_search" if _held(_CAP_DAC_READ_SEARCH) else "dac_override"
    # access(2), which Java asks before it opens, looks past capabilities unless that bit is set.
    return [
        *plain,
        *(f"--inh-caps=+{capability}", f"--ambient-caps=+{capability}", "--securebits=+no_setuid_fixup"),
    ]


def _may_pass(prefix: list[str], folder: Path) -> bool:
    return subprocess.run([*prefix, "test", "-x", str(folder)], check=False, capture_output=True).returncode == 0


def _held(capability: int) -> bool:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("CapPrm:"):
            return bool(int(line.split()[1], 16) >> capability & 1)
    return False


def _unprivileged() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(UNPRIVILEGED_USER)
    except KeyError as error:
        raise PermanentFailure(
            f"search node: started by root, and there is no user {UNPRIVILEGED_USER!r} to run it as. "
            "Create that user, or start the stack as an ordinary one."
        ) from error


_LOGGING = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = OpenSearchJsonLayout
appender.console.layout.type_name = server
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
logger.node.name = org.opensearch.node.Node
logger.node.level = info
"""
