"""Feast pushing feature rows into its online store: ``feast_push.py ROWS REDIS PROJECT WINDOW_S``.

``ROWS`` holds one Parquet file per view, with its keys as strings, ``event_timestamp``, ``created_timestamp`` and the
features, ready computed: Feast has no aggregator of its own, so it is only asked to store them. ``views.json`` beside them
names keys and types. Rows go in the order of time, 2,000 of a view at once.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
from feast import (  # noqa: TID253 - the peer itself
    Entity,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    PushSource,
    RepoConfig,
    ValueType,
)
from feast.data_source import PushMode  # noqa: TID253
from feast.types import Float64, Int64  # noqa: TID253

from benchmarks.peers.meter import Meter

_AT_ONCE = 2_000
# The meter ends the process.
_LONGEST_S = 600.0
_TYPES = {"int64": Int64, "float64": Float64}


def opened(folder: Path, redis_url: str, project: str) -> FeatureStore:
    """Return a store with a view, an entity per key and a push source for each file of rows."""
    home = Path(tempfile.mkdtemp(prefix="feast-"))
    store = FeatureStore(
        config=RepoConfig(
            project=project,
            provider="local",
            registry=str(home / "registry.db"),
            online_store={"type": "redis", "connection_string": redis_url},
            offline_store={"type": "dask"},
            entity_key_serialization_version=3,
        )
    )
    views: dict[str, Any] = json.loads((folder / "views.json").read_text())
    keys = sorted({key for view in views.values() for key in view["keys"]})
    entities = {key: Entity(name=key, join_keys=[key], value_type=ValueType.STRING) for key in keys}
    made = [
        FeatureView(
            name=name,
            entities=[entities[key] for key in view["keys"]],
            schema=[Field(name=feature, dtype=_TYPES[dtype]) for feature, dtype in view["columns"].items()],
            source=PushSource(
                name=f"{name}_push",
                batch_source=FileSource(
                    path=str(folder / f"{name}.parquet"),
                    timestamp_field="event_timestamp",
                    created_timestamp_column="created_timestamp",
                ),
            ),
            online=True,
        )
        for name, view in views.items()
    ]
    store.apply([*entities.values(), *made])
    return store


def parts(folder: Path, names: list[str]) -> list[tuple[str, pd.DataFrame]]:
    """Return everything in parts of one view, in the order of their first rows."""
    cut = []
    for name in names:
        rows = pd.read_parquet(folder / f"{name}.parquet")
        cut += [(name, rows.iloc[start : start + _AT_ONCE]) for start in range(0, len(rows), _AT_ONCE)]
    return sorted(cut, key=lambda part: part[1]["event_timestamp"].iloc[0])


def main(rows: str, redis_url: str, project: str, window_s: str) -> None:
    """Push until the meter ends the process."""
    folder = Path(rows)
    store = opened(folder, redis_url, project)
    waiting = parts(folder, list(json.loads((folder / "views.json").read_text())))
    meter = Meter(float(window_s))
    for name, part in waiting:
        store.push(f"{name}_push", part, to=PushMode.ONLINE)
        meter.done(len(part))
    time.sleep(_LONGEST_S)


if __name__ == "__main__":
    main(*sys.argv[1:])
