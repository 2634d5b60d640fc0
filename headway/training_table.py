"""Training sets in the lake: the rows a model was made and judged from, kept so that it can be made again.

A dataset is named by the hash of everything it came from (period, table versions, view digests, reference), so the same
snapshot is the same dataset. Its rows come in three parts: ``train``, ``gate`` (held out), ``yesterday`` (the gate's rows
with views read 24 h earlier, for the leak test).
"""

import hashlib
from collections.abc import Mapping
from typing import Literal

import msgspec
import polars as pl

from headway.drift import Window
from headway.errors import ContractViolation
from headway.lake import LakeTable
from headway.product import Product
from headway.training import AS_OF, REQUEST, TrainingSet

Part = Literal["train", "gate", "yesterday"]
PARTS: tuple[Part, ...] = ("train", "gate", "yesterday")


class DatasetFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a dataset was made from; all instants in microseconds. ``tables`` are lake tables with their versions."""

    train_from_us: int
    train_until_us: int
    gate_until_us: int
    known_at_us: int
    tables: dict[str, int]
    views: dict[str, str]
    reference_version: str

    @property
    def dataset(self) -> str:
        """The dataset's name: 16 hex of SHA-256 over the facts."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()[:16]

    @property
    def train(self) -> Window:
        """The window a model learns from."""
        return Window(from_us=self.train_from_us, until_us=self.train_until_us)

    @property
    def gate(self) -> Window:
        """The window it is judged on."""
        return Window(from_us=self.train_until_us, until_us=self.gate_until_us)


class PartFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The facts, and how many examples of one part have no label, by outcome."""

    dataset: DatasetFacts
    excluded: dict[str, int]


def training_table(product: Product) -> LakeTable:
    """Return the table of a product's datasets, one folder each; view values are named ``<view>__<column>``."""
    dtypes = {"int64": pl.Int64(), "float64": pl.Float64()}
    values: Mapping[str, pl.DataType] = {
        f"{view.name}__{feature}": dtypes[view.columns[feature]]
        for name, view in product.feature_views.items()
        for feature in product.use(name).features
    }
    return LakeTable(
        name=f"training.{product.name}",
        columns={
            "dataset": pl.String(),
            "part": pl.String(),
            "facts": pl.String(),
            "subject": pl.String(),
            "window_us": pl.Int64(),
            "due_us": pl.Int64(),
            "outcome": pl.String(),
            "label": pl.Boolean(),
            "label_known_at_us": pl.Int64(),
            AS_OF: pl.Int64(),
            REQUEST: pl.String(),
            **dict.fromkeys(product.numbers, pl.Float64()),
            **dict.fromkeys(product.categories, pl.String()),
            **values,
        },
        partition_by=("dataset",),
        required=("dataset", "part", "facts", "subject", "window_us", "due_us", "label", "label_known_at_us", AS_OF),
    )


def dataset_rows(product: Product, parts: Mapping[Part, TrainingSet], facts: DatasetFacts) -> pl.DataFrame:
    """Return a dataset's rows in the table's columns."""
    table = training_table(product)
    frames = []
    for part, rows in parts.items():
        told = PartFacts(dataset=facts, excluded=dict(rows.excluded))
        marked = rows.frame.with_columns(
            dataset=pl.lit(facts.dataset),
            part=pl.lit(part),
            facts=pl.lit(msgspec.json.encode(told, order="deterministic").decode()),
        )
        frames.append(marked.select(pl.col(name).cast(dtype) for name, dtype in table.columns.items()))
    return pl.concat(frames)


def facts_of(rows: pl.DataFrame, part: Part) -> PartFacts:
    """Return the facts of one part.

    Raises:
        ContractViolation: there are no such rows.
    """
    found = rows.filter(pl.col("part") == part)["facts"].head(1)
    if found.is_empty():
        raise ContractViolation(f"training table: no rows of part {part!r}; materialize the training set first")
    return msgspec.json.decode(found[0], type=PartFacts)


def part_of(rows: pl.DataFrame, part: Part) -> TrainingSet:
    """Return one part of a dataset's rows as it was built, sorted by (window_us, subject)."""
    facts = facts_of(rows, part)
    frame = rows.filter(pl.col("part") == part).drop("dataset", "part", "facts").sort("window_us", "subject")
    return TrainingSet(
        frame=frame,
        window=facts.dataset.train if part == "train" else facts.dataset.gate,
        known_at_us=facts.dataset.known_at_us,
        excluded=facts.excluded,
        view_digests=facts.dataset.views,
        reference_version=facts.dataset.reference_version,
    )
