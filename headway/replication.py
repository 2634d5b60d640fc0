"""Rules of replication: what a topic or a broker must not be set to, and why. Pure.

The same rules judge the declared table before it is applied and the cluster as it is found, so that nobody can make by
hand what the table refuses. One copy on one broker is no finding: it is what one machine can do, and is said as such.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from headway.errors import ContractViolation
from headway.topics import STATE_PREFIX, Topic

Rule = Literal[
    "more-copies-than-brokers",
    "no-copy-to-spare",
    "acknowledged-with-one-copy",
    "unclean-election",
    "kept-too-short",
    "kept-by-size",
    "compacted-history",
    "state-not-compacted",
    "auto-creation",
    "broker-default",
]

_HOUR_MS = 60 * 60 * 1000
# A weekend with a holiday: what nobody reads until Tuesday morning must still be there.
EVENTS_KEPT_AT_LEAST_MS = 72 * _HOUR_MS
# Every record counts in these, the older of two with the same key as well.
HISTORY_PREFIXES = ("events.", "features.", "predictions.", "scores.")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One unsafe setting: where, what it is, what it has to be, and what it would cost."""

    rule: Rule
    subject: str
    setting: str
    got: str
    wanted: str
    reason: str

    def __str__(self) -> str:
        """The whole finding as one line."""
        return f"{self.subject}: {self.setting} is {self.got}, wanted {self.wanted} ({self.rule}): {self.reason}"


@dataclass(frozen=True, kw_only=True)
class Copies:
    """How often every record is kept, and how many copies an acknowledgement needs."""

    replication_factor: int
    min_insync_replicas: int

    @property
    def told(self) -> str:
        """What these figures promise, in words."""
        if self.replication_factor == 1:
            return (
                "one copy: what is on the broker's disk is all there is, and an outage of the broker is one of intake"
            )
        return (
            f"{self.replication_factor} copies, {self.min_insync_replicas} before an acknowledgement: "
            f"{self.replication_factor - self.min_insync_replicas} broker may be down"
        )


def copies_for(brokers: int, *, replication_factor: int = 0, min_insync_replicas: int = 0) -> Copies:
    """Give the copies of every topic: as told, else by the number of brokers (1: 1 of 1, from 3 on: 2 of 3).

    Raises:
        ContractViolation: two brokers, for which there is no safe answer.
    """
    if not replication_factor and brokers == 2:
        raise ContractViolation(
            "brokers: got 2, wanted 1 or at least 3. Of two copies, two before an acknowledgement stops all writes when "
            "either broker is down, and one before it loses them; a quorum of two controllers tolerates no loss either. "
            "Add a broker, or say HEADWAY_REPLICATION_FACTOR=1 for a copy that is no copy."
        )
    factor = replication_factor or min(3, brokers)
    # A majority: any two acknowledgements then share a copy.
    return Copies(replication_factor=factor, min_insync_replicas=min_insync_replicas or factor // 2 + 1)


def check_topics(topics: Iterable[Topic], *, brokers: int) -> tuple[Finding, ...]:
    """Give every unsafe setting of these topics on a cluster of so many brokers."""
    return tuple(finding for topic in topics for finding in (*_check_copies(topic, brokers), *_check_retention(topic)))


def check_broker(name: str, config: Mapping[str, str], *, copies: Copies) -> tuple[Finding, ...]:
    """Give every unsafe setting of one broker; settings it does not tell are not judged."""
    return tuple(_check_broker(name, config, copies))


def refuse_unsafe(findings: Iterable[Finding]) -> None:
    """Pass when there are none.

    Raises:
        ContractViolation: names every finding.
    """
    if told := [str(finding) for finding in findings]:
        raise ContractViolation("unsafe topic settings, nothing was changed. " + "; ".join(told))


def _check_copies(topic: Topic, brokers: int) -> Iterator[Finding]:
    factor, needed = topic.replication_factor, topic.min_insync_replicas
    if factor > brokers:
        reason = "each copy needs a broker of its own; the topic could not be created, or would lack copies for good"
        wanted = f"at most {brokers}"
        yield _found("more-copies-than-brokers", topic, "replication factor", wanted, reason, got=str(factor))
    if needed >= factor > 1:
        reason = "with any one broker down, a restart for an upgrade included, every write is refused"
        wanted = f"at most {factor - 1}"
        yield _found("no-copy-to-spare", topic, "min.insync.replicas", wanted, reason, got=str(needed))
    if needed == 1 < factor:
        reason = "acks=all would acknowledge what only the leader has; its disk lost, acknowledged events are lost"
        yield _found("acknowledged-with-one-copy", topic, "min.insync.replicas", "at least 2", reason, got="1")
    if topic.config.get("unclean.leader.election.enable") == "true":
        reason = "a copy that had fallen behind may become leader, and what it lacks is dropped although acknowledged"
        yield _found("unclean-election", topic, "unclean.leader.election.enable", "false", reason)


def _check_retention(topic: Topic) -> Iterator[Finding]:
    policy = topic.config.get("cleanup.policy", "delete")
    if topic.name.startswith(STATE_PREFIX):
        if policy != "compact":
            reason = "state is restored from this topic alone; what retention deletes is forgotten"
            yield _found("state-not-compacted", topic, "cleanup.policy", "compact", reason, got=policy)
        return
    if not topic.name.startswith(HISTORY_PREFIXES):
        return
    if "compact" in policy:
        reason = "compaction keeps one record of each key: the earlier events of a subject would be gone"
        yield _found("compacted-history", topic, "cleanup.policy", "delete", reason)
    if 0 <= int(topic.config.get("retention.ms", "-1")) < EVENTS_KEPT_AT_LEAST_MS:
        reason = "an outage of every reader over a long weekend would lose what was not read"
        yield _found("kept-too-short", topic, "retention.ms", f"at least {EVENTS_KEPT_AT_LEAST_MS}", reason)
    if int(topic.config.get("retention.bytes", "-1")) >= 0:
        reason = "a burst would delete events that no reader has seen, however young they are"
        yield _found("kept-by-size", topic, "retention.bytes", "-1", reason)


def _found(rule: Rule, topic: Topic, setting: str, wanted: str, reason: str, *, got: str = "") -> Finding:
    return Finding(
        rule=rule,
        subject=topic.name,
        setting=setting,
        got=got or topic.config[setting],
        wanted=wanted,
        reason=reason,
    )


def _check_broker(name: str, config: Mapping[str, str], copies: Copies) -> Iterator[Finding]:
    def found(rule: Rule, setting: str, wanted: str, reason: str) -> Finding:
        return Finding(rule=rule, subject=name, setting=setting, got=config[setting], wanted=wanted, reason=reason)

    if config.get("auto.create.topics.enable") == "true":
        reason = "a misspelt name becomes a topic with one partition and nobody reading it"
        yield found("auto-creation", "auto.create.topics.enable", "false", reason)
    if config.get("unclean.leader.election.enable") == "true":
        reason = "every topic that does not say otherwise may drop what was acknowledged"
        yield found("unclean-election", "unclean.leader.election.enable", "false", reason)
    reasons = {
        "default.replication.factor": (copies.replication_factor, "a topic made by hand would have fewer copies"),
        "min.insync.replicas": (copies.min_insync_replicas, "a topic made by hand would be acknowledged too early"),
        "offsets.topic.replication.factor": (copies.replication_factor, "with its broker, every group's place is lost"),
        "transaction.state.log.replication.factor": (
            copies.replication_factor,
            "with its broker, no transaction can be ended and read_committed readers wait for good",
        ),
        "transaction.state.log.min.isr": (copies.min_insync_replicas, "a committed transaction could be forgotten"),
    }
    for setting, (wanted, reason) in reasons.items():
        if setting in config and int(config[setting]) < wanted:
            yield found("broker-default", setting, f"at least {wanted}", reason)
