"""The life of a letter on the in-memory log, with the real Enricher: rejected, repaired, put back once, accounted for."""

import itertools
from collections.abc import Sequence

import msgspec
import pytest

from headway.adapters.memory import MemoryBroker, MemoryExclusiveWriter, MemoryPublisher, SimulatedCrash
from headway.clock import parse_instant_us
from headway.errors import InputRejected, PermanentFailure
from headway.events import encode_event, parse_event
from headway.letter_clusters import cluster
from headway.letter_desk import Done, LetterDesk, Selection, setting_repair
from headway.letter_fates import Fate, read_fates
from headway.letter_repair import parse_setting
from headway.letter_replay import BATCH_LETTERS, Filed, Signature
from headway.letters import Letter, letter_of
from headway.ports import ExclusiveWriter, Record
from headway.topics import EVENTS_ENRICHED, EVENTS_ENRICHED_LETTERS, EVENTS_RAW, EVENTS_RAW_LETTERS, LETTERS_FATE
from tests.streaming_world import DOMAIN, World, departed

NOW_US = parse_instant_us("2013-07-02T00:00:00Z", field="now")
ANN = Signature(by="ann", at_us=NOW_US, note="producer sent texts")
EVERYTHING = Selection()


def desk_of(world: World, writer: ExclusiveWriter | None = None) -> LetterDesk:
    return LetterDesk(world.reader, writer or MemoryExclusiveWriter(world.broker, name="letters"), [DOMAIN], {})


def broken(count: int) -> World:
    """A plane with letters of events whose delay is a text, and one good event."""
    world = World()
    for number in range(count):
        world.send(departed(f"e{number}", at="10:00", delay_min=str(number)))
    world.send(departed("good", at="10:00"))
    world.run()
    return world


def only(letters: Sequence[Filed]) -> Filed:
    [letter] = letters
    return letter


def fix_all(desk: LetterDesk, *settings: str) -> Done:
    made = setting_repair([parse_setting(each) for each in settings], [])
    return desk.fix(EVERYTHING, made, ANN, progress=ignore)


def replay_all(desk: LetterDesk, *, watermark_us: int | None = None) -> Done:
    return desk.replay(EVERYTHING, ANN, watermark_us=watermark_us, progress=ignore)


def ignore(_: int) -> None:
    pass


def enriched_ids(world: World) -> list[str]:
    world.run()
    return sorted(parse_event(message.value or b"").id for message in world.messages(EVENTS_ENRICHED))


def test_a_repaired_letter_is_accepted_anew_and_linked_to_its_letter() -> None:
    world = broken(1)
    desk = desk_of(world)
    before = only(list(desk.letters(EVERYTHING)))

    fixed = fix_all(desk, "data.dep_delay_min=7")
    replayed = replay_all(desk)

    assert (fixed.verdicts, replayed.verdicts) == ({"fixed": 1}, {"replay": 1})
    assert enriched_ids(world) == ["e0", "good"]
    [message] = [m for m in world.messages(EVENTS_RAW) if ("letter_id", before.id.encode()) in m.headers]
    event = parse_event(message.value or b"")
    assert (event.id, event.data["dep_delay_min"], event.receivedat_us) == ("e0", 7, NOW_US)
    assert (event.collectorid, event.requestid) == ("letters", before.id)
    after = only(list(desk.letters(EVERYTHING)))
    assert [(s.state, s.by, s.at, s.note) for s in after.fate.steps] == [
        ("fixed", "ann", "2013-07-02T00:00:00Z", "producer sent texts"),
        ("replayed", "ann", "2013-07-02T00:00:00Z", "producer sent texts"),
    ]
    assert after.fate.steps[1].event == ("/small", "e0")
    assert after.fate.body is None


def test_ten_thousand_letters_of_one_mistake_are_one_cause() -> None:
    world = broken(300)
    world.send(departed("nowhere", at="10:00", origin="XXX"))
    world.run()

    found = cluster(desk_of(world).letters(EVERYTHING))

    assert [(each.count, each.reason, each.path) for each in found] == [
        (300, "schema-violation", "$.data.dep_delay_min"),
        (1, "enrichment-refused", "$.data.origin"),
    ]
    assert found[0].states == {"open": 300}


def test_a_replay_repeated_and_cut_short_puts_every_event_back_once() -> None:
    world = broken(2 * BATCH_LETTERS + 7)
    fix_all(desk_of(world), "data.dep_delay_min=7")
    world.broker.crash_before_commit = True
    with pytest.raises(SimulatedCrash):
        replay_all(desk_of(world))

    done = [replay_all(desk_of(world)).verdicts for _ in range(2)]
    fixed = fix_all(desk_of(world), "data.dep_delay_min=8")

    assert done == [{"replay": 2 * BATCH_LETTERS + 7}, {"replayed-before": 2 * BATCH_LETTERS + 7}]
    assert fixed.verdicts == {"replayed-before": 2 * BATCH_LETTERS + 7}
    assert len(enriched_ids(world)) == 2 * BATCH_LETTERS + 8
    assert len(world.messages(EVENTS_RAW)) == 2 * (2 * BATCH_LETTERS + 7) + 1  # no duplicate to be dropped, either


def test_letters_are_put_back_in_the_order_they_were_written_over_all_partitions() -> None:
    world = World(broker=MemoryBroker(clock_ms=itertools.count(1_800_000_000_000).__next__))
    names = [f"e{number:02}" for number in range(40)]
    for name in names:
        raw = encode_event(msgspec.structs.replace(departed(name, at="10:00"), subject=name))
        letter = Letter(reason="handler-failed", detail="d", stage="enricher", original=raw, key=name.encode())
        world.broker.append(letter.to_record(EVENTS_ENRICHED_LETTERS))
    partitions = {message.partition for message in world.messages(EVENTS_ENRICHED_LETTERS)}

    replay_all(desk_of(world))

    put_back = sorted(world.messages(EVENTS_RAW), key=lambda message: message.timestamp_ms)
    assert len(partitions) > 1
    assert [parse_event(message.value or b"").id for message in put_back] == names


class TwoSteps(MemoryExclusiveWriter):
    """The planted bug: events first, then fates, outside any transaction."""

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(broker, name="letters")
        self._publisher = MemoryPublisher(broker)
        self.die = False

    def write(self, records: Sequence[Record]) -> None:
        self._publisher.publish([record for record in records if record.topic == EVENTS_RAW])
        if self.die:
            raise SimulatedCrash("between the two")
        self._publisher.publish([record for record in records if record.topic != EVENTS_RAW])


def test_a_replay_in_two_steps_would_put_events_back_twice() -> None:
    """What the transaction is for: the same course as above goes wrong without it."""
    world = broken(3)
    writer = TwoSteps(world.broker)
    fix_all(desk_of(world), "data.dep_delay_min=7")
    writer.die = True
    with pytest.raises(SimulatedCrash):
        replay_all(desk_of(world, writer))
    writer.die = False

    replay_all(desk_of(world, writer))

    put_back = [m for m in world.messages(EVENTS_RAW) if dict(m.headers).get("letter_id")]
    assert len(put_back) == 2 * 3


def test_of_two_people_who_replay_at_once_the_later_goes_on_and_the_other_is_told() -> None:
    world = broken(2 * BATCH_LETTERS)
    fix_all(desk_of(world), "data.dep_delay_min=7")
    first, second = desk_of(world), desk_of(world)

    def interrupted(_: int) -> None:
        replay_all(second)

    with pytest.raises(PermanentFailure, match="another process has claimed this name"):
        first.replay(EVERYTHING, ANN, watermark_us=None, progress=interrupted)

    assert len(enriched_ids(world)) == 2 * BATCH_LETTERS + 1
    assert len(world.messages(EVENTS_RAW)) == 4 * BATCH_LETTERS + 1


def test_an_event_that_its_contract_still_refuses_is_neither_fixed_nor_replayed() -> None:
    world = broken(1)
    desk = desk_of(world)

    fixed = fix_all(desk, "data.dep_delay_min=late")
    replayed = replay_all(desk)

    assert (fixed.verdicts, replayed.verdicts) == ({"needs-fix": 1}, {"needs-fix": 1})
    [why] = fixed.why.values()
    assert "Expected `int`, got `str` - at `$.dep_delay_min`" in why
    assert world.messages(LETTERS_FATE) == []


def test_an_id_conflict_needs_another_id() -> None:
    world = World()
    world.send(departed("e1", at="10:00", delay_min=1))
    world.send(departed("e1", at="10:00", delay_min=2))
    world.run()
    desk = desk_of(world)

    as_it_is = replay_all(desk)
    same_id = fix_all(desk, "data.dep_delay_min=3")
    fix_all(desk, "id=e1-corrected")
    replay_all(desk)

    assert (as_it_is.verdicts, same_id.verdicts) == ({"needs-new-id": 1}, {"needs-fix": 1})
    assert enriched_ids(world) == ["e1", "e1-corrected"]


def test_a_letter_of_the_door_is_repaired_to_a_valid_envelope_and_accepted() -> None:
    world = World()
    good = encode_event(departed("e1", at="10:00"))
    for raw in (good.replace(b'"id"', b'"ID"'), b"not json"):
        letter = Letter(reason="invalid-envelope", detail="id: missing", stage="collector", original=raw)
        world.broker.append(letter.to_record(EVENTS_RAW_LETTERS))
    desk = desk_of(world)

    first = fix_all(desk, "id=e1")
    replayed = replay_all(desk)

    assert first.verdicts == {"fixed": 1, "needs-fix": 1}
    assert any("give the whole event by --file" in why for why in first.why.values())
    assert replayed.verdicts == {"replay": 1, "needs-fix": 1}
    assert enriched_ids(world) == ["e1"]


@pytest.mark.parametrize("field", ["headway.tick", "headway.anything"])
def test_what_is_headways_own_is_never_put_back(field: str) -> None:
    world = broken(1)

    done = fix_all(desk_of(world), f"type={field}", "data.dep_delay_min=7")

    assert done.verdicts == {"needs-fix": 1}


def test_a_replayed_event_that_fails_again_is_a_new_letter_which_names_the_old_one() -> None:
    world = World()
    world.send(departed("e1", at="10:00", origin="XXX"))
    world.run()
    first = only(list(desk_of(world).letters(EVERYTHING)))

    replay_all(desk_of(world))
    world.run()

    second = [letter_of(m) for m in world.messages(EVENTS_ENRICHED_LETTERS)][-1]
    assert second.previous == first.id
    with pytest.raises(InputRejected, match="cannot become fixed"):
        first.fate.then(ANN.step("replayed", b"", None)).then(ANN.step("fixed", b"", None), body=b"")


def test_a_discarded_letter_stays_out_of_replays_until_somebody_fixes_it() -> None:
    world = broken(1)
    desk = desk_of(world)
    desk.discard(EVERYTHING, ANN, progress=ignore)

    left = replay_all(desk)
    fix_all(desk, "data.dep_delay_min=7")
    taken = replay_all(desk)

    assert (left.verdicts, taken.verdicts) == ({"discarded": 1}, {"replay": 1})
    assert [step.state for step in read_fates(world.reader).popitem()[1].steps] == ["discarded", "fixed", "replayed"]


def test_a_replay_tells_how_many_events_no_feature_will_see() -> None:
    world = broken(2)
    desk = desk_of(world)
    fix_all(desk, "data.dep_delay_min=7")
    late_us = parse_instant_us("2013-07-01T13:00:00Z", field="watermark")

    planned = desk.plan(EVERYTHING, ANN, watermark_us=late_us)
    unknown = desk.plan(EVERYTHING, ANN, watermark_us=None)
    done = replay_all(desk, watermark_us=late_us - 3_600_000_000)

    assert (planned.too_late, unknown.too_late, done.too_late) == (2, None, 0)
    assert planned.verdicts == {"replay": 2}


def test_a_dry_run_writes_nothing_and_takes_no_name_from_anybody() -> None:
    world = broken(1)
    writer = MemoryExclusiveWriter(world.broker, name="letters")
    writer.claim()

    desk_of(world).plan(EVERYTHING, ANN, watermark_us=None)

    assert world.broker.holder("letters") is writer
    assert world.messages(LETTERS_FATE) == []


def test_what_a_stranger_wrote_into_a_letter_topic_is_listed_and_hides_no_letter() -> None:
    world = broken(1)
    world.broker.append(Record(topic=EVENTS_RAW_LETTERS, key=None, value=b"stranger"))
    world.broker.append(Record(EVENTS_ENRICHED_LETTERS, None, b"x", (("letter_reason", b"x"), ("letter_offset", b"x"))))

    reasons = sorted(each.letter.reason for each in desk_of(world).letters(EVERYTHING))

    assert reasons == ["schema-violation", "unparseable", "unparseable"]


def test_letters_are_chosen_by_id_cause_reason_state_and_time() -> None:
    world = broken(2)
    world.send(departed("nowhere", at="10:00", origin="XXX"))
    world.run()
    desk = desk_of(world)
    letters = list(desk.letters(EVERYTHING))
    odd = only([each for each in letters if each.letter.reason == "enrichment-refused"])

    def ids(selection: Selection) -> list[str]:
        return [each.id for each in desk.letters(selection)]

    assert ids(Selection(ids=(odd.id,))) == [odd.id]
    assert ids(Selection(fingerprint=odd.letter.fingerprint)) == [odd.id]
    assert ids(Selection(reason="enrichment-refused", state="open")) == [odd.id]
    assert ids(Selection(state="replayed")) == []
    assert ids(Selection(since_us=max(each.written_us for each in letters) + 1)) == []
    with pytest.raises(InputRejected, match="no letter"):
        ids(Selection(ids=(odd.id, "events.raw.dlq-0-99")))


def test_a_repair_survives_its_fate_record_byte_by_byte() -> None:
    fate = Fate(letter="events.raw.dlq-0-1").then(ANN.step("fixed", b"\x00\xff", None), body=b"\x00\xff")
    world = World()
    world.broker.append(fate.to_record())

    assert read_fates(world.reader) == {fate.letter: fate}
