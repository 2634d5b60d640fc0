"""How long users wait at an offered rate: the 99th percentile of an open load, ours beside a peer's.

Both are asked at the same instants. What bites: the load generator shares the processors with the servers. A window in which
it was late itself says nothing about them and is taken again; when that does not help there is no figure.
"""

import json
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks import children
from benchmarks.frame import Comparison, Contestant, Plan, Sample, Series, Target, compare
from headway.commands import Say
from headway.errors import PermanentFailure
from headway.settings import project_root

# Of the slower one's most: enough that answers wait for each other, little enough that no queue grows.
_SHARE = 0.6
# A question that is taken up late by more than this part of the figure would be the figure.
_LATE_SHARE = 0.2
_TRIES = 4


class Waits(Comparison):
    """Less is better, so a ratio is the peer's figure by ours."""

    def ratios(self, peer: str) -> tuple[float, float, float]:
        """Median by median, and the least and the greatest ratio of windows taken in the same turn."""
        ratio, low, high = super().ratios(peer)
        return 1 / ratio, 1 / high, 1 / low


@dataclass(frozen=True, kw_only=True)
class OfferedDoor:
    """An HTTP server that is asked at a rate, whatever it answers; ``bodies`` is a file of `write_bodies`."""

    url: str
    bodies: Path
    rate: float

    def measure(self, seconds: float) -> Sample:
        """Ask for so long.

        Raises:
            PermanentFailure: it could not be asked on time, again and again.
        """
        for _ in range(_TRIES):
            said = self._said(max(seconds, 1.0))
            if is_on_time(said):
                facts = {"p50_ms": said["p50_ms"], "late_p99_ms": said["late_p99_ms"], "offered": self.rate}
                return Sample(value=said["p99_ms"], errors=said["errors"], facts=facts)
        raise PermanentFailure(
            f"open_loop: 99 % of questions were taken up {said['late_p99_ms']:.2f} ms late, got 99 % of answers in "
            f"{said['p99_ms']:.2f} ms, wanted the load to be late by a fifth of that at most ({_TRIES} tries). "
            "Something else uses the processors; stop it and run the benchmark again."
        )

    def _said(self, seconds: float) -> dict[str, Any]:
        url = urlsplit(self.url)
        asked = (url.hostname, url.port, url.path, self.bodies, self.rate, seconds)
        command = children.module("benchmarks.open_loop", *asked)
        done = subprocess.run(command, capture_output=True, text=True, cwd=project_root(), check=False)
        if done.returncode != 0:
            raise PermanentFailure(f"open_loop: {done.stderr[-500:]}")
        said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return said


def is_on_time(said: dict[str, Any]) -> bool:
    """Whether a load was asked on time, so that its figures are the server's."""
    return bool(said["late_p99_ms"] <= _LATE_SHARE * said["p99_ms"])


def write_bodies(bodies: Sequence[object], file: Path) -> Path:
    """Write questions where the load finds them; return the file."""
    file.write_text(json.dumps(bodies), encoding="utf-8")
    return file


def offered_rate(*series: Series) -> float:
    """Give the rate that all of these bear, by what each answered at most."""
    return round(_SHARE * min(statistics.median(each.values) for each in series))


def compare_waits(title: str, *, ours: Contestant, peer: Contestant, plan: Plan, say: Say) -> Waits:
    """Measure both in turns; the target is that ours is no worse."""
    found = compare(
        title,
        unit="ms",
        ours=ours,
        peers=[peer],
        targets=[Target(peer=peer.name, at_least=1.0)],
        plan=plan,
        say=say,
    )
    return Waits(title=title, unit=found.unit, ours=found.ours, peers=found.peers, targets=found.targets)
