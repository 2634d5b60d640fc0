"""What a drive sends: real bodies of the flights' history under keys and ids of its own, with faulty ones mixed in.

Every key counts its events (``seq``), so that loss and disorder have names. Times are those of history and rise, so the
feature jobs work as they would in a replay. Every type of the domain names an ``origin`` that the reference must know.
"""

import random
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec
import orjson

from domains.flights.source import iter_events
from headway.clock import DAY_US, parse_instant_us
from headway.events import MAX_EVENT_BYTES, Event, encode_event
from streaming.accounts import digest_of

Kind = Literal[
    "valid", "duplicate", "unknown-type", "schema-violation", "enrichment-refused", "invalid-envelope", "oversize"
]
# Accepted, and then a letter of this reason.
LETTERS: Mapping[str, str] = {
    "unknown-type": "unknown-type",
    "schema-violation": "schema-violation",
    "enrichment-refused": "enrichment-refused",
}
# A retry repeats what was sent seconds ago.
_RECENT = 2_000
HISTORY_FROM_US = parse_instant_us("2013-03-01T00:00:00Z", field="start")
HISTORY_UNTIL_US = parse_instant_us("2014-01-01T00:00:00Z", field="end")
_DAYS_AT_A_TIME = 60
# History's 2,800 events a day would make the 48 h of event time for which repeats are known (S12) pass in 15 s of load:
# a repeat held up by a broker's restart would rightly count as new. So time runs slower, here 48 h in some 5 min.
_TIME_SLOWER = 20
USUAL_MIX: Mapping[Kind, float] = {
    "duplicate": 0.03,
    "unknown-type": 0.01,
    "schema-violation": 0.01,
    "enrichment-refused": 0.01,
    "invalid-envelope": 0.01,
    "oversize": 0.001,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """One event to send, as bytes; ``time_us`` is the event's own time."""

    id: str
    key: str
    seq: int
    kind: Kind
    body: bytes
    time_us: int

    @property
    def digest(self) -> int:
        """Digest of the bytes."""
        return digest_of(self.body)


def plan_sends(*, run: str, keys: int, mix: Mapping[Kind, float], generator: random.Random) -> Iterator[Send]:
    """Yield sends until history ends (about 850,000), their kinds drawn by the shares of ``mix``, the rest valid."""
    kinds = list(mix)
    seqs = dict.fromkeys(range(keys), 0)
    recent: deque[Send] = deque(maxlen=_RECENT)
    for event in _history():
        draw = generator.random()
        for kind in kinds:
            if draw < mix[kind]:
                break
            draw -= mix[kind]
        else:
            kind = "valid"
        if kind == "duplicate" and recent:
            # The history's event is spent for it: times must not come out of step.
            yield _again(generator.choice(recent))
            continue
        number = generator.randrange(keys)
        seqs[number] += 1
        send = _send(event, run=run, number=number, seq=seqs[number], kind="valid" if kind == "duplicate" else kind)
        if send.kind == "valid":
            recent.append(send)
        yield send


def _history() -> Iterator[Event]:
    step_us = _DAYS_AT_A_TIME * DAY_US
    for start_us in range(HISTORY_FROM_US, HISTORY_UNTIL_US, step_us):
        yield from iter_events(start_us, min(start_us + step_us, HISTORY_UNTIL_US))


def _again(send: Send) -> Send:
    return Send(id=send.id, key=send.key, seq=send.seq, kind="duplicate", body=send.body, time_us=send.time_us)


def _send(event: Event, *, run: str, number: int, seq: int, kind: Kind) -> Send:
    key = f"{run}-{number:03d}"
    name = f"{key}-{seq:06d}"
    time_us = HISTORY_FROM_US + (event.time_us - HISTORY_FROM_US) // _TIME_SLOWER
    own = msgspec.structs.replace(event, id=name, subject=key, time_us=time_us)
    return Send(id=name, key=key, seq=seq, kind=kind, body=_spoiled(own, kind), time_us=time_us)


def _spoiled(event: Event, kind: Kind) -> bytes:
    match kind:
        case "unknown-type":
            return encode_event(msgspec.structs.replace(event, type="chaos.unheard-of.v1"))
        case "schema-violation":
            return encode_event(msgspec.structs.replace(event, data={**event.data, "origin": 7}))
        case "enrichment-refused":
            return encode_event(msgspec.structs.replace(event, data={**event.data, "origin": "QQQ"}))
        case "invalid-envelope":
            document = orjson.loads(encode_event(event))
            del document["subject"]
            return orjson.dumps(document)
        case "oversize":
            return encode_event(msgspec.structs.replace(event, data={**event.data, "padding": "x" * MAX_EVENT_BYTES}))
        case _:
            return encode_event(event)
