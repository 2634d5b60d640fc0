"""Whether the group's coordinator knows a member: the one question a consumer cannot answer about itself.

With ``group.protocol=consumer`` a member without partitions gets no assignment callback, its id is its own invention,
and the client's statistics stay at ``init`` for ever; only the broker can tell an idle instance from one that is lost.
"""

import logging
from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

logger = logging.getLogger(__name__)

_TIMEOUT_S = 2.0


def is_in_group(settings: Mapping[str, Any], *, group: str, member: str | None) -> bool:
    """Ask the broker; False also when it does not answer. Connects anew each time, as it is asked until it is true."""
    if not member:
        return False
    # Named, as the futures of a client that is collected never end.
    admin = AdminClient(dict(settings))
    try:
        asked = admin.describe_consumer_groups([group], request_timeout=_TIMEOUT_S)
        members = asked[group].result(timeout=2 * _TIMEOUT_S).members
    except (KafkaException, TimeoutError) as error:
        logger.info("membership of %s not known: %r", group, error)
        return False
    return any(each.member_id == member for each in members)
