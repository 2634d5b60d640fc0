"""Ray Serve's autoscaling of a model's replicas by what they report: the policy Ray asks, and what a replica measures.

Ray sees no request of a replica that serves its own port, so its own counts are 0. Each replica tells how busy it is
(`LoadMeter`) with `record_autoscaling_stats`; Ray's controller asks `ReplicaScaler` ten times a second, which judges every
2.5 s by `headway.replica_scaling` and writes each decision down with its inputs.

What bites: Ray pickles this module by value into its controller, so it imports no ray; and Ray's own delays are 0, as a
decision that is recorded must be the one that is carried out.
"""

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from headway.adapters.scaling_table import ScalingTable
from headway.replica_scaling import Reading, ReplicaDecision, ReplicaLoad, ReplicaPolicy, decide_replicas

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingContext

BUSY, IN_FLIGHT = "busy", "in_flight"
# Ray warns below its (deprecated) interval of 10 s; a replica measures itself five times in it.
LOOK_BACK_S = 12.0
# A replica reports every 2.4 s; judging oftener would write the same readings down again.
_JUDGED_EVERY_S = 2.5
_JUDGED, _WANTED, _CALM_SINCE = "judged_s", "wanted", "calm_since_s"
_LOG = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """How Ray scales an application by load, and the file where each decision is kept."""

    policy: ReplicaPolicy
    decisions: Path

    @property
    def options(self) -> dict[str, Any]:  # Any: Ray's own
        """What a deployment is given: a number when there is nothing to choose, else bounds and this policy."""
        least, most = self.policy.least, self.policy.most
        if least == most:
            return {"num_replicas": least}
        policy = {
            "policy_function": f"{__name__}:{ReplicaScaler.__name__}",
            "policy_kwargs": {"policy": asdict(self.policy), "decisions": str(self.decisions)},
        }
        autoscaling = {
            "min_replicas": least,
            "initial_replicas": least,
            "max_replicas": most,
            "look_back_period_s": LOOK_BACK_S,
            "upscale_delay_s": 0.0,
            "downscale_delay_s": 0.0,
            "policy": policy,
        }
        return {"autoscaling_config": autoscaling}


class LoadMeter:
    """The share of one processor that this process used since it was last asked."""

    def __init__(
        self, *, cpu_s: Callable[[], float] = time.process_time, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._cpu_s, self._now_s = cpu_s, now_s
        self._last = cpu_s(), now_s()

    def busy(self) -> float:
        """Return the share, 0 to the number of processors; 0 when no time has passed."""
        before_cpu_s, before_s = self._last
        self._last = cpu_s, at_s = self._cpu_s(), self._now_s()
        return 0.0 if at_s <= before_s else (cpu_s - before_cpu_s) / (at_s - before_s)


class ReplicaScaler:
    """What Ray asks for a number of replicas."""

    def __init__(self, *, policy: Mapping[str, Any], decisions: str) -> None:
        """Take `ReplicaPolicy`'s fields, and the file of the decisions; plain values, as Ray keeps them as JSON."""
        self._policy = ReplicaPolicy(**policy)
        self._decisions = Path(decisions)
        self._table: ScalingTable | None = None

    def __call__(self, context: "AutoscalingContext") -> tuple[int, dict[str, Any]]:
        """Return the number of replicas and what to remember."""
        state, at_s = dict(context.policy_state), float(context.current_time or 0.0)
        if _WANTED in state and at_s - state[_JUDGED] < _JUDGED_EVERY_S:
            return int(state[_WANTED]), state
        since_s = state.get(_CALM_SINCE)
        load = load_of(context, calm_s=0.0 if since_s is None else at_s - since_s)
        decision = decide_replicas(load, self._policy)
        self._record(decision, at_s)
        calm_since_s = (at_s if since_s is None else since_s) if decision.calm else None
        return decision.instances, {_JUDGED: at_s, _WANTED: decision.instances, _CALM_SINCE: calm_since_s}

    def _record(self, decision: ReplicaDecision, at_s: float) -> None:
        try:
            self._table = self._table or ScalingTable(self._decisions)
            self._table.record([decision], self._policy, at_us=round(at_s * 1e6))
        except (OSError, sqlite3.Error) as error:
            # A full disk must not keep replicas from coming.
            _LOG.error("decision not recorded", job=decision.load.job, reason=str(error))


def load_of(context: "AutoscalingContext", *, calm_s: float) -> ReplicaLoad:
    """Return the load that Ray's context tells of."""
    reported = context.raw_metrics or {}
    busy, in_flight = reported.get(BUSY, {}), reported.get(IN_FLIGHT, {})
    return ReplicaLoad(
        job=str(context.app_name),
        instances=context.target_num_replicas,
        running=context.current_num_replicas,
        readings=[_readings(busy.get(each, ()), in_flight.get(each, ())) for each in context.running_replicas],
        calm_s=calm_s,
    )


def _readings(busy: Sequence[Any], in_flight: Sequence[Any]) -> list[Reading]:  # Any: Ray's time-stamped values
    """Both values of each instant at which a replica measured itself; Ray stores them together."""
    pairs = zip(busy, in_flight, strict=False)
    return [Reading(busy=float(one.value), in_flight=float(other.value)) for one, other in pairs]
