"""What the online store knows of views and entities beside their rows: how a view came to be, and how to forget one.

A view's mark lies in the hash of its watermarks, so that one read tells both. Forgetting removes a view's values, its
timestamp and the guard's version of one entity with one command; nothing of the entity stays once no view holds it.

What bites: without the guard's version any row is newer, so a row that was written before and applied after comes back
whole. Who forgets makes sure that nothing is on its way (`streaming.forgetting`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import redis

from headway.adapters.feast_layout import entity_key, hash_fields
from headway.adapters.redis_marks import MARK, WATERMARK, guard_field, view_state, watermark_key
from headway.adapters.redis_online import WRITE_TIMEOUT_S, explained
from headway.features.readiness import ViewState


class OnlineViews:
    """Reads and writes what is known of views; for people and slow steps, not for the hot path."""

    def __init__(self, redis_url: str, project: str) -> None:
        self._redis = redis.Redis.from_url(redis_url, socket_timeout=WRITE_TIMEOUT_S)
        self._project = project

    def mark_bootstrapped(self, view: str, *, digest: str, until_us: int) -> None:
        """Say that the view's past up to an instant was computed by the definition with this hash.

        Raises:
            TransientFailure: the store is away; repeat.
        """
        with explained():
            self._redis.hset(watermark_key(self._project, view), MARK, f"{digest}:{until_us}")

    def states(self, views: Sequence[str]) -> dict[str, ViewState]:
        """Return what is known of each view, in one round trip.

        Raises:
            TransientFailure: the store is away; repeat.
        """
        with explained(), self._redis.pipeline(transaction=False) as pipe:
            for view in views:
                pipe.hmget(watermark_key(self._project, view), [WATERMARK, MARK])
            replies: list[Any] = pipe.execute()  # pairs of bytes or None
        return {view: view_state(*reply) for view, reply in zip(views, replies, strict=True)}

    def forget(self, view: str, keys: Mapping[str, str], features: Sequence[str]) -> int:
        """Remove everything the view holds of one entity, at once; return how many fields that were.

        Args:
            view: name in the store.
            keys: the entity.
            features: every feature the view has had.

        Raises:
            TransientFailure: the store is away; repeat.
        """
        fields = (guard_field(view).encode(), *hash_fields(view, tuple(features)))
        with explained():
            removed: Any = self._redis.hdel(entity_key(self._project, keys), *fields)  # type: ignore[arg-type] # bytes
        return int(removed)

    def close(self) -> None:
        """Release the connections."""
        self._redis.close()
