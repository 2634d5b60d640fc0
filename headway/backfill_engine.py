"""Which engine computes the past of features: this process, or Spark. They write the same rows, so it is about size."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, Protocol

from headway.backfill import Backfilled, backfill_together
from headway.drift import Window
from headway.features.definitions import FeatureView
from headway.features.offline import Mode
from headway.features.slices import reach_us

if TYPE_CHECKING:
    from headway.adapters.delta import Lake
    from headway.settings import Settings

Engine = Literal["process", "spark"]
# Views at once in this process, from the same events; each holds its own sorted columns and a month of rows.
_MOST_AT_ONCE = 4


class Backfill(Protocol):
    """Writes the past of views to the lake."""

    def __call__(
        self, views: Sequence[FeatureView], window: Window, *, lake: "Lake", mode: Mode
    ) -> Iterator[Backfilled]:
        """Make the views' rows of a window exactly those that events imply; yield what was written, in their order."""
        ...


@contextmanager
def backfill_engine(name: Engine, settings: "Settings") -> Iterator[Backfill]:
    """Give the backfill of an engine; a Spark session is started once, and ends with the block.

    Raises:
        ContractViolation: the sizes of the session break a rule of Spark's memory.
        PermanentFailure: Spark does not start.
    """
    if name == "process":
        yield _in_process
        return
    from headway.adapters.spark import spark_session
    from headway.adapters.spark_backfill import backfill_on_spark
    from headway.spark_settings import read_spark_settings

    with spark_session("feature backfill", settings, read_spark_settings({})) as running:

        def on_spark(views: Sequence[FeatureView], window: Window, *, lake: "Lake", mode: Mode) -> Iterator[Backfilled]:
            for view in views:
                yield backfill_on_spark(running.session, lake, view, window, mode=mode)

        yield on_spark


def _in_process(views: Sequence[FeatureView], window: Window, *, lake: "Lake", mode: Mode) -> Iterator[Backfilled]:
    at_once, done = min(_MOST_AT_ONCE, os.cpu_count() or 1), dict[str, Backfilled]()
    # What remembers for good would have the others read all there ever was.
    for for_good in (False, True):
        if group := [view for view in views if (reach_us(view) is None) == for_good]:
            for each in backfill_together(lake, group, window, mode=mode, at_once=at_once):
                done[each.view] = each
    yield from (done[view.qualified] for view in views)
