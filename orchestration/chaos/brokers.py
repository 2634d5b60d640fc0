"""R2 and ``headway kafka drill``: a three-broker cluster is hurt under load that asks for every acknowledgement.

Real Collectors take the load over HTTP and answer success only after acks=all, so an acknowledged event that is not in
events.raw afterwards is lost, and one that stands there twice was repeated by the producer: the driver never sends an
event again. The drill is R2 with another schedule.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headway.clock import monotonic_s
from headway.settings import Settings
from headway.topics import EVENTS_RAW, PARTITIONS
from orchestration.chaos.broker_drive import LogDrive, driving
from orchestration.chaos.broker_faults import BrokerCluster, FaultReport, Kind, hurt
from orchestration.chaos.broker_verdict import Account, outages
from orchestration.chaos.driver import TIMEOUT_S, Schedule
from orchestration.chaos.report import Report, Trial
from orchestration.chaos.stack import own_stack

PARTS = ("kafka", "collector")
THREE_BROKERS = {"HEADWAY_BROKERS": "3"}
# Few posts a second, as the driver's HTTP client slows down with the number of posts under way, and in an outage all
# of three seconds are.
LOAD = Schedule(batches_per_s=9, batch_size=50, singles_per_s=20)
OUTAGE_AT_MOST_S = 10.0
_CALM_S = 3.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is done to the cluster, and how much has to be acknowledged meanwhile."""

    faults: Sequence[Kind]
    acked: int
    elections: int
    schedule: Schedule
    longest_s: float


@dataclass(frozen=True, kw_only=True)
class Hurt:
    """What was measured."""

    account: Account
    faults: Sequence[FaultReport]
    outages_s: Sequence[float]
    slip_s: float
    begun_s: float
    seconds: float

    @property
    def elections(self) -> list[dict[str, Any]]:  # Any: JSON
        """Every change of a leader that followed a fault."""
        return [
            {"fault": place, **each} for place, fault in enumerate(self.faults) for each in fault.details["elections"]
        ]


def run_plan(trial: Trial, plan: Plan) -> Report:
    """Do a plan on a cluster of its own and say what held."""
    with own_stack(PARTS, mutant=trial.mutant, environment=THREE_BROKERS, say=trial.say) as settings:
        return report(trial, plan, hurt_under_load(settings, trial, plan))


def hurt_under_load(settings: Settings, trial: Trial, plan: Plan) -> Hurt:
    """Do a plan on the cluster of a stack that is up."""
    begun_s = monotonic_s()
    cluster = BrokerCluster(settings, topic=EVENTS_RAW)
    try:
        cluster.wait_whole()
        with driving(settings, trial, plan.schedule, longest_s=plan.longest_s) as drive:
            faults = _hurt_in_turn(cluster, drive, plan, trial)
            drive.stop()
            journal = drive.told()
    finally:
        cluster.close()
    trial.say(f"{journal.height:,} events offered; reading {EVENTS_RAW} back")
    return Hurt(
        account=drive.settle(journal),
        faults=faults,
        outages_s=outages(journal, partitions=PARTITIONS, faults=[(fault.began_s, fault.whole_s) for fault in faults]),
        slip_s=drive.slip_s,
        begun_s=begun_s,
        seconds=monotonic_s() - begun_s,
    )


def _hurt_in_turn(cluster: BrokerCluster, drive: LogDrive, plan: Plan, trial: Trial) -> list[FaultReport]:
    faults: list[FaultReport] = []
    for kind in plan.faults:
        time.sleep(_CALM_S)
        fault = hurt(cluster, kind)
        faults.append(fault)
        trial.say(f"{kind:<18} {fault.name:<12} whole after {fault.whole_s - fault.began_s:4.1f} s; {fault.proof}")
    time.sleep(_CALM_S)
    while drive.running and drive.acked < plan.acked:
        time.sleep(0.2)
    return faults


def report(trial: Trial, plan: Plan, done: Hurt) -> Report:
    """Say what held."""
    account, worst_s = done.account, max(done.outages_s, default=0.0)
    elections = done.elections
    return Report(
        trial=trial,
        n=account.acked,
        violations=account.violations,
        wants={
            f"at least {plan.acked:,} acknowledged (got {account.acked:,})": account.acked >= plan.acked,
            f"at least {plan.elections} elections (got {len(elections)})": len(elections) >= plan.elections,
            f"write outage of every fault at most {OUTAGE_AT_MOST_S:.0f} s (worst {worst_s:.1f} s)": worst_s
            <= OUTAGE_AT_MOST_S,
            f"no answer but success and 503, none later than {TIMEOUT_S:.0f} s (got {account.odd_answers or 'none'})": (
                not account.odd_answers
            ),
        },
        figures={
            **account.figures,
            "elections": len(elections),
            "election_times_s": sorted(each["after_s"] for each in elections if each["of"] != "controller"),
            "worst_outage_s": round(worst_s, 2),
            "outages_s": [round(each, 2) for each in done.outages_s],
            "driver_slip_s": round(done.slip_s, 3),
        },
        faults=done.faults,
        begun_s=done.begun_s,
        seconds=done.seconds,
    )
