"""``headway bench``: list the benchmarks of this checkout, run one or all, or make a page of their results.

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

_ALL, _TABLE = "ALL", "TABLE"


def bench_command(parser: ArgumentParser) -> Run:
    """Compare with peers in the same run."""
    parser.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="for example P9; `all`; or `table` of what `all` left; without it, the list",
    )
    parser.add_argument("--windows", type=int, help="windows per contestant")
    parser.add_argument("--window-s", type=float, help="seconds per window")
    parser.add_argument("--results", type=Path, help="all, table: folder of results (default: benchmarks/results)")
    parser.add_argument("--page", type=Path, help="table: the page to write (default: docs/benchmarks.md)")

    def run(arguments: Namespace, say: Say) -> Outcome:
        purposes = found(_folder())
        if arguments.name is None:
            lines = [f"{name:<4} {purpose}" for name, purpose in purposes.items()]
            return Outcome(holds=True, facts={"benchmarks": purposes}, lines=lines)
        name = str(arguments.name).upper()
        if name == _ALL:
            return _run_all(arguments, say, purposes=purposes)
        return _write_page(arguments, purposes=purposes) if name == _TABLE else _run(name, arguments, say, purposes)

    return run


def found(folder: Path) -> dict[str, str]:
    """Name to purpose of every benchmark in a folder."""
    purposes = {}
    for file in sorted(folder.glob("p[0-9]*.py"), key=lambda file: int(file.stem[1:])):
        documented = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "says nothing about itself"
        purposes[file.stem.upper()] = documented.splitlines()[0]
    return purposes


def _run(name: str, arguments: Namespace, say: Say, purposes: dict[str, str]) -> Outcome:
    if name not in purposes:
        raise PermanentFailure(f"bench: there is no {name} (found: {', '.join(purposes) or 'none'})")
    chosen = {"windows": arguments.windows, "window_s": arguments.window_s}
    plan = _load("benchmarks.frame").Plan(**{key: value for key, value in chosen.items() if value is not None})
    outcome: Outcome = _load(f"benchmarks.{name.lower()}").run(plan, say)
    return outcome


def _run_all(arguments: Namespace, say: Say, *, purposes: dict[str, str]) -> Outcome:
    given = {"--windows": arguments.windows, "--window-s": arguments.window_s}
    options = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    into = arguments.results or _folder() / "results"
    met: dict[str, bool] = _load("benchmarks.sequence").run_all(list(purposes), into=into, options=options, say=say)
    lines = [f"{name:<4} {'met' if held else 'not met'}" for name, held in met.items()]
    told = f"results are in {into}; `headway bench table` makes the page of them"
    return Outcome(holds=all(met.values()), facts={"met": met, "results": str(into)}, lines=[*lines, told])


def _write_page(arguments: Namespace, *, purposes: dict[str, str]) -> Outcome:
    folder = arguments.results or _folder() / "results"
    to = arguments.page or _folder().parent / "docs" / "benchmarks.md"
    results = _load("benchmarks.sequence").read_results(folder)
    if not results:
        raise PermanentFailure(f"bench table: {folder} has no results; run `headway bench all` first")
    lines: list[str] = _load("benchmarks.table").page(results, purposes)
    to.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Outcome(holds=True, facts={"page": str(to), "benchmarks": list(results)}, lines=lines)


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
