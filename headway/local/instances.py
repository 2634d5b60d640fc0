"""How many instances of each process are wanted, kept in a file, so that a stack that starts again has as many.

Counts are set by a person, who holds them, or by the scaler, which leaves held ones alone. Nothing runs here:
`headway.local.supervisor` starts and stops what is wanted.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway.errors import PermanentFailure
from headway.local.control import write_whole
from headway.local.plan import Process, Scalable


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """How many instances are wanted, and whether a person holds that number."""

    instances: int = 1
    held: bool = False


class Instances:
    """The wanted counts of the scalable processes of one stack.

    ``file`` may name processes that are not part of this run of the stack; what is known of them is kept.
    """

    def __init__(self, scalables: Iterable[Scalable], *, file: Path) -> None:
        self._scalables = {each.name: each for each in scalables}
        # Every name that `extra` could give.
        self.possible = frozenset(
            each.instance(number).name for each in self._scalables.values() for number in range(1, each.most)
        )
        self._file = file
        self._kept = _read(file)

    def want(self, name: str, instances: int | None, *, held: bool) -> None:
        """Set how many instances of a process are wanted; None leaves the number and sets only who decides it.

        Raises:
            PermanentFailure: there is no such process, it cannot have so many, or a person holds another number.
        """
        scalable = self._scalables.get(name)
        if scalable is None:
            raise PermanentFailure(
                f"no process {name!r} runs here that may have several instances (found: {', '.join(self._scalables)})"
            )
        before = self.wanted(name)
        count = before.instances if instances is None else instances
        if not 1 <= count <= scalable.most:
            wanted = "1" if scalable.most == 1 else f"1 to {scalable.most}"
            raise PermanentFailure(f"{name}: got {count} instances, wanted {wanted}: {scalable.limit}")
        if before.held and not held and instances is not None:
            raise PermanentFailure(
                f"{name}: a person holds it at {before.instances} instances. `headway scale {name} auto` lets it go."
            )
        self._kept[name] = Wanted(instances=count, held=held)
        write_whole(self._file, json.dumps({each: vars(wanted) for each, wanted in sorted(self._kept.items())}))

    def wanted(self, name: str) -> Wanted:
        """How many are wanted; never more than have work, whatever an older table allowed."""
        kept = self._kept.get(name, Wanted())
        return Wanted(instances=min(kept.instances, self._scalables[name].most), held=kept.held)

    def extra(self) -> dict[str, Process]:
        """The processes wanted beyond those of the stack, by their names."""
        return {
            process.name: process
            for scalable in self._scalables.values()
            for process in map(scalable.instance, range(1, self.wanted(scalable.name).instances))
        }

    def describe(self, ready: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Everything about the counts as plain values; ``ready`` names the processes that do their work."""
        up = set(ready)
        return {
            name: {
                **vars(self.wanted(name)),
                "ready": sum(scalable.instance(number).name in up for number in range(scalable.most)),
                "most": scalable.most,
            }
            for name, scalable in self._scalables.items()
        }


def _read(file: Path) -> dict[str, Wanted]:
    try:
        kept: Mapping[str, Mapping[str, Any]] = json.loads(file.read_bytes())
        return {name: Wanted(**wanted) for name, wanted in kept.items()}
    except FileNotFoundError:
        return {}
    except (AttributeError, TypeError, ValueError) as error:
        raise PermanentFailure(
            f"{file}: not the counts of instances ({error}). Remove it; each starts once."
        ) from error
