"""Planted bugs: ``python -m orchestration.chaos.mutant NAME MODULE [ARGUMENT ...]`` runs a module with one of them in.

They show that a chaos test can fail, and for the right reason. They live here only: production code knows none, and a
stack runs its modules through this one when `headway.local.stack.THROUGH_VARIABLE` says so.
"""

import runpy
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from headway.errors import ContractViolation
from headway.topics import EVENTS_RAW, EVENTS_RAW_LETTERS
from orchestration.chaos import planted, planted_features


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One bug: ``plant`` patches what the processes of ``module`` (with this first argument, if any) run.

    ``also`` names a module of a trial's own that is to have the bug too.
    """

    bug: str
    module: str
    argument: str | None
    plant: Callable[[], None]
    also: str | None = None

    def concerns(self, module: str, arguments: Sequence[str]) -> bool:
        """Whether this process is to carry the bug."""
        return module == self.also or (module == self.module and self.argument in (None, *arguments[:1]))


MUTANTS: Mapping[str, Mutant] = {
    "acks-1": Mutant(
        bug="the Collector's producer asks for the leader's acknowledgement alone",
        module="serving.collector_main",
        argument=None,
        plant=planted.acknowledge_by_the_leader_alone,
    ),
    "ack-before-delivery": Mutant(
        bug="the Collector answers before the broker's delivery report",
        module="serving.collector_main",
        argument=None,
        plant=planted.acknowledge_early(EVENTS_RAW),
    ),
    "letter-swallowed": Mutant(
        bug="the Collector answers 4xx although the letter was not acknowledged",
        module="serving.collector_main",
        argument=None,
        plant=planted.acknowledge_early(EVENTS_RAW_LETTERS),
    ),
    "commit-before-write": Mutant(
        bug="the lake loader commits its offsets before it writes",
        module="streaming.main",
        argument="lake-loader",
        plant=planted.commit_before_write,
    ),
    "offsets-before-outputs": Mutant(
        bug="the Enricher commits its offsets in one transaction and its outputs in another",
        module="streaming.main",
        argument="enricher",
        plant=planted.offsets_before_outputs,
    ),
    "lake-appends-blindly": Mutant(
        bug="the lake loader writes without asking which offsets the table holds",
        module="streaming.main",
        argument="lake-loader",
        plant=planted.append_whatever_comes,
    ),
    "poison-skipped": Mutant(
        bug="the Enricher skips what it rejects instead of making it a letter",
        module="streaming.main",
        argument="enricher",
        plant=planted.skip_what_is_rejected,
    ),
    "down-taken-for-refused": Mutant(
        bug="the Enricher takes an Enrichment API that does not answer for one that refuses",
        module="streaming.main",
        argument="enricher",
        plant=planted.take_down_for_refused,
    ),
    "state-forgotten": Mutant(
        bug="the feature job takes partitions over without restoring what their windows hold",
        module="streaming.main",
        argument="features-aggregate",
        plant=planted.forget_state,
    ),
    "expiries-lost": Mutant(
        bug="the feature job writes no row when a window lets go of an event",
        module="streaming.main",
        argument="features-aggregate",
        plant=planted_features.lose_expiries,
    ),
    "ties-by-arrival": Mutant(
        bug="of events at one instant the feature job takes the one that arrived last for the newest",
        module="streaming.main",
        argument="features-aggregate",
        plant=planted_features.break_ties_by_arrival,
    ),
    "guard-off": Mutant(
        bug="the online writer overwrites whatever is there",
        module="streaming.main",
        argument="online-writer",
        also="orchestration.chaos.second_writer",
        plant=planted_features.guard_nothing,
    ),
    "guard-of-feast": Mutant(
        bug="the online writer refuses equal instants, as Feast's own does",
        module="streaming.main",
        argument="online-writer",
        also="orchestration.chaos.second_writer",
        plant=planted_features.refuse_equal_instants,
    ),
    "rows-left-out": Mutant(
        bug="the online writer leaves out every tenth row",
        module="streaming.main",
        argument="online-writer",
        plant=planted_features.leave_rows_out,
    ),
    "retries-nothing": Mutant(
        bug="the load balancer does not ask another replica when one does not answer",
        module="serving.balancer",
        argument=None,
        also="serving.release_guard",
        plant=planted.retry_nothing,
    ),
    "scores-in-two-steps": Mutant(
        bug="the scorer commits its offsets in one transaction and its scores in another",
        module="streaming.main",
        argument="scorer",
        plant=planted.offsets_before_outputs,
    ),
    "plan-forgotten": Mutant(
        bug="the scorer takes partitions over without the plan of versions",
        module="streaming.main",
        argument="scorer",
        plant=planted.forget_plan,
    ),
    "letters-cut": Mutant(
        bug="the Enricher's letters keep only the beginning of the original",
        module="streaming.main",
        argument="enricher",
        plant=planted.cut_letters,
    ),
    "never-condemned": Mutant(
        bug="the Enricher's crash journal never gives up a record that ends the process",
        module="streaming.main",
        argument="enricher",
        plant=planted.condemn_nothing,
    ),
    "replay-in-two-steps": Mutant(
        bug="a replay of letters puts events back in one transaction and notes it in another",
        module="headway.cli",
        argument="letters",
        plant=planted.replay_in_two_steps,
    ),
    "replay-forgets": Mutant(
        bug="a replay of letters puts events back and does not note that it did",
        module="headway.cli",
        argument="letters",
        plant=planted.replay_forgets,
    ),
}


def find_mutant(name: str) -> Mutant:
    """Return a mutant by name.

    Raises:
        ContractViolation: there is none of that name.
    """
    if name not in MUTANTS:
        raise ContractViolation(f"mutant: got {name!r}, wanted one of {', '.join(sorted(MUTANTS))}")
    return MUTANTS[name]


def main() -> None:
    """Plant the bug if it is about this process, then run the module as if by ``python -m``."""
    name, module, *arguments = sys.argv[1:]
    mutant = find_mutant(name)
    if mutant.concerns(module, arguments):
        mutant.plant()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
