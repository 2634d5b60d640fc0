"""The results of all benchmarks as one page: every ratio beside its target, losses included, and what was not run.

Pure: outcomes as plain values in, lines out. What bites: a ratio is of one run on one machine; rows of other runs stand in
the same table, so each names its run.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Facts = Mapping[str, Any]  # Any: what `benchmarks.report.outcome` gave, read back from JSON

_HEAD = (
    "| | compared | with | ratio [span] | target (goal) | | ours | n | run |",
    "|---|---|---|---|---|---|---|---|---|",
)


def page(results: Mapping[str, Facts], purposes: Mapping[str, str]) -> list[str]:
    """Return the page's lines.

    Args:
        results: by name of the benchmark; one that broke off has ``error``.
        purposes: of every benchmark there is, by name.
    """
    runs = _runs(results)
    finished = {name: facts for name, facts in results.items() if "error" not in facts}
    judged = [each for facts in finished.values() for each in _comparisons(facts) for each in each["ratios"]]
    targets = [each for each in judged if "target" in each]
    met = sum(each["met"] for each in targets)
    lines = [
        "# Benchmarks",
        "",
        "Ours beside its peers, in turns, in one run each. A ratio above 1 is in our favour: ours by the peer's where more is",
        "better (answers/s), the peer's by ours where less is (ms, s). It is of medians; the span is of the windows taken in",
        "the same turn, n their number. Without a target it is context. Absolute figures do not travel. The peers' settings",
        "are in [benchmarks/peers](../benchmarks/peers/README.md).",
        "",
        "`make bench` takes all and writes this page from `benchmarks/results`. One row again, P1's for example:",
        "",
        "```",
        "headway bench P1 --json benchmarks/results/p1.json",
        "headway bench table",
        "```",
        "",
        f"{met} of {len(targets)} targets met.",
        "",
        *_HEAD,
    ]
    for name, purpose in purposes.items():
        if name not in results:
            lines.append(_row(name, purpose.rstrip("."), run="not run"))
        elif name not in finished:
            told = " ".join(str(results[name]["error"]).split())
            lines.append(_row(name, f"broke off: {told}", run=runs.get(name, "")))
        else:
            lines += _rows(name, finished[name], run=runs[name])
    return [*lines, "", *_machines(results, runs)]


def _rows(name: str, facts: Facts, *, run: str) -> Iterator[str]:
    for comparison in _comparisons(facts):
        ours, unit = comparison["ours"], comparison["unit"]
        for each in comparison["ratios"]:
            goal = f" ({each['goal']})" if each.get("goal") else ""
            yield _row(
                name,
                comparison["title"],
                each["peer"],
                f"{each['ratio']:.2f} [{_span(each['spread'], _ratio)}]",
                f"{each['target']}{goal}" if "target" in each else "",
                {True: "met", False: "**missed**", None: "context"}[each.get("met")],
                f"{_figure(ours['median'])} [{_span(ours['spread'], _figure)}] {unit}{_faults(ours)}",
                str(ours["n"]),
                run,
            )


def _row(*cells: str, run: str | None = None) -> str:
    if run is not None:
        cells = (*cells, *[""] * (8 - len(cells)), run)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _comparisons(facts: Facts) -> Sequence[Facts]:
    return [facts, *facts["also"]]


def _span(spread: Sequence[float], form: Callable[[float], str]) -> str:
    return f"{form(spread[0])} to {form(spread[1])}"


def _ratio(value: float) -> str:
    return f"{value:.2f}"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _faults(series: Facts) -> str:
    found = [f"{series[name]} {name}" for name in ("errors", "redone", "noisy") if series.get(name)]
    return f"; {', '.join(found)}" if found else ""


def _runs(results: Mapping[str, Facts]) -> dict[str, str]:
    """Name each run by date and commit."""
    known = {name: facts["run"] for name, facts in results.items() if "run" in facts}
    return {name: f"{run['at'][:10]}, {run['commit']}" for name, run in known.items()}


def _machines(results: Mapping[str, Facts], runs: Mapping[str, str]) -> Iterator[str]:
    machines: dict[str, list[str]] = {}
    for name in runs:
        run = results[name]["run"]
        told = f"{run['cpu']}, {run['cores']} cores, {run['memory_gib']} GiB, Linux {run['kernel']}, Python {run['python']}"
        machines.setdefault(told, []).append(name)
    for told, names in machines.items():
        yield f"Machine of {', '.join(names)}: {told}."
