"""One stream job as a process: ``python -m streaming.main JOB [--domain NAME] [--instance N]``.

The composition root of streaming: it reads settings, builds adapters, and runs the loop until SIGTERM or SIGINT, after
which the batch under way is finished and the group is left. Instance 0 answers for its health on the job's own port;
give another one ``--health-port``, 0 for any that is free, and ``--announce FILE`` to say which it took.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import structlog
from prometheus_client import REGISTRY

from domains.catalogue import all_domains, find_domain
from headway.adapters.kafka_log import KafkaEventLog
from headway.adapters.kafka_reader import KafkaReader
from headway.announcement import Announcement
from headway.contracts import Domain
from headway.garbage import spare_long_lived
from headway.logs import configure_logging
from headway.model_files import MODELS_FOLDER
from headway.ports import TopicPartition
from headway.settings import LOOPBACK, Settings
from headway.stopping import stop_event
from products.catalogue import all_products
from streaming.health import Health
from streaming.instruments import Instruments
from streaming.job_metrics import Rebalance
from streaming.jobs import JOBS, Context, find_job, group_name
from streaming.quarantine import Quarantine
from streaming.runtime import partitions_of
from streaming.watchdog import Watchdog, end_process

_LOG = structlog.get_logger()


def run(name: str, *, domain: Domain, instance: int, health: Health, settings: Settings) -> None:
    """Run one job until it is told to stop."""
    job = find_job(name)
    stop = stop_event()
    products = tuple(sorted(p.name for p in all_products().values() if p.domain.name == domain.name))
    reader = KafkaReader(bootstrap=settings.kafka_bootstrap)
    context = Context(
        domain=domain,
        products=products,
        restore=reader.read_compacted,
        online_url=f"redis://{settings.online_store}",
        feast_project=settings.feast_project,
        lake_root=settings.lake,
        models_folder=settings.state / MODELS_FOLDER,
        mlflow_url=settings.mlflow_url,
        enrichment_url=settings.enrichment_url,
        kafka_bootstrap=settings.kafka_bootstrap,
        alertmanager_url=settings.alertmanager_url,
        search_url=settings.search_url,
    )
    quarantine = Quarantine(settings.state / "journal" / f"{name}-{instance}.json")
    watchdog = Watchdog(deadline_s=settings.job_deadline_s, on_hang=lambda: end_hung(quarantine))
    instruments = Instruments(job=name, instance=instance, registry=REGISTRY, quarantine=quarantine, watchdog=watchdog)
    health.tell(instruments.readiness)
    worker = job.build(context)
    owned: set[TopicPartition] = set()

    def assign(partitions: Sequence[TopicPartition]) -> None:
        owned.update(partitions)
        worker.assigned(partitions_of(partitions))
        instruments.note_group("assigned", partitions, owned=frozenset(owned))

    def let_go(kind: Rebalance, partitions: Sequence[TopicPartition]) -> None:
        owned.difference_update(partitions)
        worker.revoked(partitions_of(partitions))
        instruments.note_group(kind, partitions, owned=frozenset(owned))

    log = KafkaEventLog(
        bootstrap=settings.kafka_bootstrap,
        group=group_name(domain, name),
        topics=job.topics(context),
        instance=str(instance),
        on_assign=assign,
        on_revoke=partial(let_go, "revoked"),
        on_lost=partial(let_go, "lost"),
        on_step=instruments.hit,
        protocol=settings.group_protocol,
    )
    spare_long_lived()
    _LOG.info("started", job=name, topics=job.topics(context))
    try:
        worker.run(log, stopped=stop.is_set, instruments=instruments)
    finally:
        watchdog.close()
        log.close()
        reader.close()
        health.close()
    _LOG.info("stopped", job=name)


def end_hung(quarantine: Quarantine) -> None:
    """End a process that hangs, with its crash journal saying so."""
    quarantine.note_hang()
    end_process()


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m streaming.main", description="Run one stream job.")
    parser.add_argument("job", choices=[job.name for job in JOBS])
    parser.add_argument("--domain", default=None, help="default: the only domain there is")
    parser.add_argument("--instance", type=int, default=0, help="number of this instance, stable across restarts")
    parser.add_argument("--health-port", type=int, help="default: the job's own; 0 takes any that is free")
    parser.add_argument("--announce", type=Path, metavar="FILE", help="write there which port answers for its health")
    arguments = parser.parse_args()
    alone = find_job(arguments.job).alone
    if alone is not None and arguments.instance != 0:
        parser.error(f"{arguments.job} --instance: got {arguments.instance}, wanted 0, as it runs alone: {alone}")
    configure_logging(f"job-{arguments.job}")
    settings = Settings()
    port = arguments.health_port
    if port is None:
        port = settings.ports.job_first + [each.name for each in JOBS].index(arguments.job)
    health = Health(LOOPBACK, port)
    if arguments.announce is not None:
        name = arguments.announce.stem
        Announcement(name=name, host=LOOPBACK, port=health.port, pid=os.getpid()).write(arguments.announce)
    domain = find_domain(arguments.domain) if arguments.domain else next(iter(all_domains().values()))
    run(arguments.job, domain=domain, instance=arguments.instance, health=health, settings=settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
