"""The examples of a documentation page, run as they stand, and compared with what the page says they give.

A console block is a command behind ``$``, whose further lines are indented, with its output below; a python block ends with
``# prints`` and its output in comments. ``"..."`` stands for what the page leaves out of an answer. Each runs in a process of its own.
"""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

_WITHIN_S = 60.0


@dataclass(frozen=True)
class Example:
    """One block of a page: what it runs, and what it says that gives."""

    language: str
    source: str
    output: str

    def run(self, ports: Mapping[str, int]) -> str:
        """Return what it prints on a stack whose ports are others than the page's."""
        source = re.sub("|".join(ports), lambda found: str(ports[found[0]]), self.source)
        command = ["bash", "-c", source] if self.language == "console" else [sys.executable, "-c", source]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_WITHIN_S, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


def examples(page: Path) -> list[Example]:
    """Return a page's examples, in its order."""
    blocks = re.findall(r"^```(console|python)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [_example(language, text) for language, text in blocks]


def differences(example: Example, printed: str) -> list[str]:
    """Say where what was printed differs from what the page shows."""
    if example.language == "console" and example.output.lstrip().startswith(("{", "[")):
        return _shown(json.loads(example.output), json.loads(printed))
    if printed.strip() == example.output.strip():
        return []
    return [f"page {example.output!r}, printed {printed!r}"]


def _example(language: str, text: str) -> Example:
    if language == "console":
        first, *more = text.removeprefix("$ ").splitlines()
        further = list(takewhile(lambda line: line.startswith(" "), more))
        return Example(language, "\n".join((first, *further)), "\n".join(more[len(further) :]))
    source, _, output = text.partition("\n# prints\n")
    return Example(language, source, "\n".join(line.removeprefix("# ") for line in output.splitlines()))


def _shown(documented: Any, given: Any) -> list[str]:
    if isinstance(documented, dict) and isinstance(given, dict):
        names = documented.keys() - {"..."}
        missing = [f"{name}: not there" for name in names - given.keys()]
        more = [] if "..." in documented else [f"{name}: not shown" for name in given.keys() - names]
        deeper = [f"{n}.{p}" for n in names & given.keys() for p in _shown(documented[n], given[n])]
        return missing + more + deeper
    if isinstance(documented, list) and isinstance(given, list):
        named = documented[:-1] if documented[-1:] == ["..."] else documented
        if len(named) == len(given) or named is not documented:
            return [p for one, other in zip(named, given, strict=False) for p in _shown(one, other)]
    return [] if documented in (given, "...") else [f"page {documented!r}, answer {given!r}"]
