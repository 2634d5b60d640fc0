"""Headway's contestants of P11: all views of the flights by one engine, ``LAKE ENGINE OUT FROM_US UNTIL_US WINDOW_S``.

Every pass writes to a lake of its own that borrows the events, as replacing rows that are there is other work.
"""

import sys
from pathlib import Path

from benchmarks.peers.backfill_work import measure
from domains.flights.domain import DOMAIN
from headway.adapters.delta import Lake
from headway.backfill_engine import Engine, backfill_engine
from headway.backfill_events import EVENTS
from headway.drift import Window
from headway.settings import Settings


def main(lake: str, engine: Engine, out: str, window: Window, window_s: float) -> None:
    """Work until the window is over."""
    with backfill_engine(engine, Settings()) as backfill:

        def one_pass(number: int) -> int:
            root = Path(out) / f"lake-{number}"
            root.mkdir()
            (root / EVENTS).symlink_to(Path(lake) / EVENTS, target_is_directory=True)
            done = backfill(DOMAIN.views, window, lake=Lake(root), mode="as_served")
            return sum(each.rows for each in done)

        measure(one_pass, window_s=window_s)


if __name__ == "__main__":
    _lake, _engine, _out, _from, _until, _window_s = sys.argv[1:]
    if _engine not in ("process", "spark"):
        raise SystemExit(f"engine: got {_engine}, wanted process or spark")
    main(_lake, _engine, _out, Window(from_us=int(_from), until_us=int(_until)), float(_window_s))  # type: ignore[arg-type]  # checked
