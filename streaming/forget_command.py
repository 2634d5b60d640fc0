"""``headway features forget`` on a running plane: the stores of `streaming.forgetting`, opened and closed again."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from headway.adapters.delta import Lake
from headway.adapters.kafka_backlog import committed_offsets
from headway.adapters.kafka_publisher import KafkaPublisher
from headway.adapters.kafka_reader import KafkaReader
from headway.adapters.kafka_topics import admin_client
from headway.adapters.redis_views import OnlineViews
from headway.clock import SystemClock, to_us
from headway.commands import Outcome
from headway.contracts import Domain
from headway.ports import TopicPartition
from headway.settings import Settings
from streaming.bootstrapping import check_stopped
from streaming.forgetting import Stores, also_named_by, forget_entity, parse_entity, remaining, views_of
from streaming.jobs import AGGREGATE, CHANGELOG_WRITERS, group_name


def forget(settings: Settings, domain: Domain, named: str, entity: Sequence[str], *, reason: str, by: str) -> Outcome:
    """Forget an entity, given as ``NAME=VALUE`` parts, in one view by name or in all; say what is left of it.

    Raises:
        InputRejected: see `parse_entity`, `views_of` and `forget_entity`.
        PermanentFailure: the aggregating job runs.
        TransientFailure: rows of the entity are still to be applied, or a store is away; repeat.
    """
    keys = parse_entity(entity)
    known = domain.every_view
    views = views_of(known, named, keys)
    check_stopped(settings, domain, AGGREGATE, what="forget", why="still knows the entity")
    reader = KafkaReader(bootstrap=settings.kafka_bootstrap)
    publisher = KafkaPublisher(bootstrap=settings.kafka_bootstrap)
    online = OnlineViews(f"redis://{settings.online_store}", settings.feast_project)
    stores = Stores(
        log=reader,
        applied=lambda topic: applied_up_to(settings, domain, topic),
        publisher=publisher,
        online=online,
        lake=Lake(Path(settings.lake)),
    )
    try:
        done = forget_entity(views, keys, stores, reason=reason, by=by, at_us=to_us(SystemClock().now()))
    finally:
        publisher.close()
        reader.close()
        online.close()
    also, still = also_named_by(known, keys), remaining(views)
    lines = [
        f"{each.view}: {each.online_fields} online fields, {each.state_records} state records, {each.lake_rows} lake rows"
        for each in done
    ]
    lines += [f"not touched, as their entity has more keys: {', '.join(also)}"] if also else []
    lines += ["still there:", *(f"  {each}" for each in still)]
    facts = {"forgotten": [asdict(each) for each in done], "not_touched": also, "still_there": still}
    return Outcome(holds=True, facts=facts, lines=lines)


def applied_up_to(settings: Settings, domain: Domain, topic: str) -> Mapping[TopicPartition, int]:
    """Return up to where both writers have applied a changelog, per partition."""
    admin = admin_client(settings.kafka_bootstrap)
    each = [committed_offsets(admin, group_name(domain, job), [topic]) for job in CHANGELOG_WRITERS]
    return {place: min(offsets[place] for offsets in each) for place in each[0]}
