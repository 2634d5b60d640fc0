"""The stack as a user has it: up, status, down, reset, with the quickest of its parts."""

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from headway.errors import PermanentFailure
from headway.local import lifecycle
from headway.local.ports import holders
from headway.local.processes import is_alive, marked
from headway.local.state import STACK_VARIABLE, recorded
from headway.settings import Ports, Settings
from tests.free_ports import free_port
from tests.supervised import PATIENCE_S, until

pytestmark = pytest.mark.integration


def quiet(_line: str) -> None:
    pass


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    chosen = Settings(state=tmp_path / "state", ports=Ports(valkey=free_port()))
    yield chosen
    lifecycle.down(chosen, say=quiet)


def up(settings: Settings) -> dict[str, Any]:
    return lifecycle.up(settings, only=["valkey"], say=quiet)


def test_up_waits_until_all_is_ready_and_down_leaves_no_process_port_or_socket(settings: Settings) -> None:
    told: list[str] = []

    facts = lifecycle.up(settings, only=["valkey"], say=told.append)
    held = holders([settings.ports.valkey])
    report = lifecycle.down(settings, say=told.append)

    assert (facts["phase"], facts["parts"]) == ("ready", ["valkey"])
    assert {"valkey": settings.ports.valkey} == facts["ports"]
    assert [process["pid"] for process in facts["processes"]] == [holder.pid for holder in held]
    assert (report["left"], report["seconds"] < 15) == ([], True)
    assert {"valkey", "supervisor", "keeper"} == set(report["stopped"])
    assert told[0].startswith("valkey")
    assert told[-1].startswith("stopped in")
    assert holders([settings.ports.valkey]) == ()
    assert marked(STACK_VARIABLE, str(settings.state)) == ()
    assert not settings.sockets.exists()


def test_up_again_is_answered_with_the_stack_that_is_there(settings: Settings) -> None:
    first = up(settings)

    again = up(settings)

    assert first["pid"] == again["pid"]


@contextmanager
def being_stopped(settings: Settings) -> Iterator[subprocess.Popen[str]]:
    """A `headway down` that cannot finish: what it stops stands still, and goes on afterwards."""
    (process,) = lifecycle.status(settings)["processes"]
    os.kill(process["pid"], signal.SIGSTOP)
    command = [sys.executable, "-m", "headway.cli", "down", "--json"]
    environment = {**os.environ, **settings.environment()}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as shell:
        until(lambda: lifecycle.status(settings)["phase"] == "stopping")
        yield shell
        with suppress(ProcessLookupError):
            os.kill(process["pid"], signal.SIGCONT)


def test_up_waits_for_a_stack_that_is_still_being_stopped_and_says_whose(settings: Settings) -> None:
    former, told = up(settings), queue.Queue[str]()

    with being_stopped(settings), ThreadPoolExecutor(1) as shell:
        next_one = shell.submit(lambda: lifecycle.up(settings, only=["valkey"], say=told.put))
        said = told.get(timeout=PATIENCE_S)
        os.kill(former["processes"][0]["pid"], signal.SIGCONT)
        now = next_one.result(PATIENCE_S)

    assert said == f"waiting for the stack of pid {former['pid']} to end, which is being stopped"
    assert (now["phase"], now["pid"] != former["pid"]) == ("ready", True)


def test_a_slow_down_leaves_alone_the_stack_that_an_up_started_after_the_one_it_stopped(settings: Settings) -> None:
    """A `down` once asked whoever held the lock to stop, again and again, and then ended what was left."""
    former = up(settings)

    with being_stopped(settings) as slow:
        slow.send_signal(signal.SIGSTOP)
        os.kill(former["processes"][0]["pid"], signal.SIGCONT)
        now = up(settings)
        slow.send_signal(signal.SIGCONT)
        said, _ = slow.communicate(timeout=PATIENCE_S)

    assert (slow.returncode, json.loads(said)["left"]) == (0, [])
    assert lifecycle.status(settings)["phase"] == "ready"
    assert lifecycle.status(settings)["pid"] == now["pid"] != former["pid"]


def test_a_stack_without_the_parts_asked_for_is_not_extended_silently(settings: Settings) -> None:
    up(settings)

    with pytest.raises(PermanentFailure, match=r"without mlflow.*headway down"):
        lifecycle.up(settings, only=["valkey", "mlflow"], say=quiet)


def test_a_busy_port_is_reported_with_its_holder_before_anything_starts(settings: Settings) -> None:
    with (
        socket.create_server(("127.0.0.1", settings.ports.valkey)),
        pytest.raises(PermanentFailure, match=rf"port {settings.ports.valkey} is held by pid {os.getpid()} .*valkey"),
    ):
        up(settings)

    assert recorded(settings.state) == {}
    assert lifecycle.status(settings)["phase"] == "down"


@pytest.mark.parametrize("next_verb", ["up", "down"])
def test_what_a_killed_supervisor_and_keeper_left_is_ended_by_the_next_verb(settings: Settings, next_verb: str) -> None:
    """The kernel ends what they started; what is recorded is looked for all the same."""
    up(settings)
    before = recorded(settings.state)
    for name in ("keeper", "supervisor"):
        os.kill(before[name].pid, signal.SIGKILL)

    if next_verb == "up":
        assert up(settings)["phase"] == "ready"
    else:
        assert lifecycle.down(settings, say=quiet)["left"] == []

    assert not any(is_alive(process) for process in before.values())


def test_a_restarted_process_is_a_new_one_and_ready(settings: Settings) -> None:
    pid = up(settings)["processes"][0]["pid"]

    lifecycle.direct(settings, "restart", "valkey", within_s=30.0)

    (process,) = lifecycle.status(settings)["processes"]
    assert process["state"] == "ready"
    assert process["pid"] != pid


def test_ctrl_c_ends_a_stack_in_the_foreground(settings: Settings) -> None:
    command = [sys.executable, "-m", "headway.cli", "up", "--only", "valkey", "--foreground"]
    environment = {**os.environ, **settings.environment()}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as shell:
        assert shell.stdout is not None
        until_ready = [next(shell.stdout) for _ in range(2)]

        shell.send_signal(signal.SIGINT)

        assert shell.wait(15) == 0
    assert until_ready[1].startswith("all ready")
    assert holders([settings.ports.valkey]) == ()


def test_status_is_an_exit_code_and_json(settings: Settings) -> None:
    def status() -> tuple[int, dict[str, Any]]:
        command = [sys.executable, "-m", "headway.cli", "status", "--json"]
        ran = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, **settings.environment()}, check=False
        )
        return ran.returncode, json.loads(ran.stdout)

    down = status()
    up(settings)
    running = status()

    assert (down[0], down[1]["phase"]) == (1, "down")
    assert (running[0], running[1]["phase"]) == (0, "ready")
    assert running[1]["processes"][0]["memory_mb"] > 0


def test_reset_erases_what_headway_made_and_nothing_else(settings: Settings, tmp_path: Path) -> None:
    up(settings)
    lifecycle.reset(settings, say=quiet)
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "chapter-1").touch()

    with pytest.raises(PermanentFailure, match="did not make it"):
        lifecycle.reset(Settings(state=foreign), say=quiet)

    assert not settings.state.exists()
    assert (foreign / "chapter-1").exists()


def test_a_folder_that_holds_something_else_is_not_taken_for_state(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "photograph").touch()

    with pytest.raises(PermanentFailure, match="holds something else"):
        up(Settings(state=tmp_path, ports=settings.ports))


def test_twenty_seconds_are_enough_for_three_cycles_and_nothing_stays(settings: Settings) -> None:
    began = time.monotonic()

    for _ in range(3):
        up(settings)
        lifecycle.down(settings, say=quiet)

    assert time.monotonic() - began < 20
    assert marked(STACK_VARIABLE, str(settings.state)) == ()
