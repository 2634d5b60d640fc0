"""Stream jobs as processes of a test, as many instances as it likes, against a broker of its own."""

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headway.announcement import read_announcement
from headway.settings import Settings

PATIENCE_S = 60.0


def until(holds: Callable[[], bool], *, told: Callable[[], object] = lambda: "") -> None:
    """Wait until something holds; say what was seen when it does not."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, told()
        time.sleep(0.05)


def readiness(host: str, port: int) -> Mapping[str, Any]:
    """What /readyz answers; ``ready`` false while nobody does."""
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", "/readyz")
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException):
        return {"ready": False}
    else:
        return answer
    finally:
        connection.close()


def samples(host: str, port: int, name: str) -> list[float]:
    """A metric of whoever listens there, one value for each set of labels."""
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    finally:
        connection.close()
    return [float(line.split()[-1]) for line in lines if line.startswith((f"{name}{{", f"{name} "))]


@dataclass
class JobProcess:
    """One instance of a job; ``before`` is Python that runs in its process first, to plant a bug."""

    job: str
    instance: int
    settings: Settings
    before: str = ""
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def announced(self) -> Path:
        return self.settings.state / "jobs" / f"{self.job}-{self.instance}.json"

    def start(self) -> None:
        self.announced.unlink(missing_ok=True)
        code = f"{self.before}\nimport sys\nfrom streaming.main import main\nsys.exit(main())"
        flags = ["--instance", str(self.instance), "--health-port", "0", "--announce", str(self.announced)]
        self.log = self.settings.state / f"{self.job}-{self.instance}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code, self.job, *flags],
                env={**os.environ, **self.settings.environment()},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def says(self) -> Mapping[str, Any]:
        """What /readyz answers; ``ready`` false while nobody does."""
        said = read_announcement(self.announced)
        return {"ready": False} if said is None else readiness(said.host, said.port)

    def metric(self, name: str) -> float:
        """One of its metrics, labels left aside."""
        said = read_announcement(self.announced)
        assert said is not None
        (value,) = samples(said.host, said.port, name)
        return value

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        """SIGKILL, and proof that this is how it ended."""
        assert self.process is not None
        self.process.kill()
        assert self.process.wait(PATIENCE_S) == -9

    def stop(self) -> int:
        """SIGTERM; gives the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(PATIENCE_S)


@dataclass
class Crew:
    """Instances of jobs that run together."""

    settings: Settings
    before: str = ""
    members: list[JobProcess] = field(default_factory=list)

    def add(self, job: str, instances: Sequence[int]) -> list[JobProcess]:
        added = [JobProcess(job, number, self.settings, self.before) for number in instances]
        for each in added:
            each.start()
        self.members += added
        return added

    def shares(self, job: str) -> dict[int, list[str]]:
        """What each ready instance of a job owns."""
        said = {each.instance: each.says() for each in self.members if each.job == job}
        return {instance: answer["owned"] for instance, answer in said.items() if answer["ready"]}

    def until_shared(self, job: str, *, working: int, idle: int) -> dict[int, list[str]]:
        """Wait until so many own something and so many nothing; give who owns what."""

        def settled() -> bool:
            owned = list(self.shares(job).values())
            return (sum(map(bool, owned)), owned.count([])) == (working, idle)

        until(settled, told=lambda: self.shares(job))
        return self.shares(job)

    def close(self) -> None:
        for each in self.members:
            if each.process is not None and each.process.poll() is None:
                each.process.kill()
                each.process.wait()
