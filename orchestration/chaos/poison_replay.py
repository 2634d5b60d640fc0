"""Repairing poison at the letter desk and replaying it, twice; and what that must come to."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from domains.flights.domain import DOMAIN
from headway.adapters.kafka_exclusive import KafkaExclusiveWriter
from headway.clock import SystemClock, to_us
from headway.errors import InputRejected
from headway.ledger import Books, settle
from headway.letter_desk import DESK, LetterDesk, Selection
from headway.letter_replay import Filed, Signature
from headway.settings import Settings
from headway.topics import EVENTS_ENRICHED_LETTERS
from orchestration.chaos.quiescence import books_at_rest
from streaming.accounts import Stores

_AT = ["raw_partition", "raw_offset"]
_NAMED = 20


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """What repair and two replays came to: verdicts of each, and the books after each replay."""

    wanted: int
    fixed: Mapping[str, int]
    first: Mapping[str, int]
    second: Mapping[str, int]
    after_first: Books
    after_second: Books

    def facts(self) -> dict[str, Any]:
        """Return the verdicts as plain values."""
        return {
            "repairable": self.wanted,
            "fixed": dict(self.fixed),
            "first_replay": dict(self.first),
            "second_replay": dict(self.second),
        }


def repair_and_replay(
    settings: Settings,
    stores: Stores,
    repairs: Mapping[tuple[int, int], bytes],
    *,
    say: Callable[[str], None],
) -> Replayed:
    """Repair the letters of these raw places, replay what is repaired, and replay it all once more."""
    writer = KafkaExclusiveWriter(bootstrap=settings.kafka_bootstrap, name=DESK)
    signature = Signature(by="chaos", at_us=to_us(SystemClock().now()))
    desk = LetterDesk(stores.log, writer, [DOMAIN], {})

    def repair(filed: Filed) -> bytes:
        body = repairs.get(filed.letter.raw_place or (-1, -1))
        if body is None:
            raise InputRejected(f"{filed.id}: of a kind that cannot be repaired")
        return body

    try:
        say("fixing, then replaying twice")
        fixed = desk.fix(Selection(), repair, signature, progress=lambda _: None)
        first = desk.replay(Selection(state="fixed"), signature, watermark_us=None, progress=lambda _: None)
        after_first = books_at_rest(stores, say=say)
        again = Selection(state="replayed")
        second = desk.replay(again, signature, watermark_us=None, progress=lambda _: None)
        after_second = books_at_rest(stores, say=say)
    finally:
        writer.close()
    return Replayed(
        wanted=len(repairs),
        fixed=dict(fixed.verdicts),
        first=dict(first.verdicts),
        second=dict(second.verdicts),
        after_first=after_first,
        after_second=after_second,
    )


def judge_replay(replayed: Replayed) -> dict[str, list[str]]:
    """Return what is wrong: all that can be repaired is enriched once, and a repeat changes nothing."""
    wrong: dict[str, list[str]] = {}
    for name, books in (("replay", replayed.after_first), ("second replay", replayed.after_second)):
        ledger = settle(books)
        if not ledger.balanced:
            wrong[f"{name}: ledger"] = [str(ledger.facts(limit=_NAMED)["named"]), f"in flight {ledger.in_flight}"]
        # Some poison bears a forged header of a replay.
        again = books.raw.filter(pl.col("fixes").str.starts_with(EVENTS_ENRICHED_LETTERS))
        enriched = again.join(books.enriched, on=_AT, how="semi")
        letters = again["fixes"].n_unique()
        if not replayed.wanted == again.height == letters == enriched.height:
            put_back = f"put back {again.height}, of letters {letters}, enriched {enriched.height}"
            wrong[f"{name}: letters"] = [f"repairable {replayed.wanted}, {put_back}"]
    return wrong
