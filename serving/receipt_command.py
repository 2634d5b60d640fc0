"""``headway receipt``: one answer explained and computed again, or many random ones, from the command line."""

from argparse import ArgumentParser, Namespace
from collections import Counter
from typing import TYPE_CHECKING, Any

from headway.commands import Outcome, Run, Say
from headway.errors import InputRejected

if TYPE_CHECKING:
    from headway.receipts import Receipt
    from serving.receipts import ReceiptDesk

_NAMED = 20


def receipt_command(parser: ArgumentParser) -> Run:
    """Explain an answer and compute its score again; holds when it comes out bit for bit."""
    parser.add_argument("receipt", nargs="?", metavar="ID", help="`receipt` of an answer, or of a batch row")
    parser.add_argument("--sample", type=int, metavar="N", help="instead: N random ones of the lake, evenly over paths")
    parser.add_argument("--product", help="--sample: of this product (default: the only one there is)")
    parser.add_argument("--seed", type=int, default=1, help="--sample: which ones (default: %(default)s)")

    def run(arguments: Namespace, _say: Say) -> Outcome:
        from headway.adapters.mlflow import tame_client
        from headway.settings import Settings
        from serving.receipts import ReceiptDesk, known_product
        from serving.receipts_main import receipt_sources

        if (arguments.receipt is None) == (arguments.sample is None):
            raise InputRejected("receipt: got both or neither, wanted either ID or --sample N")
        tame_client()
        sources = receipt_sources(Settings())
        desk = ReceiptDesk(sources)
        if arguments.receipt is not None:
            return _one(desk.receipt(arguments.receipt))
        product = known_product(sources, arguments.product or next(iter(sources.products)))
        return sampled(desk, product.name, arguments.sample, seed=arguments.seed)

    return run


def _one(receipt: "Receipt") -> Outcome:
    from headway.receipt_view import receipt_facts, receipt_lines

    return Outcome(holds=receipt.holds, facts=receipt_facts(receipt), lines=receipt_lines(receipt))


def sampled(desk: "ReceiptDesk", product: str, count: int, *, seed: int) -> Outcome:
    """Compute random answers again; holds when there are some and each comes out bit for bit."""
    from headway.receipts import NotRecomputed

    paths: Counter[str] = Counter()
    greatest, failed = 0.0, []
    for kept in desk.sample(product, count, seed=seed):
        receipt, logged = desk.judge(kept), kept.prediction
        paths[logged.source] += 1
        if isinstance(receipt.verdict, NotRecomputed):
            failed.append(f"{logged.receipt}: not recomputed: {receipt.verdict.reason}")
        elif not receipt.holds:
            failed.append(f"{logged.receipt}: difference {receipt.verdict.difference!r}")
            greatest = max(greatest, abs(receipt.verdict.difference))
    total, told = sum(paths.values()), ", ".join(f"{n} {path}" for path, n in sorted(paths.items()))
    facts: dict[str, Any] = {
        "product": product,
        "checked": total,
        "paths": dict(paths),
        "greatest_difference": greatest,
        "failed": failed,
        "seed": seed,
    }
    lines = [
        f"{total:,} receipts ({told or 'none in the lake'}): greatest difference {greatest!r}, {len(failed)} not equal",
        *(f"  {each}" for each in failed[:_NAMED]),
    ]
    return Outcome(holds=total > 0 and not failed, facts=facts, lines=lines)
