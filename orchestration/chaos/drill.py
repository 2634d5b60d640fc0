"""``headway kafka drill``: each kind of harm to brokers once, under load, and what it cost; R2 with another schedule."""

from typing import Any

from headway.commands import Outcome, Say
from headway.errors import ContractViolation
from orchestration.chaos.brokers import LOAD, Hurt, Plan, hurt_under_load, report, run_plan
from orchestration.chaos.command import seed_of_commit
from orchestration.chaos.r2 import SHORT
from orchestration.chaos.report import Report, Trial

DRILL = Plan(
    faults=("kill-leader", "kill-controller", "stop-follower", "kill-leader-ahead", "rolling-restart", "kill-leader"),
    acked=100_000,
    elections=6,
    schedule=LOAD,
    longest_s=480.0,
)


def run_drill(*, short: bool, here: bool, seed: int | None, mutant: str | None, say: Say) -> Outcome:
    """Run the drill on a cluster of its own, or ``here``, on the stack that is up.

    Raises:
        ContractViolation: here, and the stack has not three brokers, or a bug is to be planted in it.
    """
    trial = Trial(test="drill", short=short, seed=seed_of_commit() if seed is None else seed, mutant=mutant, say=say)
    plan = SHORT if short else DRILL
    told = _run_here(trial, plan) if here else run_plan(trial, plan)
    return Outcome(holds=told.held, facts=facts_of(told), lines=told.lines())


def _run_here(trial: Trial, plan: Plan) -> Report:
    from headway.settings import Settings

    settings = Settings()
    if settings.brokers != 3:
        raise ContractViolation(
            f"drill: the stack in {settings.state} has {settings.brokers} broker, wanted 3. Make one with "
            "`headway up --brokers 3`, or leave --here away: the drill then starts a cluster of its own."
        )
    if trial.mutant is not None:
        raise ContractViolation("drill: a bug is planted in a cluster of the drill's own only; leave --here away")
    done: Hurt = hurt_under_load(settings, trial, plan)
    return report(trial, plan, done)


def facts_of(told: Report) -> dict[str, Any]:  # Any: JSON
    """Give the report with the figures a drill is asked for on top."""
    facts = told.facts()
    figures = facts["figures"]
    return {
        **facts,
        **{name: figures[name] for name in ("acked", "lost", "duplicates", "elections", "outages_s")},
        "worst_write_outage_s": figures["worst_outage_s"],
        "elections_seen": [
            {"fault": fault["what"], **election} for fault in facts["faults"] for election in fault["elections"]
        ],
    }
