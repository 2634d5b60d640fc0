"""How our tables in SQLite files are opened: a connection for each use, one transaction each.

Connections are cheap, and one may not be shared by threads.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Another process holds the lock for milliseconds; longer is a writer that hangs, and waiting does not mend it.
_LOCK_TIMEOUT_S = 5.0


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Give a connection to the file at ``path``: committed when the block ends, rolled back when it raises."""
    connection = sqlite3.connect(path, timeout=_LOCK_TIMEOUT_S)
    try:
        with connection:
            yield connection
    finally:
        connection.close()
