"""R6's own parts: what hostile events do to a process, and the verdict on poison, its letters and its replay."""

import signal
import subprocess
import sys
from typing import Any

import orjson
import polars as pl
import pytest

from headway.clock import from_us
from headway.failpoints import KILLED_STATUS
from headway.ledger import EFFECT_SCHEMA, LETTER_SCHEMA, RAW_SCHEMA, Books
from orchestration.chaos import poison_verdict
from orchestration.chaos.hostile import ENVIRONMENT, concerns
from orchestration.chaos.poison_replay import Replayed, judge_replay
from orchestration.chaos.poison_verdict import judge_letters
from orchestration.chaos.poisoner import WRITTEN_SCHEMA, deadly_kinds
from orchestration.chaos.r6 import FULL, SHORT

REACT = """
import sys
from types import SimpleNamespace
from orchestration.chaos.hostile import limit_memory, react
limit_memory(128 * 1024 * 1024)
react(SimpleNamespace(tail=sys.argv[1]))
"""


@pytest.mark.parametrize(
    ("tail", "code", "point"),
    [
        ("KILL", KILLED_STATUS, "hostile_kill"),
        ("DIE", -signal.SIGSEGV, "hostile_die"),
        ("ALLOCATE", -signal.SIGKILL, "hostile_allocate"),
        ("N14228", 0, None),
    ],
)
def test_a_deadly_event_ends_the_process_and_says_so_first(tail: str, code: int, point: str | None) -> None:
    argv = [sys.executable, "-c", REACT, tail]
    done = subprocess.run(argv, env=dict(ENVIRONMENT), capture_output=True, timeout=60, check=False)

    assert done.returncode == code, done.stderr
    said = [orjson.loads(line) for line in done.stderr.splitlines() if line.startswith(b"{")]
    assert [(each["event"], each["name"], each["action"]) for each in said] == (
        [] if point is None else [("failpoint", f"enricher.{point}", "kill")]
    )


def test_only_the_enricher_is_planted_whatever_runs_it() -> None:
    assert concerns(["streaming.main", "enricher", "--instance", "0"])
    assert concerns(["orchestration.chaos.mutant", "poison-skipped", "streaming.main", "enricher"])
    assert not concerns(["streaming.main", "lake-loader"])
    assert not concerns(["serving.enrichment_main", "--instance", "0"])


def test_every_way_of_ending_a_process_has_its_kind_and_both_forms_have_enough_of_the_others() -> None:
    names = {kind.name for kind in deadly_kinds()}

    assert names == {"hostile-hang", "hostile-kill", "hostile-die", "hostile-allocate"}
    assert FULL.each >= 500
    assert FULL.timed
    assert SHORT.each < FULL.each


def frame(schema: Any, *rows: tuple[Any, ...]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=schema, orient="row")


POISON = (0, 1, "array", "unparseable", "$", 11)
RAISING = (0, 2, "hostile-raise", "handler-failed", None, 12)
GOOD = (0, 3, "good", None, None, 13)
LETTER = (0, 1, "unparseable", "$", "enricher", 1, None, 11)
GIVEN_UP = (0, 2, "handler-failed", None, "enricher", 1, "abc", 12)
ENRICHED = (0, 3, "s", "good", 0, 0)


def books(*, enriched: list[tuple[Any, ...]], raw: list[tuple[Any, ...]] | None = None) -> Books:
    effects = frame(EFFECT_SCHEMA, *enriched)
    return Books(
        raw=frame(RAW_SCHEMA, *(raw or [])), enriched=effects, letters=frame(LETTER_SCHEMA), lake=effects, search=None
    )


def wrong(*letters: tuple[Any, ...], enriched: tuple[tuple[Any, ...], ...] = (ENRICHED,)) -> list[str]:
    written = frame(WRITTEN_SCHEMA, POISON, RAISING, GOOD)
    found = judge_letters(written, frame(poison_verdict.LETTER_SCHEMA, *letters), books(enriched=list(enriched)))
    return sorted(found)


def test_poison_that_is_one_letter_each_is_right() -> None:
    assert wrong(LETTER, GIVEN_UP) == []


@pytest.mark.parametrize(
    ("letters", "what"),
    [
        ([GIVEN_UP], "poison without a letter"),
        ([LETTER, LETTER, GIVEN_UP], "poison with several letters"),
        ([(0, 1, "unknown-type", *LETTER[3:]), GIVEN_UP], "letter with another reason"),
        ([(*LETTER[:3], "$.id", *LETTER[4:]), GIVEN_UP], "letter with another path"),
        ([(*LETTER[:7], 10), GIVEN_UP], "letter with other bytes"),
        ([(*LETTER[:5], 0, *LETTER[6:]), GIVEN_UP], "letter that does not say who, how often or where"),
        ([LETTER, (*GIVEN_UP[:6], None, 12)], "letter that does not say who, how often or where"),
        ([LETTER, GIVEN_UP, (0, 3, *LETTER[2:])], "good beside poison with a letter"),
    ],
)
def test_each_way_a_letter_can_be_wrong_is_named(letters: list[tuple[Any, ...]], what: str) -> None:
    assert wrong(*letters) == [what]


def test_poison_that_passes_and_good_that_does_not_are_named() -> None:
    assert wrong(LETTER, GIVEN_UP, enriched=((0, 1, "s", "bad", 0, 0),)) == [
        "good beside poison not enriched",
        "poison enriched",
    ]


HOUR = from_us(0)
PUT_BACK = (0, 4, "s", "a", HOUR, 1, "events.enriched.dlq-0-0")
EFFECT = (0, 4, "s", "a", 0, 1)


@pytest.mark.parametrize(
    ("raw", "enriched", "named"),
    [
        ([PUT_BACK], [EFFECT], []),
        ([], [], ["replay: letters"]),
        ([PUT_BACK], [], ["replay: ledger", "replay: letters"]),
        ([PUT_BACK, (0, 5, *PUT_BACK[2:])], [EFFECT], ["replay: letters"]),
    ],
)
def test_a_replay_that_is_not_once_is_named(
    raw: list[tuple[Any, ...]], enriched: list[tuple[Any, ...]], named: list[str]
) -> None:
    right = books(raw=[PUT_BACK], enriched=[EFFECT])
    after = books(raw=raw, enriched=enriched)
    replayed = Replayed(wanted=1, fixed={}, first={}, second={}, after_first=after, after_second=right)

    assert sorted(judge_replay(replayed)) == named
