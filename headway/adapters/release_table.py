"""The release table: where each product's release stands, and every transition, in one SQLite file.

State and transitions are written together, so a controller that starts again finds what its predecessor recorded and
nothing half. Refuses to decide: `headway.release` does. What bites: one writer, the release guard; others read.
"""

from dataclasses import fields
from pathlib import Path

import msgspec

from headway.adapters.sqlite import opened
from headway.errors import ContractViolation
from headway.release import Change, ProductState, Transition

_SCHEMA = """
CREATE TABLE IF NOT EXISTS product (name TEXT PRIMARY KEY, state TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS transition (
    at_us INTEGER NOT NULL, product TEXT NOT NULL, release INTEGER NOT NULL, version INTEGER,
    digest TEXT NOT NULL, before TEXT, after TEXT NOT NULL, reason TEXT NOT NULL, cause TEXT NOT NULL
);
"""
_COLUMNS = ", ".join(f.name for f in fields(Transition))
_MARKS = ", ".join("?" for _ in fields(Transition))


class ReleaseTable:
    """The table in one file; made when it is not there. Safe to use from several threads and processes."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        with opened(self._path) as table:
            table.executescript(_SCHEMA)

    def states(self) -> dict[str, ProductState]:
        """Return the recorded state of every product that has one."""
        with opened(self._path) as table:
            rows = table.execute("SELECT name, state FROM product ORDER BY name").fetchall()
        try:
            return {name: msgspec.json.decode(state, type=ProductState) for name, state in rows}
        except msgspec.DecodeError as error:
            raise ContractViolation(
                f"release table {self._path.name}: {error}. Another version of Headway wrote it; remove it, and the "
                "champions are released again."
            ) from error

    def record(self, change: Change) -> None:
        """Write a state and the transitions that led to it, both or neither."""
        state = msgspec.json.encode(change.state).decode()
        lines = [tuple(getattr(line, f.name) for f in fields(line)) for line in change.transitions]
        with opened(self._path) as table:
            table.execute("INSERT OR REPLACE INTO product VALUES (?, ?)", (change.state.product, state))
            table.executemany(f"INSERT INTO transition ({_COLUMNS}) VALUES ({_MARKS})", lines)  # noqa: S608 - our names

    def transitions(self, product: str) -> list[Transition]:
        """Return a product's transitions, oldest first."""
        query = f"SELECT {_COLUMNS} FROM transition WHERE product = ? ORDER BY rowid"  # noqa: S608 - our names
        with opened(self._path) as table:
            rows = table.execute(query, (product,)).fetchall()
        names = [f.name for f in fields(Transition)]
        return [msgspec.convert(dict(zip(names, row, strict=True)), type=Transition) for row in rows]
