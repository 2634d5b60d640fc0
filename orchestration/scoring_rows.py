"""The rows that every path is asked: logged answers, every other one with its views at the ends of what they may hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from headway.clock import from_us
from headway.predictions import Prediction
from headway.product import Product
from headway.vector import Number

# int64 and float64 at their ends, where a cast shows; 2^53 + 1 is the first integer that a double does not hold.
_INTEGERS = (0, -1, 2**53 + 1, 2**63 - 1, -(2**63), 1)
_FLOATS = (0.0, -0.0, 5e-324, -1.7976931348623157e308, 0.1 + 0.2, 1 / 3)
# Nothing is last before 1970, and nothing that was read lies after it was asked for.
_INSTANTS = (0, 1, 946_684_800_000_001)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row to score: a request that names its as-of, and what each view holds of its entity, by qualified name."""

    name: str
    request: msgspec.Struct
    as_of_us: int
    views: Mapping[str, tuple[Number, ...]]


def rows_of(product: Product, predictions: Sequence[Prediction], *, at_most: int) -> list[Row]:
    """Return logged answers as rows, every other one with its views at the ends of what they may hold.

    Left out are repeated keys, and answers that read nothing or other features than the product's.
    """
    rows: dict[tuple[str | None, ...], Row] = {}
    for logged in predictions:
        held = {(view.view, view.features): view.values for view in logged.views}
        values = {use.view: found for use in product.views if (found := held.get((use.view, use.features))) is not None}
        if values.keys() != product.feature_views.keys():
            continue
        request = msgspec.structs.replace(product.parse_request(bytes(logged.request)), as_of=from_us(logged.as_of_us))
        keys = keys_of(product, request)
        if keys in rows:
            continue
        if len(rows) % 2:
            values = {name: _extreme(product, name, turn=len(rows) // 2 % (len(_FLOATS) + 1)) for name in values}
        # An entity that is not there holds nothing, in the log too.
        values = {n: v if product.entity(n, request) else product.empty_rows[n] for n, v in values.items()}
        rows[keys] = Row(name=logged.receipt, request=request, as_of_us=logged.as_of_us, views=values)
        if len(rows) == at_most:
            break
    return list(rows.values())


def keys_of(product: Product, request: msgspec.Struct) -> tuple[str | None, ...]:
    """Return all keys of a request's entities, in the order of their names."""
    names = sorted({key for view in product.feature_views.values() for key in view.keys})
    values = (getattr(request, name) for name in names)
    return tuple(None if value is None else str(value) for value in values)


def _extreme(product: Product, name: str, *, turn: int) -> tuple[Number, ...]:
    """What a view holds at one of its ends; one turn of each round is null throughout."""
    columns, features = product.feature_views[name].columns, product.use(name).features
    if turn == len(_FLOATS):
        return (None,) * len(features)
    ends: dict[str, tuple[Number, ...]] = {"int64": _INTEGERS, "float64": _FLOATS}
    kinds = [_INSTANTS if feature.startswith("last_at") else ends[columns[feature]] for feature in features]
    return tuple(kind[(turn + place) % len(kind)] for place, kind in enumerate(kinds))
