"""The model's input: one contiguous float64 vector, put together by one function in training, batch and serving.

Request features come first, then the views in the order the product names them. A null number is NaN, a category the
model has not seen is NaN, a count nobody contributed to is 0, and ``last_at`` becomes the seconds since (SEMANTICS S1).
Refuses to guess: a request feature that is missing is an error, a view that is unavailable gets its declared defaults
and says so (S10). What bites: a view's values are positional, aligned with the features its `ViewUse` names.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from headway.clock import SECOND_US
from headway.errors import ContractViolation

Floats = NDArray[np.float64]
Number = float | int | None
RequestValues = Mapping[str, float | str | None]
# The values of each view by qualified name, aligned with the features used; None = the view is unavailable (S10).
ViewValues = Mapping[str, Sequence[Number] | None]

Kind = Literal["number", "category", "count", "age"]
_NAN = float("nan")


class Column(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One position of the vector.

    Attributes:
        name: as models and plots show it, e.g. ``origin_delay__count_1h``.
        source: the request feature, or the view's column.
        view: qualified name, None for a request feature.
        categories: the values a category had in training; a value's place is its code.
        default: what the vector gets when the view is unavailable; None = NaN.
    """

    name: str
    kind: Kind
    source: str
    view: str | None = None
    categories: tuple[str, ...] = ()
    default: float | None = None


class Assembler:
    """Puts vectors together in the order of the columns; about 8 us for 50 columns."""

    def __init__(self, columns: Sequence[Column]) -> None:
        """Prepare the order.

        Raises:
            ContractViolation: columns of one view do not stand together behind the request features.
        """
        self.columns = tuple(columns)
        self._request = [
            (
                c.source,
                {value: float(code) for code, value in enumerate(c.categories)} if c.kind == "category" else None,
            )
            for c in columns
            if c.view is None
        ]
        order = [c.view for c in columns]
        self.views: tuple[str, ...] = tuple(dict.fromkeys(view for view in order if view is not None))
        grouped = [None] * len(self._request) + [view for name in self.views for view in order if view == name]
        if order != grouped:
            raise ContractViolation(f"vector: got columns of {order}, wanted request features first, then view by view")
        self._views = [(view, *_of_view([c for c in columns if c.view == view])) for view in self.views]

    def assemble(self, request: RequestValues, views: ViewValues, as_of_us: int) -> Floats:
        """Return the vector of one request, shape (f,).

        Raises:
            ContractViolation: a request feature or a view is missing, or a view has another number of values.
        """
        return np.array(self.row(request, views, as_of_us), dtype=np.float64)

    def row(self, request: RequestValues, views: ViewValues, as_of_us: int) -> list[float]:
        """Return the same values as ``assemble`` as a list, for callers that fill a matrix."""
        row: list[float] = []
        try:
            for name, codes in self._request:
                value = request[name]
                if value is None:
                    row.append(_NAN)
                elif codes is None:
                    row.append(value)  # type: ignore[arg-type]  # a number: the product's declaration is checked once
                else:
                    row.append(codes.get(value, _NAN))  # type: ignore[arg-type]  # a text, as declared
            for view, nulls, ages, defaults in self._views:
                values = views[view]
                if values is None:
                    row.extend(defaults)
                    continue
                start = len(row)
                row += [null if value is None else value for value, null in zip(values, nulls, strict=True)]
                for place in ages:
                    row[start + place] = (as_of_us - row[start + place]) / SECOND_US  # NaN stays NaN
        except KeyError as error:
            raise ContractViolation(f"vector: {error.args[0]!r} is missing (found: {[*request, *views]})") from error
        except ValueError as error:
            raise ContractViolation(
                f"vector: view {view} has {len(values or ())} values, wanted {len(nulls)}"
            ) from error
        return row

    def matrix(self, asked: Sequence[tuple[RequestValues, ViewValues, int]]) -> Floats:
        """Return the vectors of many requests, shape (n, f), each bit for bit as ``assemble`` gives it.

        Raises:
            ContractViolation: as ``assemble``.
        """
        found = np.empty((len(asked), len(self.columns)), dtype=np.float64)
        if not asked:
            return found
        try:
            for place, (name, codes) in enumerate(self._request):
                values = [request[name] for request, _, _ in asked]
                # A null becomes NaN: numbers by numpy itself, categories as no code has that name.
                found[:, place] = values if codes is None else [codes.get(value, _NAN) for value in values]  # type: ignore[arg-type]  # as `row`
            start = len(self._request)
            for view, nulls, ages, defaults in self._views:
                end = start + len(nulls)
                found[:, start:end] = [_filled(views[view], nulls, defaults) for _, views, _ in asked]
                for place in ages:
                    # Divided by Python, which rounds once however far off an instant is.
                    found[:, start + place] = [
                        _age_s(views[view], place, defaults[place], as_of_us) for _, views, as_of_us in asked
                    ]
                start = end
        except (KeyError, ValueError):
            for each in asked:
                self.row(*each)  # says which, where and why
            raise
        return found

    def outage(self, matrix: Floats, view: str) -> Floats:
        """Return the matrix as it would be with one view unavailable: its columns at their declared defaults."""
        without = matrix.copy()
        for position, column in enumerate(self.columns):
            if column.view == view:
                without[:, position] = _NAN if column.default is None else column.default
        return without


def _filled(values: Sequence[Number] | None, nulls: Sequence[float], defaults: Sequence[float]) -> Sequence[float]:
    if values is None:
        return defaults
    return [null if value is None else value for value, null in zip(values, nulls, strict=True)]


def _age_s(values: Sequence[Number] | None, place: int, default: float, as_of_us: int) -> float:
    if values is None:
        return default
    since_us = values[place]
    return _NAN if since_us is None else (as_of_us - since_us) / SECOND_US


def _of_view(columns: Sequence[Column]) -> tuple[list[float], list[int], list[float]]:
    nulls = [0.0 if c.kind == "count" else _NAN for c in columns]
    defaults = [_NAN if c.default is None else c.default for c in columns]
    return nulls, [place for place, c in enumerate(columns) if c.kind == "age"], defaults
