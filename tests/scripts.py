"""The scripts of the checkout as modules; they are no package."""

import importlib.util
from types import ModuleType

from headway.settings import project_root


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, project_root() / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
