"""A receipt as a JSON document and as lines for people."""

from typing import Any

import msgspec

from headway.clock import format_us
from headway.commit import COMMIT_TAG
from headway.predictions import Prediction, ServedView
from headway.receipts import NotRecomputed, Receipt, Recomputed, origin


def receipt_facts(receipt: Receipt) -> dict[str, Any]:  # Any: a JSON document
    """Return everything known of an answer as plain values."""
    kept = receipt.kept
    logged = kept.prediction
    return {
        "receipt": logged.receipt,
        "product": logged.product,
        "path": logged.source,
        "probability": logged.probability,
        "requested_at": format_us(logged.requested_at_us),
        "as_of": format_us(logged.as_of_us),
        "degraded": logged.degraded,
        "stale": list(logged.stale),
        "planted": logged.planted,
        "model": {
            **msgspec.to_builtins(logged.model),
            "model_sha256": None if receipt.manifest is None else receipt.manifest.model_sha256,
            "training_run": None if receipt.version is None else receipt.version.run,
        },
        "training": _training(receipt),
        "commit": {"answered": logged.commit, "recomputed": receipt.commit},
        "reference_version": logged.reference_version,
        "request": msgspec.json.decode(bytes(logged.request)),
        "views": [_view(view) for view in logged.views],
        "record": {
            "where": kept.where,
            "topic": kept.topic,
            "partition": kept.partition,
            "offset": kept.offset,
            "copies": kept.copies,
        },
        "recomputed": _verdict(receipt.verdict),
    }


def receipt_lines(receipt: Receipt) -> list[str]:
    """Return everything known of an answer as lines."""
    facts, logged = receipt_facts(receipt), receipt.kept.prediction
    model, training = facts["model"], facts["training"]
    lines = [
        f"{logged.receipt}: {logged.product} by {logged.source}, {logged.probability!r}",
        f"  asked    {facts['requested_at']}, as of {facts['as_of']}{_flags(logged)}",
        f"  model    {model['name']} version {model['version']}, manifest {model['digest']}",
        f"           text {model['model_sha256'] or 'unknown'}, training run {model['training_run'] or 'unknown'}",
    ]
    if training is not None:
        tables = ", ".join(f"{name} at {version}" for name, version in training["tables"].items())
        lines += [
            f"  trained  on {training['rows']:,} rows of {training['from']} to {training['until']}",
            f"           registered by commit {training['commit'] or 'unknown'}; tables {tables or 'unknown'}",
        ]
    return [
        *lines,
        f"  code     answered by {logged.commit or 'unknown'}, recomputed by {receipt.commit or 'unknown'}",
        f"  record   {_place(receipt)}",
        f"  request  {bytes(logged.request).decode()}",
        *(line for view in facts["views"] for line in _view_lines(view)),
        f"  score    {_verdict_line(receipt)}",
    ]


def _training(receipt: Receipt) -> dict[str, Any] | None:  # Any: a JSON document
    if receipt.manifest is None or receipt.version is None:
        return None
    facts = receipt.manifest.training
    return {
        "from": format_us(facts.from_us),
        "until": format_us(facts.until_us),
        "known_at": format_us(facts.known_at_us),
        "rows": facts.rows,
        "tables": facts.tables,
        "commit": receipt.version.tags.get(COMMIT_TAG),
    }


def _view(view: ServedView) -> dict[str, Any]:  # Any: a JSON document
    caused = origin(view)
    return {
        "view": view.view,
        "key": view.key,
        "values": None if view.values is None else dict(zip(view.features, view.values, strict=True)),
        "event_time": None if view.row_time_us is None else format_us(view.row_time_us),
        "watermark": None if view.watermark_us is None else format_us(view.watermark_us),
        "revision": view.revision,
        "origin": None if caused is None else caused._asdict(),
        "backfilled": view.revision == 0,
    }


def _view_lines(view: dict[str, Any]) -> list[str]:  # Any: a JSON document
    key, values, caused = view["key"], view["values"], view["origin"]
    named = f"  view     {view['view']} of {'no entity' if key is None else ', '.join(key.values())}"
    if values is None:
        return [f"{named}: unavailable, so declared defaults"]
    told = "no row" if view["event_time"] is None else f"row of {view['event_time']}"
    if caused is not None:
        told += f" from {caused['topic']} [{caused['partition']}] @ {caused['offset']}"
    elif view["backfilled"]:
        told += ", backfilled"
    return [
        f"{named}: {told}, known up to {view['watermark'] or 'unknown'}",
        "           " + ", ".join(f"{name} {value}" for name, value in values.items()),
    ]


def _flags(logged: Prediction) -> str:
    flags = ["degraded"] if logged.degraded else []
    flags += [f"stale in {', '.join(logged.stale)}"] if logged.stale else []
    flags += [f"planted: {logged.planted}"] if logged.planted else []
    return f" ({'; '.join(flags)})" if flags else ""


def _place(receipt: Receipt) -> str:
    kept = receipt.kept
    place = "" if kept.topic is None else f", {kept.topic} [{kept.partition}] @ {kept.offset}"
    return f"in the {kept.where}{place}" + ("" if kept.copies == 1 else f", the last of {kept.copies}")


def _verdict(verdict: Recomputed | NotRecomputed) -> dict[str, Any]:  # Any: a JSON document
    if isinstance(verdict, NotRecomputed):
        return {"reason": verdict.reason}
    return {"probability": verdict.probability, "difference": verdict.difference}


def _verdict_line(receipt: Receipt) -> str:
    verdict, logged = receipt.verdict, receipt.kept.prediction
    if isinstance(verdict, NotRecomputed):
        return f"not recomputed: {verdict.reason}"
    if verdict.difference == 0:
        return f"recomputed {verdict.probability!r}, difference 0"
    suspects = "the record was changed since"
    if logged.commit != receipt.commit:
        suspects += f", or the code was ({logged.commit or 'unknown'} answered, this is {receipt.commit or 'unknown'})"
    return f"recomputed {verdict.probability!r}, logged {logged.probability!r}, DIFFERENCE {verdict.difference!r}: {suspects}"
