"""What a domain's warehouse must keep to, beside what each of its tables can say of itself: the domain has what they name.

Called when a domain is written down, so that a table that cannot be made, or a static view that cannot be fed, cannot exist.
"""

from typing import TYPE_CHECKING

from headway.errors import ContractViolation
from headway.features.static import StaticView

if TYPE_CHECKING:
    from headway.contracts import Domain
    from headway.warehouse import CuratedTable


def check_warehouse(domain: "Domain") -> None:
    """Refuse static views, curated tables and reports that the domain cannot give what they name.

    Raises:
        ContractViolation: names domain, table, got, wanted.
    """
    for view in domain.statics:
        _check_static(domain, view)
    for table in domain.curated:
        _check_curated(domain, table)
    _check_tables(domain)


def _check_static(domain: "Domain", view: StaticView) -> None:
    where = f"domain {domain.name}, static view {view.qualified}"
    dimension = domain.dimension(view.dimension)
    if len(view.keys) != len(dimension.keys):
        raise ContractViolation(f"{where}, keys: got {view.keys}, wanted one for each of {dimension.keys}")
    # Polars and the lake call a type what features call it, but for the case.
    known = {name: str(column.dtype).lower() for name, column in dimension.columns.items()}
    if other := {name: known.get(name) for name, dtype in view.columns.items() if known.get(name) != dtype}:
        raise ContractViolation(
            f"{where}, columns: got {dict(view.columns)}, wanted columns of dimension {dimension.name}; it has {other}"
        )


def _check_curated(domain: "Domain", table: "CuratedTable") -> None:
    where = f"domain {domain.name}, curated table {table.name}"
    contracts = [domain.contract(event_type) for event_type in table.event_types]
    known = {"type", "subject", "time", "planted", *domain.columns}
    if missing := sorted(table.reads - known):
        raise ContractViolation(f"{where}: events have no column {missing} (found: {sorted(known)})")
    without = [c.event_type for c in contracts if {**c.columns, "time": "timestamp"}.get(table.day_of) != "timestamp"]
    if without:
        raise ContractViolation(
            f"{where}, day_of: got {table.day_of}, wanted an instant of every event; {without} lack it"
        )


def _check_tables(domain: "Domain") -> None:
    names = [table.table.name for table in domain.curated]
    names += [dimension.table.name for dimension in domain.dimensions]
    names += [report.table.name for report in domain.reports]
    if len(set(names)) != len(names):
        raise ContractViolation(f"domain {domain.name}: table of the warehouse declared twice in {sorted(names)}")
    for report in domain.reports:
        if missing := [table for table in report.reads if table not in names]:
            raise ContractViolation(f"domain {domain.name}, report {report.name}: no table {missing} (found: {names})")
