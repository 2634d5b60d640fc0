"""What waits for a stream job, and what its instances were seen to do about it: readings in a row, made into a load.

What bites: offsets of transactional topics have gaps (markers, aborted records), so lag is an estimate, high by a few
per transaction. It says how many should work, never whether something was lost (S13).
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How patient and how generous the scaler is.

    Attributes:
        most: instances of one job, at most.
        extra: instances beyond the first of each job, over all jobs: the budget of the machine.
        drain_within_s: in this time a backlog should be gone.
        readings: how many in a row must agree before a job gets more, and over how many rates are measured.
        calm_s: how long nothing may wait before a job gets one less; also the least time between two changes downward.
        headroom: share of what the remaining instances can do that the input may take.
        noise: messages per partition that look like lag at rest (markers).
    """

    most: int
    extra: int
    drain_within_s: float = 30.0
    readings: int = 3
    calm_s: float = 60.0
    headroom: float = 0.7
    noise: int = 25

    @property
    def behind_s(self) -> float:
        """Lag of less than this is a matter of batches and buffers; the lake loader alone holds rows for 3 s."""
        return self.drain_within_s / 3


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One job at one instant: ``written`` and ``done`` are sums of end and committed offsets over its partitions.

    ``at_s`` is on a clock that never jumps. ``instances`` are wanted, ``ready`` work. ``places`` counts topic-partitions.
    """

    at_s: float
    written: int
    done: int
    places: int
    instances: int
    ready: int

    @property
    def lag(self) -> int:
        """Messages written and not done, an estimate."""
        return max(0, self.written - self.done)


@dataclass(frozen=True, kw_only=True)
class Track:
    """What is remembered of a job: its last readings, and the most that one of its instances was seen to handle."""

    readings: tuple[Reading, ...] = ()
    capacity_per_s: float | None = None

    def follow(self, reading: Reading, policy: Policy) -> "Track":
        """Return the track with one more reading; those too old for any decision are dropped."""
        old = sum(reading.at_s - each.at_s >= policy.calm_s for each in self.readings)
        # The newest of the old ones stays: without it no calm could last as long as is asked for.
        start = min(max(0, old - 1), max(0, len(self.readings) - policy.readings))
        kept = [*self.readings[start:], reading]
        recent = _unchanged(kept)[-policy.readings :]
        handled = _rate([each.done for each in recent], recent)
        capacity = self.capacity_per_s
        if handled is not None and len(recent) == policy.readings and recent[-1].ready:
            each_handled = handled / recent[-1].ready
            # Measured with work waiting it is the truth; with none it is only a lower bound.
            saturated = _behind(recent, handled, policy)
            capacity = each_handled if saturated else max(capacity or 0.0, each_handled)
        return Track(readings=tuple(kept), capacity_per_s=capacity or None)


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a decision is made from; recorded with it. Rates are per second, None when they cannot be known yet.

    ``agreeing`` counts the last readings with these instances, ``behind`` says whether all of them had a real backlog,
    ``calm_s`` for how long there was none; both counted up to what the policy asks for, so that rest looks alike.
    """

    job: str
    instances: int
    ready: int
    held: bool
    partitions: int
    lag: int
    lag_s: float | None
    input_per_s: float | None
    peak_input_per_s: float | None
    handled_per_s: float | None
    capacity_per_s: float | None
    agreeing: int
    behind: bool
    calm_s: float


def measure(job: str, track: Track, policy: Policy, *, partitions: int, held: bool) -> Load:
    """Say what the readings of a job, at least one, mean."""
    same = _unchanged(track.readings)
    recent, last = same[-policy.readings :], track.readings[-1]
    enough = len(recent) == policy.readings
    handled = _rate([each.done for each in recent], recent)
    return Load(
        job=job,
        instances=last.instances,
        ready=last.ready,
        held=held,
        partitions=partitions,
        lag=last.lag,
        lag_s=last.lag / handled if handled else (0.0 if last.lag <= policy.noise * last.places else None),
        input_per_s=_rate([each.written for each in recent], recent),
        peak_input_per_s=_peak_input(same, policy),
        handled_per_s=handled,
        capacity_per_s=track.capacity_per_s,
        agreeing=len(recent),
        behind=enough and handled is not None and _behind(recent, handled, policy),
        calm_s=min(policy.calm_s, _calm_s(same, policy)),
    )


def _unchanged(readings: Sequence[Reading]) -> list[Reading]:
    """The last readings in a row that had as many instances as the very last: rates before a change say little."""
    last = (readings[-1].instances, readings[-1].ready)
    start = len(readings)
    while start and (readings[start - 1].instances, readings[start - 1].ready) == last:
        start -= 1
    return list(readings[start:])


def _rate(values: Sequence[int], readings: Sequence[Reading]) -> float | None:
    span_s = readings[-1].at_s - readings[0].at_s
    return max(0, values[-1] - values[0]) / span_s if span_s > 0 else None


def _behind(readings: Sequence[Reading], handled_per_s: float, policy: Policy) -> bool:
    return handled_per_s > 0 and all(
        each.lag > max(policy.noise * each.places, policy.behind_s * handled_per_s) for each in readings
    )


def _calm_s(readings: Sequence[Reading], policy: Policy) -> float:
    """For how long up to the last reading nothing waited longer than a batch or a buffer explains."""
    start = len(readings)
    while start and _is_calm(readings[max(0, start - policy.readings) : start], policy):
        start -= 1
    return readings[-1].at_s - readings[start].at_s if start < len(readings) else 0.0


def _is_calm(readings: Sequence[Reading], policy: Policy) -> bool:
    handled = _rate([each.done for each in readings], readings) or 0.0
    return readings[-1].lag <= max(policy.noise * readings[-1].places, policy.behind_s * handled)


def _peak_input(readings: Sequence[Reading], policy: Policy) -> float | None:
    windows = [readings[start : start + policy.readings] for start in range(len(readings) - policy.readings + 1)]
    rates = [_rate([each.written for each in window], window) for window in windows]
    return max((rate for rate in rates if rate is not None), default=None)
