"""The one-machine load balancer's table, and the counting of its log; the binary only reads files here."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from headway.adapters.haproxy import check_load_balancer, write_load_balancer
from headway.release import PinnedVersion, Placed, ProductState, Release
from headway.settings import Settings
from serving.balancer import count_answers, load_balancer_table
from serving.replica import ReplicaRecord

V1, V2 = (PinnedVersion(version=n, digest=f"d{n}") for n in (1, 2))
LIVE = ProductState(product="delay", live=Placed(model=V1, colour="blue"))


def records(application: str) -> list[ReplicaRecord]:
    ports = {"delay.v1": 4001, "delay.v2": 4002}
    return [
        ReplicaRecord(
            application=application,
            replica=f"{application}.a",
            host="127.0.0.1",
            port=ports[application],
            pid=1,
            digest="d",
            grpc_port=ports[application] + 100,
        )
    ]


def weights(state: ProductState, tmp_path: Path) -> Mapping[str, list[tuple[str, int]]]:
    table = load_balancer_table(
        Settings(state=tmp_path), products=["delay"], states={state.product: state}, records=records
    )
    return {b.name: [(s.name, s.weight) for s in b.servers] for b in table.backends if b.name.startswith("delay.")}


def test_haproxy_accepts_the_table_and_a_product_without_a_release_has_no_server(tmp_path: Path) -> None:
    table = load_balancer_table(Settings(state=tmp_path), products=["delay"], states={}, records=records)

    write_load_balancer(table)
    check_load_balancer(table)

    assert [(r.prefix, r.backend) for r in table.routes] == [
        ("/v1/events", "collectors"),
        ("/v1/enrich", "enrichment"),
        ("/v1/features", "features"),
        ("/v1/predictions", "receipts"),
        ("/v1/batches", "batches"),
        ("/v1/releases", "release-guard"),
    ]
    assert {route.backend for route in table.grpc_routes} == {"features-grpc"}
    assert [(s.prefix, s.further, s.green_share) for s in table.splits] == [("/v1/delay", ("/v2/models/delay",), 0)]


def test_what_is_live_has_weight_and_what_is_being_proven_has_none(tmp_path: Path) -> None:
    proving = Release(number=2, target=Placed(model=V2, colour="green"), phase="proving", cause="test")
    state = ProductState(product="delay", live=LIVE.live, release=proving)

    one, other = [("delay.v1.a", 100)], [("delay.v2.a", 0)]
    assert weights(LIVE, tmp_path) == {
        "delay.blue": one,
        "delay.blue-grpc": one,
        "delay.green": [],
        "delay.green-grpc": [],
    }
    assert weights(state, tmp_path) == {
        "delay.blue": one,
        "delay.blue-grpc": one,
        "delay.green": other,
        "delay.green-grpc": other,
    }


def test_a_replica_is_asked_for_its_fitness_over_http_for_both_protocols(tmp_path: Path) -> None:
    table = load_balancer_table(Settings(state=tmp_path), products=["delay"], states={"delay": LIVE}, records=records)

    [server] = next(backend for backend in table.backends if backend.name == "delay.blue-grpc").servers

    assert (server.port, server.check_port) == (4101, 4001)


def test_a_replica_without_grpc_is_asked_over_http_alone(tmp_path: Path) -> None:
    table = load_balancer_table(
        Settings(state=tmp_path),
        products=["delay"],
        states={"delay": LIVE},
        records=lambda application: [replace(record, grpc_port=0) for record in records(application)],
    )

    servers = {backend.name: len(backend.servers) for backend in table.backends}
    assert (servers["delay.blue"], servers["delay.blue-grpc"]) == (1, 0)


def test_only_reads_go_to_a_second_server_after_something_was_sent(tmp_path: Path) -> None:
    """A collector that stored an event and died before its answer must not get it stored twice by the balancer."""
    table = load_balancer_table(Settings(state=tmp_path), products=["delay"], states={}, records=records)

    retries = {backend.name: backend.retry_on for backend in table.backends}

    assert retries["collectors"] == retries["enrichment"] == ("conn-failure",)
    assert retries["delay.blue"] == retries["delay.blue-grpc"]
    assert (
        retries["delay.blue"] == retries["features"] == retries["features-grpc"] == ("conn-failure", "empty-response")
    )


def test_answers_are_counted_by_path_status_and_end_and_other_lines_are_skipped(tmp_path: Path) -> None:
    log = tmp_path / "haproxy.log"
    log.write_text(
        '{"path":"/v1/delay/predict","status":200,"ended":"--"}\n'
        "[NOTICE] Proxy api stopped\n"
        '{"path":"/v1/delay/predict","status":503,"ended":"SC"}\n'
        '{"path":"/v1/events","status":202,"ended":"--"}\n'
        '{"path":"/v1/delay/predict","sta'
    )

    counted = count_answers(log, "/v1/delay")

    assert (counted.by_status, counted.by_end, counted.failed) == ({200: 1, 503: 1}, {"--": 1, "SC": 1}, 1)
