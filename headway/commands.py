"""What a command of ``headway`` is: a function that declares its arguments and gives what runs them.

Pure standard library and no work at import, because ``headway --help`` answers within 0.3 s. Commands live beside what
they do; `headway.cli` names them, and imports only the one that is asked for.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a command found: ``facts`` for ``--json``, ``lines`` for people, and whether what it checks holds."""

    holds: bool
    facts: Mapping[str, Any]
    lines: Sequence[str]


# Progress, line by line, while a command runs.
Say = Callable[[str], None]
Run = Callable[[Namespace, Say], Outcome]
Command = Callable[[ArgumentParser], Run]
