from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.errors import InputRejected
from headway.letter_fates import Fate, Step
from headway.letter_repair import parse_path, parse_setting, repaired, written
from headway.letter_replay import Filed
from headway.letter_view import MAX_LINES, describe, safe, show_bytes
from headway.letters import Letter

KEYS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_-]{0,6}", fullmatch=True) | st.integers(0, 99)
RAW = orjson.dumps({"id": "e1", "data": {"legs": [{"delay": "x"}, {}], "colour": "red"}})


def repair(raw: bytes, *settings: str, remove: tuple[str, ...] = ()) -> Any:
    made = repaired(raw, settings=[parse_setting(s) for s in settings], removals=[parse_path(r) for r in remove])
    return orjson.loads(made)


@given(st.lists(KEYS, min_size=1, max_size=5).filter(lambda keys: isinstance(keys[0], str)))
def test_a_path_is_read_as_it_is_written(keys: list[str | int]) -> None:
    assert parse_path(written(keys)) == tuple(keys)


@pytest.mark.parametrize("text", ["", "$", "a..b", "a[x]", "a b", "$.data.[0]x y", "[99999999]"])
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(InputRejected, match="path: got"):
        parse_path(text)


def test_a_repair_changes_what_it_names_and_nothing_else() -> None:
    document = repair(RAW, "data.legs[0].delay=5", 'id="7"', "$.data.note=late, again", remove=("data.colour",))

    assert document == {"id": "7", "data": {"legs": [{"delay": 5}, {}], "note": "late, again"}}


@pytest.mark.parametrize(
    ("settings", "remove", "words"),
    [
        (("data.legs[2]=1",), (), r"\$\.data\.legs\[2\] leads nowhere"),
        (("data.wings.left=1",), (), r"found there: \['colour', 'legs'\]"),
        (("id.x=1",), (), "found there: str"),
        ((), ("data.none",), "leads nowhere"),
    ],
)
def test_a_path_that_leads_nowhere_is_said_so(settings: tuple[str, ...], remove: tuple[str, ...], words: str) -> None:
    with pytest.raises(InputRejected, match=words):
        repair(RAW, *settings, remove=remove)


def test_bytes_that_are_no_json_can_only_be_replaced_as_a_whole() -> None:
    with pytest.raises(InputRejected, match="give the whole event by --file"):
        repair(b"\xff", "id=1")
    with pytest.raises(InputRejected, match="wanted PATH=VALUE"):
        parse_setting("id")


def test_the_failing_place_is_marked() -> None:
    lines = show_bytes(RAW, path="$.data.legs[0].delay")

    assert [line for line in lines if "<--" in line] == ['          "delay": "x"   <-- here']


def test_a_missing_field_is_marked_where_it_should_be() -> None:
    lines = show_bytes(RAW, path="$.data.origin")

    assert [line for line in lines if "<--" in line] == ['    "data": {   <-- $.data.origin is missing']


@given(st.binary(max_size=300), st.none() | st.text(max_size=20))
def test_no_byte_of_a_stranger_reaches_the_terminal_but_printable_text(raw: bytes, path: str | None) -> None:
    letter = Letter(
        reason="unparseable", detail=raw.decode(errors="replace"), stage="enricher", original=raw, path=path,
        event_type=raw.decode("latin-1"), headers=(("ce_id", raw),),
    )  # fmt: skip
    step = Step(state="discarded", by="ann", at="2013-07-01T00:00:00Z", note=raw.decode("latin-1"))
    fate = Fate(letter="x", steps=(step,))

    lines = describe(Filed(id="x", letter=letter, fate=fate, written_us=0), came_back_as="y")

    assert all(line.isprintable() for line in lines)
    assert any("came back" in line for line in lines)


def test_what_a_person_cannot_read_is_cut() -> None:
    assert len(show_bytes(orjson.dumps(list(range(1000))), path=None)) == MAX_LINES + 1
    assert len(safe("x" * 10_000)) == 400
