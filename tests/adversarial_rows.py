"""Rows that cannot miss what hurts a scorer: every special value in every place, and every edge of a model's own trees.

Drawn at random, a row hits a threshold to the last bit, or the last category of a bit set's word, once in years. So the
edges are read out of the model: each threshold with both of its neighbours, and each category with what lies beside it.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from headway.evaluation import Floats

if TYPE_CHECKING:
    import lightgbm

# What LightGBM takes for zero: a float's 1e-35, widened.
_ZERO = float(np.float32(1e-35))
SPECIALS: Mapping[str, tuple[float, ...]] = {
    "missing": (np.nan, -np.nan),
    "infinite": (np.inf, -np.inf),
    "zero": (0.0, -0.0),
    "denormal": (5e-324, -5e-324, 2.225073858507201e-308, -2.225073858507201e-308),
    "least normal": (2.2250738585072014e-308, -2.2250738585072014e-308),
    "as good as zero": (_ZERO, -_ZERO, np.nextafter(_ZERO, 1), np.nextafter(_ZERO, 0), 1e-35, -1e-35),
    "greatest": (1.7976931348623157e308, -1.7976931348623157e308, 1e300, -1e300),
    "more than a float": (3.5e38, -3.5e38, 16_777_217.0, 0.1),
    "no whole number": (0.5, -0.5, 1 - 2**-53, -1 + 2**-53, 7.999999999),
    "a word's ends": (-1.0, 1.0, 31.0, 32.0, 33.0, 63.0, 64.0),
    "an integer's ends": (2.0**31 - 1, 2.0**31, -(2.0**31), -(2.0**31) - 1, 2.0**32, 2.0**53, 2.0**63, -(2.0**63)),
}


def adversarial_rows(booster: "lightgbm.Booster", ordinary: Floats) -> Floats:
    """Return ordinary rows with one place of each changed, shape (n, f): first every special value, then every edge."""
    changes = [(place, value) for place in range(ordinary.shape[1]) for value in special_values()]
    changes += sorted(set(edges(booster)))
    rows = ordinary[np.arange(len(changes)) % len(ordinary)].copy()
    for row, (place, value) in zip(rows, changes, strict=True):
        row[place] = value
    return rows


def special_values() -> list[float]:
    """Return the special values of all kinds."""
    return [float(value) for values in SPECIALS.values() for value in values]


def edges(booster: "lightgbm.Booster") -> Iterator[tuple[int, float]]:
    """Give each place of the vector with a value at which a tree decides, or beside which it does."""
    for tree in booster.dump_model()["tree_info"]:
        for node in _splits(tree["tree_structure"]):
            place = int(node["split_feature"])
            if node["decision_type"] == "==":
                for code in map(float, node["threshold"].split("||")):
                    yield from ((place, code + beside) for beside in (-1.0, -0.5, 0.0, 0.5, 1.0))
            else:
                threshold = float(node["threshold"])
                yield from ((place, float(value)) for value in _around(threshold))


def _around(value: float) -> tuple[float, float, float]:
    return np.nextafter(value, -np.inf), value, np.nextafter(value, np.inf)


def _splits(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:  # Any: JSON
    if "split_feature" in node:
        yield node
        yield from _splits(node["left_child"])
        yield from _splits(node["right_child"])
