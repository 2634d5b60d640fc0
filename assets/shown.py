"""What an asset shows of itself in Dagster: table schemas, counts, pictures; metadata by the labels its pages know."""

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import dagster as dg

from headway.lake import LakeTable
from headway.warehouse import ADDED, WarehouseColumn

# A page that shows more rows than this is slow to open and no easier to read.
_ROWS_SHOWN = 60


def schema_of(table: LakeTable, *, descriptions: Mapping[str, str] | None = None) -> dict[str, dg.TableSchema]:
    """Return the definition metadata that shows a table's columns."""
    told = descriptions or {}
    columns = [
        dg.TableColumn(
            name=name,
            type=str(dtype),
            description=told.get(name),
            constraints=dg.TableColumnConstraints(nullable=name not in table.required),
        )
        for name, dtype in table.columns.items()
    ]
    return {"dagster/column_schema": dg.TableSchema(columns=columns)}


def columns_of(table: LakeTable, columns: Mapping[str, WarehouseColumn]) -> dict[str, dg.TableSchema]:
    """Return the definition metadata that shows a table of the warehouse, with what each column means."""
    told = {name: column.description + (f" ({column.unit})" if column.unit else "") for name, column in columns.items()}
    return schema_of(table, descriptions=ADDED | told)


def lineage(
    columns: Mapping[str, WarehouseColumn], resolve: Callable[[str], tuple[dg.AssetKey, str]]
) -> dict[str, dg.TableColumnLineage]:
    """Return the metadata that shows which columns each column is made from; ``resolve`` finds a source's asset."""
    made = {name: [resolve(source) for source in column.sources] for name, column in columns.items() if column.sources}
    deps = {
        name: [dg.TableColumnDep(asset_key=key, column_name=column) for key, column in sources]
        for name, sources in made.items()
    }
    return {"dagster/column_lineage": dg.TableColumnLineage(deps_by_column=deps)}


def picture(png: bytes, *, title: str) -> dg.MarkdownMetadataValue:
    """Return a PNG as metadata; Dagster has no image value, its Markdown takes data addresses."""
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{base64.b64encode(png).decode()})")


def table(rows: Iterable[Mapping[str, Any]]) -> dg.MetadataValue[Any]:  # Any: cells of all kinds
    """Return the newest rows as a table; the last rows when there are too many to show."""
    shown = list(rows)[-_ROWS_SHOWN:]
    if not shown:
        return dg.MetadataValue.text("no rows")
    columns = [dg.TableColumn(name=name, type=_type(shown, name)) for name in shown[0]]
    records = [dg.TableRecord({name: _cell(value) for name, value in row.items()}) for row in shown]
    return dg.MetadataValue.table(records=records, schema=dg.TableSchema(columns=columns))


def figures(values: Mapping[str, float | int | None], *, prefix: str = "") -> dict[str, float | int]:
    """Return the figures that exist, so that Dagster draws each over time."""
    return {f"{prefix}{name}": value for name, value in values.items() if value is not None}


def owners(owner: str) -> list[str]:
    """Return a team's name as Dagster writes owners."""
    return [f"team:{owner}"]


def _type(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    kinds = {type(row[name]) for row in rows if row[name] is not None}
    if kinds <= {int, bool}:
        return "int"
    return "float" if kinds <= {int, float} else "string"


def _cell(value: Any) -> str | int | float | bool | None:  # Any: a cell of any kind
    if value is None or isinstance(value, str | int | bool):
        return value
    return round(value, 6) if isinstance(value, float) else str(value)
