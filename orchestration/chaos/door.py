"""One HTTP door, asked by hundreds of posts at once: what is left of a client when nothing may slow the schedule down.

A pooling client looks through all its connections at every request, which at some hundred requests under way, as in an
outage, takes more of a core than there is. Here an idle connection is taken or a new one made, and that is all. A
connection that the server closed while it was idle is dropped unused, so nothing is ever sent twice by itself.
"""

import asyncio
from dataclasses import dataclass
from urllib.parse import urlsplit

# Far above what a batch's answer has; a stranger's endless answer is a reset.
_MOST_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True)
class Answer:
    """Status, content type and body of a response."""

    status: int
    content_type: str
    body: bytes


class Unreachable(Exception):
    """No connection was made, so nothing was sent."""


class Door:
    """An address that takes posts."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, path: str, body: bytes, *, content_type: str) -> Answer:
        """Return the answer to one post.

        Raises:
            Unreachable: nothing was sent.
            OSError, EOFError, ValueError: the connection broke, or what came is no answer.
        """
        reader, writer = await self._connection()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: {self._host}:{self._port}\r\ncontent-type: {content_type}\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        kept = False
        try:
            writer.write(head.encode() + body)
            await writer.drain()
            answer, kept = await _answer(reader)
        finally:
            if kept:
                self._idle.append((reader, writer))
            else:
                writer.close()
        return answer

    def close(self) -> None:
        """Close what is idle."""
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        try:
            return await asyncio.open_connection(self._host, self._port)
        except OSError as error:
            raise Unreachable(str(error)) from error


async def _answer(reader: asyncio.StreamReader) -> tuple[Answer, bool]:
    """The answer, and whether the connection may be used again."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    version, status, *_ = lines[0].split(" ")
    fields = {}
    for line in filter(None, lines[1:]):
        name, _, value = line.partition(":")
        fields[name.strip().lower()] = value.strip()
    length = fields.get("content-length")
    stays = version == "HTTP/1.1" and fields.get("connection", "").lower() != "close" and length is not None
    body = await (reader.read(_MOST_BYTES) if length is None else reader.readexactly(min(int(length), _MOST_BYTES)))
    return Answer(int(status), fields.get("content-type", ""), body), stays
