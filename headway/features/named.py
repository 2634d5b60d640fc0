"""A view's name and version, and how each place writes them (SEMANTICS S20)."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class NamedView:
    """One version of a view; another meaning is another version."""

    name: str
    version: int

    @property
    def qualified(self) -> str:
        """Name with version as topics and tables carry it, e.g. ``origin_delay.v1``."""
        return f"{self.name}.v{self.version}"

    @property
    def online_name(self) -> str:
        """Name with version where a dot is not allowed, as in Feast and the online store, e.g. ``origin_delay_v1``."""
        return f"{self.name}_v{self.version}"
