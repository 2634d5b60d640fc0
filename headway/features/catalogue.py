"""The catalogue of features, made from the definitions: what there is, what it means, how fresh, who answers, who uses it.

Pure: domains and products in, values or Markdown out. `docs/features/catalogue.md` is what `markdown` returns, held so by
a test and by ``make docs``; nobody writes it by hand.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from headway.contracts import Domain
from headway.features.definitions import Aggregate, FeatureView, short_duration
from headway.features.static import StaticView
from headway.meanings import Meaning
from headway.product import Product

_FUNCTIONS: Mapping[str, str] = {
    "sum": "sum of {field}",
    "mean": "mean of {field}",
    "min": "least {field}",
    "max": "greatest {field}",
    "last": "newest {field} that is not null",
    "last_ever": "newest {field} that is not null, however old",
}
# What an instant is stored as; the vector gets the seconds since (SEMANTICS S1).
_INSTANT_UNIT = "us since 1970, UTC"
_HEAD = """# Feature catalogue

Made from the definitions by `headway features catalogue --markdown`; do not edit. [How they work](definitions.md).

A value as of T covers events with `start < event time <= T`, where `start` is T - window, rounded down to the hop. An empty
window gives count 0 and nulls. *Stale* says how far a view's watermark may be behind before an answer says so; *late* says
how late an event may come and still correct what was computed. A view from the warehouse says what was true at T, as of the
last load before it.
"""


@dataclass(frozen=True, kw_only=True)
class FeatureEntry:
    """One feature of a view."""

    name: str
    dtype: str
    unit: str | None
    meaning: str
    window: str | None


@dataclass(frozen=True, kw_only=True)
class ViewEntry:
    """One view version.

    Attributes:
        source: event type; for a static view, the warehouse.
        hop, lateness: None for a static view.
        used_by: maps a product, which is a feature service too, to the features it takes.
    """

    view: str
    domain: str
    entity: tuple[str, ...]
    source: str
    description: str
    owner: str
    hash: str
    hop: str | None
    stale_after: str
    lateness: str | None
    features: tuple[FeatureEntry, ...]
    used_by: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class RequestEntry:
    """One feature that follows from the request itself, at the time of asking."""

    product: str
    name: str
    kind: str
    unit: str | None
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """All features there are."""

    views: tuple[ViewEntry, ...]
    requests: tuple[RequestEntry, ...]


def catalogue(domains: Iterable[Domain], products: Iterable[Product]) -> Catalogue:
    """Return the catalogue, views in the order their domains declare them, products by name."""
    known = sorted(products, key=lambda product: product.name)
    return Catalogue(
        views=tuple(
            entry
            for domain in domains
            for entry in (
                *(_view(domain, view, known) for view in domain.views),
                *(_static(domain, view) for view in domain.statics),
            )
        ),
        requests=tuple(entry for product in known for entry in _requests(product)),
    )


def markdown(found: Catalogue) -> str:
    """Return the catalogue as a page."""
    overview = [
        (
            f"[{each.view}](#{_anchor(each.view)})",
            _code(each.entity),
            _code([each.source]),
            each.owner,
            _code(each.used_by),
        )
        for each in found.views
    ]
    parts = [_HEAD, _table(("view", "entity", "source", "owner", "used by"), overview)]
    for view in found.views:
        facts = [
            ("entity", _code(view.entity)),
            ("source", f"`{view.source}` of domain `{view.domain}`"),
            ("owner", view.owner),
            ("hash", f"`{view.hash}`"),
            *((("hop", view.hop),) if view.hop else ()),
            ("stale after", view.stale_after),
            *((("late by at most", view.lateness),) if view.lateness else ()),
            ("feature services", "; ".join(_usage(view, product) for product in view.used_by) or "none"),
        ]
        features = [
            (f"`{each.name}`", each.dtype, each.unit or "", each.window or "", each.meaning) for each in view.features
        ]
        parts += [
            f"## {view.view}\n\n{view.description}\n",
            _table(("", ""), facts),
            _table(("feature", "type", "unit", "window", "meaning"), features),
        ]
    for product in dict.fromkeys(each.product for each in found.requests):
        rows = [
            (f"`{each.name}`", each.kind, each.unit or "", each.meaning)
            for each in found.requests
            if each.product == product
        ]
        parts += [
            f"## {product}: at request time\n\nComputed from the request and the reference data by one function, in training and serving.\n",
            _table(("feature", "kind", "unit", "meaning"), rows),
        ]
    return "\n".join(parts)


def _view(domain: Domain, view: FeatureView, products: Iterable[Product]) -> ViewEntry:
    meanings = domain.contract(view.source).meanings
    using = [product for product in products if product.domain.name == domain.name]
    return ViewEntry(
        view=view.qualified,
        domain=domain.name,
        entity=view.keys,
        source=view.source,
        description=view.description,
        owner=view.owner,
        hash=view.digest,
        hop=short_duration(view.hop),
        stale_after=short_duration(view.max_lag),
        lateness=short_duration(view.lateness) if view.lateness else "0",
        features=tuple(_feature(view, aggregate, meanings) for aggregate in view.aggregates),
        used_by={p.name: use.features for p in using for use in p.views if use.view == view.qualified},
    )


def _static(domain: Domain, view: StaticView) -> ViewEntry:
    features = (
        FeatureEntry(
            name=name,
            dtype=dtype,
            unit=view.meanings[name].unit,
            meaning=view.meanings[name].description or "",
            window=None,
        )
        for name, dtype in view.columns.items()
    )
    return ViewEntry(
        view=view.qualified,
        domain=domain.name,
        entity=view.keys,
        source="warehouse",
        description=view.description,
        owner=view.owner,
        hash=view.digest,
        hop=None,
        stale_after=short_duration(view.max_lag),
        lateness=None,
        features=tuple(features),
        used_by={},  # products name streamed views only; Feast serves these to whoever asks
    )


def _feature(view: FeatureView, aggregate: Aggregate, meanings: Mapping[str, Meaning]) -> FeatureEntry:
    field = meanings.get(aggregate.field or "", Meaning(unit=None, description=None))
    named = f"`{aggregate.field}`" + (f" ({field.description})" if field.description else "")
    over = "" if aggregate.window is None else f" in {_spoken(aggregate.window)}"
    unit = field.unit
    if aggregate.function == "count":
        unit, what = "events", "events" if aggregate.field is None else f"events with {named}"
    elif aggregate.function == "last_at":
        unit, what = _INSTANT_UNIT, f"time of the newest event{'' if aggregate.field is None else f' with {named}'}"
    else:
        what = _FUNCTIONS[aggregate.function].format(field=named)
    return FeatureEntry(
        name=aggregate.name,
        dtype=view.dtype(aggregate),
        unit=unit,
        meaning=what + over,
        window=None if aggregate.window is None else short_duration(aggregate.window),
    )


def _requests(product: Product) -> Iterable[RequestEntry]:
    for kind, names in (("number", product.numbers), ("category", product.categories)):
        for name in names:
            meaning = product.request_meanings[name]
            yield RequestEntry(
                product=product.name, name=name, kind=kind, unit=meaning.unit, meaning=meaning.description or ""
            )


def _usage(view: ViewEntry, product: str) -> str:
    taken = view.used_by[product]
    return f"`{product}` ({'all' if len(taken) == len(view.features) else _code(taken)})"


def _spoken(window: timedelta) -> str:
    text = short_duration(window)
    number, unit = text[:-1], {"m": "minutes", "h": "hours", "d": "days"}[text[-1]]
    return f"the last {unit.removesuffix('s')}" if number == "1" else f"the last {number} {unit}"


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _anchor(view: str) -> str:
    return view.replace(".", "")


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
