"""Loading a static view: what changed goes to the lake, what is true now goes online, and both may be repeated.

Online first: a load that dies before the lake has it finds the same change again, while the other order would find
nothing to do and leave the store behind.
"""

from dataclasses import dataclass

import polars as pl

from headway.adapters.delta import Lake
from headway.adapters.redis_online import OnlineRow
from headway.clock import to_us
from headway.features.changelog import changelog_table
from headway.features.dimension import changed_rows, newest_rows
from headway.features.static import StaticView
from streaming.bootstrap import Marks, Rows


@dataclass(frozen=True, kw_only=True)
class Refreshed:
    """What a load found: entities there are, and rows that changed."""

    view: str
    entities: int
    changed: int


def refresh_static(view: StaticView, *, lake: Lake, online: Rows, marks: Marks, at_us: int) -> Refreshed:
    """Load a static view as of now.

    Raises:
        ContractViolation: the load does not fit the view, or is older than the last.
        TransientFailure: lake or store is away; repeat.
    """
    table = changelog_table(view)
    lake.create(table)
    known = newest_rows(view, lake.read(table.name))
    changed = changed_rows(view, known, view.load(), at_us=at_us)
    newest = newest_rows(view, pl.concat([known, changed]))
    online.write([_online_row(view, row) for row in newest.iter_rows(named=True)])
    if changed.height:
        lake.append(table.name, changed)
    # One partition: whoever loads knows all of it. The watermark is the instant up to which the warehouse was asked.
    online.write_watermarks(view.online_name, {0: at_us // 1000}, 1)
    marks.mark_bootstrapped(view.online_name, digest=view.digest, until_us=at_us)
    return Refreshed(view=view.qualified, entities=newest.height, changed=changed.height)


def _online_row(view: StaticView, row: dict[str, object]) -> OnlineRow:
    return OnlineRow(
        view=view.online_name,
        keys={key: str(row[key]) for key in view.keys},
        event_timestamp_us=to_us(row["event_timestamp"]),  # type: ignore[arg-type]  # the column's type is fixed
        revision=int(str(row["revision"])),
        values={name: row[name] for name in view.columns},  # type: ignore[misc]  # likewise
    )
