"""Makes the load balancer do what the release states say, over its socket and in its file: again and again.

Level-triggered: every pass compares what HAProxy has with what it should have, so a restarted HAProxy, a restarted
guard and a replica that Ray replaced are one case. Refuses to wait: what is not ready is taken up by the next pass.
What bites: the order. Servers get their weight before the share moves to them, and leave only afterwards.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from headway.adapters.haproxy import (
    Backend,
    HaproxyAdmin,
    LoadBalancerTable,
    ServerNotReady,
    ServerStatus,
    render_config,
    write_load_balancer,
)
from headway.release import Colour, ProductState
from headway.settings import Settings
from serving.balancer import (
    COLOURS,
    SERVING_WEIGHT,
    application_name,
    backend_name,
    green_share,
    grpc_backend_name,
    load_balancer_table,
    replica_registry,
)
from serving.replica import forget_dead, read_records

_COMMAND_TIMEOUT_S = 2.0


class TrafficControl:
    """The load balancer of this machine, kept as the states say. For one thread."""

    def __init__(self, settings: Settings, products: Iterable[str]) -> None:
        self._settings = settings
        self._products = tuple(products)
        self._registry = replica_registry(settings)
        self._seen: dict[str, list[ServerStatus]] = {}

    def reconcile(self, states: Mapping[str, ProductState]) -> None:
        """Do what is still to do for these states.

        Raises:
            TransientFailure: the load balancer does not answer; its file is written all the same.
            LoadBalancerRefused: it does not know a command or a backend.
        """
        self._forget_dead(states)
        table = load_balancer_table(
            self._settings,
            products=self._products,
            states=states,
            records=lambda application: read_records(self._registry, application),
        )
        _write(table)
        admin = HaproxyAdmin(table.admin_socket, timeout_s=_COMMAND_TIMEOUT_S)
        backends = {backend.name: backend for backend in table.backends}
        ours = [
            backends[name(product, colour)]
            for product in self._products
            for colour in COLOURS
            for name in (backend_name, grpc_backend_name)
        ]
        found = _by_backend(admin)
        for backend in ours:
            _join(admin, backend, found.get(backend.name, []))
        shares = _shares(admin, table)
        for product in self._products:
            share = green_share(states.get(product, ProductState(product=product)))
            if shares.get(product) != share:
                admin.set_green_share(table, product, share)
        for backend in ours:
            _leave(admin, backend, found.get(backend.name, []))
        self._seen = _by_backend(admin)

    def servers(self, product: str, colour: Colour) -> list[ServerStatus]:
        """Give the servers of a colour, of every protocol, as the last pass left them."""
        return [
            server for name in (backend_name, grpc_backend_name) for server in self._seen.get(name(product, colour), [])
        ]

    def fit(self, product: str, colour: Colour) -> int:
        """Count the replicas of a colour that pass the golden check, over every protocol they serve."""
        return self._count(product, colour, lambda server: server.check == "L7OK")

    def asked(self, product: str, colour: Colour) -> int:
        """Count the replicas of a colour that pass the golden check and take requests, over every protocol."""
        return self._count(product, colour, lambda server: server.check == "L7OK" and server.weight == SERVING_WEIGHT)

    def _count(self, product: str, colour: Colour, holds: Callable[[ServerStatus], bool]) -> int:
        over_grpc = {server.server: server for server in self._seen.get(grpc_backend_name(product, colour), [])}
        return sum(
            holds(server) and holds(over_grpc.get(server.server, server))
            for server in self._seen.get(backend_name(product, colour), [])
        )

    def _forget_dead(self, states: Mapping[str, ProductState]) -> None:
        for state in states.values():
            placed = [state.live, None if state.open_release is None else state.open_release.target]
            for each in placed:
                if each is not None:
                    forget_dead(self._registry, application_name(state.product, each.model))


def forget_application(registry: Path, application: str) -> None:
    """Delete what is left of an application's records."""
    for record in read_records(registry, application):
        record.path(registry).unlink(missing_ok=True)


def _write(table: LoadBalancerTable) -> None:
    shares = "".join(f"{split.name} {split.green_share}\n" for split in table.splits)
    if (
        not table.configuration.exists()
        or table.configuration.read_text() != render_config(table)
        or table.shares.read_text() != shares
    ):
        write_load_balancer(table)


def _by_backend(admin: HaproxyAdmin) -> dict[str, list[ServerStatus]]:
    found: dict[str, list[ServerStatus]] = {}
    for server in admin.servers():
        found.setdefault(server.backend, []).append(server)
    return found


def _join(admin: HaproxyAdmin, backend: Backend, found: list[ServerStatus]) -> None:
    known = {server.server: server for server in found}
    for server in backend.servers:
        status = known.get(server.name)
        if status is None:
            admin.add_server(backend, server)
        elif status.check == "L7OK" and status.weight != server.weight:
            admin.set_weight(backend.name, server.name, server.weight)


def _leave(admin: HaproxyAdmin, backend: Backend, found: list[ServerStatus]) -> None:
    wanted = {server.name for server in backend.servers}
    for status in found:
        if status.server in wanted:
            continue
        try:
            admin.drain(backend.name, status.server, timeout_s=0)
            admin.delete_server(backend.name, status.server, timeout_s=0)
        except ServerNotReady:
            continue  # it still answers something; the next pass asks again


def _shares(admin: HaproxyAdmin, table: LoadBalancerTable) -> dict[str, int]:
    """Lines of ``show map`` are: a reference, the key, the value."""
    lines = [line.split() for line in admin.command(f"show map {table.shares}").splitlines()]
    return {line[1]: int(line[2]) for line in lines if len(line) == 3}
