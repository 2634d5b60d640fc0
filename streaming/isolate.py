"""Finding the record that breaks a batch: the rest goes on, and only what fails alone is given up (S22).

Pure: attempts, undoing and letters are given in. A batch that fails is tried in parts, in order, so that whatever was
done before stays committed and the log's order holds.
"""

from collections.abc import Callable, Iterator, Sequence

from headway.breaker import OPEN_SHARE
from headway.errors import TransientFailure
from headway.ports import Message

# Parts per failed attempt. Each failure may cost a restore of state and each part a transaction: in sixteenths, one
# poisoned record of 2,000 costs 4 restores and at most 48 transactions; in halves 11 restores, one by one 2,000.
WAYS = 16
# Records tried beside a failing one, to tell a poisoned record from a broken handler.
WITNESSES = 50


class Poison(Exception):
    """A record, or a batch with one, on which our own code raised; the cause is the error itself."""


class EverythingFails(TransientFailure):
    """The records beside a failing one fail too: the fault is ours, and none of them is given up."""


def work_through(
    batch: Sequence[Message],
    *,
    attempt: Callable[[Sequence[Message]], None],
    undo: Callable[[], None],
    give_up: Callable[[Message, Sequence[Message], Exception], None],
) -> None:
    """Do a batch; what fails is tried in ever smaller parts, and what fails alone is given up.

    Args:
        batch: in order per partition.
        attempt: does a part for good or raises `Poison`; anything else it raises ends the work.
        undo: forgets what a failed attempt left in memory.
        give_up: told the record, the whole batch and the error; returns when the record is accounted for.
    """
    pending = [batch]
    while pending:
        part = pending.pop()
        try:
            attempt(part)
        except Poison as poison:
            undo()
            cause = poison.__cause__
            if len(part) == 1:
                give_up(part[0], batch, cause if isinstance(cause, Exception) else poison)
            else:
                pending.extend(reversed(list(_parts(part))))


def everything_fails(
    suspect: Message, batch: Sequence[Message], *, fails: Callable[[Message], bool]
) -> tuple[int, int] | None:
    """Return (failing, tried) when a sample of the batch fails about as one; None when others pass, or there are none."""
    others = [message for message in batch if message is not suspect]
    step = max(1, -(-len(others) // WITNESSES))
    witnesses = others[::step]
    failing = sum(fails(message) for message in witnesses)
    if witnesses and failing >= OPEN_SHARE * len(witnesses):
        return failing, len(witnesses)
    return None


def _parts(batch: Sequence[Message]) -> Iterator[Sequence[Message]]:
    size = -(-len(batch) // WAYS)
    for start in range(0, len(batch), size):
        yield batch[start : start + size]
