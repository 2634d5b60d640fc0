"""What makes a definition of features well-formed: every rule a view must keep, each refusal naming field, got, wanted.

Called at construction, so that a view that breaks a rule cannot exist. Knows definitions as values only: whether an
event has a field is the domain's to say (`headway.contracts.Domain`).
"""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from headway.errors import ContractViolation

if TYPE_CHECKING:
    from headway.features.definitions import Aggregate, FeatureView

_NAME = re.compile(r"^[a-z][a-z0-9_]*$")
_MINUTE = timedelta(minutes=1)
# The lake's table of a view has these beside keys and features (`headway.features.changelog`).
RESERVED = frozenset(
    {
        "event_timestamp",
        "created_timestamp",
        "revision",
        "known_at",
        "source",
        "month",
        "topic",
        "partition",
        "offset",
    }
)
# `last` of a field that begins like this would be named like `last_at` or `last_ever` of another field.
_OTHER_FUNCTIONS = ("at", "ever")


def refuse(where: str, field: str, *, got: object, wanted: str) -> ContractViolation:
    """Return the refusal of one field of a definition."""
    return ContractViolation(f"{where}, {field}: got {got!r}, wanted {wanted}")


def check_named(where: str, field: str, name: object, *, example: str) -> None:
    """Refuse what is no name: topics, tables, hash fields and columns are made of it."""
    if not isinstance(name, str) or not _NAME.match(name):
        raise refuse(where, field, got=name, wanted=f"a name like {example} (a-z, 0-9, _)")


def check_keys(where: str, keys: object) -> None:
    """Refuse keys that name no entity: none, one that is no name, one twice, or a column the tables have already."""
    if not isinstance(keys, tuple) or not keys:
        hint = f"; a tuple of one needs its comma: ({keys!r},)" if isinstance(keys, str) else ""
        raise refuse(where, "keys", got=keys, wanted=f"a tuple of event fields that name the entity{hint}")
    for key in keys:
        check_named(where, "keys", key, example="origin")
    if len(set(keys)) != len(keys):
        raise refuse(where, "keys", got=keys, wanted="each field once")
    if taken := RESERVED.intersection(keys):
        raise refuse(where, "keys", got=sorted(taken), wanted=f"none of the columns every view has: {sorted(RESERVED)}")


def check_told(where: str, told: Mapping[str, str]) -> None:
    """Refuse what the catalogue would have to leave out."""
    for field, text in told.items():
        if not isinstance(text, str) or not text.strip():
            raise refuse(where, field, got=text, wanted="a text; the catalogue shows it")


def check_version(where: str, version: object) -> None:
    """Refuse a version that is no count from 1."""
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise refuse(where, "version", got=version, wanted="a whole number from 1")


def check_dtypes(where: str, field: str, dtypes: Mapping[str, object], *, allowed: tuple[str, ...]) -> None:
    """Refuse names that are no names and types that engines do not share."""
    for name, dtype in dtypes.items():
        check_named(where, field, name, example="dep_delay_min")
        if dtype not in allowed:
            raise refuse(where, f"{field}[{name!r}]", got=dtype, wanted=f"one of {allowed}")


def check_minutes(where: str, field: str, duration: object) -> None:
    """Refuse what names and ticks cannot say."""
    if not isinstance(duration, timedelta) or duration < _MINUTE or duration % _MINUTE:
        got = str(duration) if isinstance(duration, timedelta) else duration
        raise refuse(where, field, got=got, wanted="whole minutes, one or more")


def check_aggregate(aggregate: "Aggregate", *, functions: tuple[str, ...]) -> None:
    """Refuse an aggregate without one meaning."""
    if aggregate.function not in functions:
        raise refuse("aggregate", "function", got=aggregate.function, wanted=f"one of {functions}")
    where = f"aggregate {aggregate.function}"
    if aggregate.field is None:
        if aggregate.function not in ("count", "last_at"):
            raise refuse(where, "field", got=None, wanted="the field it reads; only count and last_at go without")
    else:
        check_named(where, "field", aggregate.field, example="dep_delay_min")
        first, _, _ = aggregate.field.partition("_")
        if aggregate.function == "last" and first in _OTHER_FUNCTIONS:
            raise refuse(
                where,
                "field",
                got=aggregate.field,
                wanted=f"another name: last_{aggregate.field} reads as last_{first} of something else",
            )
    if aggregate.function == "last_ever":
        if aggregate.window is not None:
            raise refuse(where, "window", got=aggregate.window, wanted="None: last_ever has no window; `last` has one")
        return
    check_minutes(where, "window", aggregate.window)


def check_view(view: "FeatureView", *, dtypes: tuple[str, ...]) -> None:
    """Refuse a view that would mean nothing, two things, or different things in different engines."""
    check_named("feature view", "name", view.name, example="origin_delay")
    check_version(f"feature view {view.name}", view.version)
    where = f"feature view {view.qualified}"
    check_keys(where, view.keys)
    if not view.source:
        raise refuse(where, "source", got=view.source, wanted="an event type like flight.departed.v1")
    check_dtypes(where, "fields", view.fields, allowed=dtypes)
    if both := sorted(view.fields.keys() & set(view.keys)):
        raise refuse(
            where, "fields", got=both, wanted="fields that are no keys: a key names the entity, all its events share it"
        )
    check_minutes(where, "hop", view.hop)
    if view.lateness != timedelta(0):  # 0 corrects nothing (S6)
        check_minutes(where, "lateness", view.lateness)
    check_minutes(where, "max_lag", view.max_lag)
    if view.max_lag < view.hop:
        raise refuse(
            where,
            "max_lag",
            got=str(view.max_lag),
            wanted=f"the hop {view.hop} or more: watermarks move once per hop, so that every answer would be stale (S10)",
        )
    check_told(where, {"owner": view.owner, "description": view.description})
    if not view.aggregates:
        raise refuse(where, "aggregates", got=view.aggregates, wanted="at least one")
    names = [aggregate.name for aggregate in view.aggregates]
    if len(set(names)) != len(names):
        raise refuse(where, "aggregates", got=names, wanted="each once")
    if clash := sorted({*names} & {*view.keys}):
        raise refuse(where, "keys", got=clash, wanted="names that no feature of the view has")
    for aggregate in view.aggregates:
        _check_in_view(f"{where}, {aggregate.name}", view, aggregate)


def _check_in_view(where: str, view: "FeatureView", aggregate: "Aggregate") -> None:
    if aggregate.field in view.keys:
        raise refuse(
            where, "field", got=aggregate.field, wanted="a field that is no key; every event of an entity has its key"
        )
    if aggregate.field is not None and aggregate.field not in view.fields:
        raise refuse(where, "field", got=aggregate.field, wanted=f"one of the view's fields {sorted(view.fields)}")
    if aggregate.function in ("sum", "mean") and view.fields[str(aggregate.field)] != "int64":
        raise refuse(
            where,
            "field",
            got=f"{aggregate.field}: {view.fields[str(aggregate.field)]}",
            wanted="int64 in a declared unit under sum and mean, so that engines agree bit for bit (S9)",
        )
    if aggregate.window is not None and aggregate.window % view.hop:
        raise refuse(where, "window", got=str(aggregate.window), wanted=f"a multiple of the hop {view.hop} (S1)")
