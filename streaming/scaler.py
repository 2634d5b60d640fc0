"""The job scaler: ``python -m streaming.scaler --fleet MODULE:FUNCTION --at ADDRESS``; reads lag, decides, records, asks.

Every few seconds one round over all jobs: `headway.backlog` measures, `headway.scaling` decides, and what it decides
is written down with its inputs before the fleet is asked. Decides nothing itself; without it every job keeps the
instances it has. The fleet is given by name, as the one-machine stack is no part of production.
"""

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module

import structlog
from confluent_kafka.admin import AdminClient
from prometheus_client import REGISTRY

from domains.catalogue import all_domains, find_domain
from headway.adapters.kafka_backlog import GroupBacklog, read_backlogs
from headway.adapters.kafka_topics import admin_client
from headway.adapters.scaling_table import ScalingTable, scaling_file
from headway.backlog import Policy, Reading, Track, measure
from headway.clock import Clock, SystemClock, monotonic_s, to_us
from headway.contracts import Domain
from headway.errors import HeadwayError, PermanentFailure
from headway.logs import configure_logging
from headway.ports import Fleet
from headway.scaling import Decision, decide
from headway.settings import LOOPBACK, Settings
from headway.stopping import stop_event
from products.catalogue import all_products
from streaming.health import Health
from streaming.jobs import JOBS, Job, Scope, group_name
from streaming.scaler_metrics import ScalerMetrics

_LOG = structlog.get_logger()

Backlogs = Callable[[], Mapping[str, GroupBacklog]]


class Scaler:
    """What one round of readings does to a fleet; ``backlogs`` are by job."""

    def __init__(self, *, backlogs: Backlogs, fleet: Fleet, table: ScalingTable, policy: Policy, clock: Clock) -> None:
        self._backlogs = backlogs
        self._fleet = fleet
        self._table = table
        self._policy = policy
        self._clock = clock
        self._tracks: dict[str, Track] = {}

    def turn(self, at_s: float) -> list[Decision]:
        """Read, decide, record, ask; return the decisions.

        Raises:
            TransientFailure: log or fleet does not answer; the next round reads again.
        """
        counts, found = self._fleet.counts(), self._backlogs()
        loads = []
        for job in sorted(counts.keys() & found.keys()):
            count, backlog = counts[job], found[job]
            reading = Reading(
                at_s=at_s,
                written=backlog.written,
                done=backlog.done,
                places=backlog.places,
                instances=count.wanted,
                ready=count.ready,
            )
            self._tracks[job] = self._tracks.get(job, Track()).follow(reading, self._policy)
            loads.append(measure(job, self._tracks[job], self._policy, partitions=backlog.partitions, held=count.held))
        decisions = decide(loads, self._policy)
        self._table.record(decisions, self._policy, at_us=to_us(self._clock.now()))
        for decision in decisions:
            if decision.changes:
                self._ask(decision)
        return decisions

    def _ask(self, decision: Decision) -> None:
        job, before, after = decision.load.job, decision.load.instances, decision.instances
        try:
            self._fleet.scale(job, after)
        except PermanentFailure as refusal:  # a person was quicker; the next round sees it
            _LOG.warning("not scaled", job=job, before=before, after=after, refusal=str(refusal))
        else:
            _LOG.info("scaled", job=job, before=before, after=after, reason=decision.reason)


def policy_of(settings: Settings) -> Policy:
    """Return the policy that settings and machine give."""
    extra = settings.scaler_extra or max(1, (os.cpu_count() or 1) - 1)
    return Policy(most=settings.scaler_most, extra=extra, drain_within_s=settings.scaler_drain_s)


def backlogs_of(domain: Domain, admin: AdminClient) -> Backlogs:
    """Return what reads the backlog of every job of a domain."""
    products = tuple(sorted(p.name for p in all_products().values() if p.domain.name == domain.name))
    scope = Scope(domain=domain, products=products)
    topics = {group_name(domain, job.name): job.topics(scope) for job in JOBS}

    def read() -> dict[str, GroupBacklog]:
        found = read_backlogs(admin, topics)
        return {job.name: for_instances(found[group_name(domain, job.name)], job) for job in JOBS}

    return read


def for_instances(backlog: GroupBacklog, job: Job) -> GroupBacklog:
    """Return the backlog with the partitions that may be shared: of a job that runs alone, all go together."""
    return backlog if job.alone is None else replace(backlog, partitions=1)


def main() -> int:
    """Scale until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m streaming.scaler", description="Scale stream jobs by their lag.")
    parser.add_argument("--fleet", required=True, metavar="MODULE:FUNCTION", help="given an address, gives the fleet")
    parser.add_argument("--at", required=True, metavar="ADDRESS", help="where the fleet is asked, as it understands it")
    parser.add_argument("--domain", default=None, help="default: the only domain there is")
    arguments = parser.parse_args()
    configure_logging("job-scaler")
    stop = stop_event()
    settings, metrics = Settings(), ScalerMetrics()
    REGISTRY.register(metrics)
    server = Health(LOOPBACK, settings.ports.scaler)
    domain = find_domain(arguments.domain) if arguments.domain else next(iter(all_domains().values()))
    scaler = Scaler(
        backlogs=backlogs_of(domain, admin_client(settings.kafka_bootstrap)),
        fleet=_fleet(arguments.fleet, arguments.at),
        table=ScalingTable(scaling_file(settings.state)),
        policy=policy_of(settings),
        clock=SystemClock(),
    )
    while not stop.is_set():
        try:
            metrics.note(scaler.turn(monotonic_s()))
            server.ready.set()
        except HeadwayError as failure:
            metrics.forget()
            _LOG.warning("round left out", reason=str(failure))
        stop.wait(settings.scaler_every_s)
    server.close()
    return 0


def _fleet(named: str, address: str) -> Fleet:
    module, _, function = named.partition(":")
    fleet: Fleet = getattr(import_module(module), function)(address)
    return fleet


if __name__ == "__main__":
    sys.exit(main())
