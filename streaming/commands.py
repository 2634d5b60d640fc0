"""``headway replay``: history put into the plane from the command line."""

import asyncio
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from headway.commands import Outcome, Run, Say

if TYPE_CHECKING:
    from headway.contracts import Domain, History, Transform
    from headway.product import Product
    from headway.settings import Settings
    from streaming.replay import Ask, ReplayReport


def replay_command(parser: ArgumentParser) -> Run:
    """Play history through the Collector and ask for predictions on the way."""
    parser.add_argument("--from", dest="start", required=True, metavar="INSTANT", help="RFC 3339, a quarter of an hour")
    parser.add_argument("--to", dest="end", required=True, metavar="INSTANT", help="RFC 3339, a quarter of an hour")
    parser.add_argument("--product", help="ask this product about everything it would be asked; default: do not ask")
    parser.add_argument("--domain", help="whose events; default: the product's, or the only one there is")
    parser.add_argument("--speed", type=float, help="event seconds per second, at most; default: as fast as it goes")
    parser.add_argument("--planted-from", metavar="INSTANT", help="plant the domain's labelled change from then on")

    def run(arguments: Namespace, say: Say) -> Outcome:
        from headway.clock import parse_instant_us
        from headway.settings import Settings

        domain, product = _chosen(arguments.domain, arguments.product)
        start_us = parse_instant_us(arguments.start, field="--from")
        end_us = parse_instant_us(arguments.end, field="--to")
        planted_us = arguments.planted_from and parse_instant_us(arguments.planted_from, field="--planted-from")
        say(f"replaying {arguments.start} to {arguments.end}")
        report = replay(
            Settings(),
            domain,
            product,
            start_us=start_us,
            end_us=end_us,
            speed=arguments.speed,
            planted_from_us=planted_us or None,
        )
        lines = [
            f"{report.events_accepted} of {report.events_sent} events accepted in {report.seconds:.1f} s",
            f"{report.asked} predictions asked, {report.failed} failed",
        ]
        return Outcome(holds=report.failed == 0 and report.events_refused == 0, facts=asdict(report), lines=lines)

    return run


def replay(
    settings: "Settings",
    domain: "Domain",
    product: "Product | None",
    *,
    start_us: int,
    end_us: int,
    speed: float | None,
    planted_from_us: int | None,
) -> "ReplayReport":
    """Play the domain's events of (start, end] in lock-step and ask about all that the product would be asked."""
    from headway.adapters.kafka_publisher import KafkaPublisher
    from headway.adapters.redis_online import OnlineWriter
    from streaming.accounts import least_watermark
    from streaming.replay import Replayer, Target

    history = _history(domain)
    transform = None if planted_from_us is None else _planted(domain, planted_from_us)
    events = history.iter_events(start_us + 1, end_us + 1, transform=transform)
    asks = [] if product is None else asks_between(domain, product, start_us=start_us, end_us=end_us)
    door = urlsplit(settings.load_balancer_url)
    target = Target(host=door.hostname or "", port=door.port or 80, product=product.name if product else None)
    store = OnlineWriter(f"redis://{settings.online_store}", settings.feast_project)
    ticker = KafkaPublisher(bootstrap=settings.kafka_bootstrap)
    try:
        replayer = Replayer(target=target, ticker=ticker, watermark=least_watermark(store, domain.views), speed=speed)
        return asyncio.run(replayer.play(events, asks, start_us=start_us, end_us=end_us))
    finally:
        ticker.close()
        store.close()


def asks_between(domain: "Domain", product: "Product", *, start_us: int, end_us: int) -> "list[Ask]":
    """Return what the product is asked in (start, end], in order: everything its examples know of, at its own instant."""
    import msgspec

    from headway.clock import DAY_US
    from streaming.replay import Ask

    # What is asked about in an interval was announced up to a day before and happens within a day after.
    examples = product.examples(_history(domain).events_between(start_us - 2 * DAY_US, end_us + 2 * DAY_US))
    fields = [name for name in product.request.__struct_fields__ if name != "as_of"]
    asks = []
    for row in examples.sort("window_us", "subject").select(fields).iter_rows(named=True):
        request = product.request(**row)
        asked_us = product.asked_at_us(request)
        if start_us < asked_us <= end_us:
            body = msgspec.to_builtins(request)
            body.pop("as_of", None)
            asks.append(Ask(as_of_us=asked_us, body=body))
    return sorted(asks, key=lambda ask: ask.as_of_us)


def _chosen(domain: str | None, product: str | None) -> "tuple[Domain, Product | None]":
    from domains.catalogue import all_domains, find_domain
    from products.catalogue import find_product

    chosen = None if product is None else find_product(product)
    if domain is not None:
        return find_domain(domain), chosen
    return (chosen.domain if chosen else next(iter(all_domains().values()))), chosen


def _history(domain: "Domain") -> "History":
    from headway.errors import ContractViolation

    if domain.load_history is None:
        raise ContractViolation(f"domain {domain.name}: has no history to replay; give Domain a load_history")
    return domain.load_history()


def _planted(domain: "Domain", from_us: int) -> "Transform":
    from headway.errors import ContractViolation

    if domain.planted_change is None:
        raise ContractViolation(f"domain {domain.name}: has no planted change; give Domain a planted_change")
    return domain.planted_change(from_us)
