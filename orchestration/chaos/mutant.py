"""Planted bugs: ``python -m orchestration.chaos.mutant NAME MODULE [ARGUMENT ...]`` runs a module with one of them in.

They show that a chaos test can fail, and for the right reason. They live here only: production code knows none, and a
stack runs its modules through this one when `headway.local.stack.THROUGH_VARIABLE` says so.
"""

import asyncio
import runpy
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headway.errors import ContractViolation

# Any: what is patched is typed where it is defined, and deliberately broken here.


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One bug: ``plant`` patches what the processes of ``modules`` (with this first argument, if any) run."""

    bug: str
    module: str
    argument: str | None
    plant: Callable[[], None]

    def concerns(self, module: str, arguments: Sequence[str]) -> bool:
        """Whether this process is to carry the bug."""
        return module == self.module and self.argument in (None, *arguments[:1])


def _acknowledge_before_delivery() -> None:
    from serving.collector import Collector

    under_way: set[asyncio.Future[Any]] = set()

    async def publish(self: Any, record: Any) -> None:
        future = self._publisher.publish_async(record)
        under_way.add(future)
        future.add_done_callback(forget)

    def forget(done: asyncio.Future[Any]) -> None:
        """Take note of a failed delivery and tell nobody, which is the bug."""
        under_way.discard(done)
        done.exception()

    Collector._publish = publish  # type: ignore[method-assign]  # noqa: SLF001


def _swallow_letter_failure() -> None:
    from serving.collector import Collector

    reject = Collector._reject  # noqa: SLF001

    async def swallow(self: Any, raw: bytes, refusal: Any) -> Any:
        outcome = await reject(self, raw, refusal)
        if outcome.status < 500:
            return outcome
        from serving.collector import _refused

        return _refused(400, "invalid-envelope", str(refusal))

    Collector._reject = swallow  # type: ignore[method-assign]  # noqa: SLF001


def _commit_before_write() -> None:
    from headway.clock import monotonic_s
    from streaming.runtime import Flushed
    from streaming.sinks.lake import FLUSH_AGE_S, LakeSink

    offer, flush = LakeSink.offer, LakeSink.flush
    uncommitted: list[Any] = []
    flushed_s, owed = monotonic_s(), False

    def take(self: Any, batch: Any) -> None:
        uncommitted.extend(batch)
        offer(self, batch)

    def due(self: Any, now_s: float) -> bool:  # noqa: ARG001
        return now_s - flushed_s >= FLUSH_AGE_S

    def commit_first(self: Any) -> Any:
        """Every other time give up messages to be committed that are not written yet."""
        nonlocal flushed_s, owed
        flushed_s, owed = monotonic_s(), not owed
        if not owed:
            flush(self)
        messages, uncommitted[:] = list(uncommitted), []
        return Flushed(messages=messages)

    LakeSink.offer, LakeSink.due, LakeSink.flush = take, due, commit_first  # type: ignore[method-assign]


def _offsets_before_outputs() -> None:
    from headway.adapters.kafka_log import KafkaEventLog

    commit = KafkaEventLog.commit

    def in_two(self: Any, inputs: Any, outputs: Any) -> None:
        """Commit in two transactions what belongs in one; whoever dies between them has lost the outputs."""
        commit(self, inputs, [])
        commit(self, [], outputs)

    KafkaEventLog.commit = in_two  # type: ignore[method-assign]


def _append_whatever_comes() -> None:
    from headway.adapters.delta import Lake

    def nothing(_self: Any, _table: str, _app_id: str) -> None:
        """Know nothing of what the table holds."""

    def append(self: Any, table: str, batches: Any) -> frozenset[str]:
        """Add rows without asking whether the table has them."""
        for _, frame in batches.values():
            self.append(table, frame)
        return frozenset(batches)

    Lake.committed, Lake.append_each_once = nothing, append  # type: ignore[method-assign,assignment]


def _acknowledge_by_the_leader_alone() -> None:
    from headway.adapters import kafka_client, kafka_publisher

    early = {**kafka_client.DURABLE, "acks": 1, "enable.idempotence": False}
    setattr(kafka_publisher, "DURABLE", early)  # noqa: B010 - imported there, and exported nowhere


MUTANTS: Mapping[str, Mutant] = {
    "acks-1": Mutant(
        bug="the Collector's producer asks for the leader's acknowledgement alone",
        module="serving.collector_main",
        argument=None,
        plant=_acknowledge_by_the_leader_alone,
    ),
    "ack-before-delivery": Mutant(
        bug="the Collector answers before the broker's delivery report",
        module="serving.collector_main",
        argument=None,
        plant=_acknowledge_before_delivery,
    ),
    "letter-swallowed": Mutant(
        bug="the Collector answers 4xx although the letter was not acknowledged",
        module="serving.collector_main",
        argument=None,
        plant=_swallow_letter_failure,
    ),
    "commit-before-write": Mutant(
        bug="the lake loader commits its offsets before it writes",
        module="streaming.main",
        argument="lake-loader",
        plant=_commit_before_write,
    ),
    "offsets-before-outputs": Mutant(
        bug="the Enricher commits its offsets in one transaction and its outputs in another",
        module="streaming.main",
        argument="enricher",
        plant=_offsets_before_outputs,
    ),
    "lake-appends-blindly": Mutant(
        bug="the lake loader writes without asking which offsets the table holds",
        module="streaming.main",
        argument="lake-loader",
        plant=_append_whatever_comes,
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
