"""``headway demo``: the whole loop on real flights, on this machine, told as it happens."""

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headway.commands import Outcome, Run, Say

if TYPE_CHECKING:
    from headway.settings import Settings

_MARK = "demo"


def demo_command(parser: ArgumentParser) -> Run:
    """Run the loop from an empty state to a retrained, released model."""
    parser.add_argument("--report", metavar="FILE", help="write the figures as JSON")
    parser.add_argument("--keep", action="store_true", help="leave the stack up afterwards")
    parser.add_argument("--short", action="store_true", help="stream six hours instead of two days, twice")
    parser.add_argument("--force-rollout", action="store_true", help="release v2 even when the gate refuses it")
    parser.add_argument("--product", help="default: the only one there is")

    def run(arguments: Namespace, say: Say) -> Outcome:
        from headway.adapters.mlflow import tame_client
        from headway.local import lifecycle
        from headway.settings import Settings
        from orchestration.demo.plot import tell_demo

        tame_client()
        settings = Settings()
        _start_empty(settings, say=say)
        try:
            story = tell_demo(
                settings,
                product=arguments.product,
                hours=6 if arguments.short else 48,
                force_rollout=arguments.force_rollout,
                say=say,
            )
        finally:
            if not arguments.keep:
                lifecycle.down(settings, say=lambda _: None)
        facts = {**story.facts, "seconds": story.seconds, "problems": story.problems}
        if arguments.report:
            Path(arguments.report).write_text(json.dumps(facts, indent=2, default=str) + "\n", encoding="utf-8")
        return Outcome(
            holds=not story.problems, facts=_plain(facts), lines=_ending(story.problems, kept=arguments.keep)
        )

    return run


def _start_empty(settings: "Settings", *, say: Say) -> None:
    """Refuse a stack that is up and a state that is not the demo's own; erase what an earlier demo left."""
    from headway.errors import PermanentFailure
    from headway.local import lifecycle
    from headway.local.state import claim

    mark = settings.state / _MARK
    if mark.exists():
        say("erasing the state of the last demo")
        lifecycle.reset(settings, say=lambda _: None)
    elif lifecycle.status(settings)["phase"] != "down":
        raise PermanentFailure("the stack is up; the demo starts its own: run `headway down` first")
    elif settings.state.exists() and any(settings.state.iterdir()):
        raise PermanentFailure(
            f"{settings.state}: holds state that is not the demo's. Erase it with `headway reset`, "
            "or give the demo a folder of its own with HEADWAY_STATE=..."
        )
    claim(settings.state)
    mark.touch()


def _plain(facts: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(facts, default=str))
    return plain


def _ending(problems: list[str], *, kept: bool) -> list[str]:
    left = "The stack is still up; `headway down` stops it." if kept else "The stack is down again."
    return [*(f"not kept: {problem}" for problem in problems), left]
