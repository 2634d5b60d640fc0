"""How fresh each view is online, as metrics: the watermark the store holds, and how far it is behind now.

From the online writer, which moves watermarks and reads all of them back: the store's is the least over partitions and
instances, and a partition that nobody moves shows as a growing lag. Loads of static views show here too.
What bites: an instance that lost its partitions shows what it saw last, so the newest watermark, the least lag over all
instances, is the view's. And lag counts from now: in a replay of the past, T is the replay's (S7), and the lag here is
the age of the data.
"""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Gauge

from headway.clock import SECOND_US, Clock, duration_us, to_us
from headway.contracts import Domain


class ViewFreshness:
    """Gauges ``headway_view_*``, by view version. A view without a watermark has none: nothing is known of it."""

    def __init__(self, domain: Domain, *, registry: CollectorRegistry, clock: Clock) -> None:
        def gauge(name: str, about: str) -> Gauge:
            return Gauge(f"headway_view_{name}", about, ["view"], registry=registry)

        self._views = {view.online_name: view for view in domain.every_view}
        self._clock = clock
        self._watermark = gauge("watermark_seconds", "Up to when all events are in, Unix time.")
        self._lag = gauge("lag_seconds", "How far the watermark is behind now.")
        max_lag = gauge("max_lag_seconds", "Beyond this lag an answer is stale, as the view declares it (S10).")
        for view in domain.every_view:
            max_lag.labels(view.qualified).set(duration_us(view.max_lag) / SECOND_US)

    @property
    def names(self) -> list[str]:
        """The views' names in the store."""
        return list(self._views)

    def show(self, watermarks_us: Mapping[str, int | None]) -> None:
        """Take what the store holds, by the views' names there; the lag is counted when somebody looks."""
        for name, watermark_us in watermarks_us.items():
            if watermark_us is None:
                continue
            qualified = self._views[name].qualified
            self._watermark.labels(qualified).set(watermark_us / SECOND_US)
            self._lag.labels(qualified).set_function(_Behind(self._clock, watermark_us))


class _Behind:
    """How far an instant is behind now, in seconds."""

    def __init__(self, clock: Clock, instant_us: int) -> None:
        self._clock, self._instant_us = clock, instant_us

    def __call__(self) -> float:
        return (to_us(self._clock.now()) - self._instant_us) / SECOND_US
