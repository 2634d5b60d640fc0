"""``headway features``: the definitions, their past, what Feast knows of them, how fresh they are, and forgetting.

catalogue  what features there are; --markdown gives the page docs/features/catalogue.md
lock       write down the hash of view versions that are new
backfill   write the past of views to the lake, in this process or on Spark
compare    make the past of views with every engine and compare, row by row
bootstrap  give the feature job and the online store the past they never streamed (S11)
refresh    load the static views, as the warehouse has them now
status     watermark and lag of every view, and whether it may serve
apply      register views, entities, sources and feature services with Feast
forget     remove one entity from one view or all
"""

import getpass
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from headway.commands import Outcome, Run, Say

if TYPE_CHECKING:
    from headway.contracts import Domain


def features_command(parser: ArgumentParser) -> Run:
    """Run one action on the features of a domain."""
    parser.add_argument("action", choices=_ACTIONS)
    parser.add_argument("names", nargs="*", metavar="NAME", help="forget: a view or `all`, then the entity: origin=EWR")
    parser.add_argument("--domain", help="default: the only one there is")
    parser.add_argument("--markdown", action="store_true", help="catalogue: as the page of the documentation")
    parser.add_argument(
        "--until",
        metavar="INSTANT",
        help="bootstrap: RFC 3339; later events come by the stream; default: the newest event or watermark there is; "
        "backfill, compare: rows before it; default: the newest event",
    )
    parser.add_argument(
        "--view",
        action="append",
        default=[],
        metavar="VIEW",
        help="bootstrap: only these, new beside old; backfill, compare: only these; default: all",
    )
    parser.add_argument("--from", dest="start", metavar="INSTANT", help="backfill, compare: default: the oldest event")
    parser.add_argument("--engine", choices=("process", "spark"), help="backfill: default: HEADWAY_BACKFILL_ENGINE")
    parser.add_argument("--mode", choices=("as_served", "truth"), help="backfill, compare: default: as_served")
    parser.add_argument("--reason", default="", metavar="TEXT", help="forget: why; it is recorded")
    parser.add_argument("--by", default=None, help="forget: who does this; default: the user of this machine")

    def run(arguments: Namespace, say: Say) -> Outcome:
        _check_meant(arguments)
        return _ACTIONS[arguments.action](arguments, say)

    return run


def _check_meant(arguments: Namespace) -> None:
    """Refuse what an action would pass over: `bootstrap VIEW` without --view would bootstrap all of them."""
    from headway.errors import InputRejected

    for name, actions in _ONLY_FOR.items():
        if getattr(arguments, name) and arguments.action not in actions:
            told = {"names": "NAME", "start": "--from"}.get(name, f"--{name}")
            takers = " and ".join(f"`features {action}`" for action in actions)
            takes = "takes" if len(actions) == 1 else "take"
            raise InputRejected(f"features {arguments.action}: got {told}, which only {takers} {takes}")


def _catalogue(arguments: Namespace, _: Say) -> Outcome:
    from domains.catalogue import all_domains
    from headway.features.catalogue import catalogue, markdown
    from products.catalogue import all_products

    found = catalogue(all_domains().values(), all_products().values())
    if arguments.markdown:
        return Outcome(holds=True, facts=asdict(found), lines=markdown(found).splitlines())
    lines = [
        f"{view.view:<26} {','.join(view.entity):<16} {view.source:<22} {len(view.features):>3} features, stale after "
        f"{view.stale_after}, owner {view.owner}, used by {', '.join(view.used_by) or 'nobody'}"
        for view in found.views
    ]
    return Outcome(holds=True, facts=asdict(found), lines=lines)


def _lock(_arguments: Namespace, _: Say) -> Outcome:
    from domains.catalogue import declared_domains, lock_path
    from headway.features.lock import extended, read_lock, write_lock

    added = []
    for domain in declared_domains().values():
        path = lock_path(domain)
        locked = read_lock(path)
        more = extended(domain.every_view, locked, where="/".join(path.parts[-3:]))
        if more != locked:
            write_lock(path, more)
        added += sorted(more.keys() - locked.keys())
    lines = [f"{name}: written down" for name in added] or ["every view version is written down already"]
    return Outcome(holds=True, facts={"added": added}, lines=lines)


def _bootstrapped(arguments: Namespace, say: Say) -> Outcome:
    from headway.clock import parse_instant_us
    from headway.settings import Settings
    from streaming.bootstrapping import bootstrap

    domain = _domain(arguments.domain)
    views = tuple(domain.view(name) for name in arguments.view) or None
    until_us = arguments.until and parse_instant_us(arguments.until, field="--until")
    written = bootstrap(Settings(), domain, until_us=until_us, say=say, views=views)
    return Outcome(holds=True, facts={"views": written}, lines=[])


def _backfilled(arguments: Namespace, say: Say) -> Outcome:
    from streaming.backfill_command import backfilled

    return backfilled(arguments, say, _domain(arguments.domain))


def _compared(arguments: Namespace, say: Say) -> Outcome:
    from streaming.backfill_command import compared

    return compared(arguments, say, _domain(arguments.domain))


def _refreshed(arguments: Namespace, _: Say) -> Outcome:
    from headway.adapters.delta import Lake
    from headway.adapters.redis_online import OnlineWriter
    from headway.adapters.redis_views import OnlineViews
    from headway.clock import SystemClock, to_us
    from headway.settings import Settings
    from streaming.refreshing import refresh_static

    settings, domain = Settings(), _domain(arguments.domain)
    url, lake, now_us = f"redis://{settings.online_store}", Lake(Path(settings.lake)), to_us(SystemClock().now())
    store, marks = OnlineWriter(url, settings.feast_project), OnlineViews(url, settings.feast_project)
    try:
        done = [
            refresh_static(view, domain.dimension(view.dimension), lake=lake, online=store, marks=marks, at_us=now_us)
            for view in domain.statics
        ]
    finally:
        store.close()
        marks.close()
    lines = [f"{each.view}: {each.entities:,} entities, {each.changed:,} rows changed" for each in done]
    return Outcome(holds=True, facts={"views": [asdict(each) for each in done]}, lines=lines)


def _status(arguments: Namespace, _: Say) -> Outcome:
    from headway.adapters.redis_views import OnlineViews
    from headway.clock import SECOND_US, SystemClock, duration_us, format_us, to_us
    from headway.features.readiness import unready
    from headway.settings import Settings

    settings, domain = Settings(), _domain(arguments.domain)
    views = domain.every_view
    store = OnlineViews(f"redis://{settings.online_store}", settings.feast_project)
    try:
        states = store.states([view.online_name for view in views])
    finally:
        store.close()
    now_us, reasons = to_us(SystemClock().now()), unready(views, states)
    facts, lines = [], []
    for view in views:
        watermark_us = states[view.online_name].watermark_us
        lag_s = None if watermark_us is None else (now_us - watermark_us) / SECOND_US
        stale = watermark_us is None or now_us - watermark_us > duration_us(view.max_lag)
        told = reasons.get(view.qualified, "ready")
        at = "-" if watermark_us is None else format_us(watermark_us)
        facts.append({"view": view.qualified, "watermark": at, "lag_s": lag_s, "stale": stale, "ready": told})
        lag = "-" if lag_s is None else f"{lag_s:,.0f} s"
        lines.append(f"{view.qualified:<26} {at:<28} {lag:>14}  {'stale' if stale else 'fresh'}  {told}")
    return Outcome(holds=not reasons, facts={"views": facts}, lines=lines)


def _applied(arguments: Namespace, _: Say) -> Outcome:
    from headway.adapters.delta import Lake
    from headway.adapters.feast import feature_store, feature_store_config
    from headway.adapters.feast_registry import apply_views
    from headway.adapters.feast_services import register
    from headway.settings import Settings
    from products.catalogue import all_products

    settings, domain = Settings(), _domain(arguments.domain)
    products = [product for product in all_products().values() if product.domain.name == domain.name]
    found = register(domain, products, Lake(Path(settings.lake)))
    apply_views(feature_store(feature_store_config(settings)), found.views, found.tables, found.services)
    facts = {
        "views": [view.qualified for view in found.views],
        "services": {name: list(refs) for name, refs in found.services.items()},
        "held": dict(found.held),
    }
    lines = [f"{len(found.views)} views, {len(found.services)} feature services registered"]
    lines += [f"held: {name} {why}" for name, why in found.held.items()]
    return Outcome(holds=not found.held, facts=facts, lines=lines)


def _forgotten(arguments: Namespace, _: Say) -> Outcome:
    from headway.errors import InputRejected
    from headway.settings import Settings
    from streaming.forget_command import forget

    if len(arguments.names) < 2:
        raise InputRejected("features forget: wanted a view or `all`, then the entity, e.g. forget all tail=N14228")
    named, *parts = arguments.names
    by = arguments.by or getpass.getuser()
    return forget(Settings(), _domain(arguments.domain), named, parts, reason=arguments.reason, by=by)


def _domain(name: str | None) -> "Domain":
    from domains.catalogue import all_domains, find_domain

    return next(iter(all_domains().values())) if name is None else find_domain(name)


_PAST = ("bootstrap", "backfill", "compare")
_ONLY_FOR: Mapping[str, tuple[str, ...]] = {
    "markdown": ("catalogue",),
    "until": _PAST,
    "view": _PAST,
    "start": _PAST[1:],
    "mode": _PAST[1:],
    "engine": ("backfill",),
    "names": ("forget",),
    "reason": ("forget",),
    "by": ("forget",),
}
_ACTIONS: Mapping[str, Run] = {
    "catalogue": _catalogue,
    "lock": _lock,
    "backfill": _backfilled,
    "compare": _compared,
    "bootstrap": _bootstrapped,
    "refresh": _refreshed,
    "status": _status,
    "apply": _applied,
    "forget": _forgotten,
}
