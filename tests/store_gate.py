"""Shows that a read is one round trip: a client that waits for an answer before it has asked everything gets none."""

import contextlib
import socket
import threading
from urllib.parse import urlsplit

import hiredis

_HELD_AT_MOST_S = 10.0


class Gate:
    """Stands between a reader and the store; once told so, it lets no answer through before so many commands have come."""

    def __init__(self, redis_url: str) -> None:
        address = urlsplit(redis_url)
        self._store = (str(address.hostname), int(address.port or 0))
        self._door = socket.create_server(("127.0.0.1", 0))
        self._opened = threading.Event()
        self._opened.set()
        self.url = f"redis://127.0.0.1:{self._door.getsockname()[1]}/0"
        self.missing = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def hold(self, commands: int) -> None:
        """Begin; nothing may be on its way."""
        self._opened.clear()
        self.missing = commands

    def _serve(self) -> None:
        client, _ = self._door.accept()
        store = socket.create_connection(self._store)
        threading.Thread(target=self._pass_answers, args=(store, client), daemon=True).start()
        reader = hiredis.Reader()
        with contextlib.suppress(OSError), store:  # either side may have gone already
            while data := client.recv(1 << 16):
                reader.feed(data)
                while reader.gets() is not False:
                    self.missing -= 1
                store.sendall(data)
                if self.missing <= 0:
                    self._opened.set()
            store.shutdown(socket.SHUT_RDWR)  # closing alone does not wake who waits for it

    def _pass_answers(self, store: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            while data := store.recv(1 << 16):
                self._opened.wait(_HELD_AT_MOST_S)
                client.sendall(data)

    def close(self) -> None:
        """Take nobody else, and let go of what is held."""
        self._opened.set()
        self._door.close()
