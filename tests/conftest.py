"""Guards that keep unit tests honest, and the minutes each part of the suite took."""

import os
import signal
import socket
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.search_world import SearchNode, running_node

UNIT = Path(__file__).parent / "unit"
_minutes: defaultdict[str, float] = defaultdict(float)
_tests: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def _unit_tests_stay_on_this_machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit test reads none of our variables, reaches no other host and starts no cluster."""
    for name in [name for name in os.environ if name.startswith("HEADWAY_")]:
        monkeypatch.delenv(name)
    if UNIT not in request.path.parents:
        return
    connect = socket.socket.connect

    def connect_on_loopback(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise RuntimeError(
                f"a unit test connects to {address}; use headway.adapters.memory, or move it out of tests/unit"
            )
        connect(self, address)

    def no_cluster(*_: object, **__: object) -> None:
        raise RuntimeError("a unit test starts Ray; test the logic without it, or move the test to tests/integration")

    monkeypatch.setattr(socket.socket, "connect", connect_on_loopback)
    if "ray" in sys.modules:
        monkeypatch.setattr(sys.modules["ray"], "init", no_cluster)


@pytest.fixture(scope="session")
def search_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SearchNode]:
    """One real search node for all tests that ask for it; each uses indexes of its own."""
    with running_node(tmp_path_factory.mktemp("search")) as node:
        yield node


def pytest_configure() -> None:
    """Have SIGINT end us, also where we were started in the background.

    A shell that starts a program there has it ignore SIGINT. Dagster gives SIGTERM whatever SIGINT has, and every server
    that a test starts afterwards would inherit that and never end.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    part = "/".join(report.nodeid.split("/")[:2])
    _minutes[part] += report.duration / 60
    _tests[part] += report.when == "call"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section("minutes by part")
    for part, minutes in sorted(_minutes.items(), key=lambda item: -item[1]):
        terminalreporter.write_line(f"{minutes:6.1f}  {part} ({_tests[part]} tests)")
