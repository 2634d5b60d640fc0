"""``headway ledger``, ``parity`` and ``letters``: whether the plane kept its promises, from the command line."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict

from headway.commands import Outcome, Run, Say


def ledger_command(_parser: ArgumentParser) -> Run:
    """Account for every accepted event; holds when the books balance and nothing is in flight (S13)."""

    def run(_arguments: Namespace, _say: Say) -> Outcome:
        from pathlib import Path

        from headway.adapters.delta import Lake
        from headway.adapters.kafka_reader import KafkaReader
        from headway.settings import Settings
        from streaming.accounts import read_ledger

        settings = Settings()
        reader = KafkaReader(bootstrap=settings.kafka_bootstrap)
        try:
            ledger = read_ledger(reader, Lake(Path(settings.lake)))
        finally:
            reader.close()
        lines = [
            (
                f"raw {ledger.raw} = enriched {ledger.enriched} + letters {ledger.letters} "
                f"+ duplicates {ledger.duplicates} + in flight {ledger.in_flight}; lake {ledger.lake}"
            ),
            *_named(
                "lost", [f"{lost.identity[1]} at {lost.place.partition}@{lost.place.offset}" for lost in ledger.lost]
            ),
            *_named("not in the lake", [f"{place.partition}@{place.offset}" for place in ledger.not_in_lake]),
            *_named("surplus in the lake", [f"{place.partition}@{place.offset}" for place in ledger.surplus_in_lake]),
            *_named("twice", [f"{place.partition}@{place.offset}" for place in ledger.twice]),
        ]
        return Outcome(holds=ledger.balanced, facts=asdict(ledger), lines=lines)

    return run


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
            *(
                f"{m.view} {m.feature} of {m.key}: served {m.served}, events say {m.expected}; {m.first}"
                for m in report.mismatches[:20]
            ),
        ]
        return Outcome(holds=report.held, facts=asdict(report), lines=lines)

    return run


def letters_command(parser: ArgumentParser) -> Run:
    """List dead letters with their reasons, newest last."""
    parser.add_argument("action", choices=["list"])

    def run(_arguments: Namespace, _say: Say) -> Outcome:
        from headway.adapters.kafka_reader import KafkaReader
        from headway.letters import letter_of
        from headway.settings import Settings
        from headway.topics import EVENTS_ENRICHED_LETTERS, EVENTS_RAW_LETTERS

        reader = KafkaReader(bootstrap=Settings().kafka_bootstrap)
        try:
            found = [m for topic in (EVENTS_RAW_LETTERS, EVENTS_ENRICHED_LETTERS) for m in reader.read(topic)]
        finally:
            reader.close()
        letters = [(message, letter_of(message)) for message in sorted(found, key=lambda m: m.timestamp_ms)]
        lines = [f"{m.topic}@{m.offset}  {letter.reason}: {letter.detail}" for m, letter in letters]
        facts = [
            {"place": f"{m.topic}@{m.offset}", "reason": each.reason, "detail": each.detail} for m, each in letters
        ]
        return Outcome(holds=True, facts={"letters": facts}, lines=lines or ["no letters"])

    return run


def _named(what: str, names: Sequence[str]) -> list[str]:
    return [f"{what}: {', '.join(names[:20])}{' ...' if len(names) > 20 else ''}"] if names else []
