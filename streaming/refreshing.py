"""Loading a static view: its dimension as the source says now, what changed into the lake, what is true now online.

Each step may be repeated and finds done what was done: a load that died anywhere is mended by the next. The store gets the
newest row of every entity each time, and its guard drops those it has.
"""

from dataclasses import dataclass

from headway.adapters.delta import Lake
from headway.adapters.redis_online import OnlineRow
from headway.clock import to_us
from headway.dimensions import feed_static, load_dimension
from headway.features.changelog import changelog_table
from headway.features.dimension import newest_rows
from headway.features.static import StaticView
from headway.warehouse import Dimension
from streaming.bootstrap import Marks, Rows


@dataclass(frozen=True, kw_only=True)
class Refreshed:
    """What a load found: entities there are, and rows that changed."""

    view: str
    entities: int
    changed: int


def refresh_static(
    view: StaticView, dimension: Dimension, *, lake: Lake, online: Rows, marks: Marks, at_us: int
) -> Refreshed:
    """Load the dimension a static view is fed from, as its source says now, and the view from it.

    Raises:
        ContractViolation: the load does not fit the dimension, or is older than the last.
        TransientFailure: lake or store is away, or another load is under way; repeat.
    """
    load_dimension(lake, dimension, at_us=at_us)
    changed = feed_static(lake, view, dimension)
    newest = newest_rows(view, lake.read(changelog_table(view).name))
    online.write([_online_row(view, row) for row in newest.iter_rows(named=True)])
    # One partition: whoever loads knows all of it. The watermark is the instant up to which the warehouse was asked.
    online.write_watermarks(view.online_name, {0: at_us // 1000}, 1)
    marks.mark_bootstrapped(view.online_name, digest=view.digest, until_us=at_us)
    return Refreshed(view=view.qualified, entities=newest.height, changed=changed)


def _online_row(view: StaticView, row: dict[str, object]) -> OnlineRow:
    return OnlineRow(
        view=view.online_name,
        keys={key: str(row[key]) for key in view.keys},
        event_timestamp_us=to_us(row["event_timestamp"]),  # type: ignore[arg-type]  # the column's type is fixed
        revision=int(str(row["revision"])),
        values={name: row[name] for name in view.columns},  # type: ignore[misc]  # likewise
    )
