"""What P6 scores: a product whose twenty features are all in the event, its model, and events that ask it.

Sixteen numbers, one in twenty of them missing, and four categories; 300 trees of 63 leaves. No two events are alike,
since a row that repeats is predicted three times as fast.
"""

import math
import operator
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import orjson

from headway.adapters.lightgbm import LightGbm
from headway.adapters.memory_registry import MemoryRegistry
from headway.clock import format_us, parse_instant_us, to_us
from headway.contracts import Contract, Domain
from headway.events import TYPE_HEADER
from headway.manifest import FORMAT, MANIFEST_FILE, MODEL_FILE, Manifest, TrainingFacts, encode_manifest, sha256
from headway.meanings import Meaning
from headway.ports import Record
from headway.product import Product
from headway.registry import LIVE
from headway.training import Matrix
from headway.vector import Assembler
from products.catalogue import find_product

NAME = "bench_scores"
ASKED = "bench.asked.v1"
NUMBERS = tuple(f"number_{place}" for place in range(16))
CATEGORIES = tuple(f"category_{place}" for place in range(4))
WORDS = tuple(f"W{place:02}" for place in range(30))
_FROM_US = parse_instant_us("2013-07-01T00:00:00Z", field="start")
_TRAINED_ON = 40_000
_PART = 10_000


class NoReference:
    """A reference that adds nothing."""

    version = "none"

    def enrich(self, body: msgspec.Struct) -> dict[str, Any]:  # noqa: ARG002
        """Return no columns."""
        return {}


def product() -> Product:
    """Return the product: the flights' in all but what it asks and reads."""
    fields: list[Any] = [("at", datetime), *((name, float | None) for name in NUMBERS)]
    fields += [(name, str) for name in CATEGORIES]
    body = msgspec.defstruct("Asked", fields, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False)
    request = msgspec.defstruct(
        "AskedRequest", [("as_of", datetime | None, None)], bases=(body,), frozen=True, kw_only=True
    )
    contract = Contract(event_type=ASKED, body=body, description="a question with its features", owner="bench")
    names = (*NUMBERS, *CATEGORIES)
    values = operator.attrgetter(*names)
    return replace(
        find_product("flight_delay"),
        name=NAME,
        domain=Domain(
            name="bench", source="/bench", contracts=(contract,), enrichment={}, views=(), load_reference=NoReference
        ),
        request=request,
        numbers=NUMBERS,
        categories=CATEGORIES,
        request_meanings={name: Meaning(unit=None, description="made up") for name in names},
        request_features=lambda asked, _reference, _as_of_us: dict(zip(names, values(asked), strict=True)),
        asked_at_us=lambda asked: to_us(asked.at),
        views=(),
        slices=(),
        drift_slice=CATEGORIES[0],
        asked_by=ASKED,
    )


def write_model(folder: Path) -> None:
    """Fit the model and leave its two files."""
    wanted = product()
    generator = np.random.default_rng(6)
    numbers, codes = _rows(generator, _TRAINED_ON)
    x = np.hstack([numbers, codes.astype(np.float64)])
    logits = np.nan_to_num(numbers[:, 0]) + np.sin(np.nan_to_num(numbers[:, 1])) * 2 + codes[:, 0] % 5 - 2
    assembler = Assembler(wanted.columns(dict.fromkeys(CATEGORIES, WORDS)))
    rows = Matrix(
        assembler=assembler,
        x=x,
        labels=generator.uniform(size=_TRAINED_ON) < 1 / (1 + np.exp(-logits)),
        window_us=np.arange(_TRAINED_ON),
        days=np.zeros(_TRAINED_ON, dtype=np.int64),
        slices={},
    )
    spec = replace(wanted.reference_model, name="bench", trees=300, leaves=63)
    text = LightGbm().fit(rows, spec)
    manifest = Manifest(
        format=FORMAT,
        product=NAME,
        spec=spec.name,
        spec_digest=spec.digest,
        columns=assembler.columns,
        views={},
        reference_version=NoReference.version,
        model_sha256=sha256(text),
        model_bytes=len(text),
        training=TrainingFacts(
            from_us=0, until_us=1, known_at_us=1, rows=_TRAINED_ON, positives=1, excluded={}, tables={}
        ),
        metrics={},
        weeks=(),
        limits=None,
        golden=(),
    )
    (folder / MODEL_FILE).write_bytes(text)
    (folder / MANIFEST_FILE).write_bytes(encode_manifest(manifest))


def registry_of(folder: Path) -> MemoryRegistry:
    """Return a registry in which the model of the folder is live."""
    from headway.manifest import decode_manifest

    registry = MemoryRegistry()
    manifest = decode_manifest((folder / MANIFEST_FILE).read_bytes())
    made = registry.register((folder / MODEL_FILE).read_bytes(), manifest, metrics={}, params={}, tags={}, run=None)
    registry.set_alias(NAME, LIVE, made.version)
    return registry


def asking_records(topic: str, count: int, *, seed: int) -> Iterator[Record]:
    """Yield events that ask, as the Enricher writes them."""
    generator = np.random.default_rng(seed)
    for start in range(0, count, _PART):
        numbers, codes = _rows(generator, min(_PART, count - start))
        for place, (row, words) in enumerate(zip(numbers.tolist(), codes.tolist(), strict=True)):
            yield _record(topic, start + place, row, words)


def _record(topic: str, number: int, row: list[float], words: list[int]) -> Record:
    subject, instant = f"s-{number % 5000:04}", format_us(_FROM_US + number * 1000)
    value = orjson.dumps(
        {
            "specversion": "1.0",
            "id": f"e-{number:09}",
            "source": "/bench",
            "type": ASKED,
            "subject": subject,
            "time": instant,
            "data": {
                "at": instant,
                **{name: None if math.isnan(value) else value for name, value in zip(NUMBERS, row, strict=True)},
                **{name: WORDS[word] for name, word in zip(CATEGORIES, words, strict=True)},
            },
        }
    )
    headers = ((TYPE_HEADER, ASKED.encode()), ("raw_offset", b"%d" % number))
    return Record(topic, subject.encode(), value, headers)


def _rows(generator: np.random.Generator, count: int) -> tuple[Any, Any]:  # Any: arrays of numpy's two kinds
    numbers = np.round(generator.normal(0, 3, (count, len(NUMBERS))), 3)
    numbers[generator.uniform(size=numbers.shape) < 0.05] = np.nan
    return numbers, generator.integers(0, len(WORDS), (count, len(CATEGORIES)))
