"""The load balancer's configuration and socket, without a running load balancer (its binary only reads files here)."""

import re
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from headway.adapters.haproxy import (
    Backend,
    HaproxyAdmin,
    LoadBalancerRefused,
    LoadBalancerTable,
    Route,
    Server,
    Split,
    check_load_balancer,
    parse_stat,
    render_config,
    write_load_balancer,
)
from headway.errors import ContractViolation, TransientFailure
from tests.certificates import self_signed

FEATURES = Server(name="f-1", host="127.0.0.1", port=18_101, weight=100, check_port=18_102)


def backend(name: str, *servers: Server) -> Backend:
    return Backend(
        name=name,
        servers=servers,
        check_path="/golden",
        check_interval_ms=500,
        answer_timeout_ms=2_000,
        queue_timeout_ms=500,
        max_in_flight=64,
        retry_on=("conn-failure",),
    )


def table(directory: Path) -> LoadBalancerTable:
    return LoadBalancerTable(
        host="127.0.0.1",
        port=18_000,
        grpc_port=18_002,
        metrics_port=18_001,
        directory=directory,
        max_connections=1_000,
        routes=(Route(prefix="/v1", backend="api"), Route(prefix="/v1/events", backend="collector")),
        grpc_routes=(Route(prefix="/features.v1.Features", backend="features-grpc"),),
        splits=(Split(name="delay", prefix="/v1/delay", blue="delay.blue", green="delay.green", green_share=500),),
        backends=(
            backend("api"),
            backend("collector", Server(name="c-1", host="127.0.0.1", port=18_100, weight=100)),
            backend("delay.blue"),
            backend("delay.green"),
            replace(backend("features-grpc", FEATURES), speaks="grpc"),
        ),
    )


def test_haproxy_accepts_what_we_write_without_a_warning(tmp_path: Path) -> None:
    write_load_balancer(table(tmp_path))

    check_load_balancer(table(tmp_path))


def test_a_refused_configuration_says_what_haproxy_said(tmp_path: Path) -> None:
    broken = table(tmp_path)
    write_load_balancer(broken)
    broken.configuration.write_text("frontend api\n    bnd 127.0.0.1:1\n")

    with pytest.raises(LoadBalancerRefused, match="unknown keyword 'bnd'"):
        check_load_balancer(broken)


def test_the_longest_prefix_is_asked_first(tmp_path: Path) -> None:
    uses = re.findall(r"use_backend (\S+)", render_config(table(tmp_path)))

    assert uses == ["collector", "delay.green", "delay.blue", "api", "features-grpc"]


def test_nothing_listens_beyond_loopback(tmp_path: Path) -> None:
    binds = re.findall(r"^ +bind (\S+)", render_config(table(tmp_path)), re.MULTILINE)

    assert binds == ["127.0.0.1:18001", "127.0.0.1:18000", "127.0.0.1:18002"]


def test_a_client_cannot_choose_its_receipt(tmp_path: Path) -> None:
    text = render_config(table(tmp_path))

    assert text.index("http-request del-header headway-receipt") < text.index("unique-id-header headway-receipt")


def test_a_server_added_while_running_has_the_options_of_a_configured_one(tmp_path: Path) -> None:
    server = Server(name="c-1", host="127.0.0.1", port=18_100, weight=100)

    assert f"server c-1 {backend('collector').server_options(server)}\n" in render_config(table(tmp_path))


def test_a_grpc_server_is_asked_over_http_whether_it_is_fit(tmp_path: Path) -> None:
    text = render_config(table(tmp_path))

    [line] = re.findall(r"^ +server f-1 (.*)$", text, re.MULTILINE)
    assert line.startswith("127.0.0.1:18101 check ")
    assert " port 18102 " in line
    assert line.endswith(" proto h2 check-proto h1")


def test_a_grpc_route_to_a_server_that_speaks_http_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractViolation, match=r"api, features-grpc speak gRPC without a gRPC route"):
        replace(table(tmp_path), grpc_routes=(Route(prefix="/features.v1.Features", backend="api"),))


def models_table(directory: Path) -> LoadBalancerTable:
    """Two products as models of the Open Inference Protocol."""
    splits = tuple(
        Split(
            name=name,
            prefix=f"/v1/{name}",
            blue=f"{name}.blue",
            green=f"{name}.green",
            green_share=share,
            further=(f"/v2/models/{name}",),
            grpc_blue=f"{name}.blue-grpc",
            grpc_green=f"{name}.green-grpc",
        )
        for name, share in (("delay", 0), ("ranking", 10_000))
    )
    names = [backend for split in splits for backend in split.backends]
    backends = tuple(
        replace(backend(name, FEATURES), speaks="grpc") if name.endswith("-grpc") else backend(name) for name in names
    )
    return replace(table(directory), routes=(), grpc_routes=(), splits=splits, backends=backends)


def test_haproxy_accepts_models_without_a_warning(tmp_path: Path) -> None:
    write_load_balancer(models_table(tmp_path))

    check_load_balancer(models_table(tmp_path))


def test_a_split_leads_every_prefix_of_its_product_by_the_same_share(tmp_path: Path) -> None:
    text = render_config(models_table(tmp_path))

    [place] = re.findall(r"acl (under_\d) path /v2/models/delay$", text, re.MULTILINE)
    assert f"acl {place} path /v1/delay\n" in text
    assert f"acl {place} path_beg /v2/models/delay/\n" in text
    assert re.findall(rf"use_backend (\S+) if {place}\b", text) == ["delay.green", "delay.blue"]


def test_a_grpc_call_goes_to_its_model_and_without_one_to_the_first(tmp_path: Path) -> None:
    text = render_config(models_table(tmp_path))
    grpc = text[text.index("frontend grpc") : text.index("\nbackend ", text.index("frontend grpc"))]

    uses = re.findall(r"use_backend (\S+) if (to_\S+(?: model_\d| of_models)?)", grpc)

    assert uses == [
        ("delay.green-grpc", "to_model model_0"),
        ("delay.blue-grpc", "to_model model_0"),
        ("ranking.green-grpc", "to_model model_1"),
        ("ranking.blue-grpc", "to_model model_1"),
        ("delay.green-grpc", "to_model"),
        ("delay.blue-grpc", "to_model"),
        ("delay.green-grpc", "to_health of_models"),
        ("delay.blue-grpc", "to_health of_models"),
    ]
    assert f"acl model_1 var(txn.model) -m bin {b'ranking'.hex()}\n" in grpc


def test_both_doors_put_a_client_into_the_same_cohort(tmp_path: Path) -> None:
    text = render_config(models_table(tmp_path))

    doors = [text[text.index(f"frontend {name}") :].split("\nbackend ")[0] for name in ("api", "grpc")]
    cohorts = [re.findall(r"set-var\(txn\.(?:cohort|bucket)\) .*", door) for door in doors]
    assert cohorts[0] == cohorts[1]
    assert len(cohorts[0]) == 4


def test_the_servers_readiness_asks_for_a_replica_of_every_model(tmp_path: Path) -> None:
    text = render_config(models_table(tmp_path))

    said = re.findall(r"return status (\d+) .* if \{ path /v2/health/ready \}(.*)$", text, re.MULTILINE)
    assert said == [
        ("503", " { nbsrv(delay.blue) eq 0 } { nbsrv(delay.green) eq 0 }"),
        ("503", " { nbsrv(ranking.blue) eq 0 } { nbsrv(ranking.green) eq 0 }"),
        ("200", ""),
    ]


def test_a_body_is_waited_for_before_a_replica_gives_a_slot_for_it(tmp_path: Path) -> None:
    text = render_config(table(tmp_path))

    [place] = re.findall(r"acl (under_\d) path /v1/delay$", text, re.MULTILINE)
    assert f"http-request wait-for-body time 5s if {place}\n" in text


def test_with_a_certificate_both_doors_are_open_with_tls_beside_the_plain_ones(tmp_path: Path) -> None:
    pem = self_signed(tmp_path)
    secured = replace(table(tmp_path), certificate=pem, tls_port=18_005, grpc_tls_port=18_006)
    write_load_balancer(secured)
    check_load_balancer(secured)

    binds = re.findall(r"^ +bind (.*)$", render_config(secured), re.MULTILINE)

    assert binds[1:] == [
        "127.0.0.1:18000",
        f"127.0.0.1:18005 ssl crt {pem} alpn h2,http/1.1",
        "127.0.0.1:18002 proto h2",
        f"127.0.0.1:18006 ssl crt {pem} alpn h2",
    ]


def test_a_certificate_that_is_not_there_is_refused_before_anything_starts(tmp_path: Path) -> None:
    secured = replace(table(tmp_path), certificate=tmp_path / "no.pem", tls_port=18_005, grpc_tls_port=18_006)
    write_load_balancer(secured)

    with pytest.raises(LoadBalancerRefused, match=r"no\.pem"):
        check_load_balancer(secured)


def test_a_certificate_without_ports_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractViolation, match="wanted tls_port and grpc_tls_port"):
        replace(table(tmp_path), certificate=tmp_path / "door.pem")


def test_a_server_added_over_the_socket_keeps_where_it_is_checked(tmp_path: Path) -> None:
    sent: list[str] = []
    haproxy = answering(tmp_path / "s", "New server registered.\n", sent)

    with pytest.raises(TransientFailure):  # the socket answers once
        HaproxyAdmin(tmp_path / "s", timeout_s=2).add_server(replace(backend("f"), speaks="grpc"), FEATURES)
    haproxy.join()

    checked = "check inter 500ms fastinter 200ms downinter 500ms fall 2 rise 1 port 18102"
    assert sent == [f"add server f/f-1 127.0.0.1:18101 {checked} weight 0 maxconn 64 proto h2 check-proto h1\n"]


def test_a_route_to_nowhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractViolation, match="no backend ranker"):
        replace(table(tmp_path), routes=(Route(prefix="/v1/rank", backend="ranker"),))


@pytest.mark.parametrize("name", ["a b", "a\nserver evil 10.0.0.1:80", "", "x/y"])
def test_a_name_cannot_smuggle_configuration(name: str) -> None:
    with pytest.raises(ContractViolation, match="got name"):
        Server(name=name, host="127.0.0.1", port=1, weight=0)


@pytest.mark.parametrize("share", [-1, 10_001])
def test_a_share_outside_all_buckets_is_refused(tmp_path: Path, share: int) -> None:
    with pytest.raises(ContractViolation, match=r"wanted 0\.\.10000"):
        replace(table(tmp_path), splits=(replace(table(tmp_path).splits[0], green_share=share),))


STAT = (
    "# pxname,svname,qcur,scur,stot,status,weight,check_status,hrsp_5xx,uweight\n"
    "api,FRONTEND,,1,9,OPEN,,,0,\n"
    "delay.blue,r1,0,2,7,UP,100,* L7OK,1,100\n"
    "delay.blue,r2,3,0,0,DOWN,0,L4CON,,0\n"
    "delay.blue,BACKEND,0,2,7,UP,100,,1,100\n"
)


def test_statistics_name_servers_only_and_read_a_check_in_progress() -> None:
    r1, r2 = parse_stat(STAT)

    assert (r1.server, r1.status, r1.check, r1.weight, r1.in_flight, r1.answers_5xx) == ("r1", "UP", "L7OK", 100, 2, 1)
    assert (r2.server, r2.status, r2.check, r2.queued) == ("r2", "DOWN", "L4CON", 3)


def test_statistics_of_another_haproxy_are_refused_by_column() -> None:
    with pytest.raises(ContractViolation, match="'check_status' is missing"):
        parse_stat(STAT.replace("check_status", "check"))


def answering(path: Path, answer: str, sent: list[str] | None = None) -> threading.Thread:
    """Answer one command on a socket, as HAProxy does: a text, then the end. Keeps what was sent."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        with listener, listener.accept()[0] as link:
            command = link.recv(1_000).decode()
            if sent is not None:
                sent.append(command)
            link.sendall(answer.encode())

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_a_refused_command_names_backend_server_and_answer(tmp_path: Path) -> None:
    haproxy = answering(tmp_path / "s", "No such server.\n\n")

    with pytest.raises(
        LoadBalancerRefused, match=r"delay\.blue/r9: 'set server .* weight 5' was refused: No such server"
    ):
        HaproxyAdmin(tmp_path / "s", timeout_s=2).set_weight("delay.blue", "r9", 5)
    haproxy.join()


def test_a_silent_socket_is_a_transient_failure(tmp_path: Path) -> None:
    with pytest.raises(TransientFailure, match="Is haproxy running"):
        HaproxyAdmin(tmp_path / "s", timeout_s=1).servers()
