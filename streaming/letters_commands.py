"""``headway letters``: find dead letters, see why, repair them, put them back once, or let them go.

One verb with five actions. A repair or a discard needs letters named, by id, cause or reason; nothing is done to all
letters by leaving something out. ``replay --all-fixed`` takes those that were repaired.
"""

import getpass
import heapq
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from headway.commands import Outcome, Run, Say
from headway.errors import HeadwayError, InputRejected

if TYPE_CHECKING:
    from headway.letter_desk import Done, LetterDesk, Progress, Selection
    from headway.letter_replay import Filed, Signature
    from headway.settings import Settings

_ACTIONS = ("list", "show", "fix", "replay", "discard")
_ANY_CAUSE = ""
_LIMIT = 50


def letters_command(parser: ArgumentParser) -> Run:
    """List, show, fix, replay or discard letters; holds when nothing selected had to be left as it was."""
    from headway.letter_fates import State
    from headway.letters import REASONS

    parser.add_argument("action", choices=_ACTIONS)
    parser.add_argument("ids", nargs="*", metavar="ID", help="letters by id, as `list` shows them")
    chosen = parser.add_argument_group("which letters")
    chosen.add_argument("--cluster", nargs="?", const=_ANY_CAUSE, metavar="FINGERPRINT", help="by cause; list: grouped")
    chosen.add_argument("--reason", choices=REASONS)
    chosen.add_argument("--fate", choices=get_args(State), help="by what became of them")
    chosen.add_argument("--since", metavar="INSTANT", help="written at or after, RFC 3339")
    chosen.add_argument("--limit", type=int, default=_LIMIT, help=f"list: the newest; default {_LIMIT}")
    done = parser.add_argument_group("what to do")
    done.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="fix: data.dep_delay_min=5")
    done.add_argument("--remove", action="append", default=[], metavar="PATH", help="fix: data.colour")
    done.add_argument("--file", type=Path, help="fix: the whole event of one letter")
    done.add_argument("--all-fixed", action="store_true", help="replay: every letter that has been fixed")
    done.add_argument("--dry-run", action="store_true", help="replay: say what would be done")
    done.add_argument("--note", default="", metavar="TEXT", help="kept with the letter; discard needs one")
    done.add_argument("--by", default=None, help="who does this; default: the user of this machine")

    def run(arguments: Namespace, say: Say) -> Outcome:
        from headway.settings import Settings

        settings = Settings()
        with _desk(settings) as desk:
            match arguments.action:
                case "list":
                    return _listed(desk, _selection(arguments), arguments)
                case "show":
                    return _shown(desk, arguments)
                case "fix":
                    return _fixed(desk, arguments, say)
                case "replay":
                    return _replayed(desk, arguments, settings, say)
                case _:
                    return _discarded(desk, arguments, say)

    return run


@contextmanager
def _desk(settings: "Settings") -> "Iterator[LetterDesk]":
    from domains.catalogue import all_domains
    from headway.adapters.kafka_exclusive import KafkaExclusiveWriter
    from headway.adapters.kafka_reader import KafkaReader
    from headway.letter_desk import DESK, LetterDesk
    from products.catalogue import all_products
    from streaming.sinks.offers import store_offers

    domains = list(all_domains().values())
    offers = store_offers(domains[0], sorted(all_products()), settings)
    reader = KafkaReader(bootstrap=settings.kafka_bootstrap)
    writer = KafkaExclusiveWriter(bootstrap=settings.kafka_bootstrap, name=DESK)
    try:
        yield LetterDesk(reader, writer, domains, offers)
    finally:
        writer.close()
        reader.close()


def _listed(desk: "LetterDesk", selection: "Selection", arguments: Namespace) -> Outcome:
    from headway.letter_clusters import cluster
    from headway.letter_view import cluster_facts, cluster_lines, facts_of, line_of

    if arguments.cluster == _ANY_CAUSE:
        clusters = cluster(desk.letters(selection))
        total = sum(each.count for each in clusters)
        lines = [line for each in clusters[: arguments.limit] for line in cluster_lines(each)]
        facts = {"total": total, "clusters": [cluster_facts(each) for each in clusters]}
        return Outcome(holds=True, facts=facts, lines=[f"{total:,} letters, {len(clusters)} causes", *lines])
    total = 0

    def counted() -> "Iterator[Filed]":
        nonlocal total
        for total, filed in enumerate(desk.letters(selection), start=1):  # noqa: B007 - read after the loop
            yield filed

    newest = heapq.nlargest(max(arguments.limit, 1), counted(), key=_age)
    newest.sort(key=_age)  # stable: letters of one millisecond stay in the order of their partition
    older = [f"... and {total - len(newest):,} older; --limit shows more"] if total > len(newest) else []
    facts = {"total": total, "letters": [facts_of(filed) for filed in newest]}
    return Outcome(holds=True, facts=facts, lines=[*older, *map(line_of, newest)] or ["no letters"])


def _shown(desk: "LetterDesk", arguments: Namespace) -> Outcome:
    import base64

    from headway.letter_desk import Selection
    from headway.letter_view import describe, facts_of

    if len(arguments.ids) != 1:
        raise InputRejected(
            f"letters show: got {len(arguments.ids)} ids, wanted one, as `headway letters list` shows it"
        )
    [filed] = desk.letters(Selection(ids=arguments.ids))
    again = None
    if filed.fate.state == "replayed":
        again = next((each.id for each in desk.letters(Selection()) if each.letter.previous == filed.id), None)
    facts = {
        **facts_of(filed),
        "steps": [{name: getattr(step, name) for name in step.__struct_fields__} for step in filed.fate.steps],
        "came_back_as": again,
        "original_base64": base64.b64encode(filed.letter.original).decode(),
    }
    return Outcome(holds=True, facts=facts, lines=describe(filed, came_back_as=again))


def _fixed(desk: "LetterDesk", arguments: Namespace, say: Say) -> Outcome:
    from headway.letter_desk import setting_repair
    from headway.letter_repair import parse_path, parse_setting

    if arguments.file is not None:
        if len(arguments.ids) != 1 or arguments.set or arguments.remove:
            raise InputRejected(
                "letters fix --file: wanted one ID and no --set or --remove; a file holds one whole event"
            )
        body = arguments.file.read_bytes()
        done = desk.fix(_selection(arguments), lambda _: body, _signature(arguments), progress=_counted(say, "fixed"))
        return _outcome(done)
    settings = [parse_setting(each) for each in arguments.set]
    removals = [parse_path(each) for each in arguments.remove]
    if not settings and not removals:
        raise InputRejected("letters fix: wanted --set PATH=VALUE, --remove PATH or --file FILE")
    repair = setting_repair(settings, removals)
    done = desk.fix(_narrowed(arguments), repair, _signature(arguments), progress=_counted(say, "fixed"))
    return _outcome(done)


def _replayed(desk: "LetterDesk", arguments: Namespace, settings: "Settings", say: Say) -> Outcome:
    watermark_us = _watermark_us(settings)
    selection = replace(_selection(arguments), state="fixed") if arguments.all_fixed else _narrowed(arguments)
    if arguments.dry_run:
        return _outcome(desk.plan(selection, _signature(arguments), watermark_us=watermark_us))
    signature = _signature(arguments)
    done = desk.replay(selection, signature, watermark_us=watermark_us, progress=_counted(say, "replayed"))
    return _outcome(done)


def _discarded(desk: "LetterDesk", arguments: Namespace, say: Say) -> Outcome:
    if not arguments.note:
        raise InputRejected("letters discard: --note is missing; say why, somebody will ask")
    done = desk.discard(_narrowed(arguments), _signature(arguments), progress=_counted(say, "discarded"))
    return _outcome(done)


def _selection(arguments: Namespace) -> "Selection":
    from headway.clock import parse_instant_us
    from headway.letter_desk import Selection

    return Selection(
        ids=tuple(arguments.ids),
        fingerprint=arguments.cluster or None,
        reason=arguments.reason,
        state=arguments.fate,
        since_us=arguments.since and parse_instant_us(arguments.since, field="--since"),
    )


def _narrowed(arguments: Namespace) -> "Selection":
    selection = _selection(arguments)
    if not (selection.ids or selection.fingerprint or selection.reason):
        raise InputRejected(f"letters {arguments.action}: wanted ID..., --cluster FINGERPRINT or --reason REASON")
    return selection


def _signature(arguments: Namespace) -> "Signature":
    from headway.clock import SystemClock, to_us
    from headway.letter_replay import Signature

    return Signature(by=arguments.by or getpass.getuser(), at_us=to_us(SystemClock().now()), note=arguments.note)


def _watermark_us(settings: "Settings") -> int | None:
    """The least watermark of all views; None when no feature job has said one, or the online store does not answer."""
    from domains.catalogue import all_domains
    from headway.adapters.redis_online import OnlineWriter
    from streaming.accounts import least_watermark

    store = OnlineWriter(f"redis://{settings.online_store}", settings.feast_project)
    try:
        return least_watermark(store, [view for domain in all_domains().values() for view in domain.views])()
    except HeadwayError:
        return None
    finally:
        store.close()


def _age(filed: "Filed") -> int:
    return filed.written_us


def _counted(say: Say, what: str) -> "Progress":
    return lambda done: say(f"{what} {done:,}")


def _outcome(done: "Done") -> Outcome:
    """Holds when no selected letter had to be left as it was for a reason somebody must mend."""
    from headway.letter_view import safe

    left = sum(done.verdicts[verdict] for verdict in ("needs-fix", "needs-new-id", "refused-again", "no-offer"))
    lines = [f"{count:>8,}  {verdict}" for verdict, count in sorted(done.verdicts.items())] or ["no letters selected"]
    if done.verdicts["replay"] and done.too_late is None:
        lines.append("          no watermark is known, so nothing can be said of features")
    elif done.too_late:
        lines.append(f"{done.too_late:>8,}  of them too late for features (S6); they count in the lake")
    lines += [f"{letter}: {safe(why)}" for letter, why in done.why.items()]
    facts = {"verdicts": dict(done.verdicts), "too_late": done.too_late, "why": done.why}
    return Outcome(holds=not left, facts=facts, lines=lines)
