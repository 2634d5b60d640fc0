"""What a partition remembers of the events it has passed: an identity, what it said, and until when (S12).

Identities are forgotten in buckets of event time, so a tick costs what expires and not what is known. They are kept in
the log in packs, one record for all that one batch of one partition added: a record per event would double the
Enricher's writes. What bites: state that ran ahead of the log calls every event a repeat of itself; after a
transaction that did not commit it must be restored.
"""

import heapq
import struct
from collections.abc import Iterator
from itertools import starmap

from headway.clock import HOUR_US, MINUTE_US
from headway.errors import ContractViolation

# A client's retry budget is minutes; 48 h of event time also covers a producer that replays a day (S12).
HORIZON_US = 48 * HOUR_US
# How much longer than the horizon an identity may be known.
_BUCKET_US = 5 * MINUTE_US
_ENTRY = struct.Struct(">16s8sq")
# A pack of this many is 1/3 MB, well below what a topic takes.
_PACK_ENTRIES = 10_000
_PACK = b"ids/"


class Identities:
    """Identities and contents of one partition."""

    def __init__(self) -> None:
        self._contents: dict[bytes, bytes] = {}
        self._buckets: dict[int, list[bytes]] = {}
        self._due: list[int] = []
        self._packs: list[tuple[int, bytes]] = []
        self._unsaved: list[tuple[bytes, bytes, int]] = []

    def __len__(self) -> int:
        """How many are known."""
        return len(self._contents)

    def content(self, identity: bytes) -> bytes | None:
        """Return what the event with this identity said, or None when it is not known."""
        return self._contents.get(identity)

    def remember(self, identity: bytes, content: bytes, *, time_us: int, tick_us: int | None) -> None:
        """Know an event from now on, for the horizon after its time, or after the newest tick when it came late."""
        since_us = time_us if tick_us is None or time_us > tick_us else tick_us
        bucket = -(-(since_us + HORIZON_US) // _BUCKET_US)
        self._add(identity, content, bucket)
        self._unsaved.append((identity, content, bucket))

    def forget(self, tick_us: int) -> list[bytes]:
        """Forget what expired before a tick; returns the keys of packs that hold nothing else any more."""
        before = tick_us // _BUCKET_US
        while self._due and self._due[0] < before:
            for identity in self._buckets.pop(heapq.heappop(self._due)):
                self._contents.pop(identity, None)
        gone = []
        while self._packs and self._packs[0][0] < before:
            gone.append(heapq.heappop(self._packs)[1])
        return gone

    def packs(self, offset: int) -> Iterator[tuple[bytes, bytes]]:
        """Give key and value of what was remembered since the last call; ``offset`` names the batch, once."""
        unsaved, self._unsaved = self._unsaved, []
        for start in range(0, len(unsaved), _PACK_ENTRIES):
            part = unsaved[start : start + _PACK_ENTRIES]
            key = b"%b%d/%d" % (_PACK, offset, start)
            heapq.heappush(self._packs, (max(bucket for _, _, bucket in part), key))
            yield key, b"".join(starmap(_ENTRY.pack, part))

    def restore(self, key: bytes, value: bytes, *, tick_us: int | None) -> None:
        """Take a pack back, without what the newest tick has made expire: its identities may stand in younger packs.

        Raises:
            ContractViolation: it is none.
        """
        if not key.startswith(_PACK) or len(value) % _ENTRY.size:
            raise ContractViolation(
                f"dedupe state: key {key!r} with {len(value)} bytes is no pack of identities. Was the state written by "
                "another version? Delete the topic state.dedupe; repeats of the last 48 h are then not recognised"
            )
        newest, before = 0, 0 if tick_us is None else tick_us // _BUCKET_US
        for identity, content, bucket in _ENTRY.iter_unpack(value):
            newest = max(newest, bucket)
            if bucket >= before:
                self._add(identity, content, bucket)
        heapq.heappush(self._packs, (newest, key))

    def _add(self, identity: bytes, content: bytes, bucket: int) -> None:
        self._contents[identity] = content
        members = self._buckets.get(bucket)
        if members is None:
            self._buckets[bucket] = [identity]
            heapq.heappush(self._due, bucket)
        else:
            members.append(identity)
