"""What a body's fields mean, as its contract says it in code: a unit and a few words, beside the field's type.

Read from ``Annotated[int, Meta(description=..., extra={"unit": "min"})]``; the same annotation makes the JSON Schema
and refuses values, so that documents cannot say something else.
"""

from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

import msgspec


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """A field's unit and words; None where the contract says nothing."""

    unit: str | None
    description: str | None


def meanings(struct: type[msgspec.Struct]) -> dict[str, Meaning]:
    """Return what each field of a body means, in declaration order."""
    hints = get_type_hints(struct, include_extras=True)
    return {name: _meaning(hints[name]) for name in struct.__struct_fields__}


def _meaning(hint: Any) -> Meaning:  # Any: an annotation as found at run time
    for part in (hint, *get_args(hint)):  # ``DelayMin | None`` carries its annotation on a member
        for meta in getattr(part, "__metadata__", ()):
            if isinstance(meta, msgspec.Meta):
                return Meaning(unit=(meta.extra or {}).get("unit"), description=meta.description)
    return Meaning(unit=None, description=None)
