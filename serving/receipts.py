"""Finds what was logged of an answer, and its model, and makes the receipt: for the API and the command line.

The lake is asked first, then the end of the prediction log that the lake does not have yet. Refuses to lose a record
that moves from one to the other meanwhile: how far the lake is, is read before both. What bites: a model is kept in
memory once it was verified, a version that is gone from the registry answers only until then.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from threading import Lock

import polars as pl

from headway.adapters.delta import Lake
from headway.clock import Clock, to_us
from headway.contracts import Reference
from headway.errors import ContractViolation, InputRejected, PermanentFailure, TransientFailure
from headway.ports import LogReader
from headway.predictions import Prediction, decode_prediction, predictions_in, predictions_table
from headway.predictor import Predictor, RowScorer, open_predictor
from headway.product import Product
from headway.receipts import Kept, NotRecomputed, Receipt, check_receipt, may_still_come, recompute
from headway.registry import ModelRegistry, ModelVersion
from headway.topics import PARTITIONS, partition_of, predictions_topic, scores_topic

# Loaded models: a few versions of a few products; one takes some 10 MB.
_MODELS = 8
# How receipts of the stream begin; their records are in a topic of their own, and in the same table.
_STREAM = "stream-"


class NotYet(TransientFailure):
    """The record may be on its way: ask again."""


class NoSuchReceipt(PermanentFailure):
    """Nothing was ever logged under this id, or nobody has it any more."""


@dataclass(frozen=True)
class _Model:
    version: ModelVersion
    predictor: Predictor


@dataclass(frozen=True, kw_only=True)
class ReceiptSources:
    """Where answers and models are kept.

    Attributes:
        registry: called when a model is wanted; its client takes seconds to import.
        load: makes a scorer of model bytes.
        commit: of this code, if known.
    """

    lake: Lake
    log: LogReader
    registry: Callable[[], ModelRegistry]
    products: Mapping[str, Product]
    references: Mapping[str, Reference]
    load: Callable[[bytes], RowScorer]
    clock: Clock
    commit: str | None


class ReceiptDesk:
    """Answers for receipts. Safe to use from several threads."""

    def __init__(self, sources: ReceiptSources) -> None:
        self._sources = sources
        self._models: OrderedDict[tuple[str, int, str], _Model] = OrderedDict()
        self._lock = Lock()

    def receipt(self, receipt: str) -> Receipt:
        """Return what is known of an answer, its score computed again.

        Raises:
            InputRejected: no path gives out such an id.
            NotYet: it was made in the last seconds and is not there.
            NoSuchReceipt: it is neither in the lake nor in the log.
            ContractViolation: what is kept under it is no prediction.
            TransientFailure: lake or log does not answer.
        """
        check_receipt(receipt)
        kept = self._find(receipt)
        if kept is None:
            if may_still_come(receipt, to_us(self._sources.clock.now())):
                raise NotYet(f"receipt {receipt}: not there yet; a prediction is found 10 s after it was made")
            products = ", ".join(self._sources.products)
            raise NoSuchReceipt(
                f"receipt {receipt}: no prediction of {products} has it, in the lake or in the log; its answer was not "
                "logged (see headway_predictions_logged_total), or is of another installation"
            )
        return self.judge(kept)

    def judge(self, kept: Kept) -> Receipt:
        """Return the receipt of a logged prediction; a model that is not to be had is said in it."""
        logged, sources = kept.prediction, self._sources
        try:
            model = self._model(logged)
        except (ContractViolation, PermanentFailure, TransientFailure) as error:
            return Receipt(
                kept=kept, version=None, manifest=None, verdict=NotRecomputed(str(error)), commit=sources.commit
            )
        verdict = recompute(
            logged,
            product=sources.products[logged.product],
            reference=sources.references[logged.product],
            predictor=model.predictor,
        )
        manifest = model.predictor.manifest
        return Receipt(kept=kept, version=model.version, manifest=manifest, verdict=verdict, commit=sources.commit)

    def sample(self, product: str, count: int, *, seed: int) -> Iterator[Kept]:
        """Yield that many random predictions of a product's table, or all of them, evenly over the paths that answered."""
        table = predictions_table(product).name
        if not self._sources.lake.exists(table):
            return
        known = self._sources.lake.read(table, columns=["receipt", "source"]).unique("receipt").sort("receipt")
        shuffled = known.sample(fraction=1.0, shuffle=True, seed=seed)
        turns = shuffled.with_columns(turn=pl.int_range(pl.len()).over("source")).sort("turn", "source", "receipt")
        chosen = turns.head(count)["receipt"]
        rows = self._sources.lake.read(table, predicate=pl.col("receipt").is_in(chosen.implode()))
        for (_,), found in rows.group_by("receipt", maintain_order=True):
            yield _kept_in_lake(found)

    def _find(self, receipt: str) -> Kept | None:
        lake, unread = self._sources.lake, []
        tables = [predictions_table(product).name for product in self._sources.products]
        there = [table for table in tables if lake.exists(table)]
        for product, table in zip(self._sources.products, tables, strict=True):
            for topic, partition in _places(product, receipt):
                held = lake.committed(table, f"{topic}-{partition}") if table in there else None
                unread.append((topic, partition, -1 if held is None else held))
        for table in there:
            rows = lake.read(table, predicate=pl.col("receipt") == receipt)
            if rows.height:
                return _kept_in_lake(rows)
        return next((kept for each in unread if (kept := self._in_log(*each, receipt))), None)

    def _in_log(self, topic: str, partition: int, offset: int, receipt: str) -> Kept | None:
        told = f'"receipt":"{receipt}"'.encode()  # as `encode_prediction` writes it
        found = [m for m in self._sources.log.read_after(topic, partition, offset) if told in (m.value or b"")]
        if not found:
            return None
        last = found[-1]
        return Kept(
            prediction=decode_prediction(last.value or b""),
            where="log",
            topic=last.topic,
            partition=last.partition,
            offset=last.offset,
            copies=len(found),
        )

    def _model(self, logged: Prediction) -> _Model:
        wanted = logged.model
        key = (logged.product, wanted.version, wanted.digest)
        with self._lock:
            if key in self._models:
                self._models.move_to_end(key)
                return self._models[key]
        registry = self._sources.registry()
        versions = {each.version: each for each in registry.versions(logged.product)}
        version = versions.get(wanted.version)
        if version is None:
            raise PermanentFailure(
                f"{logged.product} version {wanted.version} is gone from the registry (found: {sorted(versions)}); a "
                "version must be kept as long as its answers must be explained"
            )
        if version.digest != wanted.digest:
            raise ContractViolation(
                f"{logged.product} version {wanted.version}: the answer is by manifest {wanted.digest}, the registry has "
                f"{version.digest} under this number; the record or the registry was changed"
            )
        text, manifest = registry.load(logged.product, wanted.version)
        model = _Model(version, open_predictor(text, manifest, load=self._sources.load))
        with self._lock:
            self._models[key] = model
            while len(self._models) > _MODELS:
                self._models.popitem(last=False)
        return model


def _places(product: str, receipt: str) -> list[tuple[str, int]]:
    """Where the log may have a receipt: answers are keyed by it, stream scores by their subject."""
    if receipt.startswith(_STREAM):
        return [(scores_topic(product), partition) for partition in range(PARTITIONS)]
    return [(predictions_topic(product), partition_of(receipt.encode(), PARTITIONS))]


def known_product(sources: ReceiptSources, product: str) -> Product:
    """Return a product by name.

    Raises:
        InputRejected: there is none.
    """
    if product not in sources.products:
        raise InputRejected(f"product: got {product!r}, wanted one of {', '.join(sources.products)}")
    return sources.products[product]


def _kept_in_lake(rows: pl.DataFrame) -> Kept:
    last = rows.sort("offset", nulls_last=False).tail(1)
    [prediction] = predictions_in(last)
    topic, partition, offset = last.select("topic", "partition", "offset").row(0)
    return Kept(
        prediction=prediction, where="lake", topic=topic, partition=partition, offset=offset, copies=rows.height
    )
