"""Headway's contestants of P10: everything asked of the flights, by one engine, ``LAKE ENGINE OUT FROM_US UNTIL_US MODEL WINDOW_S``.

Every pass writes to a lake of its own that borrows events and features, as replacing rows that are there is other work.
"""

import sys
from pathlib import Path

from benchmarks.flights_asked import batch_of
from benchmarks.peers.backfill_work import measure
from headway.backfill_events import EVENTS
from headway.batch_engine import Engine, batch_engine, write_batch
from headway.batch_reads import PIECE_EVENTS
from headway.drift import Window
from headway.manifest import MODEL_FILE
from headway.settings import Settings
from products.catalogue import find_product


def main(lake: Path, engine: Engine, out: Path, window: Window, *, model: Path, window_s: float) -> None:
    """Work until the window is over."""
    product = find_product("flight_delay")
    with batch_engine(engine, Settings(), model=(model / MODEL_FILE).read_bytes()) as score:

        def one_pass(number: int) -> int:
            root = out / f"lake-{number}"
            root.mkdir()
            for borrowed in (EVENTS, "features"):
                (root / borrowed).symlink_to(lake / borrowed, target_is_directory=True)
            _, batch = batch_of(product, root, window, model)
            return write_batch(batch, score, limit=PIECE_EVENTS).rows

        measure(one_pass, window_s=window_s)


if __name__ == "__main__":
    _lake, _engine, _out, _from, _until, _model, _window_s = sys.argv[1:]
    if _engine not in ("process", "spark"):
        raise SystemExit(f"engine: got {_engine}, wanted process or spark")
    main(
        Path(_lake),
        _engine,  # type: ignore[arg-type]  # checked
        Path(_out),
        Window(from_us=int(_from), until_us=int(_until)),
        model=Path(_model),
        window_s=float(_window_s),
    )
