"""The first eight days of January in a lake of this process, features included; for tests that only add to it."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from domains.flights.domain import DOMAIN
from headway.adapters.delta import Lake
from headway.backfill import backfill
from headway.clock import parse_instant_us
from headway.drift import Window


@cache
def january() -> Lake:
    """Return the lake, made once."""
    root = Path(tempfile.mkdtemp(prefix="headway-lake-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    lake = Lake(root)
    window = Window(
        from_us=parse_instant_us("2012-12-31T00:00:00Z", field="from"),
        until_us=parse_instant_us("2013-01-10T00:00:00Z", field="until"),
    )
    load = DOMAIN.load_history
    assert load is not None
    events = load().events_between(window.from_us, window.until_us)
    lake.bulk_load(DOMAIN, events, start_us=window.from_us, end_us=window.until_us)
    for view in DOMAIN.views:
        backfill(lake, view, window, mode="as_served")
    return lake
