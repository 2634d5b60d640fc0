"""A planted, labelled change for demonstrations: from an instant on, some airlines arrive later than planned.

Natural windows of this data drift all the time (SEMANTICS S25), so a claim "drift is found" needs a change that is
known to be there. Every changed event says so in its ``planted`` attribute; nothing else may look at it but reports.
"""

from dataclasses import dataclass

import msgspec
import polars as pl

from domains.flights.contracts import ARRIVED
from headway.clock import MINUTE_US, from_us, parse_instant_us
from headway.events import Event

LABEL = "padding-removed"


@dataclass(frozen=True, kw_only=True)
class PaddingRemoved:
    """Flights of some airlines reach the gate later, as if their schedules had lost their padding.

    Touches ``flight.arrived.v1`` of flights *scheduled to depart* at or after the instant, so that a window of
    scheduled departures is changed whole or not at all. Delay and event time move together.
    """

    from_us: int
    carriers: frozenset[str]
    added_min: int = 20

    def frame(self, events: pl.LazyFrame) -> pl.LazyFrame:
        """Return the events with the change planted."""
        column = pl.col
        touched = (
            (column("type") == ARRIVED)
            & column("carrier").is_in(sorted(self.carriers))
            & (column("sched_dep") >= pl.lit(from_us(self.from_us)))
        )
        return events.with_columns(
            time=pl.when(touched).then(column("time").dt.offset_by(f"{self.added_min}m")).otherwise("time"),
            arr_delay_min=pl.when(touched).then(column("arr_delay_min") + self.added_min).otherwise("arr_delay_min"),
            planted=pl.when(touched).then(pl.lit(LABEL)).otherwise("planted"),
        )

    def event(self, event: Event) -> Event:
        """Return one event with the change planted, or as it is."""
        if (
            event.type != ARRIVED
            or event.data["carrier"] not in self.carriers
            or parse_instant_us(event.data["sched_dep"], field="sched_dep") < self.from_us
        ):
            return event
        data = {**event.data, "arr_delay_min": event.data["arr_delay_min"] + self.added_min}
        return msgspec.structs.replace(
            event, time_us=event.time_us + self.added_min * MINUTE_US, data=data, planted=LABEL
        )
