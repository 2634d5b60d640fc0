"""A letter as a person reads it: every fact, the original bytes made safe, and the failing place marked.

The bytes come from strangers: nothing of them reaches a terminal but printable characters.
"""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import orjson

from headway.clock import format_us
from headway.errors import InputRejected
from headway.letter_clusters import Cluster
from headway.letter_repair import parse_path, written
from headway.letter_replay import Filed

# A letter may be 256 KiB; a screen is not.
MAX_LINES = 200
MAX_CELL_CHARS = 400
_MARK = "   <-- "


def safe(text: str) -> str:
    """Return the text with everything a terminal might obey escaped, cut to a readable length."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[: MAX_CELL_CHARS + 1])
    return shown if len(shown) <= MAX_CELL_CHARS else shown[: MAX_CELL_CHARS - 3] + "..."


def facts_of(filed: Filed) -> dict[str, Any]:  # Any: JSON
    """Return a letter's facts without its bytes."""
    letter = filed.letter
    return {
        "id": filed.id,
        "kind": letter.kind,
        "state": filed.fate.state,
        "reason": letter.reason,
        "detail": letter.detail,
        "path": letter.path,
        "event_type": letter.event_type,
        "contract": letter.contract,
        "stage": letter.stage,
        "attempts": letter.attempts,
        "fingerprint": letter.fingerprint,
        "stack": letter.stack,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "written_at": format_us(filed.written_us),
        "previous": letter.previous,
    }


def line_of(filed: Filed) -> str:
    """Return a letter as one line of a list."""
    letter = filed.letter
    where = f" {letter.path}" if letter.path else ""
    return f"{filed.id}  {filed.fate.state}  {letter.reason}{safe(where)}  {safe(letter.detail)}"


def cluster_facts(cluster: Cluster) -> dict[str, Any]:  # Any: JSON
    """Return a cluster as JSON holds it."""
    times = {"first_at": format_us(cluster.first_us), "last_at": format_us(cluster.last_us)}
    return {**asdict(cluster), "states": dict(cluster.states), **times}


def cluster_lines(cluster: Cluster) -> list[str]:
    """Return a cluster as lines of a list."""
    states = ", ".join(f"{count:,} {state}" for state, count in sorted(cluster.states.items()))
    where = " ".join(safe(part) for part in (cluster.event_type, cluster.path) if part)
    return [
        f"{cluster.fingerprint}  {cluster.count:,} ({states})  {cluster.reason}  {where}",
        f"    {safe(cluster.cause)}",
        f"    {format_us(cluster.first_us)} to {format_us(cluster.last_us)}, e.g. {cluster.example}",
    ]


def describe(filed: Filed, *, came_back_as: str | None = None) -> list[str]:
    """Return the lines that tell everything about one letter."""
    lines = [f"{name:<12} {safe(str(value))}" for name, value in facts_of(filed).items() if value is not None]
    lines += [
        f"{'header':<12} {safe(name)}: {safe(value.decode(errors='replace'))}" for name, value in filed.letter.headers
    ]
    for step in filed.fate.steps:
        told = "  ".join(filter(None, (step.note, step.event and f"event {step.event[1]}")))
        lines.append(f"{'step':<12} {step.at}  {safe(f'{step.state} by {step.by}  {told}')}")
    if came_back_as is not None:
        lines.append(f"{'came back':<12} replayed, and rejected again: {came_back_as}")
    lines += ["", f"original, {len(filed.letter.original)} bytes:"]
    lines += show_bytes(filed.letter.original, path=filed.letter.path)
    if filed.fate.body is not None:
        lines += ["", f"repaired, {len(filed.fate.body)} bytes:", *show_bytes(filed.fate.body, path=None)]
    return lines


def show_bytes(raw: bytes, *, path: str | None) -> list[str]:
    """Return an event's bytes as lines; JSON is laid out, with the place that ``path`` names marked."""
    try:
        lines = list(_laid_out(orjson.loads(raw), "$", "", path and _canonical(path)))
    except orjson.JSONDecodeError:
        text = raw.decode(errors="backslashreplace")
        lines = [safe(line) for line in text.splitlines()] or ["(empty)"]
    if len(lines) > MAX_LINES:
        lines = [*lines[:MAX_LINES], f"... {len(lines) - MAX_LINES} more lines"]
    return [f"  {line}" for line in lines]


def _canonical(path: str) -> str:
    try:
        return written(parse_path(path))
    except InputRejected:
        return path


def _laid_out(value: Any, here: str, lead: str, path: str | None) -> Iterator[str]:  # Any: decoded JSON
    mark = f"{_MARK}here" if path == here else ""
    indent = " " * (len(lead) - len(lead.lstrip()))
    if isinstance(value, dict) and value:
        missing = path is not None and path.rpartition(".")[0] == here and path.rpartition(".")[2] not in value
        yield f"{lead}{{{mark}{f'{_MARK}{path} is missing' if path and missing else ''}"
        for key, each in value.items():
            yield from _laid_out(each, f"{here}.{key}", f"{indent}  {safe(orjson.dumps(key).decode())}: ", path)
        yield f"{indent}}}"
    elif isinstance(value, list) and value:
        yield f"{lead}[{mark}"
        for index, each in enumerate(value):
            yield from _laid_out(each, f"{here}[{index}]", f"{indent}  ", path)
        yield f"{indent}]"
    else:
        yield f"{lead}{safe(orjson.dumps(value).decode())}{mark}"
