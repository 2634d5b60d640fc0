"""What the folders of a package declare: one named value per folder, found by looking, so that adding one is a folder."""

import importlib
import pkgutil
from types import ModuleType
from typing import Protocol, TypeVar

from headway.errors import ContractViolation


class Named(Protocol):
    """A value that says its own name."""

    @property
    def name(self) -> str:
        """The name it is asked for by."""
        ...


NamedT = TypeVar("NamedT", bound=Named)


def declared(package: ModuleType, *, module: str, attribute: str, kind: type[NamedT]) -> dict[str, NamedT]:
    """Return by name what each sub-package's ``module`` exports as ``attribute``.

    Raises:
        ContractViolation: a folder exports no such value, or two values share a name.
    """
    found: dict[str, NamedT] = {}
    for folder in pkgutil.iter_modules(package.__path__):
        if not folder.ispkg:
            continue
        value = getattr(importlib.import_module(f"{package.__name__}.{folder.name}.{module}"), attribute, None)
        where = f"{package.__name__}/{folder.name}/{module}.py"
        if not isinstance(value, kind):
            raise ContractViolation(f"{where}: got {value!r}, wanted {attribute} = {kind.__name__}(...)")
        if found.setdefault(value.name, value) is not value:
            raise ContractViolation(f"{where}: the name {value.name!r} is taken")
    return found


def find(values: dict[str, NamedT], name: str, *, what: str) -> NamedT:
    """Return the value of that name.

    Raises:
        ContractViolation: there is none; lists what there is.
    """
    if name not in values:
        raise ContractViolation(f"{what}: got {name!r}, wanted one of {sorted(values)}")
    return values[name]
