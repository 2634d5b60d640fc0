"""``headway kafka status``: what the event log's replication looks like; ``headway kafka drill``: what it withstands."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from headway.commands import Outcome, Run, Say

if TYPE_CHECKING:
    from headway.kafka_health import Health
    from headway.settings import Settings

_SHOWN = 30


def kafka_command(parser: ArgumentParser) -> Run:
    """Show the event log's replication, or try it; status holds when all is as declared and every copy is in sync."""
    parser.add_argument("action", choices=["status", "drill"])
    parser.add_argument("--short", action="store_true", help="drill: one fault, under a minute, instead of six")
    parser.add_argument(
        "--here", action="store_true", help="drill: on the stack that is up, not on a cluster of its own"
    )
    parser.add_argument("--seed", type=int, help="drill: of the events (default: of this commit)")
    parser.add_argument("--mutant", choices=["acks-1"], help="drill: plant a known bug, which must make it fail")

    def run(arguments: Namespace, say: Say) -> Outcome:
        if arguments.action == "status":
            from headway.settings import Settings

            return _status(Settings())
        from orchestration.chaos.drill import run_drill

        asked = vars(arguments)
        return run_drill(**{name: asked[name] for name in ("short", "here", "seed", "mutant")}, say=say)

    return run


def _status(settings: "Settings") -> Outcome:
    from headway.adapters.kafka_cluster import read_cluster
    from headway.adapters.kafka_topics import admin_client
    from headway.kafka_health import judge
    from streaming.provision import declared_cluster

    declared = declared_cluster(settings)
    admin = admin_client(settings.kafka_bootstrap)
    health = judge(read_cluster(admin, [topic.name for topic in declared.topics]), declared)
    return Outcome(holds=health.healthy, facts=facts_of(health), lines=list(_lines(health)))


def facts_of(health: "Health") -> dict[str, Any]:  # Any: JSON
    """Give a verdict as JSON holds it."""
    from headway.kafka_health import leaders_of

    cluster, quorum = health.cluster, health.cluster.quorum
    return {
        "healthy": health.healthy,
        "copies": health.declared.copies.told,
        "brokers": {"declared": health.declared.brokers, "up": list(cluster.brokers)},
        "leaders": {str(node): count for node, count in leaders_of(cluster.partitions, cluster.brokers).items()},
        "quorum": None
        if quorum is None
        else {
            "leader": quorum.leader,
            "epoch": quorum.epoch,
            "voters": {str(voter.node): {"end": voter.end, "silent_s": voter.silent_s} for voter in quorum.voters},
        },
        "partitions": len(cluster.partitions),
        "offline": [str(part) for part in health.offline],
        "under_min_in_sync": [str(part) for part in health.under_min_in_sync],
        "under_replicated": [str(part) for part in health.under_replicated],
        "skewed": [str(part) for part in health.skewed],
        "drift": [
            {"topic": each.topic, "field": each.field, "wanted": each.wanted, "got": each.got} for each in health.drift
        ],
        "unsafe": [
            {"rule": each.rule, "subject": each.subject, "setting": each.setting, "got": each.got}
            | {"wanted": each.wanted, "reason": each.reason}
            for each in health.unsafe
        ],
        "problems": [{"kind": each.kind, "topic": each.topic, "told": each.told} for each in health.problems],
    }


def _lines(health: "Health") -> Iterator[str]:
    from headway.kafka_health import leaders_of

    cluster, quorum = health.cluster, health.cluster.quorum
    led = leaders_of(cluster.partitions, cluster.brokers)
    yield f"brokers   {len(cluster.brokers)} of {health.declared.brokers} up; partitions led: " + ", ".join(
        f"broker {node} {count}" for node, count in sorted(led.items())
    )
    yield f"copies    {health.declared.copies.told}"
    if quorum is not None:
        voters = ", ".join(str(voter.node) for voter in quorum.voters)
        yield f"quorum    led by {quorum.leader or 'nobody'} in epoch {quorum.epoch}; voters: {voters or 'unknown'}"
    yield ""
    yield f"{'topic':<34} {'partitions':>10} {'copies':>6} {'min':>4} {'in sync':>8}  kept"
    for topic in health.declared.topics:
        yield _topic_line(health, topic.name)
    yield ""
    if health.skewed:
        yield f"{len(health.skewed)} partitions are not led by their preferred copy; Kafka moves them back by itself"
    for problem in health.problems[:_SHOWN]:
        yield problem.told
    if len(health.problems) > _SHOWN:
        yield f"... and {len(health.problems) - _SHOWN} more (--json has all)"
    yield "all as declared, every copy in sync" if health.healthy else f"{len(health.problems)} problems"


def _topic_line(health: "Health", name: str) -> str:
    topic = health.cluster.topics.get(name)
    if topic is None:
        return f"{name:<34} absent"
    parts = [part for part in health.cluster.partitions if part.topic == name]
    least = min((len(part.in_sync) for part in parts), default=0)
    kept = topic.config.get("retention.ms", "")
    told = "compacted" if topic.config.get("cleanup.policy") == "compact" else f"{int(kept or 0) / 86_400_000:g} days"
    copies, needed = topic.replication_factor, topic.min_insync_replicas
    return f"{name:<34} {topic.partitions:>10} {copies:>6} {needed:>4} {least:>8}  {told}"
