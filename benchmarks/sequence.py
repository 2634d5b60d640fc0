"""All benchmarks, one after the other, each in a process of its own: what one leaves in memory must not slow the next."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import run_facts
from headway.commands import Say

# Runs a command to its end: exit code, and what it said on standard error.
Execute = Callable[[Sequence[str]], tuple[int, str]]


def run_all(
    names: Sequence[str], *, into: Path, options: Sequence[str], say: Say, execute: Execute | None = None
) -> dict[str, bool]:
    """Run benchmarks and leave ``<into>/<name>.json`` of each; return which met their targets.

    One that breaks off leaves its last words under ``error``, and the others go on.
    """
    execute = execute or _execute
    into.mkdir(parents=True, exist_ok=True)
    met = {}
    for place, name in enumerate(names, start=1):
        say(f"{place}/{len(names)} {name}")
        file = into / f"{name.lower()}.json"
        file.unlink(missing_ok=True)
        code, said = execute((sys.executable, "-m", "headway.cli", "bench", name, "--json", str(file), *options))
        met[name] = code == 0
        told = "met" if met[name] else "missed"
        # A failure that the command explained is in the file; one that ended it left nothing there.
        if not file.exists() or "benchmark" not in json.loads(file.read_text()):
            words = said.strip().splitlines()
            error = words[-1] if words else f"ended with {code}"
            file.write_text(json.dumps({"benchmark": name, "error": error, "run": run_facts()}, indent=2) + "\n")
            told = f"broke off: {error}"
        say(f"{place}/{len(names)} {name}: {told}")
    return met


def read_results(folder: Path) -> Mapping[str, dict[str, Any]]:  # Any: JSON
    """Return what `run_all` left, or one benchmark that was taken again, by name, in the order of their numbers.

    One that was taken again and broke off left its error without its name.
    """
    files = sorted(folder.glob("p[0-9]*.json"), key=lambda file: int(file.stem[1:]))
    return {file.stem.upper(): json.loads(file.read_text(encoding="utf-8")) for file in files}


def _execute(argv: Sequence[str]) -> tuple[int, str]:
    ran = subprocess.run(argv, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, check=False)
    return ran.returncode, ran.stderr
