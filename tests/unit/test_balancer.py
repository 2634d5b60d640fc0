"""The one-machine load balancer's table, and the counting of its log; the binary only reads files here."""

from collections.abc import Mapping
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
        ("/v1/releases", "release-guard"),
    ]
    assert {route.backend for route in table.grpc_routes} == {"features-grpc"}
    assert [(s.prefix, s.green_share) for s in table.splits] == [("/v1/delay", 0)]


def test_what_is_live_has_weight_and_what_is_being_proven_has_none(tmp_path: Path) -> None:
    proving = Release(number=2, target=Placed(model=V2, colour="green"), phase="proving", cause="test")
    state = ProductState(product="delay", live=LIVE.live, release=proving)

    assert weights(LIVE, tmp_path) == {"delay.blue": [("delay.v1.a", 100)], "delay.green": []}
    assert weights(state, tmp_path) == {"delay.blue": [("delay.v1.a", 100)], "delay.green": [("delay.v2.a", 0)]}


def test_only_reads_go_to_a_second_server_after_something_was_sent(tmp_path: Path) -> None:
    """A collector that stored an event and died before its answer must not get it stored twice by the balancer."""
    table = load_balancer_table(Settings(state=tmp_path), products=["delay"], states={}, records=records)

    retries = {backend.name: backend.retry_on for backend in table.backends}

    assert retries["collectors"] == retries["enrichment"] == ("conn-failure",)
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
