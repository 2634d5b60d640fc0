"""A server of another maker that a test starts, kills, stops and starts again."""

import subprocess
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

STOP_TIMEOUT_S = 15.0


@dataclass
class ServerProcess(ABC):
    """One process at a time; what it is and when it is ready its kind says."""

    process: "subprocess.Popen[bytes] | None" = field(default=None, kw_only=True)

    @abstractmethod
    def ready(self) -> bool: ...

    def wait_until_ready(self, *, timeout_s: float, log: Path) -> None:
        assert self.process is not None
        deadline = time.monotonic() + timeout_s
        while not self.ready():
            assert self.process.poll() is None, f"{type(self).__name__} died; see {log}"
            assert time.monotonic() < deadline, f"{type(self).__name__} is not ready; see {log}"
            time.sleep(0.1)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        try:
            self.process.wait(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
