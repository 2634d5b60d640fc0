"""A model replica that serves its own HTTP port and is owned by Ray Serve.

Ray starts it, counts it, checks it and replaces it; requests reach it straight from the load balancer, because Ray's
request wrapper costs more than the prediction (docs/adr/0003). `ReplicaServer` is the shape without Ray, and serves
collector and enrichment too; `PortReplica` is the same under Ray Serve, and only that imports ray (3 s).
It refuses to start, and to stay, when its golden answer is wrong.

What bites: Ray sees no request of this port. So in-flight requests are reported for autoscaling by
`record_autoscaling_stats`, and leaving is done here: answer the load balancer's check with 404, wait, then close.
"""

import asyncio
import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import uvicorn

from headway.errors import ContractViolation, PermanentFailure, TransientFailure
from serving.replica_scaler import BUSY, IN_FLIGHT, LoadMeter, Scaling

if TYPE_CHECKING:
    from ray.serve import Application, Deployment

GOLDEN_PATH = "/golden"

# ASGI's own types: messages are open dictionaries by specification.
Message = MutableMapping[str, Any]
AsgiApp = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

# Longer than every timeout of the load balancer, so that this side never closes a connection about to be reused.
_KEEP_ALIVE_S = 75
_START_TIMEOUT_S = 10.0
_SELF_CHECK_TIMEOUT_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Served:
    """What a factory hands over: the application, its own proof, and what to do last.

    ``check_golden`` runs the golden request through the same predictor as real ones and raises ContractViolation when
    the answer differs; it must take well under a millisecond, because every check of the load balancer runs it.
    ``close`` flushes what must not be lost, after the last request and before the process ends. ``lifespan`` is "on" when
    the application speaks ASGI's lifespan, to end what belongs to the event loop. ``http`` is uvicorn's: which protocol
    class speaks on a connection. ``grpc_port`` tells, once the application has started, where it serves gRPC (0: nowhere),
    and ``leave`` tells it from any thread that nothing new should come.
    """

    app: AsgiApp
    digest: str
    check_golden: Callable[[], None]
    close: Callable[[], None]
    lifespan: Literal["on", "off"] = "off"
    http: type[asyncio.Protocol] | Literal["httptools"] = "httptools"
    grpc_port: Callable[[], int] = lambda: 0
    leave: Callable[[], None] = lambda: None


@dataclass(frozen=True, kw_only=True)
class ReplicaSpec:
    """What a replica needs to know; plain values, since it travels to another process.

    ``factory`` is ``package.module:function``, called with ``arguments`` as keywords and giving a `Served`.
    ``drain_s`` must exceed two check intervals of the load balancer.
    """

    application: str
    factory: str
    arguments: Mapping[str, str]
    registry: Path
    host: str
    drain_s: float


@dataclass(frozen=True, kw_only=True)
class ReplicaRecord:
    """How a replica is found: one file ``<registry>/<application>/<replica>.json`` from proof to departure.

    ``grpc_port`` is 0 where it serves no gRPC.
    """

    application: str
    replica: str
    host: str
    port: int
    pid: int
    digest: str
    grpc_port: int = 0

    def path(self, registry: Path) -> Path:
        """Give the file of this record."""
        return registry / self.application / f"{self.replica}.json"

    def write(self, registry: Path) -> None:
        """Write the record so that a reader sees all of it or nothing."""
        path = self.path(registry)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps(asdict(self), sort_keys=True))
        draft.replace(path)


def read_records(registry: Path, application: str) -> tuple[ReplicaRecord, ...]:
    """Give the replicas that announced themselves, by name. A killed one stays listed: the load balancer's check tells."""
    found = []
    for path in sorted((registry / application).glob("*.json")):
        try:
            found.append(ReplicaRecord(**json.loads(path.read_text())))
        except FileNotFoundError:
            continue  # it left between listing and reading
        except (TypeError, ValueError) as error:
            msg = f"replica record {application}/{path.name}: unreadable ({error}). Delete it; a living replica is replaced by its check."
            raise ContractViolation(msg) from error
    return tuple(found)


def forget_dead(registry: Path, application: str) -> tuple[ReplicaRecord, ...]:
    """Delete the records of this machine's processes that are gone, and give them so that their servers can be deleted."""
    dead = tuple(record for record in read_records(registry, application) if not Path(f"/proc/{record.pid}").exists())
    for record in dead:
        record.path(registry).unlink(missing_ok=True)
    return dead


class ReplicaServer:
    """One ASGI application on one port, in its own thread and event loop, with its proof under ``/golden``."""

    def __init__(self, served: Served, *, host: str, port: int) -> None:
        """Prove the golden answer and listen. Port 0 lets the system choose. Raises ContractViolation on a wrong answer."""
        served.check_golden()
        self._served = served
        self.digest = served.digest
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((host, port))
        self.host, self.port = host, int(self._socket.getsockname()[1])
        self.leaving = False
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._app,
                interface="asgi3",  # left to itself, uvicorn takes a bound method for ASGI 2
                loop="uvloop",
                http=served.http,
                ws="none",
                lifespan=served.lifespan,
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                proxy_headers=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
            )
        )
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="http", daemon=True
        )

    async def _app(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        if scope["type"] == "lifespan" or scope["path"] != GOLDEN_PATH:
            await self._served.app(scope, receive, send)
            return
        status, said = self._fitness()
        body = said.encode()
        # Without its length an answer never ends over `serving.lean_http`, which leaves that to applications.
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _fitness(self) -> tuple[int, str]:
        if self.leaving:
            return 404, "leaving"
        try:
            self._served.check_golden()
        except ContractViolation as error:
            return 503, str(error)
        return 200, self._served.digest

    def start(self) -> None:
        """Answer requests from now on. Raises PermanentFailure when the server does not come up."""
        self._thread.start()
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                self._socket.close()
                msg = (
                    f"replica server {self.host}:{self.port}: not listening within {_START_TIMEOUT_S} s. Read its log."
                )
                raise PermanentFailure(msg)
            time.sleep(0.005)

    @property
    def grpc_port(self) -> int:
        """Where the application serves gRPC, once it has started; 0 for nowhere."""
        return self._served.grpc_port()

    @property
    def in_flight(self) -> int:
        """Count the requests being answered."""
        return len(self._server.server_state.tasks)

    def check(self, *, timeout_s: float) -> None:
        """Ask the own port for the golden answer, as the load balancer does. Raises TransientFailure saying what came."""
        link = http.client.HTTPConnection(self.host, self.port, timeout=timeout_s)
        try:
            link.request("GET", GOLDEN_PATH)
            answer = link.getresponse()
            status, said = answer.status, answer.read(500).decode(errors="replace")
        except OSError as error:
            status, said = 0, str(error) or type(error).__name__
        finally:
            link.close()
        if status != http.client.OK:
            msg = f"replica server {self.host}:{self.port}: golden check got {status} {said!r}, wanted 200. It must be replaced."
            raise TransientFailure(msg)

    def leave(self, *, drain_s: float, timeout_s: float) -> None:
        """Stop without losing a request: unfit for new ones at once, closed after ``drain_s``, then flush."""
        self.leaving = True
        self._served.leave()
        time.sleep(drain_s)
        self._server.should_exit = True
        self._thread.join(timeout_s)
        self._served.close()


def build_served(spec: ReplicaSpec) -> Served:
    """Call the factory a spec names. Raises ContractViolation when it is not there or gives something else."""
    module, _, name = spec.factory.partition(":")
    served = getattr(import_module(module), name, None)
    built = served(**spec.arguments) if callable(served) else None
    if not isinstance(built, Served):
        msg = f"replica of {spec.application}: factory {spec.factory!r} gave {type(built).__name__}, wanted Served. Use 'package.module:function'."
        raise ContractViolation(msg)
    return built


class PortReplica:
    """The Ray Serve deployment: constructor proves and registers, health check asks the own port, the end drains."""

    def __init__(self, spec: ReplicaSpec) -> None:
        """Load, prove, listen, prove over the port, register. Any failure here means Ray never counts the replica as ready."""
        from ray import serve

        _keep_ray_on(spec.host)
        self._spec = spec
        self._server = ReplicaServer(build_served(spec), host=spec.host, port=0)
        self._server.start()
        # A machine that is busy starting things is slow, not wrong: here a late answer would veto the version.
        self._server.check(timeout_s=_START_TIMEOUT_S)
        self._record = ReplicaRecord(
            application=spec.application,
            replica=serve.get_replica_context().replica_id.unique_id,
            host=self._server.host,
            port=self._server.port,
            pid=os.getpid(),
            digest=self._server.digest,
            grpc_port=self._server.grpc_port,
        )
        self._record.write(spec.registry)
        self._meter = LoadMeter()

    async def check_health(self) -> None:
        """Fail when the server thread is dead or stuck, or the golden answer wrong; Ray replaces after three failures."""
        if not self._server.leaving:
            await asyncio.to_thread(self._server.check, timeout_s=_SELF_CHECK_TIMEOUT_S)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Tell Ray the load it cannot see."""
        return {BUSY: self._meter.busy(), IN_FLIGHT: float(self._server.in_flight)}

    async def __del__(self) -> None:
        """Leave the registry and the load balancer, finish what runs, flush."""
        self._record.path(self._spec.registry).unlink(missing_ok=True)
        await asyncio.to_thread(self._server.leave, drain_s=self._spec.drain_s, timeout_s=10.0)


def replica_application(spec: ReplicaSpec, scaling: Scaling, *, cpus: float, check_period_s: float) -> "Application":
    """Give the Ray Serve application of one model version. One application per version: never redeploy under a name."""
    from ray import serve

    deployment: Deployment = serve.deployment(
        name="replica",
        **scaling.options,
        ray_actor_options={"num_cpus": cpus},
        health_check_period_s=check_period_s,
        health_check_timeout_s=_SELF_CHECK_TIMEOUT_S + 1,
        max_constructor_retry_count=2,  # a wrong golden answer stays wrong; Ray would try 3 times per replica, up to 20
        graceful_shutdown_wait_loop_s=0.1,  # Ray's own drain: it sees no request here
        graceful_shutdown_timeout_s=spec.drain_s + 15,
    )(PortReplica)
    return deployment.bind(spec)


def _keep_ray_on(host: str) -> None:
    """Move Ray's handle-to-replica gRPC port, which it binds to every interface, to ``host``.

    It asks for a token, but we never call it and nothing of ours listens beyond loopback by default. Ray 2.60 offers no
    setting, so its helper is wrapped in this process; `tests/integration/test_serve_shape.py` reads the listeners.
    """
    ray_replica: Any = import_module("ray.serve._private.replica")  # private: it declares nothing for us
    add_port = ray_replica.add_port_to_grpc_server
    ray_replica.add_port_to_grpc_server = lambda server, address: add_port(server, address.replace("[::]", host))
