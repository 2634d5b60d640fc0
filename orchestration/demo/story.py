"""How the demo tells its story: numbered steps with durations, facts for the report, and a closing table."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from headway.clock import monotonic_s
from headway.commands import Say


@dataclass
class Story:
    """What has been told so far. ``facts`` is the report; figures in it come from the parts, never from here."""

    say: Say
    facts: dict[str, Any] = field(default_factory=dict)  # Any: what JSON holds
    seconds: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @contextmanager
    def step(self, name: str, text: str) -> Iterator[None]:
        """Tell a step and how long it took, also when it fails."""
        self.say(f"\n[{len(self.seconds) + 1:2}] {text}")
        begun_s = monotonic_s()
        try:
            yield
        finally:
            self.seconds[name] = round(monotonic_s() - begun_s, 1)
            self.say(f"     {self.seconds[name]:.1f} s")

    def tell(self, line: str) -> None:
        """Tell one line of the current step."""
        self.say(f"     {line}")

    def expect(self, holds: bool, otherwise: str) -> None:  # noqa: FBT001  # the subject of the sentence
        """Note a promise that was not kept; the demo goes on, and ends with exit code 1."""
        if not holds:
            self.problems.append(otherwise)
            self.tell(f"NOT KEPT: {otherwise}")

    def table(self, rows: list[tuple[str, str]]) -> None:
        """Tell the closing table."""
        width = max(len(name) for name, _ in rows)
        self.say("")
        for name, value in rows:
            self.say(f"  {name:<{width}}  {value}")
