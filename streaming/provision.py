"""Create the topics of the table, once, before any job starts: ``python -m streaming.provision``. Idempotent."""

import sys
from collections.abc import Iterable

import structlog

from domains.catalogue import all_domains
from headway.adapters.kafka_topics import admin_client, apply_topics
from headway.contracts import Domain
from headway.logs import configure_logging
from headway.settings import Settings
from headway.topics import topic_table
from products.catalogue import all_products

_LOG = structlog.get_logger()


def provision(bootstrap: str, domains: Iterable[Domain], products: Iterable[str]) -> list[str]:
    """Make the topics as declared, with one broker's worth of replication; return what was done."""
    views = [view.qualified for domain in domains for view in domain.views]
    table = topic_table(views=views, products=products, replication_factor=1, min_insync_replicas=1)
    return apply_topics(admin_client(bootstrap), table)


def main() -> int:
    """Provision the topics of every domain and product there is."""
    configure_logging("topics")
    done = provision(Settings().kafka_bootstrap, all_domains().values(), all_products())
    _LOG.info("topics provisioned", changed=done)
    return 0


if __name__ == "__main__":
    sys.exit(main())
