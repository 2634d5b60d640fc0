"""What a product is: one value from which training, gate, release, serving and monitoring are derived.

A product is judged when it is written down, so that a wrong name stops the code location and not a night's training.
It holds declarations and pure functions only: no path, no connection, no clock.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

import msgspec
import polars as pl

from headway.contracts import Domain, Reference
from headway.drift import DriftPolicy
from headway.errors import ContractViolation, InputRejected
from headway.features.definitions import FeatureView
from headway.gates import GatePolicy
from headway.meanings import Meaning
from headway.vector import Column, Kind

_NAME = re.compile(r"^[a-z][a-z0-9_]*$")
# The columns `Product.examples` must return; see there.
EXAMPLE_COLUMNS = ("subject", "window_us", "due_us", "outcome", "label", "label_known_at_us")


@dataclass(frozen=True, kw_only=True)
class ViewUse:
    """The features a product takes from one view.

    Attributes:
        view: qualified name, e.g. ``origin_delay.v1``.
        features: columns of the view, in the order of the vector.
        defaults: what the vector gets when the view is unavailable (S10); a feature not named gets NaN. In the unit of
            the vector, so an age is in seconds.
    """

    view: str
    features: tuple[str, ...]
    defaults: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Everything that changes a model's bytes besides its rows; its digest goes into the manifest.

    Attributes:
        threads: of training; part of the spec because histogram sums are grouped by thread.
        half_life_days: a row this much older than the newest weighs half; None = all rows weigh the same.
    """

    name: str
    objective: Literal["binary"]
    trees: int
    learning_rate: float
    leaves: int
    min_rows_in_leaf: int
    l2: float
    feature_fraction: float
    category_smoothing: float
    category_l2: float
    seed: int
    threads: int
    half_life_days: float | None

    @property
    def digest(self) -> str:
        """First 16 hex of SHA-256 over all fields."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class InBulk:
    """A product's scalar functions for many rows at once, so that a batch is bound by its model and not by Python.

    Whatever is said here of a row must be what the scalar functions say of it, to the bit; a row that is not ``sure`` is
    left to them. Every batch holds some of its rows against them, and stops at the first that differs.

    Attributes:
        events: types of the events that a question is made of; the others only tell what became of it.
        asked_at_us: the expression of `Product.asked_at_us` over the request's fields.
        sure: pure; an expression over the request's fields, true where the scalar functions surely answer.
        request_features: pure; (rows with the request's fields and ``as_of_us``, reference) to a frame of the features.
    """

    events: tuple[str, ...]
    asked_at_us: Callable[[], pl.Expr]
    sure: Callable[[Any], pl.Expr]  # Any: the product's own reference
    request_features: Callable[[pl.DataFrame, Any], pl.DataFrame]  # Any: likewise


@dataclass(frozen=True, kw_only=True)
class Product:
    """One model product.

    Attributes:
        request: what strangers send: a msgspec Struct with an optional ``as_of``; its fields name the views' keys.
        numbers: numeric request features; with ``categories`` exactly what ``request_features`` returns.
        categories: categorical request features.
        request_meanings: unit and words of each of both, for the catalogue.
        request_features: pure; (request, reference, as-of in microseconds) to values. Training and serving call it.
        examples: pure; the events of a period to one row per thing asked about: the request's fields and
            ``subject``, ``window_us`` (the instant that puts it into a window), ``due_us`` (when its outcome is due),
            ``outcome`` (a word; counted), ``label`` (Boolean, null = no label) and ``label_known_at_us``.
        asked_at_us: pure; the instant at which training, batch, replay and the stream ask a request (S7).
        asked_by: the event type that asks from the stream: its body has the request's fields, each by its own name.
            None = the stream asks nothing.
        slices: categories no value of which may regress in the gate.
        drift_slice: the category whose values should not drift apart.
        golden_requests: how many requests a model version carries as proof of itself (S21).
        in_bulk: the same for many rows at once; without it a batch asks row by row, about 60 us each.
    """

    name: str
    domain: Domain
    owner: str
    description: str
    request: type[msgspec.Struct]
    numbers: tuple[str, ...]
    categories: tuple[str, ...]
    request_meanings: Mapping[str, Meaning]
    request_features: Callable[[Any, Any, int], dict[str, float | str | None]]  # Any: the product's own types
    examples: Callable[[pl.DataFrame], pl.DataFrame]
    asked_at_us: Callable[[Any], int]
    views: tuple[ViewUse, ...]
    model: ModelSpec
    reference_model: ModelSpec
    gate: GatePolicy
    drift: DriftPolicy
    slices: tuple[str, ...]
    drift_slice: str
    golden_requests: int
    in_bulk: InBulk | None = None
    asked_by: str | None = None

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            raise ContractViolation(f"product {self.name!r}: wanted a name like flight_delay (a-z, 0-9, _)")
        fields = self.request.__struct_fields__
        if "as_of" not in fields:
            raise ContractViolation(f"{self._where}: request has no field 'as_of' (found: {list(fields)})")
        declared = (*self.numbers, *self.categories)
        if not declared or len(set(declared)) != len(declared):
            raise ContractViolation(f"{self._where}: wanted request features, each named once (found: {declared})")
        if odd := sorted(self.request_meanings.keys() ^ set(declared)):
            raise ContractViolation(f"{self._where}: request_meanings and the declared names differ in {odd}")
        for what, names in (("slice", self.slices), ("drift slice", (self.drift_slice,))):
            unknown = [name for name in names if name not in self.categories]
            if unknown:
                raise ContractViolation(f"{self._where}: {what} {unknown} is no category (found: {self.categories})")
        if self.golden_requests < 1:
            raise ContractViolation(f"{self._where}: wanted golden requests; a replica proves itself with them (S21)")
        self._check_asked_by()
        named = [use.view for use in self.views]
        if len(set(named)) != len(named):
            raise ContractViolation(f"{self._where}: view named twice in {named}")
        for use in self.views:
            self._check(use)

    def _check_asked_by(self) -> None:
        if self.asked_by is None:
            return
        bodies = {contract.event_type: contract.body for contract in self.domain.contracts}
        if self.asked_by not in bodies:
            raise ContractViolation(
                f"{self._where}: asked_by {self.asked_by!r} is no event type of {self.domain.name} (found: {list(bodies)})"
            )
        found = bodies[self.asked_by].__struct_fields__
        lacking = [name for name in self.request.__struct_fields__ if name != "as_of" and name not in found]
        if lacking:
            raise ContractViolation(
                f"{self._where}: {self.asked_by} lacks {lacking}, fields of the request (found: {found})"
            )

    def _check(self, use: ViewUse) -> None:
        view = self.domain.view(use.view)
        unknown = [name for name in use.features if name not in view.columns]
        if unknown or not use.features:
            raise ContractViolation(f"{self._where}: {use.view} has no feature {unknown} (found: {list(view.columns)})")
        missing = [key for key in view.keys if key not in self.request.__struct_fields__]
        if missing:
            raise ContractViolation(
                f"{self._where}: the request lacks {missing}, keys of {use.view} (found: {self.request.__struct_fields__})"
            )
        stray = [name for name in use.defaults if name not in use.features]
        if stray:
            raise ContractViolation(f"{self._where}: defaults for {stray}, which are not used (found: {use.features})")

    @property
    def _where(self) -> str:
        return f"product {self.name}"

    @cached_property
    def feature_views(self) -> dict[str, FeatureView]:
        """The views used, by qualified name, in the order of the vector."""
        return {use.view: self.domain.view(use.view) for use in self.views}

    @cached_property
    def view_digests(self) -> dict[str, str]:
        """The views' hashes a model version pins (S20)."""
        return {name: view.digest for name, view in self.feature_views.items()}

    @cached_property
    def asking(self) -> type[msgspec.Struct]:
        """The request as it stands in an event's body: an instance is a request, and what else is in the body is left."""
        return msgspec.defstruct(
            f"{self.request.__name__}Asked",
            [],
            bases=(self.request,),
            frozen=True,
            kw_only=True,
            forbid_unknown_fields=False,
        )

    def columns(self, categories: Mapping[str, tuple[str, ...]]) -> tuple[Column, ...]:
        """Return the vector's columns, given the values each category had in training."""
        request = [Column(name=n, kind="number", source=n) for n in self.numbers]
        request += [Column(name=n, kind="category", source=n, categories=categories[n]) for n in self.categories]
        return (*request, *(self._column(use, name) for use in self.views for name in use.features))

    def _column(self, use: ViewUse, feature: str) -> Column:
        view = self.feature_views[use.view]
        kind: Kind = "number"
        name = feature
        if feature.startswith("count_"):
            kind = "count"
        elif feature.startswith("last_at_"):
            kind, name = "age", feature.replace("last_at", "seconds_since_last", 1)
        return Column(
            name=f"{view.name}__{name}", kind=kind, source=feature, view=use.view, default=use.defaults.get(feature)
        )

    def use(self, view: str) -> ViewUse:
        """Return what is taken from a view, by qualified name."""
        return next(use for use in self.views if use.view == view)

    def entity(self, view: str, request: msgspec.Struct) -> dict[str, str] | None:
        """Return the keys of a view's entity, or None when the request has none (then the row counts as empty)."""
        keys = {key: getattr(request, key) for key in self.feature_views[view].keys}
        return None if None in keys.values() else {key: str(value) for key, value in keys.items()}

    @cached_property
    def empty_rows(self) -> dict[str, tuple[None, ...]]:
        """What each view answers for an entity without a row (S10): nulls, which the vector reads as count 0."""
        return {use.view: (None,) * len(use.features) for use in self.views}

    def parse_request(self, raw: bytes) -> Any:  # Any: an instance of self.request
        """Return the request in a JSON document.

        Raises:
            InputRejected: not JSON, or a field is missing or wrong; names it.
        """
        try:
            return msgspec.json.decode(raw, type=self.request)
        except msgspec.DecodeError as error:  # also ValidationError, its subclass
            raise _rejected(error) from error

    def request_from(self, document: object) -> Any:  # Any: an instance of self.request
        """Return the request in a decoded document, for gRPC and batch; the same refusals as ``parse_request``."""
        try:
            return msgspec.convert(document, type=self.request)
        except msgspec.ValidationError as error:
            raise _rejected(error) from error

    def compute_request_features(
        self, request: Any, reference: Reference, as_of_us: int
    ) -> dict[str, float | str | None]:
        """Return the request features, exactly those declared.

        Raises:
            ContractViolation: the product's function returned other names.
            InputRejected: the request names something the reference does not know.
        """
        values = self.request_features(request, reference, as_of_us)
        if values.keys() != self._declared:
            odd = sorted(values.keys() ^ self._declared)
            raise ContractViolation(f"{self._where}: request_features and the declared names differ in {odd}")
        return values

    @cached_property
    def _declared(self) -> frozenset[str]:
        return frozenset((*self.numbers, *self.categories))


def _rejected(error: msgspec.DecodeError) -> InputRejected:
    what, _, path = str(error).partition(" - at `$.")
    return InputRejected(f"{path.rstrip('`') or 'request'}: {what}")
