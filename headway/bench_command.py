"""``headway bench [NAME]``: list the benchmarks of this checkout, or run one.

They are in ``benchmarks/`` beside this package and in no image: a module ``pN.py`` with a first line that says what it
measures and ``run(plan, say)`` that gives an outcome, which holds when every target is met.
"""

import ast
import sys
from argparse import ArgumentParser, Namespace
from importlib import import_module
from pathlib import Path
from types import ModuleType

from headway.commands import Outcome, Run, Say
from headway.errors import PermanentFailure


def bench_command(parser: ArgumentParser) -> Run:
    """Compare with peers in the same run."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="for example P9; without it, the list")
    parser.add_argument("--windows", type=int, help="windows per contestant")
    parser.add_argument("--window-s", type=float, help="seconds per window")

    def run(arguments: Namespace, say: Say) -> Outcome:
        purposes = found(_folder())
        if arguments.name is None:
            lines = [f"{name:<4} {purpose}" for name, purpose in purposes.items()]
            return Outcome(holds=True, facts={"benchmarks": purposes}, lines=lines)
        return _run(arguments, say, purposes=purposes)

    return run


def found(folder: Path) -> dict[str, str]:
    """Name to purpose of every benchmark in a folder."""
    purposes = {}
    for file in sorted(folder.glob("p[0-9]*.py"), key=lambda file: int(file.stem[1:])):
        documented = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "says nothing about itself"
        purposes[file.stem.upper()] = documented.splitlines()[0]
    return purposes


def _run(arguments: Namespace, say: Say, *, purposes: dict[str, str]) -> Outcome:
    name = str(arguments.name).upper()
    if name not in purposes:
        raise PermanentFailure(f"bench: there is no {name} (found: {', '.join(purposes) or 'none'})")
    chosen = {"windows": arguments.windows, "window_s": arguments.window_s}
    plan = _load("benchmarks.frame").Plan(**{key: value for key, value in chosen.items() if value is not None})
    outcome: Outcome = _load(f"benchmarks.{name.lower()}").run(plan, say)
    return outcome


def _load(module: str) -> ModuleType:
    root = str(_folder().parent)
    if root not in sys.path:
        sys.path.insert(0, root)
    return import_module(module)


def _folder() -> Path:
    """Where the benchmarks are. Not `headway.settings.project_root`, whose import costs as much as the list."""
    folder = Path(__file__).resolve().parent.parent / "benchmarks"
    if not folder.is_dir():
        raise PermanentFailure(f"bench: {folder} is missing; benchmarks are part of a checkout, not of the package")
    return folder
