"""What a batch reads of the lake, in pieces that fit in memory: who would be asked what, and each view's values by then.

Every piece reads the tables at the versions they had when the batch began, so a loader that goes on meanwhile does not
show. A piece is a stretch of time, cut by subject where one holds too many events: events of one subject are always
together. The rows of a view are cut by entity in the same way. What bites: the least that has to fit is what one subject's
and one entity's rows are in a stretch of a week and what it looks back on.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from headway.backfill_events import EVENTS
from headway.batch import SUBJECT, asked_in
from headway.clock import DAY_US, format_us, from_us
from headway.drift import Window
from headway.errors import ContractViolation
from headway.features.changelog import changelog_table
from headway.features.definitions import FeatureView
from headway.features.offline import REVISION, ROW_TIME
from headway.features.slices import events_in, part_count, reach_us, stretches
from headway.lake import TRANSPORT, events_table
from headway.product import Product
from headway.training import AS_OF, values_from_changelog

if TYPE_CHECKING:
    from headway.adapters.delta import Lake

# A thing is announced, happens and ends within days; its events are read this far around the window it belongs to.
AROUND_US = 7 * DAY_US
# Of one piece. One that is shorter than what is around it would mostly read its neighbours.
PIECE_EVENTS = 100_000
_SHORTEST_US = 2 * AROUND_US
# Of a view's changelog at once; 150 MB with what a sort takes.
VALUE_ROWS = 500_000


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A stretch of the as-of, one of so many parts of its subjects; ``events`` are about as many as its questions."""

    number: int
    window: Window
    part: int
    parts: int
    events: int


@dataclass(frozen=True, kw_only=True)
class BatchReads:
    """A product's reads of one lake at fixed versions. Make it with ``pinned``.

    ``value_rows`` is how many rows of a view's changelog are taken at once.
    """

    lake: "Lake"
    product: Product
    versions: Mapping[str, int]
    value_rows: int = VALUE_ROWS

    @classmethod
    def pinned(cls, lake: "Lake", product: Product, interval: Window) -> "BatchReads":
        """Return the reads of the tables as they are now.

        Raises:
            ContractViolation: a view version was not backfilled for the interval; its values would be null, and nothing
                would say so.
        """
        from headway.adapters.delta_gaps import why_incomplete

        versions = {EVENTS: lake.version(EVENTS)}
        for view in product.feature_views.values():
            table = changelog_table(view).name
            # The newest row before the window may be as old as the widest aggregate; older ones say what no row says.
            if why := why_incomplete(lake, view, window=looked_at(view, interval)):
                raise ContractViolation(
                    f"lake table {table}: {why}; materialise the asset features/{view.online_name} for them first"
                )
            versions[table] = lake.version(table)
        return cls(lake=lake, product=product, versions=versions)

    def pieces(self, interval: Window, *, limit: int = PIECE_EVENTS) -> Iterator[Piece]:
        """Yield the pieces of an interval of the as-of, in order."""
        by_day, number = self._by_day(interval), 0
        for window in stretches(interval, by_day, shortest_us=_SHORTEST_US, limit=limit):
            inside = events_in(by_day, window.from_us, window.until_us)
            parts = part_count(events_in(by_day, window.from_us - AROUND_US, window.until_us + AROUND_US), 2 * limit)
            for part in range(parts):
                yield Piece(number=number, window=window, part=part, parts=parts, events=inside // parts)
                number += 1

    def asked(self, piece: Piece) -> pl.DataFrame:
        """Return what the product would have been asked; see `headway.batch.asked_in`."""
        columns = [name for name in events_table(self.product.domain).columns if name not in TRANSPORT]
        mine = pl.col(SUBJECT).hash() % piece.parts == piece.part if piece.parts > 1 else pl.lit(value=True)
        events = self.lake.read(
            EVENTS,
            columns=[*columns, "offset"],
            version=self.versions[EVENTS],
            predicate=self._told(piece.window) & mine,
        )
        return asked_in(self.product, events, piece.window)

    def values(self, name: str, asked: pl.DataFrame, window: Window) -> pl.DataFrame:
        """Return what a view said at each row's as-of, and which row: the features used, ``row_time_us``, ``revision``.

        In the order of the rows; nulls where a row names no such entity, or nothing happened to it in any window.
        """
        view, features = self.product.feature_views[name], self.product.use(name).features
        table = changelog_table(view).name
        rows = self.lake.scan(table, version=self.versions[table]).filter(_between(looked_at(view, window)))
        rows = rows.select(*view.keys, "event_timestamp", "revision", *features)
        queries = asked.select(pl.col(view.keys).cast(pl.String), AS_OF).with_row_index("row")
        found = []
        for part in range(parts := part_count(rows.select(pl.len()).collect().item(), self.value_rows)):
            mine = _entity(view) % parts == part if parts > 1 else pl.lit(value=True)
            some = queries.filter(mine)
            read = values_from_changelog({name: rows.filter(mine).collect()})
            found.append(read(view, some).select(*features, ROW_TIME, REVISION).with_columns(some["row"]))
        known = pl.all_horizontal(pl.col(key).is_not_null() for key in view.keys)
        joined = pl.concat(found).sort("row").drop("row")
        return joined.with_columns(queries.select(known.alias("known"))["known"]).select(
            pl.when("known").then(name).alias(name) for name in (*features, ROW_TIME, REVISION)
        )

    def _by_day(self, interval: Window) -> Mapping[int, int]:
        day = pl.col("time").dt.timestamp("us") // DAY_US * DAY_US
        events = self.lake.scan(EVENTS, version=self.versions[EVENTS]).filter(self._told(interval))
        return dict(events.group_by(day.alias("day")).len().collect(engine="streaming").iter_rows())

    def _told(self, window: Window) -> pl.Expr:
        """Return which events a question of a window may be made of."""
        bulk, told = self.product.in_bulk, around(window, AROUND_US, column="time")
        return told if bulk is None else told & pl.col("type").is_in(bulk.events)


def around(window: Window, by_us: int, *, column: str) -> pl.Expr:
    """Return which rows of a table by month are in a window or so near to it."""
    return _between(Window(from_us=window.from_us - by_us, until_us=window.until_us + by_us), column=column)


def looked_at(view: FeatureView, window: Window) -> Window:
    """Return the instants whose rows tell the values of a view inside a window."""
    back_us = reach_us(view)
    return Window(from_us=0 if back_us is None else window.from_us - back_us - DAY_US, until_us=window.until_us)


def months_of(window: Window) -> tuple[str, str]:
    """Return the first and the last month of a window, as the lake's ``month`` columns write them."""
    return format_us(window.from_us)[:7], format_us(window.until_us - 1)[:7]


def _between(window: Window, *, column: str = "event_timestamp") -> pl.Expr:
    first, last = months_of(window)
    inside = (pl.col(column) >= from_us(window.from_us)) & (pl.col(column) < from_us(window.until_us))
    return pl.col("month").is_between(pl.lit(first), pl.lit(last)) & inside


def _entity(view: FeatureView) -> pl.Expr:
    return pl.concat_str(pl.col(key).cast(pl.String) for key in view.keys).hash()
