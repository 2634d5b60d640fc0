"""What becomes of the events of a request: a record each, or a letter and the problem that the client is told.

One bad event never costs the others: each is judged for itself, the batch as a whole only where that decides the same.
"""

import msgspec

from headway.errors import InputRejected
from headway.letter_causes import failing_path
from headway.letters import Letter
from headway.ports import Record
from headway.problem import Problem
from headway.topics import EVENTS_RAW_LETTERS
from serving.collector_envelope import Stamp, TooLarge
from serving.collector_modes import Form, split, structured


class Judged(msgspec.Struct, gc=False):
    """One event of a request: the record to write, and the problem to answer once that is acknowledged, if any."""

    record: Record | None
    event_id: str | None = None
    problem: Problem | None = None


def judge(form: Form, raw: bytes, stamp: Stamp) -> Judged:
    """Judge one event."""
    try:
        record, event_id = stamp.accept(structured(form, raw))
    except InputRejected as refusal:
        return letter_of_request(raw, refusal, form.letter_headers)
    except TooLarge as refusal:
        return Judged(None, problem=Problem(413, "too-large", str(refusal)))
    return Judged(record, event_id)


def judge_all(form: Form, body: bytes, stamp: Stamp) -> list[Judged]:
    """Judge each event of a batch.

    Raises:
        InputRejected: the body is no batch, so that there are no single events to keep.
    """
    if form.mode == "batch":
        quickly = stamp.accept_all(body)
        if quickly is not None:
            return [Judged(record, event_id) for record, event_id in quickly]
    return [judge(form, raw, stamp) for raw in split(form, body)]


def letter_of_request(raw: bytes, refusal: InputRejected, headers: tuple[tuple[str, bytes], ...]) -> Judged:
    """Give the letter that keeps what was sent, and the 400 that says why."""
    detail = str(refusal)
    letter = Letter(
        reason="invalid-envelope",
        detail=detail,
        stage="collector",
        original=raw,
        path=failing_path(detail),
        headers=headers,
    )
    return Judged(letter.to_record(EVENTS_RAW_LETTERS), problem=Problem(400, "invalid-envelope", detail))
