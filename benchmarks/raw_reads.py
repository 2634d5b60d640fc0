"""P5's floor: the same fields of the same keys in one pipeline, by the standard client and by a bare socket, not decoded.

Both send what our own reader sends: one HMGET per entity with all fields of its views, and one per view for watermark and
mark. Neither decodes a value, judges a row, or could share its connection.
"""

import socket
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import hiredis
import redis

from headway.adapters.feast_layout import Value, decode_value, entity_key, hash_fields
from headway.adapters.redis_marks import MARK, WATERMARK, watermark_key
from headway.features.services import FeatureService, feature_service
from products.catalogue import find_product

Command = tuple[bytes | str, ...]
_LARGEST_READ = 1 << 16


class _Commands:
    """The commands of each flight, and where each feature's value is in the replies."""

    def __init__(self, project: str, flights: Sequence[dict[str, str]]) -> None:
        self.service: FeatureService = feature_service(find_product("flight_delay"))
        self._project = project
        self._kinds: dict[tuple[str, ...], list[bytes]] = {}
        self.places: list[tuple[int, int]] = []
        self.of = [self._of(flight) for flight in flights]
        starts = {names: len(self.service.served) + kind for kind, names in enumerate(self._kinds)}
        taken = dict.fromkeys(self._kinds, 0)
        for served in self.service.served:
            names = tuple(sorted(served.view.keys))
            for _ in served.features:
                self.places.append((starts[names], taken[names]))
                taken[names] += 1
            taken[names] += 1  # the row's instant

    def _of(self, flight: dict[str, str]) -> list[Command]:
        kinds: dict[tuple[str, ...], list[bytes]] = {}
        for served in self.service.served:
            fields = hash_fields(served.view.online_name, served.features)
            kinds.setdefault(tuple(sorted(served.view.keys)), []).extend(fields)
        self._kinds = kinds
        marks: Iterator[Command] = (
            ("HMGET", watermark_key(self._project, served.view.online_name), WATERMARK, MARK)
            for served in self.service.served
        )
        rows: Iterator[Command] = (
            ("HMGET", entity_key(self._project, {name: flight[name] for name in names}), *fields)
            for names, fields in kinds.items()
        )
        return [*marks, *rows]


class PipelineRead:
    """redis-py's pipeline over hiredis, not transactional: what most people would write."""

    name = "redis-py pipeline"

    def __init__(self, url: str, project: str, flights: Sequence[dict[str, str]]) -> None:
        self._commands = _Commands(project, flights)
        self._redis = redis.Redis.from_url(url)

    def read(self, place: int) -> list[Any]:  # Any: what the commands reply
        """The replies of one flight."""
        with self._redis.pipeline(transaction=False) as pipe:
            for command in self._commands.of[place % len(self._commands.of)]:
                pipe.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py
            return pipe.execute()

    def values(self, place: int) -> tuple[Value, ...]:
        """The same, decoded: for the check that all read the same."""
        return _decoded(self._commands, self.read(place))


class SocketRead:
    """A blocking socket and hiredis's packer and parser: as little as Python can do."""

    name = "bare socket"

    def __init__(self, url: str, project: str, flights: Sequence[dict[str, str]]) -> None:
        address = urlsplit(url)
        self._commands = _Commands(project, flights)
        self._socket = socket.create_connection((str(address.hostname), int(address.port or 0)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()

    def read(self, place: int) -> list[Any]:  # Any: what the commands reply
        """The replies of one flight."""
        commands = self._commands.of[place % len(self._commands.of)]
        self._socket.sendall(b"".join([hiredis.pack_command(command) for command in commands]))  # type: ignore[arg-type]
        replies: list[Any] = []
        while len(replies) < len(commands):
            reply = self._reader.gets()
            if reply is False:
                self._reader.feed(self._socket.recv(_LARGEST_READ))
            else:
                replies.append(reply)
        return replies

    def values(self, place: int) -> tuple[Value, ...]:
        """The same, decoded: for the check that all read the same."""
        return _decoded(self._commands, self.read(place))


def _decoded(commands: _Commands, replies: Sequence[Any]) -> tuple[Value, ...]:
    return tuple(decode_value(replies[command][field]) for command, field in commands.places)
