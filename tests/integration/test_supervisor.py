"""The supervisor with real processes: what starts, what is left, and when."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headway.errors import PermanentFailure
from headway.local.processes import ProcessId, descendants, identify, is_alive
from tests.supervised import FAILING, PARENT, POLITE, STUBBORN, TASK, Stack, until

pytestmark = pytest.mark.integration


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    running = Stack(tmp_path)
    yield running
    running.close()


def started(pid: int) -> ProcessId:
    process = identify(pid)
    assert process is not None
    return process


def test_each_process_starts_when_what_it_depends_on_is_ready_and_stops_before_it(stack: Stack) -> None:
    stack.start(
        {"name": "page", "code": POLITE, "depends_on": ["job"]},
        {"name": "job", "code": POLITE, "depends_on": ["log"]},
        {"name": "log", "code": POLITE},
    )
    stack.until_ready()

    stack.keeper.send_signal(signal.SIGTERM)

    assert stack.wait() == 0
    starts = [(name, "started") for name in ("log", "job", "page")]
    assert [*starts, *((name, "flushed") for name in ("page", "job", "log"))] == stack.notes()
    assert stack.everything() == ()


def test_every_process_is_announced_with_the_time_it_took(stack: Stack) -> None:
    stack.start({"name": "log", "code": POLITE})
    stack.until_ready()
    stack.ask("stop")

    stack.wait()

    said = stack.said().splitlines()
    assert said[0].split()[:3] == ["log", "ready", "after"]
    assert said[1].startswith("all ready after")
    assert said[-1].startswith("stopped in")


def test_a_killed_process_is_started_again_and_the_restart_is_recorded(stack: Stack) -> None:
    stack.start({"name": "log", "code": POLITE})
    stack.until_ready()
    first = stack.process("log")

    os.kill(first["pid"], signal.SIGKILL)
    until(lambda: stack.process("log")["restarts"] == 1)
    second = stack.until_state("log", "ready")

    assert first["pid"] != second["pid"]
    assert second["last_end"] == "killed by SIGKILL"


def test_a_nice_process_is_nice_to_other_sessions_too(stack: Stack) -> None:
    stack.start({"name": "log", "code": POLITE}, {"name": "bulk", "code": POLITE, "niceness": 5})
    stack.until_ready()
    log, bulk = (stack.process(name)["pid"] for name in ("log", "bulk"))

    assert [os.getpriority(os.PRIO_PROCESS, pid) for pid in (log, bulk)] == [0, 5]
    # Where the kernel shares the cores out by session, that alone would count among its own threads only.
    shared = Path(f"/proc/{bulk}/autogroup")
    assert not shared.exists() or shared.read_text().split()[-1] == "5"


def test_a_task_is_done_when_it_ended_well_and_what_depends_on_it_follows(stack: Stack) -> None:
    stack.start(
        {"name": "job", "code": POLITE, "depends_on": ["topics"]}, {"name": "topics", "code": TASK, "task": True}
    )
    stack.until_ready()

    assert stack.process("topics")["state"] == "done"
    assert stack.notes() == [("topics", "did it"), ("job", "started")]


def test_what_never_gets_ready_stops_everything_and_its_last_words_are_shown(stack: Stack) -> None:
    stack.start({"name": "log", "code": POLITE}, {"name": "broken", "code": FAILING})

    assert stack.wait() == 1
    said = stack.said()
    assert "broken: ended with exit code 3, 3 times before it was ready" in said
    assert "no configuration" in said
    assert stack.everything() == ()


def test_what_another_start_cannot_mend_is_said_once_and_not_tried_again(stack: Stack) -> None:
    stack.start({"name": "log", "code": POLITE}, {"name": "broker", "code": POLITE, "lacks": "Java"})

    assert stack.wait() == 1
    assert stack.said().count("broker: Java is not installed; install it") == 1


def test_a_process_that_ignores_sigterm_is_killed_when_its_time_is_up(stack: Stack) -> None:
    stack.start({"name": "deaf", "code": STUBBORN, "stop_timeout_s": 0.5}, {"name": "log", "code": POLITE})
    stack.until_ready()
    began = time.monotonic()

    stack.ask("stop")

    assert stack.wait() == 0
    assert time.monotonic() - began < 15
    assert stack.everything() == ()


def test_a_chain_of_stubborn_processes_is_gone_within_fifteen_seconds(stack: Stack) -> None:
    """Each may take 10 s, which adds up to 30; the stop as a whole may not."""
    names = ["a", "b", "c"]
    stack.start(
        *(
            {"name": name, "code": STUBBORN, "stop_timeout_s": 10.0, "depends_on": names[:n]}
            for n, name in enumerate(names)
        )
    )
    stack.until_ready()
    began = time.monotonic()

    stack.ask("stop")

    stack.wait()
    assert time.monotonic() - began < 15
    assert stack.everything() == ()


def test_no_grandchild_and_no_zombie_outlives_a_process(stack: Stack) -> None:
    """One grandchild stayed in the group, the other left it; both ignore SIGTERM."""
    stack.start({"name": "parent", "code": PARENT})
    stack.until_ready()
    first = stack.process("parent")["pid"]
    grandchildren = [started(int(what.split("-")[1])) for _, what in stack.notes()]
    supervisor = stack.ask("status")["pid"]

    os.kill(first, signal.SIGKILL)
    until(lambda: stack.process("parent")["restarts"] == 1)
    stack.until_state("parent", "ready")

    assert len(grandchildren) == 2
    assert not any(is_alive(each) for each in grandchildren)
    assert len(descendants(supervisor)) == 3, "the new parent with its two, and no zombie"


@pytest.mark.parametrize("victim", ["supervisor", "keeper"])
def test_killing_supervisor_or_keeper_leaves_nothing(stack: Stack, victim: str) -> None:
    stack.start(
        {"name": "parent", "code": PARENT, "stop_timeout_s": 0.5},
        {"name": "deaf", "code": STUBBORN, "stop_timeout_s": 0.5},
    )
    stack.until_ready()
    supervisor = stack.ask("status")["pid"]
    everything = [started(pid) for pid in (supervisor, *descendants(supervisor))]

    os.kill(supervisor if victim == "supervisor" else stack.keeper.pid, signal.SIGKILL)

    until(lambda: not any(is_alive(each) for each in everything))
    assert len(everything) == 5
    until(lambda: stack.everything() == ())


def test_a_paused_process_stays_away_until_it_is_resumed(stack: Stack) -> None:
    stack.start({"name": "log", "code": POLITE})
    stack.until_ready()
    pid = stack.process("log")["pid"]

    stack.ask("pause", "log")
    paused = stack.until_state("log", "paused")
    stack.ask("resume", "log")
    resumed = stack.until_state("log", "ready")

    assert paused["pid"] is None
    assert (resumed["pid"] != pid, 0) == (True, resumed["restarts"])


def test_a_request_for_a_process_that_is_not_there_names_those_that_are(stack: Stack) -> None:
    stack.start({"name": "log", "code": POLITE})
    stack.until_ready()

    with pytest.raises(PermanentFailure, match=r"'job'.*found: log"):
        stack.ask("restart", "job")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_ctrl_c_and_a_closed_terminal_stop_in_order(stack: Stack, number: signal.Signals) -> None:
    stack.start({"name": "log", "code": POLITE})
    stack.until_ready()

    stack.keeper.send_signal(number)

    assert stack.wait() == 0
    assert stack.notes() == [("log", "started"), ("log", "flushed")]


def test_instances_are_added_and_taken_away_while_the_others_run(stack: Stack) -> None:
    stack.start({"name": "job", "code": POLITE, "most": 4})
    stack.until_ready()
    first = stack.process("job")["pid"]

    stack.scale("job", 3, held=False)
    three = stack.until_ready_instances("job", 3)
    stack.scale("job", 1, held=False)
    one = stack.until_ready_instances("job", 1)

    assert (three, one) == ({"job", "job-1", "job-2"}, {"job"})
    assert stack.process("job")["pid"] == first
    assert {name for name, what in stack.notes() if what == "flushed"} == {"job-1", "job-2"}


def test_an_instance_on_its_way_out_that_is_wanted_again_comes_back(stack: Stack) -> None:
    stack.start({"name": "job", "code": POLITE, "most": 2})
    stack.until_ready()
    stack.scale("job", 2, held=False)
    stack.until_ready_instances("job", 2)
    pid = stack.process("job-1")["pid"]

    stack.scale("job", 1, held=False)
    stack.scale("job", 2, held=False)

    until(lambda: stack.process("job-1")["pid"] not in (None, pid))
    stack.until_ready_instances("job", 2)


def test_the_number_of_instances_outlives_the_supervisor(stack: Stack) -> None:
    stack.start({"name": "job", "code": POLITE, "most": 4})
    stack.until_ready()
    stack.scale("job", 2, held=True)
    stack.until_ready_instances("job", 2)
    stack.ask("stop")
    stack.wait()
    stack.keeper.stdout.close()  # type: ignore[union-attr]  # a pipe by its start

    stack.start({"name": "job", "code": POLITE, "most": 4})
    stack.until_ready()

    assert stack.until_ready_instances("job", 2) == {"job", "job-1"}
    assert stack.ask("status")["instances"] == {"job": {"instances": 2, "held": True, "ready": 2, "most": 4}}


def test_more_instances_than_have_work_are_refused_and_nothing_changes(stack: Stack) -> None:
    stack.start({"name": "job", "code": POLITE, "most": 2}, {"name": "log", "code": POLITE})
    stack.until_ready()

    for instances in (0, 3):
        with pytest.raises(PermanentFailure, match=f"got {instances} instances, wanted 1 to 2: no more have work"):
            stack.scale("job", instances, held=True)
    with pytest.raises(PermanentFailure, match=r"'log'.*found: job"):
        stack.scale("log", 2, held=True)

    assert stack.ask("status")["instances"]["job"] == {"instances": 1, "held": False, "ready": 1, "most": 2}


def test_an_extra_instance_that_never_gets_ready_is_tried_again_and_stops_nothing(stack: Stack) -> None:
    broken = "sys.exit(3) if os.environ['HEADWAY_PART'] == 'job-1' else None" + POLITE
    stack.start({"name": "job", "code": broken, "most": 2})
    stack.until_ready()

    stack.scale("job", 2, held=False)

    until(lambda: stack.process("job-1")["restarts"] > 3)
    assert (stack.ask("status")["phase"], stack.process("job")["state"]) == ("ready", "ready")
