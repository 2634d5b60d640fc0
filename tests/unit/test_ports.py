import os
import socket

from headway.local.ports import holders


def test_a_busy_port_is_reported_with_its_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        (holder,) = holders([port])

    assert (port, os.getpid()) == (holder.port, holder.pid)
    assert "pytest" in str(holder)


def test_a_port_taken_on_every_interface_or_on_ipv6_counts_as_busy() -> None:
    """A server that listens on :: also answers for 127.0.0.1."""
    with socket.create_server(("::", 0), family=socket.AF_INET6) as everywhere:
        port = everywhere.getsockname()[1]

        assert [port] == [holder.port for holder in holders([port])]


def test_a_free_port_has_no_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    assert holders([port]) == ()


def test_a_port_that_only_has_a_client_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert holders([client.getsockname()[1]]) == ()
