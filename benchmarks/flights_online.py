"""An online store with real days of flights in it: every view bootstrapped, as a new installation would have it."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from domains.flights.domain import DOMAIN
from headway.adapters.redis_online import OnlineWriter
from headway.adapters.redis_views import OnlineViews
from headway.clock import DAY_US
from headway.ports import Record
from streaming.bootstrap import bootstrap_view

KEYS = ("origin", "carrier", "dest", "tail")


class _Dropped:
    """Takes the state of the feature job, which nobody asks for here."""

    def publish(self, records: Sequence[Record]) -> None:
        """Keep nothing."""


def fill_with_flights(redis_url: str, project: str, *, until_us: int) -> list[dict[str, str]]:
    """Bootstrap every view from the two days before an instant; return the keys of the flights in them, each once."""
    assert DOMAIN.load_history is not None
    events = DOMAIN.load_history().events_between(until_us - 2 * DAY_US, until_us + 1)
    writer, views = OnlineWriter(redis_url, project), OnlineViews(redis_url, project)
    publisher: Any = _Dropped()  # the one method of a publisher that is used
    try:
        for view in DOMAIN.views:
            bootstrap_view(
                view,
                events,
                until_us=until_us,
                restore=lambda _topic, _partition: (),
                publisher=publisher,
                online=writer,
                marks=views,
            )
    finally:
        writer.close()
        views.close()
    return events.select(pl.col(KEYS).cast(pl.String())).drop_nulls().unique().sort(KEYS).to_dicts()
