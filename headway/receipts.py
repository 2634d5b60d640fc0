"""What an answer was made of, and whether the same score comes out again: a receipt (SEMANTICS S17).

A logged prediction, the model that gave it and the code at hand go in; the score computed again comes out, and by how
much it differs. Refuses to come close: what cannot be computed as it was (another model, other reference data) is said
and not approximated. What bites: request features are computed by the code at hand, so a difference may be the code's
own; the record names the commit that answered.
"""

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from headway.clock import SECOND_US
from headway.contracts import Reference
from headway.errors import ContractViolation, InputRejected
from headway.features.wire import partition_key
from headway.manifest import Manifest
from headway.predictions import Prediction, ServedView
from headway.predictor import Predictor
from headway.product import Product
from headway.registry import ModelVersion
from headway.topics import FEATURES_INPUT, PARTITIONS, partition_of

# S17: a prediction is found this soon after it was made. The log has it within 50 ms, unless the broker is away.
FOUND_WITHIN_US = 10 * SECOND_US
# Ids of the load balancer are UUIDs; those of batch, stream and Spark are of their own making.
_RECEIPT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}")
_UUID7 = 7


@dataclass(frozen=True, kw_only=True)
class Recomputed:
    """The score as it comes out now; ``difference`` is it minus the logged one, 0.0 when they are the same bits."""

    probability: float
    difference: float


@dataclass(frozen=True)
class NotRecomputed:
    """Why the score cannot be computed as it was."""

    reason: str


class Origin(NamedTuple):
    """The record of the feature job's input that caused a row: an event, or a tick that let one leave a window."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A logged prediction and where it was found; ``copies`` counts records of this receipt, of which it is the last.

    A request that the load balancer sent again is logged under its receipt by every replica that answered; the client
    got the last answer. Batch rows have no place in a log.
    """

    prediction: Prediction
    where: Literal["lake", "log"]
    topic: str | None
    partition: int | None
    offset: int | None
    copies: int


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """Everything known of one answer. ``version`` and ``manifest`` are None when the model is not to be had."""

    kept: Kept
    version: ModelVersion | None
    manifest: Manifest | None
    verdict: Recomputed | NotRecomputed
    commit: str | None

    @property
    def holds(self) -> bool:
        """Whether the score comes out again, bit for bit."""
        return isinstance(self.verdict, Recomputed) and self.verdict.difference == 0


def check_receipt(receipt: str) -> None:
    """Refuse what no path gives out as a receipt.

    Raises:
        InputRejected: says what it is and what it should be.
    """
    if _RECEIPT.fullmatch(receipt) is None:
        raise InputRejected(f"receipt: got {receipt[:100]!r}, wanted the id from an answer (`receipt`) or a batch row")


def may_still_come(receipt: str, now_us: int) -> bool:
    """Whether a receipt that is not found was made so lately that its record may be on its way."""
    try:
        made = uuid.UUID(receipt)
    except ValueError:
        return False
    if made.version != _UUID7:
        return False
    # A UUIDv7 begins with 48 bits of milliseconds since 1970 (RFC 9562, 5.7).
    return abs(now_us - (made.int >> 80) * 1000) < FOUND_WITHIN_US


def recompute(
    logged: Prediction, *, product: Product, reference: Reference, predictor: Predictor
) -> Recomputed | NotRecomputed:
    """Score a logged prediction again from what was logged: its request, its views' values, its as-of."""
    if predictor.digest != logged.model.digest:
        return NotRecomputed(
            f"the answer is by manifest {logged.model.digest}, the model at hand is {predictor.digest}"
        )
    if reference.version != logged.reference_version:
        return NotRecomputed(
            f"the answer used reference data {logged.reference_version}, this code has {reference.version}; "
            f"check out commit {logged.commit or 'of that time'}"
        )
    if differing := _differing_features(logged.views, predictor):
        return NotRecomputed(f"{differing}; the record is not what the model was given, or was changed since")
    try:
        request = product.parse_request(bytes(logged.request))
        features = product.compute_request_features(request, reference, logged.as_of_us)
        score = predictor.predict(features, logged.view_values, logged.as_of_us).score
    except (InputRejected, ContractViolation) as error:
        return NotRecomputed(f"this code refuses the logged request: {error}")
    return Recomputed(probability=score, difference=score - logged.probability)


def origin(view: ServedView) -> Origin | None:
    """Return what caused the row that was read; None without a row, when it was not logged, and for backfilled rows.

    A revision is the offset of the cause plus one, and an entity's inputs are all in one partition (S3, S4).
    """
    if view.key is None or not view.revision:
        return None
    partition = partition_of(partition_key(view.view, tuple(view.key.values())), PARTITIONS)
    return Origin(topic=FEATURES_INPUT, partition=partition, offset=view.revision - 1)


def _differing_features(views: Sequence[ServedView], predictor: Predictor) -> str | None:
    found = {view.view: view.features for view in views}
    for name in predictor.assembler.views:
        wanted = tuple(column.source for column in predictor.assembler.columns if column.view == name)
        if found.get(name) != wanted:
            return f"view {name}: the record has {found.get(name, 'no such view')}, the model takes {wanted}"
    return None
