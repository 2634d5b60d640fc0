"""Create the topics of the table, once, before any job starts: ``python -m streaming.provision``. Idempotent."""

import sys
from collections.abc import Iterable

import structlog

from domains.catalogue import all_domains
from headway.adapters.kafka_topics import admin_client, apply_topics
from headway.contracts import Domain
from headway.errors import ContractViolation
from headway.kafka_health import Declared
from headway.logs import configure_logging
from headway.replication import Copies, copies_for
from headway.settings import Settings
from headway.topics import Topic, topic_table
from products.catalogue import all_products

_LOG = structlog.get_logger()


def declared_copies(settings: Settings) -> Copies:
    """Give the copies every topic is to have.

    Raises:
        ContractViolation: no safe answer for so many brokers (`headway.replication.copies_for`).
    """
    return copies_for(
        settings.brokers,
        replication_factor=settings.replication_factor,
        min_insync_replicas=settings.min_insync_replicas,
    )


def declared_topics(copies: Copies, domains: Iterable[Domain], products: Iterable[str]) -> tuple[Topic, ...]:
    """Give the topics of these domains and products, each with so many copies."""
    return topic_table(
        views=[view.qualified for domain in domains for view in domain.views],
        products=products,
        replication_factor=copies.replication_factor,
        min_insync_replicas=copies.min_insync_replicas,
    )


def declared_cluster(settings: Settings) -> Declared:
    """Give the cluster as it should be: brokers, copies, and the topics of every domain and product there is."""
    copies = declared_copies(settings)
    topics = declared_topics(copies, all_domains().values(), all_products())
    return Declared(brokers=settings.brokers, copies=copies, topics=topics)


def main() -> int:
    """Provision the topics of every domain and product there is. Exit code 1 when the table is refused."""
    configure_logging("topics")
    settings = Settings()
    try:
        declared = declared_cluster(settings)
        changed = apply_topics(admin_client(settings.kafka_bootstrap), declared.topics)
    except ContractViolation as refusal:
        _LOG.error("topics refused", reason=str(refusal))
        return 1
    _LOG.info("topics provisioned", changed=changed, copies=declared.copies.told)
    return 0


if __name__ == "__main__":
    sys.exit(main())
