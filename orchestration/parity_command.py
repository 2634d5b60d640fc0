"""``headway parity``: what predictions were served with, recomputed; with ``--paths``, the same rows along every path."""

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from typing import TYPE_CHECKING

from headway.commands import Outcome, Run, Say
from headway.errors import PermanentFailure
from streaming.audit import parity_command as features_parity_command

if TYPE_CHECKING:
    from headway.path_parity import PathReport
    from headway.product import Product
    from headway.settings import Settings
    from orchestration.asking import Asking

_NAMED_IN_LINES = 20


def parity_command(parser: ArgumentParser) -> Run:
    """Hold the online store to the lake's events (S8), or every scoring path to the others, bit for bit."""
    features = features_parity_command(parser)
    parser.add_argument(
        "--paths", action="store_true", help="instead: score the same rows along every path, and compare"
    )
    parser.add_argument(
        "--rows", type=int, default=1000, help="--paths: how many logged answers (default: %(default)s)"
    )

    def run(arguments: Namespace, say: Say) -> Outcome:
        if not arguments.paths:
            return features(arguments, say)
        from headway.adapters.mlflow import tame_client
        from headway.logs import show_warnings_only
        from headway.settings import Settings
        from orchestration.scoring_paths import check_paths
        from products.catalogue import all_products, find_product

        tame_client()
        show_warnings_only()
        product = find_product(arguments.product) if arguments.product else next(iter(all_products().values()))
        asking = asking_of(product, Settings(), at_most=arguments.rows)
        say(f"{product.name} version {asking.version}: {len(asking.rows):,} rows")
        return path_outcome(check_paths(asking))

    return run


def asking_of(product: "Product", settings: "Settings", *, at_most: int) -> "Asking":
    """Return rows of the lake's predictions, and the live model (else the champion), to ask every path with.

    Raises:
        PermanentFailure: nothing was predicted, or no version is live.
    """
    from pathlib import Path

    from assets.scoring import open_version
    from headway.adapters.delta import Lake
    from headway.adapters.mlflow import MlflowRegistry
    from headway.predictions import predictions_in, predictions_table
    from orchestration.asking import Asking
    from orchestration.scoring_rows import rows_of

    registry, reference = MlflowRegistry(settings.mlflow_url), product.domain.load_reference()
    found = open_version(product, registry, reference, version=None).version
    lake, table = Lake(Path(settings.lake)), predictions_table(product.name).name
    logged = lake.read(table).sort("receipt") if lake.exists(table) else None
    rows = [] if logged is None else rows_of(product, predictions_in(logged), at_most=at_most)
    if not rows:
        raise PermanentFailure(f"parity --paths: {table} has no prediction to score again; predict something first")
    model, manifest = registry.load(product.name, found.version)
    return Asking(
        product=product, reference=reference, version=found.version, model=model, manifest=manifest, rows=rows
    )


def path_outcome(report: "PathReport") -> Outcome:
    """Return what the command shows of a report."""
    first, *others = report.paths
    lines = [
        f"{report.rows:,} rows along {', '.join(others)} held to {first}: {report.mismatched:,} of {report.compared:,} differ",
        *(mismatch.told for mismatch in report.mismatches[:_NAMED_IN_LINES]),
    ]
    return Outcome(holds=report.held, facts=asdict(report), lines=lines)
