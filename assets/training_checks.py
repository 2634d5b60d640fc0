"""Whether training rows may be learned from, as findings with the rows that speak against it.

pandera states what one column must be; what needs several columns or all rows is said in polars beside it. Importing
pandera takes 3 s, so this module is imported by the check that runs it, not by definitions.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandera.polars as pa
import polars as pl

from headway.product import Product
from headway.training import AS_OF
from headway.training_table import PARTS, facts_of, training_table

# Only breakage is further out: a constant label, or one that lost one of its outcomes.
_LABEL_SHARE = (0.01, 0.99)
_CASES_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One check's answer; ``cases`` are the first rows against it."""

    name: str
    passed: bool
    found: str
    cases: list[dict[str, Any]]  # Any: cells of the rows


def check_training_rows(product: Product, rows: pl.DataFrame) -> Iterator[Finding]:
    """Yield the findings on a dataset's rows, one for each of `assets.training.CHECKS`."""
    yield _pandera("schema", _schema(product), rows)
    yield _pandera("ranges", _ranges(product), rows)
    yield _label_share(rows)
    yield _no_leakage(product, rows)
    yield _label_maturity(product, rows)


def _schema(product: Product) -> pa.DataFrameSchema:
    table = training_table(product)
    columns = {
        name: pa.Column(dtype, nullable=name not in table.required, required=True)
        for name, dtype in table.columns.items()
    }
    columns["part"] = pa.Column(pl.String, pa.Check.isin(PARTS), nullable=False)
    return pa.DataFrameSchema(columns, strict=True, name=table.name)


def _ranges(product: Product) -> pa.DataFrameSchema:
    columns: dict[str, pa.Column] = {}
    for column in product.columns(dict.fromkeys(product.categories, ())):
        name = column.source if column.view is None else f"{column.name.split('__')[0]}__{column.source}"
        if column.kind == "count":
            columns[name] = pa.Column(pl.Int64, pa.Check.ge(0), nullable=True)
        elif column.kind == "category":
            columns[name] = pa.Column(pl.String, pa.Check.str_length(min_value=1), nullable=True)
        elif column.view is None:
            columns[name] = pa.Column(pl.Float64, pa.Check(_finite, name="finite"), nullable=True)
    return pa.DataFrameSchema(columns, name="ranges")


def _finite(data: Any) -> pl.LazyFrame:  # Any: pandera's PolarsData
    frame: pl.LazyFrame = data.lazyframe.select(pl.col(data.key).is_finite())
    return frame


def _pandera(name: str, schema: pa.DataFrameSchema, rows: pl.DataFrame) -> Finding:
    try:
        schema.validate(rows, lazy=True)
    except pa.errors.SchemaErrors as error:
        cases = error.failure_cases
        told = cases.select(c for c in ("column", "check", "failure_case", "index") if c in cases.columns)
        return Finding(
            name=name,
            passed=False,
            found=f"{cases.height:,} cases in {cases['column'].n_unique()} columns",
            cases=told.head(_CASES_SHOWN).to_dicts(),
        )
    return Finding(name=name, passed=True, found=f"{rows.height:,} rows as declared", cases=[])


def _label_share(rows: pl.DataFrame) -> Finding:
    low, high = _LABEL_SHARE
    shares = rows.group_by("part").agg(pl.len().alias("rows"), pl.col("label").mean().alias("share")).sort("part")
    # A share that is null, because no label is known, is not between anything.
    wrong = shares.filter(~pl.col("share").is_between(low, high).fill_null(value=False))
    missing = sorted(set(PARTS) - set(shares["part"]))
    found = "; ".join(f"{part} {_percent(share)} of {count:,}" for part, count, share in shares.iter_rows())
    return Finding(
        name="label_share",
        passed=wrong.is_empty() and not missing,
        found=f"{found}; no rows of {missing}" if missing else found,
        cases=wrong.to_dicts(),
    )


def _percent(share: float | None) -> str:
    return "no known label" if share is None else f"{share:.1%}"


def _no_leakage(product: Product, rows: pl.DataFrame) -> Finding:
    ages = [name for name in rows.columns if name.split("__")[-1].startswith("last_at_")]
    tests = {
        "label known before it was asked": pl.col("label_known_at_us") <= pl.col(AS_OF),
        "asked after its outcome was due": pl.col(AS_OF) >= pl.col("due_us"),
        **{f"{name} younger than the question": pl.col(name) > pl.col(AS_OF) for name in ages},
    }
    cases: list[dict[str, Any]] = []
    count = 0
    for told, test in tests.items():
        wrong = rows.filter(test)
        count += wrong.height
        cases += [{"leak": told, **case} for case in wrong.select("part", "subject", AS_OF).head(3).to_dicts()]
    named = {*product.numbers, *product.categories} & {"label", "outcome", "label_known_at_us", "due_us"}
    cases += [{"leak": f"{name} is an outcome and a feature", "part": "", "subject": "", AS_OF: None} for name in named]
    return Finding(
        name="no_leakage",
        passed=not cases,
        found=f"{count:,} rows and {len(named)} columns tell the future",
        cases=cases[:_CASES_SHOWN],
    )


def _label_maturity(product: Product, rows: pl.DataFrame) -> Finding:
    known_at_us = facts_of(rows, "train").dataset.known_at_us
    early = pl.col("due_us") + product.gate.maturity_us > known_at_us
    wrong = rows.filter(early | (pl.col("label_known_at_us") > known_at_us))
    return Finding(
        name="label_maturity",
        passed=wrong.is_empty(),
        found=f"{wrong.height:,} of {rows.height:,} labels may still change",
        cases=wrong.select("part", "subject", "due_us", "label_known_at_us").head(_CASES_SHOWN).to_dicts(),
    )
