"""From events to labelled vectors, asked exactly as production asks.

Request features come from the product's one scalar function, views from the instant the product asks at, vectors from
the one assembler. Refuses periods whose labels are not mature (SEMANTICS S18). What bites: vectors are built row by row
on purpose (about 25 us a row in all), because a second, vectorised implementation of a feature is how training and
serving drift apart.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from headway.clock import format_us
from headway.contracts import Reference
from headway.drift import Window
from headway.errors import ContractViolation, InputRejected
from headway.evaluation import Bools, Floats, Ints
from headway.features.definitions import FeatureView
from headway.features.offline import REVISION, ROW_TIME
from headway.product import EXAMPLE_COLUMNS, Product
from headway.vector import Assembler, Number, RequestValues

Texts = NDArray[np.object_]
AS_OF, REQUEST = "as_of_us", "request"
# (view, queries with the view's keys and as_of_us) -> a frame with the view's columns, in the queries' order.
ValuesAt = Callable[[FeatureView, pl.DataFrame], pl.DataFrame]


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """Labelled rows, one per thing asked about, sorted by (window_us, subject).

    Attributes:
        frame: the product's example columns, ``as_of_us``, the ``request`` as JSON, its features, and view values as
            ``<view>__<column>``.
        window: the interval of ``window_us`` the rows come from.
        known_at_us: labels known later than this are not in it.
        excluded: how many examples have no label, by outcome.
        view_digests: of the views the values come from.
    """

    frame: pl.DataFrame
    window: Window
    known_at_us: int
    excluded: Mapping[str, int]
    view_digests: Mapping[str, str]
    reference_version: str


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """Labelled vectors: ``x`` is (n, f) float64 in the order of ``assembler.columns``; the rest has shape (n,).

    ``days`` is the local day of ``window_us`` as a count of days; ``slices`` holds the product's slices by name.
    """

    assembler: Assembler
    x: Floats
    labels: Bools
    window_us: Ints
    days: Ints
    slices: Mapping[str, Texts]

    def take(self, rows: Bools) -> "Matrix":
        """Return the chosen rows."""
        return Matrix(
            assembler=self.assembler,
            x=self.x[rows],
            labels=self.labels[rows],
            window_us=self.window_us[rows],
            days=self.days[rows],
            slices={name: values[rows] for name, values in self.slices.items()},
        )

    def between(self, window: Window) -> "Matrix":
        """Return the rows inside a window."""
        return self.take((self.window_us >= window.from_us) & (self.window_us < window.until_us))


def training_set(
    product: Product,
    *,
    events: pl.DataFrame,
    reference: Reference,
    values_at: ValuesAt,
    window: Window,
    known_at_us: int,
    views_shift_us: int,
) -> TrainingSet:
    """Return the labelled rows of a mature window.

    Args:
        product: whose rows.
        events: the lake's events that the product's ``examples`` reads; at least those of the window.
        reference: static data for request features.
        values_at: reads views as of instants; from events or changelog, the values are the same.
        window: of the examples' ``window_us``.
        known_at_us: the watermark; labels known later do not exist yet.
        views_shift_us: 0; the leak test alone reads views this much earlier than in truth.

    Raises:
        ContractViolation: no examples, labels not mature, or the product's functions break their declarations.
    """
    examples = _examples(product, events=events, window=window)
    mature_us = int(examples["due_us"].max()) + product.gate.maturity_us  # type: ignore[arg-type]  # int64, no nulls
    if known_at_us < mature_us:
        raise ContractViolation(
            f"training set {product.name} {window}: labels mature at {format_us(mature_us)}, events are known until "
            f"{format_us(known_at_us)}; end the window earlier or wait (S18)"
        )
    known = (pl.col("label").is_not_null() & (pl.col("label_known_at_us") <= known_at_us)).fill_null(value=False)
    labelled, rest = examples.filter(known), examples.filter(~known)
    asked = _asked(product, labelled, reference)
    asked = asked.with_columns(pl.col(AS_OF) - views_shift_us)  # ages count from the instant the views are read
    queries = labelled.with_columns(asked[AS_OF])
    views = [_view_values(product, view, queries, values_at) for view in product.feature_views]
    return TrainingSet(
        frame=pl.concat([labelled.select(EXAMPLE_COLUMNS), asked, *views], how="horizontal"),
        window=window,
        known_at_us=known_at_us,
        excluded=dict(rest.group_by("outcome").len().sort("outcome").iter_rows()),
        view_digests=product.view_digests,
        reference_version=reference.version,
    )


def learn_categories(product: Product, rows: TrainingSet) -> dict[str, tuple[str, ...]]:
    """Return the values each category has in the rows, sorted; a value's place is its code."""
    return {name: tuple(sorted(rows.frame[name].drop_nulls().unique())) for name in product.categories}


def assemble(product: Product, rows: TrainingSet, *, assembler: Assembler) -> Matrix:
    """Return the rows as vectors, made one by one by the assembler that serves; about 10 us a row."""
    x = np.empty((rows.frame.height, len(assembler.columns)), dtype=np.float64)
    for position, (request, views, as_of_us) in enumerate(vector_inputs(product, rows)):
        x[position] = assembler.row(request, views, as_of_us)
    window_us = rows.frame["window_us"].to_numpy()
    named = sorted({*product.slices, product.drift_slice})
    return Matrix(
        assembler=assembler,
        x=x,
        labels=rows.frame["label"].to_numpy().astype(np.bool_),
        window_us=window_us,
        days=local_days(window_us, product.drift.zone),
        slices={name: rows.frame[name].to_numpy().astype(object) for name in named},
    )


def vector_inputs(
    product: Product, rows: TrainingSet
) -> Iterator[tuple[RequestValues, dict[str, tuple[Number, ...]], int]]:
    """Yield what the assembler takes, row by row: request features, view values, as-of."""
    declared = [*product.numbers, *product.categories]
    views = [rows.frame.select(_value_names(product, view)).iter_rows() for view in product.feature_views]
    names = list(product.feature_views)
    requests = rows.frame.select(declared).iter_rows()
    for request, as_of_us, *values in zip(requests, rows.frame[AS_OF], *views, strict=True):
        yield dict(zip(declared, request, strict=True)), dict(zip(names, values, strict=True)), as_of_us


def local_days(instants_us: Ints, zone: str) -> Ints:
    """Return the local day of each instant as days since 1970: the blocks of the bootstrap."""
    local = pl.Series(instants_us, dtype=pl.Int64).cast(pl.Datetime("us", "UTC")).dt.convert_time_zone(zone)
    return local.dt.date().cast(pl.Int32).cast(pl.Int64).to_numpy()


def values_from_changelog(tables: Mapping[str, pl.DataFrame]) -> ValuesAt:
    """Return a point-in-time reader of changelog tables (by qualified view): the newest row not after the as-of.

    Of rows with equal timestamps the greatest revision counts (S4). An entity without a row gets nulls, where the
    event engine says count 0; the assembler reads both as 0. Columns that a table was not read with are left out;
    ``row_time_us`` and ``revision`` say which row it is.
    """

    def read(view: FeatureView, queries: pl.DataFrame) -> pl.DataFrame:
        keys, table = list(view.keys), tables[view.qualified]
        columns = [name for name in view.columns if name in table.columns]
        instant = pl.col("event_timestamp").dt.timestamp("us").alias(AS_OF)
        rows = table.select(*keys, instant, "revision", *columns).sort(AS_OF, "revision")
        if rows["revision"].max():  # of an instant that was never told again there is one row
            rows = rows.unique([*keys, AS_OF], keep="last", maintain_order=True)
        rows = rows.with_columns(pl.col(AS_OF).alias(ROW_TIME))
        asked = queries.select(pl.col(keys).cast(pl.String), AS_OF).with_row_index("row").sort(AS_OF)
        joined = asked.join_asof(rows, on=AS_OF, by=keys, strategy="backward", check_sortedness=False)
        return joined.sort("row").select(*columns, ROW_TIME, REVISION)

    return read


def _examples(product: Product, *, events: pl.DataFrame, window: Window) -> pl.DataFrame:
    examples = product.examples(events)
    missing = [name for name in EXAMPLE_COLUMNS if name not in examples.columns]
    if missing:
        raise ContractViolation(f"product {product.name}: examples lack {missing} (found: {examples.columns})")
    examples = examples.filter(pl.col("window_us").is_between(window.from_us, window.until_us, closed="left"))
    if examples.is_empty():
        raise ContractViolation(f"training set {product.name} {window}: no examples; are the events in the lake?")
    return examples.sort("window_us", "subject")


def _asked(product: Product, examples: pl.DataFrame, reference: Reference) -> pl.DataFrame:
    """Return as-of, request and request features of the examples; one call of the scalar function per row."""
    fields = [name for name in product.request.__struct_fields__ if name != "as_of"]
    rows: list[tuple[Any, ...]] = []
    for values in examples.select(fields).iter_rows():
        request = product.request(**dict(zip(fields, values, strict=True)))
        as_of_us = product.asked_at_us(request)
        try:
            features = product.compute_request_features(request, reference, as_of_us)
        except InputRejected as error:
            raise ContractViolation(f"product {product.name}: an accepted event has no features: {error}") from error
        given = (features[name] for name in (*product.numbers, *product.categories))
        rows.append((as_of_us, msgspec.json.encode(request).decode(), *given))
    schema = {AS_OF: pl.Int64, REQUEST: pl.String}
    schema |= dict.fromkeys(product.numbers, pl.Float64) | dict.fromkeys(product.categories, pl.String)
    return pl.DataFrame(rows, schema=schema, orient="row")


def _view_values(product: Product, qualified: str, queries: pl.DataFrame, values_at: ValuesAt) -> pl.DataFrame:
    view = product.feature_views[qualified]
    values = values_at(view, queries.select(*view.keys, AS_OF))
    return values.select(
        pl.col(feature).alias(name)
        for feature, name in zip(product.use(qualified).features, _value_names(product, qualified), strict=True)
    )


def _value_names(product: Product, qualified: str) -> list[str]:
    view = product.feature_views[qualified]
    return [f"{view.name}__{feature}" for feature in product.use(qualified).features]
