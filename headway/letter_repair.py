"""Repairs of an event's bytes: set or remove what a JSON path names. Pure; says nothing about whether the event is valid.

A path is ``$.data.legs[0].delay``; ``$.`` may be left out. What bites: a value is read as JSON when it is JSON, so
``5`` is a number and ``'"5"'`` a text, and anything that is no JSON is a text as it stands.
"""

import re
from collections.abc import Sequence
from typing import Any

import orjson

from headway.errors import InputRejected

Key = str | int
_PART = re.compile(r"\.?([A-Za-z_][\w-]*)|\[(\d{1,6})\]")


def parse_path(text: str) -> tuple[Key, ...]:
    """Return the keys and indices that a path names, outermost first.

    Raises:
        InputRejected: it is no path.
    """
    rest = text.removeprefix("$").removeprefix(".")
    keys: list[Key] = []
    while rest:
        part = _PART.match(rest)
        if part is None:
            break
        keys.append(part.group(1) if part.group(2) is None else int(part.group(2)))
        rest = rest[part.end() :]
    if rest or not keys:
        raise InputRejected(f"path: got {text!r}, wanted one like $.data.legs[0].delay")
    return tuple(keys)


def parse_setting(text: str) -> tuple[tuple[Key, ...], Any]:  # Any: whatever JSON holds
    """Return path and value of ``PATH=VALUE``.

    Raises:
        InputRejected: it has no ``=``, or the path is none.
    """
    path, equals, value = text.partition("=")
    if not equals:
        raise InputRejected(f"--set: got {text!r}, wanted PATH=VALUE, e.g. data.dep_delay_min=5")
    try:
        return parse_path(path), orjson.loads(value)
    except orjson.JSONDecodeError:
        return parse_path(path), value


def repaired(
    raw: bytes, *, settings: Sequence[tuple[tuple[Key, ...], Any]], removals: Sequence[tuple[Key, ...]]
) -> bytes:
    """Return the event with settings made and then removals; what they do not name stays as it is.

    Raises:
        InputRejected: the bytes are no JSON object, or a path leads nowhere.
    """
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InputRejected(
            f"event: not JSON ({error}), so no path leads into it; give the whole event by --file"
        ) from error
    for path, value in settings:
        _set(document, path, value)
    for path in removals:
        _remove(document, path)
    return orjson.dumps(document)


def _set(document: Any, path: tuple[Key, ...], value: Any) -> None:  # Any: decoded JSON
    parent, last = _parent(document, path), path[-1]
    in_object = isinstance(parent, dict) and isinstance(last, str)
    in_list = isinstance(parent, list) and isinstance(last, int) and last < len(parent)
    if not (in_object or in_list):
        raise _nowhere(path, parent)
    parent[last] = value


def _remove(document: Any, path: tuple[Key, ...]) -> None:  # Any: decoded JSON
    parent = _parent(document, path)
    last = path[-1]
    try:
        del parent[last]
    except (KeyError, IndexError, TypeError):
        raise _nowhere(path, parent) from None


def _parent(document: Any, path: tuple[Key, ...]) -> Any:  # Any: decoded JSON
    here = document
    for key in path[:-1]:
        try:
            here = here[key]
        except (KeyError, IndexError, TypeError):
            raise _nowhere(path, here) from None
    return here


def _nowhere(path: Sequence[Key], found: Any) -> InputRejected:  # Any: decoded JSON
    keys = sorted(map(str, found)) if isinstance(found, dict) else type(found).__name__
    return InputRejected(f"path: {written(path)} leads nowhere in this event (found there: {str(keys)[:200]})")


def written(path: Sequence[Key]) -> str:
    """Return a path as text."""
    return "$" + "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
