"""How other processes talk to a running supervisor: one JSON line there, one JSON line back, over a unix socket.

The socket's folder belongs to the user alone, which is all the access control there is. What bites: a unix socket's
path may have 107 bytes and no more, so `Settings.sockets` gives a folder that is short enough.
"""

import contextlib
import json
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from headway.errors import PermanentFailure, TransientFailure

# Both ends are on this machine and the answer is ready; who needs longer is stuck, and must not hold the loop.
_EXCHANGE_S = 2.0
# A probe of readiness may hold the supervisor's loop for a second or two; a preparation (formatting a disk) for longer.
_ANSWER_S = 10.0

# Any JSON object: requests and answers are checked where they are read.
Message = Mapping[str, Any]


class ControlSocket:
    """The supervisor's end: `fileno` for its selector, `answer` when that says somebody called."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.unlink(missing_ok=True)
        self._path = path
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen(8)
        self._listener.setblocking(False)

    def fileno(self) -> int:
        """Give what a selector waits on."""
        return self._listener.fileno()

    def answer(self, handle: Callable[[Message], Message]) -> None:
        """Take one caller and answer it; a caller that breaks off or talks nonsense is only turned away."""
        try:
            caller, _ = self._listener.accept()
        except BlockingIOError:
            return
        with caller, contextlib.suppress(OSError):
            caller.settimeout(_EXCHANGE_S)
            try:
                request = json.loads(_read_line(caller))
                reply = handle(request if isinstance(request, dict) else {})
            except ValueError as error:
                reply = {"error": f"not a line of JSON: {error}"}
            caller.sendall(json.dumps(reply).encode() + b"\n")

    def close(self) -> None:
        """Stop listening and remove the socket's file."""
        self._listener.close()
        self._path.unlink(missing_ok=True)


def ask(path: Path, request: Message) -> dict[str, Any]:
    """Give the supervisor's answer to one request.

    Raises:
        TransientFailure: nobody answers there (not started, starting, or gone).
        PermanentFailure: the supervisor refused the request; the message is its own.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.settimeout(_ANSWER_S)
            line.connect(str(path))
            line.sendall(json.dumps(request).encode() + b"\n")
            answer = json.loads(_read_line(line))
    except (OSError, ValueError) as error:
        raise TransientFailure(
            f"supervisor: nobody answers at {path} ({error}). Start it with `headway up`; if it should be running, "
            "see log/supervisor.log in the state folder."
        ) from error
    if "error" in answer:
        raise PermanentFailure(f"supervisor: {answer['error']}")
    return dict(answer)


def write_whole(path: Path, text: str) -> None:
    """Replace a file so that a reader sees the old text or the new one, never half of it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _read_line(line: socket.socket) -> bytes:
    received = bytearray()
    while not received.endswith(b"\n"):
        chunk = line.recv(65_536)
        if not chunk:
            break
        received += chunk
    return bytes(received)
