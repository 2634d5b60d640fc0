"""``headway ledger`` and ``parity``: whether the plane kept its promises, from the command line."""

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from typing import TYPE_CHECKING

from headway.commands import Outcome, Run, Say

if TYPE_CHECKING:
    from headway.ledger import Ledger

_NAMED_IN_LINES = 20
_NAMED_IN_FACTS = 10_000


def ledger_command(parser: ArgumentParser) -> Run:
    """Account for every accepted event; holds when the books balance and nothing is in flight (S13)."""
    parser.add_argument(
        "--hours", type=int, help="judge this many of the newest hours; default: all that the log keeps whole"
    )

    def run(arguments: Namespace, _say: Say) -> Outcome:
        from headway.ledger import JUDGED_HOURS
        from headway.settings import Settings
        from streaming.accounts import open_stores, read_ledger

        place = Settings()
        with open_stores(bootstrap=place.kafka_bootstrap, lake=place.lake, search_url=place.search_url) as stores:
            ledger = read_ledger(stores, hours=arguments.hours or JUDGED_HOURS)
        return Outcome(holds=ledger.balanced, facts=ledger.facts(limit=_NAMED_IN_FACTS), lines=ledger_lines(ledger))

    return run


def ledger_lines(ledger: "Ledger") -> list[str]:
    """Return the account as a table by hour, its partitions summed, and what is not as it should be by name."""
    from headway.ledger import DIFFERENCES

    counted = ("raw", "enriched", "letters", "duplicates", "in_flight", "lake", "search")
    lines = [f"{'hour (UTC)':<17}" + "".join(f"{name.replace('_', ' '):>12}" for name in counted)]
    for hour, *counts in ledger.hours.group_by("hour").sum().sort("hour").select("hour", *counted).iter_rows():
        lines.append(
            f"{hour:%Y-%m-%d %H:00} " + "".join(_cell(name, n, ledger) for name, n in zip(counted, counts, strict=True))
        )
    lines.append(f"{'all':<17}" + "".join(_cell(name, getattr(ledger, name), ledger) for name in counted))
    if not ledger.searched:
        lines.append("search: no search node answers, so the documents were not compared")
    lines += [f"the lake lost the file {file}" for file in ledger.lost_files]
    for what, meaning in DIFFERENCES.items():
        if n := ledger.count(what):
            shown = ledger.named(what, limit=_NAMED_IN_LINES)
            lines += [f"{what}: {n} ({meaning})", *(f"  {name}" for name in shown)]
            lines += ["  ... all are in --json"] if n > len(shown) else []
    return lines


def _cell(name: str, count: int | None, ledger: "Ledger") -> str:
    return f"{'-' if name == 'search' and not ledger.searched else count:>12}"


def parity_command(parser: ArgumentParser) -> Run:
    """Recompute every served prediction's features from the lake's events; holds when none differs (S8)."""
    parser.add_argument("--product", help="default: the only one there is")

    def run(arguments: Namespace, _say: Say) -> Outcome:
        from pathlib import Path

        import polars as pl

        from headway.adapters.delta import Lake
        from headway.prediction_parity import check_predictions
        from headway.predictions import predictions_table
        from headway.settings import Settings
        from products.catalogue import all_products, find_product

        product = find_product(arguments.product) if arguments.product else next(iter(all_products().values()))
        lake = Lake(Path(Settings().lake))
        served = lake.read(predictions_table(product.name).name, predicate=pl.col("source") == "request")
        report = check_predictions(served, lake.read("events"), product.feature_views.values())
        lines = [
            (
                f"{report.checked:,} values of {report.predictions:,} predictions checked: {report.mismatched} mismatches, "
                f"{report.corrected} corrected later"
            ),
            *(mismatch.told for mismatch in report.mismatches[:_NAMED_IN_LINES]),
        ]
        return Outcome(holds=report.held, facts=asdict(report), lines=lines)

    return run
