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


def answering(path: Path, answer: str) -> threading.Thread:
    """Answer one command on a socket, as HAProxy does: a text, then the end."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        with listener, listener.accept()[0] as link:
            link.recv(1_000)
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
