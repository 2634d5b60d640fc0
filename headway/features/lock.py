"""Which meaning each view version has had: one line per version, committed beside the domain (SEMANTICS S19, S20).

A version's hash is written down once and never changed, so that an edited definition of a version that topics, tables
and models already carry fails when definitions load, on every machine, and not when its values are compared. A line
outlives its definition: a version that was removed cannot come back as something else.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from headway.errors import ContractViolation

LOCK_FILE = "views.lock"
COMMAND = "headway features lock"
_HEAD = f"# The meaning of every view version, for good. `{COMMAND}` adds lines; a changed view is a new version.\n"


class Versioned(Protocol):
    """What has a version with one meaning."""

    @property
    def qualified(self) -> str:
        """Name with version, e.g. ``origin_delay.v1``."""

    @property
    def name(self) -> str:
        """Name without version."""

    @property
    def version(self) -> int:
        """Version, from 1."""

    @property
    def digest(self) -> str:
        """Hash of the meaning."""


def read_lock(path: Path) -> dict[str, str]:
    """Return digest by qualified name; no file is an empty lock.

    Raises:
        ContractViolation: a line is not a name and a hash, or a name stands twice.
    """
    if not path.exists():
        return {}
    locked: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("#") or not line.strip():
            continue
        name, _, digest = line.partition(" ")
        if not digest or locked.setdefault(name, digest) != digest:
            raise ContractViolation(
                f"{path.name} line {number}: got {line!r}, wanted a view version and its hash, once"
            )
    return locked


def check_locked(views: Iterable[Versioned], locked: Mapping[str, str], *, where: str) -> None:
    """Refuse definitions whose hash is not the one written down.

    Raises:
        ContractViolation: a version has another meaning than it had, or none is written down; says the way out.
    """
    for view in views:
        known = locked.get(view.qualified)
        if known is None:
            raise ContractViolation(
                f"{where}: {view.qualified} is not in it; add it with `{COMMAND}` and commit the file"
            )
        if known != view.digest:
            raise ContractViolation(
                f"{where}: {view.qualified} has hash {view.digest}, wanted {known}: its definition was edited, and what "
                f"topics, tables and models hold under that name means something else. Restore it, and make the change "
                f"{view.name} version {view.version + 1}"
            )


def extended(views: Iterable[Versioned], locked: Mapping[str, str], *, where: str) -> dict[str, str]:
    """Return the lock with the versions it lacks; what it has stays.

    Raises:
        ContractViolation: a version has another meaning than it had.
    """
    chosen = list(views)
    check_locked([view for view in chosen if view.qualified in locked], locked, where=where)
    return {**locked, **{view.qualified: view.digest for view in chosen}}


def write_lock(path: Path, locked: Mapping[str, str]) -> None:
    """Write the lock in name order."""
    path.write_text(_HEAD + "".join(f"{name} {locked[name]}\n" for name in sorted(locked)), encoding="utf-8")
