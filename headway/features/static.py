"""What a static view is: attributes of an entity that the warehouse knows and no event carries, with one meaning.

The value as of T is that of the newest row at or before T, so a model that is trained on the past sees the past
(`headway.features.dimension`). Versions and hashes are those of every view (SEMANTICS S19, S20).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from json import dumps
from typing import get_args

from headway.features.definitions import Dtype
from headway.features.named import NamedView
from headway.features.wellformed import (
    RESERVED,
    check_dtypes,
    check_keys,
    check_minutes,
    check_named,
    check_told,
    check_version,
    refuse,
)
from headway.meanings import Meaning


@dataclass(frozen=True, kw_only=True)
class StaticView(NamedView):
    """Attributes of one entity, from the warehouse.

    Attributes:
        keys: what names the entity; all strings.
        columns: attributes and their types, named as in the dimension; all may be null.
        meanings: unit and words of each.
        dimension: the domain's dimension it is fed from; its keys are ``keys``, in order.
        max_lag: how old the newest load may be; beyond it values are stale (S10).
    """

    keys: tuple[str, ...]
    columns: Mapping[str, Dtype]
    meanings: Mapping[str, Meaning]
    dimension: str
    owner: str
    description: str
    max_lag: timedelta = timedelta(days=2)

    def __post_init__(self) -> None:
        check_named("static view", "name", self.name, example="aircraft")
        check_named(f"static view {self.name}", "dimension", self.dimension, example="planes")
        check_version(f"static view {self.name}", self.version)
        where = f"static view {self.qualified}"
        check_keys(where, self.keys)
        if not self.columns:
            raise refuse(where, "columns", got=self.columns, wanted="at least one")
        check_dtypes(where, "columns", self.columns, allowed=get_args(Dtype))
        if taken := sorted(self.columns.keys() & {*self.keys, *RESERVED}):
            raise refuse(where, "columns", got=taken, wanted="names that its table has not yet")
        if odd := sorted(self.meanings.keys() ^ self.columns.keys()):
            raise refuse(
                where, "meanings", got=sorted(self.meanings), wanted=f"those of the columns; they differ in {odd}"
            )
        check_minutes(where, "max_lag", self.max_lag)
        check_told(where, {"owner": self.owner, "description": self.description})

    @property
    def digest(self) -> str:
        """First 16 hex of SHA-256 over everything that gives a value its meaning."""
        units = {name: meaning.unit for name, meaning in self.meanings.items()}
        meaning = {"name": self.name, "version": self.version, "keys": self.keys, "units": units}
        return sha256(dumps({**meaning, "columns": dict(self.columns)}, sort_keys=True).encode()).hexdigest()[:16]
