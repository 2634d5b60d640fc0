"""Where the rows of a frame surely are requests: what msgspec checks of one, as an expression over many.

Derived from the request's own type, so that a batch refuses what the API refuses. Says yes only when it is sure: a row it
does not vouch for is asked one by one, and msgspec itself says what is wrong with it. Checks of a request's own
``__post_init__`` cannot be derived; a product says them in its ``in_bulk``.
"""

from typing import Any

import msgspec
import polars as pl
from msgspec import inspect

from headway.errors import ContractViolation


def accepted(request: type[msgspec.Struct]) -> pl.Expr:
    """Return where rows with the request's fields, without ``as_of``, meet each field's own type and limits.

    Raises:
        ContractViolation: a field is none of text, number and instant.
    """
    told = inspect.type_info(request)
    assert isinstance(told, inspect.StructType)
    fields = [field for field in told.fields if field.name != "as_of"]
    return pl.all_horizontal(_accepted(request.__name__, field.name, field.type) for field in fields)


def _accepted(owner: str, name: str, kind: Any) -> pl.Expr:  # Any: msgspec gives each kind of type a class of its own
    if isinstance(kind, inspect.Metadata):
        return _accepted(owner, name, kind.type)
    column = pl.col(name)
    match kind:
        case inspect.UnionType():
            given = [each for each in kind.types if not isinstance(each, inspect.NoneType)]
            # Of null, an expression over the value says null.
            return column.is_null() | _accepted(owner, name, given[0]).fill_null(value=False)
        case inspect.StrType():
            return _text(column, kind)
        case inspect.IntType() | inspect.FloatType():
            return _number(column, kind)
        case inspect.DateTimeType():
            return column.is_not_null()
    raise ContractViolation(f"{owner}.{name}: got {kind}, wanted text, number or instant, or one of them | None")


def _text(column: pl.Expr, kind: inspect.StrType) -> pl.Expr:
    rules = [column.is_not_null()]
    if kind.pattern is not None:
        rules.append(column.str.contains(kind.pattern))
    if kind.min_length is not None:
        rules.append(column.str.len_chars() >= kind.min_length)
    if kind.max_length is not None:
        rules.append(column.str.len_chars() <= kind.max_length)
    return pl.all_horizontal(rules)


def _number(column: pl.Expr, kind: inspect.IntType | inspect.FloatType) -> pl.Expr:
    rules = [column.is_not_null()]
    for limit, rule in ((kind.gt, column.gt), (kind.ge, column.ge), (kind.lt, column.lt), (kind.le, column.le)):
        if limit is not None:
            rules.append(rule(limit))
    if kind.multiple_of is not None:
        rules.append(column % kind.multiple_of == 0)
    if isinstance(kind, inspect.FloatType):
        # NaN is greater than every limit here, and no JSON.
        rules.append(column.cast(pl.Float64).is_finite())
    return pl.all_horizontal(rules)
