import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.clock import from_us
from headway.errors import ContractViolation, InputRejected
from headway.letter_causes import failing_path, fingerprint, stack_digest, without_values
from headway.letter_table import letter_rows, letters_table
from headway.letters import (
    LETTER_TOPICS,
    REASONS,
    Letter,
    LetterPlace,
    letter_about,
    letter_of,
    letter_place,
    parse_letter_id,
)
from headway.ports import Message, Record
from headway.topics import EVENTS_ENRICHED, EVENTS_ENRICHED_LETTERS, EVENTS_RAW, EVENTS_RAW_LETTERS

TEXT = st.text(min_size=1, max_size=20)
NAMES = st.from_regex(r"[a-z]{1,8}", fullmatch=True)


def stored(record: Record, *, partition: int = 1, offset: int = 7) -> Message:
    return Message(record.topic, partition, offset, record.key, record.value, record.headers, 1_372_690_800_000)


def letter(detail: str, *, path: str | None = "$.data.delay", stack: str | None = None) -> Letter:
    return Letter(
        reason="schema-violation",
        detail=detail,
        stage="enricher",
        original=b"{}",
        path=path,
        event_type="a.v1",
        stack=stack,
    )


@given(
    st.builds(
        Letter,
        reason=st.sampled_from(REASONS),
        detail=TEXT,
        stage=st.just("enricher"),
        original=st.binary(),
        key=st.none() | st.binary(min_size=1),
        topic=st.just(EVENTS_RAW),
        partition=st.integers(0, 3),
        offset=st.integers(0, 2**60),
        path=st.none() | TEXT,
        event_type=st.none() | TEXT,
        contract=st.none() | TEXT,
        attempts=st.integers(1, 9),
        stack=st.none() | TEXT,
        previous=st.none() | TEXT,
        headers=st.lists(st.tuples(NAMES.map("ce_{}".format), st.binary()), unique=True).map(tuple),
    )
)
def test_a_letter_comes_back_from_its_record_as_it_was(letter: Letter) -> None:
    assert letter_of(stored(letter.to_record(EVENTS_ENRICHED_LETTERS))) == letter


def test_a_letter_written_before_the_newer_headers_is_still_read() -> None:
    headers = (("letter_reason", b"unparseable"), ("letter_detail", b"event: not JSON"), ("letter_stage", b"enricher"))

    read = letter_of(Message(EVENTS_ENRICHED_LETTERS, 0, 0, None, b"x", headers, 0))

    assert (read.reason, read.attempts, read.path, read.headers) == ("unparseable", 1, None, ())


def test_a_record_without_a_reason_is_no_letter() -> None:
    with pytest.raises(ContractViolation, match=r"events\.raw\.dlq\[1\]@7: no letter_reason"):
        letter_of(stored(Record(topic=EVENTS_RAW_LETTERS, key=None, value=b"x")))


def test_a_letter_about_a_record_keeps_its_headers_its_place_and_the_letter_it_was_replayed_from() -> None:
    headers = (("ce_type", b"a.v1"), ("ce_id", b"\xff"), ("letter_id", b"events.raw.dlq-0-3"))

    made = letter_about(
        Message(EVENTS_RAW, 2, 9, b"k", b"raw", headers, 0),
        reason="crashed",
        detail="exit 139",
        stage="enricher",
        attempts=3,
    )

    assert (made.topic, made.partition, made.offset, made.key, made.original) == (EVENTS_RAW, 2, 9, b"k", b"raw")
    assert (made.event_type, made.previous, made.attempts) == ("a.v1", "events.raw.dlq-0-3", 3)
    assert made.headers == (("ce_type", b"a.v1"), ("ce_id", b"\xff"))


def test_the_three_kinds_are_told_apart_by_where_the_original_stands() -> None:
    raw = Letter(reason="invalid-envelope", detail="", stage="collector", original=b"")
    enriched = letter_about(
        Message(EVENTS_RAW, 2, 9, None, b"", (), 0), reason="id-conflict", detail="", stage="enricher"
    )
    message = Message(EVENTS_ENRICHED, 2, 30, None, b"", (("raw_offset", b"9"),), 0)
    sink = letter_about(message, reason="mapping", detail="", stage="search-loader")

    assert [each.kind for each in (raw, enriched, sink)] == ["raw", "enriched", "sink"]
    assert [each.raw_place for each in (raw, enriched, sink)] == [None, (2, 9), (2, 9)]


@given(st.sampled_from(LETTER_TOPICS), st.integers(0, 99), st.integers(0, 2**60))
def test_a_letters_id_names_its_place(topic: str, partition: int, offset: int) -> None:
    place = LetterPlace(topic, partition, offset)

    assert parse_letter_id(place.id) == place


@pytest.mark.parametrize(
    "text", ["", "events.raw-0-1", "events.raw.dlq-0", "events.raw.dlq-0-x", "events.raw.dlq-0--1"]
)
def test_what_is_no_letter_id_is_refused(text: str) -> None:
    with pytest.raises(InputRejected, match="letter id: got"):
        parse_letter_id(text)


class Leg(msgspec.Struct, forbid_unknown_fields=True):
    delay: int


class Body(msgspec.Struct, forbid_unknown_fields=True):
    legs: list[Leg]


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b'{"legs": [{"delay": "x"}]}', "$.data.legs[0].delay"),
        (b'{"legs": [{}]}', "$.data.legs[0].delay"),
        (b'{"legs": [{"delay": 1, "late": 1}]}', "$.data.legs[0].late"),
        (b"{}", "$.data.legs"),
        (b"[]", "$.data"),
    ],
)
def test_the_failing_path_of_a_body_is_read_from_msgspecs_error(raw: bytes, path: str | None) -> None:
    """Held to msgspec itself, as its wording is all there is to read."""
    with pytest.raises(msgspec.ValidationError) as refused:
        msgspec.json.decode(raw, type=Body)

    assert failing_path(f"a.v1: {refused.value}", inside="$.data") == path


def test_the_failing_path_of_an_envelope_is_the_field_our_refusals_begin_with() -> None:
    assert failing_path("subject: missing (found: id); every event needs it") == "$.subject"
    assert failing_path("event: got list, wanted one CloudEvents 1.0 JSON object") == "$"
    assert failing_path("event: not JSON (unexpected end of data)") is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("delay: got 'a', wanted a number", "delay: got 'b, wanted', wanted a number"),
        ("delay: got 12.5, wanted a text", "delay: got -3, wanted a text"),
        (
            "id: got 'aaaaaaaa, wanted a text of 1 to 1024 characters",
            "id: got 'b', wanted a text of 1 to 1024 characters",
        ),
        ("type: missing (found: id, time)", "type: missing (found: id)"),
        ("request 0190163d-8694-739b-aea5-966c26f8ad91 failed", "request 0290163d-8694-739b-aea5-966c26f8ad91 failed"),
        ("KeyError: 'N14228'", 'KeyError: "it\'s"'),
        ("not before 2013-07-01T10:00:00Z", "not before 2014-07-01T10:00:00.5+02:00"),
    ],
)
def test_letters_that_differ_only_in_their_values_have_one_cause(one: str, other: str) -> None:
    assert letter(one).fingerprint == letter(other).fingerprint


def test_another_reason_path_field_or_stack_is_another_cause() -> None:
    base = letter("Expected `int`, got `str`")
    others = [
        letter("Expected `int`, got `float`"),
        letter("Expected `int`, got `str`", path="$.data.origin"),
        letter("Expected `int`, got `str`", stack="abc"),
    ]

    assert len({each.fingerprint for each in (base, *others)}) == 4
    assert letter("x", path="$.legs[1].a").fingerprint == letter("x", path="$.legs[22].a").fingerprint


@given(st.text())
def test_masking_is_done_after_one_pass_over_numbers(detail: str) -> None:
    assert not any(c.isdigit() and c.isascii() for c in without_values(detail))


def failing(depth: int) -> None:
    if depth:
        failing(depth - 1)
    raise KeyError(depth)


def test_the_stack_digest_tells_where_an_error_arose_and_not_with_which_value() -> None:
    digests = []
    for depth in (1, 1, 2):
        with pytest.raises(KeyError) as caught:
            failing(depth)
        digests.append(stack_digest(caught.value))

    assert digests[0] == digests[1] != digests[2]


def test_a_row_of_the_table_says_what_the_letter_says() -> None:
    message = stored(letter("delay: got 1, wanted a text").to_record(EVENTS_ENRICHED_LETTERS))

    [row] = letter_rows([(message, letter_of(message))]).rows(named=True)

    assert list(row) == list(letters_table().columns)
    assert (row["letter_id"], row["path"], row["event_type"]) == (letter_place(message).id, "$.data.delay", "a.v1")
    assert row["fingerprint"] == letter_of(message).fingerprint
    assert row["written_at"] == from_us(message.timestamp_ms * 1000)


def test_the_fingerprint_of_a_known_case_stays_what_it_is() -> None:
    """Alerts, saved searches and notes name causes by it: a change makes every known cause new."""
    named = fingerprint(reason="unknown-type", event_type="a.v2", path="$.type", detail="type: got 'a.v2'", stack=None)

    assert named == "9c91ca2964b0"
