"""What makes two letters the same case: a fingerprint of the cause, with everything taken out that only one event has.

A client that sends a text for a number a million times is one cause; what bites is a detail that carries the value (an
id, a time, a number), since each would then be a cause of its own and each would alert.
"""

import hashlib
import re
import traceback
from pathlib import PurePath

_DIGEST_CHARS = 12
# msgspec ends its errors so; values of its own it never shows, only types and field names, in backquotes.
_EXPECTED = re.compile(r"\bExpected `[^`]+`, got `")
_AT = re.compile(r" - at `(\$[^`]*)`$")
_NAMED = re.compile(r"(?:missing required|contains unknown) field `([^`]{1,100})`")
# Our own, of `headway.errors.InputRejected`; "event" there means the whole document.
_FIELD = re.compile(r"^([A-Za-z_][\w.\[\]]*): (?:got|missing)\b")
_MASKS = (
    # First, as a value may be cut in the middle of its quotes, which would then pair with the wrong ones.
    (re.compile(r"\bgot (?=['\"\d\-\[{]).*(?=, (?:wanted|which)\b)", re.DOTALL), "got <value>"),
    (re.compile(r"\(found: [^)]*\)?"), "(found: ...)"),
    (re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""), "<value>"),
    (re.compile(r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b|\b[0-9a-fA-F]{16,}\b"), "<id>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d[\d:.]*(?:Z|[+-]\d\d:\d\d)?"), "<time>"),
    (re.compile(r"-?\d+(?:\.\d+)?"), "<n>"),
)
_INDEX = re.compile(r"\[\d+\]")


def failing_path(detail: str, *, inside: str = "$") -> str | None:
    """Return the JSON path that a refusal names, or None when it names none.

    Understands msgspec's errors (``... - at `$.legs[2].origin```, missing and unknown fields) and our own form
    (``field: got ..., wanted ...``). ``inside`` is where the judged document stands in the event: ``$.data`` for bodies.
    """
    at = _AT.search(detail)
    named = _NAMED.search(detail)
    if at is not None or named is not None or _EXPECTED.search(detail):
        path = inside + (at.group(1)[1:] if at else "")
        return f"{path}.{named.group(1)}" if named else path
    field = _FIELD.match(detail)
    if field is None:
        return None
    return inside if field.group(1) == "event" else f"{inside}.{field.group(1)}"


def without_values(detail: str) -> str:
    """Return the detail with numbers, quoted values, ids and times masked: equal for all letters of one cause."""
    for pattern, mask in _MASKS:
        detail = pattern.sub(mask, detail)
    return detail


def fingerprint(*, reason: str, event_type: str | None, path: str | None, detail: str, stack: str | None) -> str:
    """Return the short name of a cause; the same on every machine and in every version that words it alike."""
    where = _INDEX.sub("[*]", path or "")
    parts = (reason, event_type or "", where, without_values(detail), stack or "")
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:_DIGEST_CHARS]


def stack_digest(error: BaseException) -> str:
    """Return a short name for where an error arose: its type and its chain of functions.

    Line numbers are left out on purpose, so that a deployment that moves code does not make an old bug a new cause.
    """
    frames = [f"{PurePath(frame.filename).name}:{frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
    text = "\x1f".join([type(error).__qualname__, *frames])
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_CHARS]
