"""The code location: every domain's and product's assets, checks, jobs, sensors and schedules as one value.

Loads with an empty environment and without a network, in less than 3 s: vendors' packages are imported by the run that
needs them. Steps run in the run's own process by default; starting one more costs more than most of them do.
"""

from collections.abc import Sequence

import dagster as dg

from assets.domain import domain_assets, ledger_check
from assets.product import product_assets
from assets.warehouse import warehouse_assets
from domains.catalogue import all_domains
from headway.contracts import Domain
from headway.product import Product
from headway.topics import STATE_DEDUPE, scores_state_topic, scores_topic, topic_table
from orchestration.checks import read_ledger_check
from orchestration.curation import curation_sensor
from orchestration.jobs import all_jobs, curate_job_name, replication_job, train_job_name
from orchestration.kafka_checks import replication_checks
from orchestration.lake_upkeep import compaction_job
from orchestration.letter_sensor import letters_sensor
from orchestration.resources import all_resources
from orchestration.scaling import job_instances_sensor
from orchestration.schedules import daily_compaction, monthly_training, replication_watch
from orchestration.sensors import live_version_sensor, retraining_sensor, topic_offsets_sensor
from orchestration.spark_memory import spark_memory_job
from products.catalogue import all_products


def build(domains: Sequence[Domain], products: Sequence[Product]) -> dg.Definitions:
    """Return the definitions of these domains and products."""
    declared = [each for domain in domains for each in (*domain_assets(domain), *warehouse_assets(domain))]
    declared += [each for product in products for each in product_assets(product)]
    jobs = all_jobs(domains, products)
    by_name = {job.name: job for job in jobs}
    topics = _topics(domains, products)
    replicated = replication_checks(topics)
    check_replication, compact_lake = replication_job(replicated), compaction_job()
    trainings = [(product, by_name[train_job_name(product)]) for product in products]
    return dg.Definitions(
        assets=[each for each in declared if not isinstance(each, dg.AssetChecksDefinition)],
        asset_checks=[
            ledger_check(read_ledger_check),
            replicated,
            *(each for each in declared if isinstance(each, dg.AssetChecksDefinition)),
        ],
        jobs=[*jobs, check_replication, compact_lake, spark_memory_job()],
        sensors=[
            topic_offsets_sensor(topics),
            *(job_instances_sensor(domain) for domain in domains),
            letters_sensor(),
            *(
                curation_sensor(domain, by_name[curate_job_name(domain, only=len(domains) == 1)])
                for domain in domains
                if domain.curated
            ),
            *(live_version_sensor(product) for product in products),
            *(retraining_sensor(product, job) for product, job in trainings),
        ],
        schedules=[
            replication_watch(check_replication),
            daily_compaction(compact_lake),
            *(monthly_training(product, job) for product, job in trainings),
        ],
        resources=all_resources(),
        executor=dg.in_process_executor,
    )


def _topics(domains: Sequence[Domain], products: Sequence[Product]) -> list[str]:
    views = [view.qualified for domain in domains for view in domain.views]
    table = topic_table(
        views=views, products=[product.name for product in products], replication_factor=1, min_insync_replicas=1
    )
    # What no asset stands for is left out: the memory of the Enricher, and scores of products that the stream asks nothing.
    unasked = {
        topic(each.name) for each in products if each.asked_by is None for topic in (scores_topic, scores_state_topic)
    }
    return [topic.name for topic in table if topic.name not in {STATE_DEDUPE, *unasked}]


defs = build(list(all_domains().values()), list(all_products().values()))
