"""Where a process that chose its own port can be asked how it is: one small file, written whole.

The first instance of a job has a port of the settings. Another one listens where the system lets it and says so here.
What bites: a killed process leaves its file; whoever starts the next one removes it first.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from headway.errors import ContractViolation


@dataclass(frozen=True, kw_only=True)
class Announcement:
    """What a process says of itself: its name within the stack, and where its health and metrics are."""

    name: str
    host: str
    port: int
    pid: int

    def write(self, file: Path) -> None:
        """Write the file so that a reader sees all of it or nothing."""
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f".{file.name}.{os.getpid()}")
        draft.write_text(json.dumps(asdict(self), sort_keys=True), encoding="utf-8")
        draft.replace(file)


def read_announcement(file: Path) -> Announcement | None:
    """Return what stands in the file; None when there is none.

    Raises:
        ContractViolation: it holds something else.
    """
    try:
        return Announcement(**json.loads(file.read_bytes()))
    except FileNotFoundError:
        return None
    except (TypeError, ValueError) as error:
        raise ContractViolation(f"{file}: not an announcement ({error}). Remove it and restart its process.") from error
