"""A supervisor with real processes, for tests: scripts to keep, and the stack that keeps them."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headway.errors import HeadwayError
from headway.local.control import ask
from headway.local.processes import ProcessId, marked

PATIENCE_S = 30.0

# One line per event, with its instant, in the file named by the variable.
NOTE = """
import os, signal, sys, time
def note(what):
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(f"{os.environ['HEADWAY_PART']} {what} {os.getpid()}\\n")
"""
# Ready after a moment; on SIGTERM it flushes for a moment, then ends.
POLITE = """
def leave(*_):
    time.sleep(0.1)
    note("flushed")
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
note("started")
time.sleep(0.1)
open(os.environ["READY"], "w").close()
while True:
    time.sleep(60)
"""
STUBBORN = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
note("started")
open(os.environ["READY"], "w").close()
while True:
    time.sleep(60)
"""
# Leaves behind one grandchild in its group and one that went to a session of its own, both deaf to SIGTERM.
PARENT = """
import subprocess
sleeper = [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"]
for apart in (False, True):
    note(f"grandchild-{subprocess.Popen(sleeper, start_new_session=apart).pid}")
open(os.environ["READY"], "w").close()
while True:
    time.sleep(60)
"""
FAILING = """
sys.stderr.write("no configuration\\n")
sys.exit(3)
"""
TASK = """
note("did it")
"""

DRIVER = """
import json, os, sys
from pathlib import Path
from headway.errors import PermanentFailure
from headway.local.control import ControlSocket, write_whole
from headway.local.instances import Instances
from headway.local.keeper import run_kept
from headway.local.plan import Process, Scalable
from headway.local.supervisor import Supervisor

folder = Path(sys.argv[1])
def process(name, code, depends_on=(), task=False, lacks=None, most=1, **other):
    ready_file = folder / f"{name}.ready"
    def command():
        if lacks is not None:
            raise PermanentFailure(f"{lacks} is not installed; install it")
        ready_file.unlink(missing_ok=True)
        return [sys.executable, "-c", code]
    env = {"READY": str(ready_file), "NOTES": str(folder / "notes")}
    ready = None if task else ready_file.exists
    return Process(name=name, command=command, ready=ready, env=env, depends_on=tuple(depends_on), **other)

def scalable(given):
    def instance(number):
        name = given["name"] if number == 0 else f"{given['name']}-{number}"
        return process(**{**given, "name": name, "vital": number == 0})
    return Scalable(name=given["name"], instance=instance, most=given["most"], limit="no more have work")

given = json.loads(sys.argv[2])
instances = Instances([scalable(each) for each in given if "most" in each], file=folder / "instances.json")

def work():
    control = ControlSocket(folder / "control.sock")
    try:
        return Supervisor(
            [process(**each) for each in given],
            instances=instances, log_dir=folder, environment={**os.environ, "HEADWAY_TEST": str(folder)}, control=control,
            say=lambda line: print(line, flush=True),
            record=lambda facts: write_whole(folder / "record.json", json.dumps(facts)),
        ).run()
    finally:
        control.close()

sys.exit(run_kept(work))
"""


class Stack:
    """A supervisor, under its keeper, in a process of its own; everything in it carries this test's mark."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._keeper: subprocess.Popen[str] | None = None

    def start(self, *processes: dict[str, Any]) -> None:
        given = [{**each, "code": NOTE + textwrap.dedent(each["code"])} for each in processes]
        command = [sys.executable, "-c", DRIVER, str(self.folder), json.dumps(given)]
        self._keeper = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "HEADWAY_TEST": str(self.folder)}
        )

    @property
    def keeper(self) -> subprocess.Popen[str]:
        assert self._keeper is not None
        return self._keeper

    def ask(self, do: str, name: str | None = None) -> dict[str, Any]:
        return ask(self.folder / "control.sock", {"do": do, "name": name})

    def scale(self, name: str, instances: int | None, *, held: bool) -> dict[str, Any]:
        request = {"do": "scale", "name": name, "instances": instances, "held": held}
        return ask(self.folder / "control.sock", request)

    def until_ready_instances(self, name: str, count: int) -> set[str]:
        """Wait until so many are ready and no other is there; give their names."""

        def settled() -> bool:
            facts = self.ask("status")
            states = [each["state"] for each in facts["processes"]]
            return bool(facts["instances"][name]["ready"] == count and states == ["ready"] * count)

        until(settled)
        return {each["name"] for each in self.ask("status")["processes"]}

    def process(self, name: str) -> dict[str, Any]:
        return next(each for each in self.ask("status")["processes"] if each["name"] == name)

    def until_ready(self) -> None:
        until(lambda: self.ask("status")["phase"] == "ready")

    def until_state(self, name: str, state: str) -> dict[str, Any]:
        until(lambda: self.process(name)["state"] == state)
        return self.process(name)

    def wait(self) -> int:
        return self.keeper.wait(PATIENCE_S)

    def said(self) -> str:
        assert self.keeper.stdout is not None
        return self.keeper.stdout.read()

    def notes(self) -> list[tuple[str, str]]:
        """(process, event), in order."""
        lines = (self.folder / "notes").read_text().splitlines()
        return [(line.split()[0], " ".join(line.split()[1:-1])) for line in lines]

    def everything(self) -> tuple[ProcessId, ...]:
        return marked("HEADWAY_TEST", str(self.folder))

    def close(self) -> None:
        if self._keeper is None:
            return
        for process in self.everything():
            os.kill(process.pid, signal.SIGKILL)
        self.keeper.wait(PATIENCE_S)
        if self.keeper.stdout is not None:
            self.keeper.stdout.close()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            if holds():
                return
        except HeadwayError:
            pass
        assert time.monotonic() < deadline, "waited long enough"
        time.sleep(0.02)
