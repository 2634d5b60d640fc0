"""R2: leaders and controllers are killed, stopped and restarted under acks=all; nothing acknowledged is lost."""

from orchestration.chaos.brokers import LOAD, Plan, run_plan
from orchestration.chaos.report import Report, Trial

FULL = Plan(
    faults=(
        *("kill-leader", "kill-leader-ahead", "stop-leader", "kill-controller", "kill-leader", "stop-follower"),
        *("kill-leader", "rolling-restart", "kill-leader-ahead", "stop-leader", "kill-controller", "kill-leader"),
    ),
    acked=100_000,
    elections=6,
    schedule=LOAD,
    longest_s=560.0,
)
# The harshest of them: what only the leader had goes with it.
SHORT = Plan(faults=("kill-leader-ahead",), acked=5_000, elections=1, schedule=LOAD, longest_s=90.0)


def run(trial: Trial) -> Report:
    """Run R2."""
    return run_plan(trial, SHORT if trial.short else FULL)
