"""What the stream scorer answers, when, by which version, and what becomes of what it cannot answer."""

import asyncio
from collections.abc import Iterator

import httpx
import pytest

from headway.adapters.memory import MemoryBroker, MemoryPublisher, MemoryReader, SimulatedCrash
from headway.clock import HOUR_US, MINUTE_US, SECOND_US, from_us
from headway.errors import DependencyDown, TransientFailure
from headway.predictions import decode_prediction
from headway.registry import LIVE
from headway.scores import Place
from headway.topics import EVENTS_ENRICHED, predictions_topic, topic_table
from serving.predict import PredictionApi
from serving.scoring import Parts
from streaming.due_reads import LATE_US
from tests.scoring_world import DUE_US, SCORES, ScoringWorld, json_of, partition_of_subject
from tests.serving_world import flight, product, trained


@pytest.fixture
def world() -> Iterator[ScoringWorld]:
    world = ScoringWorld()
    world.fill(row_us=DUE_US - HOUR_US, watermark_us=DUE_US)
    yield world
    world.close()


def requested(world: ScoringWorld) -> tuple[float, list[object]]:
    """What the request path answers at the same instant: probability, and the views it logged."""
    broker = MemoryBroker()
    broker.create(topic_table(views=[], products=[product().name], replication_factor=1, min_insync_replicas=1))
    api = PredictionApi(
        Parts(
            product=product(),
            version=1,
            predictor=trained(1).predictor(),
            reference=world.reference,
            reader=world.reader,
            publisher=MemoryPublisher(broker),
            clock=world.clock,
        )
    )
    body = flight(as_of=from_us(DUE_US).isoformat())

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(api)
        async with httpx.AsyncClient(transport=transport, base_url="http://replica") as client:
            return await client.post(
                "/v1/flight_delay/predict", content=body, headers={"content-type": "application/json"}
            )

    answer = asyncio.run(ask())
    [logged] = [decode_prediction(m.value or b"") for m in MemoryReader(broker).read(predictions_topic(product().name))]
    return answer.json()["probability"], list(logged.views)


def test_a_question_waits_for_its_instant_and_gets_the_answer_of_a_request_to_the_bit(world: ScoringWorld) -> None:
    world.release(1)
    world.ask("a")
    world.tick(DUE_US - MINUTE_US)
    world.run()
    assert world.scores() == []

    world.tick(DUE_US)
    world.run()

    [score] = world.scores()
    probability, views = requested(world)
    assert (score.probability, list(score.views), score.as_of_us) == (probability, views, DUE_US)
    assert (score.degraded, score.stale, score.source) == (False, (), "stream")


def test_a_score_names_its_input_version_receipt_and_the_ages_of_its_features(world: ScoringWorld) -> None:
    version = world.release(1)
    asked = world.ask("a")
    world.tick()
    world.run()

    [score] = world.scores()
    assert score.input == Place(EVENTS_ENRICHED, partition_of_subject(), asked.offset)
    assert score.at_offset == asked.offset + 1
    assert (score.model.version, score.model.digest) == (version, trained(1).manifest.digest)
    assert score.receipt.startswith("stream-")
    assert set(score.ages_s.values()) == {3600.0}
    assert score.ages_s.keys() == product().feature_views.keys()


def test_everything_due_in_a_batch_is_read_in_one_round_trip(world: ScoringWorld) -> None:
    world.release(1)
    for number in range(50):
        world.ask(f"a{number}", subject=f"UA{number}")
    world.tick()
    world.run()

    assert (len(world.scores()), world.reader.asked) == (50, [50])


@pytest.mark.parametrize("tick_before_us", [DUE_US, DUE_US + HOUR_US])
def test_a_question_that_comes_after_its_instant_is_answered_at_once(world: ScoringWorld, tick_before_us: int) -> None:
    world.release(1)
    asked = world.ask("late", tick_before_us=tick_before_us)
    world.run()

    [score] = world.scores()
    assert (score.at_offset, score.as_of_us) == (asked.offset, DUE_US)


def test_of_two_questions_about_a_subject_the_newest_counts(world: ScoringWorld) -> None:
    world.release(1)
    world.ask("first")
    world.run()
    second = world.ask("second", changes={"distance_mi": 1401})
    world.tick()
    world.run()

    assert [score.input.offset for score in world.scores()] == [second.offset]


def test_what_waits_survives_a_restart_and_is_answered_once(world: ScoringWorld) -> None:
    world.release(1)
    world.ask("a")
    world.run()
    world.tick()
    world.run()
    world.tick(DUE_US + HOUR_US)
    world.run()

    assert len(world.scores()) == 1


def test_events_of_other_types_are_not_even_decoded(world: ScoringWorld) -> None:
    world.release(1)
    world.other()
    world.run()

    assert (world.scores(), world.letters()) == ([], [])


@pytest.mark.parametrize(
    ("changes", "reason", "path"),
    [
        ({"dest": "ZZZ"}, "enrichment-refused", "$.data.dest"),
        ({"distance_mi": "far"}, "schema-violation", "$.data.distance_mi"),
        ({"sched_arr": "2013-07-01T14:00:00Z"}, "schema-violation", "$.data"),
    ],
)
def test_a_bad_row_becomes_a_letter_of_its_own_record(
    world: ScoringWorld, changes: dict[str, object], reason: str, path: str
) -> None:
    world.release(1)
    asked = world.ask("bad", subject="UA1", changes=changes)
    world.ask("good")
    world.tick()
    world.run()

    [letter] = world.letters()
    assert (letter.reason, letter.stage, letter.kind, letter.offset) == (reason, "scorer", "sink", asked.offset)
    assert (letter.path, letter.original) == (path, asked.value)
    assert len(world.scores()) == 1


def test_a_crash_before_the_commit_leaves_each_question_one_answer(world: ScoringWorld) -> None:
    world.release(1)
    for number in range(20):
        world.ask(f"a{number}", subject=f"UA{number}")
    world.tick()
    world.broker.crash_before_commit = True
    with pytest.raises(SimulatedCrash):
        world.run()
    world.broker.refuse_commits = 1

    world.run()

    assert len({score.receipt for score in world.scores()}) == len(world.scores()) == 20


def test_a_new_version_answers_from_a_recorded_offset_on_without_a_stop(world: ScoringWorld) -> None:
    world.release(1)
    models = world.models()
    scorer = world.scorer(models)
    world.ask("a")
    world.tick()
    world.run(scorer)
    world.release(2)
    models.look()
    world.ask("b", tick_before_us=DUE_US)
    world.run(scorer)

    first, second = world.scores()
    assert [first.model.version, second.model.version] == [1, 2]
    assert first.probability != second.probability


def test_a_replay_answers_with_the_versions_of_the_first_time(world: ScoringWorld) -> None:
    world.release(1)
    world.ask("a")
    world.tick()
    world.run()
    world.release(2)
    world.ask("b", tick_before_us=DUE_US)
    world.run()
    before = world.scores()
    world.release(3)
    world.rewind()

    world.run()

    again = world.scores()[len(before) :]
    assert sorted(map(str, map(json_of, again))) == sorted(map(str, map(json_of, before)))
    assert {score.model.version for score in again} == {1, 2}


def test_a_successor_that_has_not_heard_of_the_switch_answers_with_the_recorded_version(world: ScoringWorld) -> None:
    world.release(1)
    old = world.models()
    world.release(2)
    world.ask("a")
    world.tick()
    world.run()
    world.rewind()

    world.run(world.scorer(old))

    assert [score.model.version for score in world.scores()] == [2, 2]


def test_before_the_first_version_nobody_answers_and_from_it_on_everybody(world: ScoringWorld) -> None:
    world.ask("unanswered", tick_before_us=DUE_US)
    world.run()
    world.release(1)
    asked = world.ask("answered", tick_before_us=DUE_US)
    world.run()

    assert [score.input.offset for score in world.scores()] == [asked.offset]


def test_a_deleted_alias_ends_nothing(world: ScoringWorld) -> None:
    world.release(1)
    world.ask("a", tick_before_us=DUE_US)
    world.run()
    world.registry.delete_alias(product().name, LIVE)
    world.ask("b", tick_before_us=DUE_US)
    world.run()

    assert [score.model.version for score in world.scores()] == [1, 1]


def test_a_registry_that_never_answered_holds_the_stream_back(
    world: ScoringWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise TransientFailure("MLflow is away")

    monkeypatch.setattr(world.registry, "alias", away)
    scorer = world.scorer()
    scorer.assigned([partition_of_subject()])

    with pytest.raises(DependencyDown, match="model registry is down: flight_delay: MLflow is away"):
        scorer.handle([world.ask("a")])


def test_a_store_that_is_away_holds_the_stream_back(world: ScoringWorld) -> None:
    world.release(1)
    world.reader.away = True
    scorer = world.scorer()
    scorer.assigned([partition_of_subject()])

    with pytest.raises(DependencyDown, match="online store is down"):
        scorer.handle([world.ask("a", tick_before_us=DUE_US)])


def test_a_store_that_stays_away_degrades_to_declared_defaults_and_says_so(world: ScoringWorld) -> None:
    world.release(1)
    world.patience_s = 0.0
    world.reader.away = True
    world.ask("a", tick_before_us=DUE_US)
    world.run()

    [score] = world.scores()
    assert (score.degraded, score.as_of_us, {view.values for view in score.views}) == (True, DUE_US, {None})


def test_a_store_that_has_moved_on_moves_the_as_of_and_never_looks_ahead_of_it(world: ScoringWorld) -> None:
    world.fill(row_us=DUE_US + MINUTE_US, watermark_us=DUE_US + MINUTE_US)
    world.release(1)
    world.ask("a", tick_before_us=DUE_US)
    world.run()

    [score] = world.scores()
    assert (score.as_of_us, score.degraded, score.stale) == (DUE_US + MINUTE_US, False, ())
    assert {view.row_time_us for view in score.views} == {score.as_of_us}


def test_a_store_that_has_moved_too_far_is_as_good_as_away(world: ScoringWorld) -> None:
    world.fill(row_us=DUE_US + LATE_US + SECOND_US, watermark_us=DUE_US + LATE_US + SECOND_US)
    world.release(1)
    world.ask("a", tick_before_us=DUE_US)
    world.run()

    [score] = world.scores()
    assert (score.degraded, score.as_of_us) == (True, DUE_US)


def test_a_watermark_that_does_not_come_makes_a_stale_answer(world: ScoringWorld) -> None:
    stale = ScoringWorld()
    stale.fill(row_us=DUE_US - HOUR_US, watermark_us=DUE_US - MINUTE_US)
    stale.release(1)
    stale.ask("a", tick_before_us=DUE_US)
    stale.run()
    stale.close()

    [score] = stale.scores()
    assert set(score.stale) == product().feature_views.keys()
    assert not score.degraded


def test_watermarks_that_stand_still_are_waited_for_once_and_again_when_they_move() -> None:
    """Ten seconds before every batch would leave the stream hours behind a feature job that is dead for minutes."""
    world = ScoringWorld(wait_s=0.1)
    world.fill(row_us=DUE_US - HOUR_US, watermark_us=DUE_US - HOUR_US)
    world.release(1)
    scorer = world.scorer()
    polls = []
    for minutes_behind in (60, 60, 30):
        world.fill(row_us=DUE_US - HOUR_US, watermark_us=DUE_US - minutes_behind * MINUTE_US)
        world.reader.asked.clear()
        world.ask("a", tick_before_us=DUE_US)
        world.run(scorer)
        polls.append(world.reader.asked.count(0))
    world.close()

    assert polls[0] > 0
    assert polls[1] == 0
    assert polls[2] > 0
    assert all(score.stale for score in world.scores())


def test_scores_stand_in_the_partition_of_what_asked(world: ScoringWorld) -> None:
    world.release(1)
    for number in range(20):
        world.ask(f"a{number}", subject=f"UA{number}", tick_before_us=DUE_US)
    world.run()

    from headway.adapters.memory import MemoryReader

    messages = MemoryReader(world.broker).read(SCORES)
    assert {(m.partition, m.key) for m in messages} == {
        (score.input.partition, score.subject.encode()) for score in world.scores()
    }
