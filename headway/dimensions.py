"""Loading dimensions and feeding static views from them, in the lake. May be repeated: what is known is not written again."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headway.features.changelog import changelog_table
from headway.features.dimension import changed_rows
from headway.features.static import StaticView
from headway.validity import after_load, valid_at
from headway.warehouse import VALID_FROM, Dimension

if TYPE_CHECKING:
    from headway.adapters.delta import Lake


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What a load found: entities there are, rows in all, and how many rows it began or ended."""

    entities: int
    rows: int
    changed: int


def load_dimension(lake: "Lake", dimension: Dimension, *, at_us: int) -> Loaded:
    """Load a dimension as its source says now, to hold from an instant on.

    Raises:
        ContractViolation: the load does not fit the dimension, or is older than the last.
        TransientFailure: another load was under way; repeat.
    """
    from headway.adapters.delta_exact import replace_all

    table = dimension.table
    lake.create(table)
    version = lake.version(table.name)
    known = lake.read(table.name, version=version)
    rows = after_load(dimension, known, dimension.load(), at_us=at_us)
    replace_all(lake, table, rows, order=[*dimension.keys, VALID_FROM], version=version)
    changed = rows.join(known, on=list(table.columns), how="anti", nulls_equal=True).height
    return Loaded(entities=valid_at(rows, at_us).height, rows=rows.height, changed=changed)


def feed_static(lake: "Lake", view: StaticView, dimension: Dimension) -> int:
    """Add to a static view's table what its dimension says and the table lacks; return how many rows.

    Two at once may add a row twice, equal in all columns, which reads as one.

    Raises:
        ContractViolation: the dimension has no table yet: load it first.
        TransientFailure: another writer came first; repeat.
    """
    table = changelog_table(view)
    lake.create(table)
    added = changed_rows(view, lake.read(table.name), dimension, lake.read(dimension.table.name))
    if added.height:
        lake.append(table.name, added)
    return added.height
