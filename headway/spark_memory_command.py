"""``headway spark-memory``: where a Spark executor's bytes go, whether a running one agrees, and what to change after a run.

``plan`` needs no Spark. ``compare`` without an address, and ``show``, start a session of their own and end it again.
"""

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headway.commands import Outcome, Run, Say

if TYPE_CHECKING:
    from headway.memory_advice import Advice
    from headway.memory_compare import Compared
    from headway.memory_configuration import MemoryConfiguration
    from headway.memory_forecast import Forecast
    from headway.memory_plan import MemoryPlan
    from headway.memory_reading import RunReading
    from headway.memory_rules import Broken
    from headway.settings import Settings
    from headway.spark_settings import SparkSettings

# Heap enough to tell the segments apart, and sorts that fill it in a second.
_SHOWN_HEAP = "600m"
_SIZES = ("heap", "off_heap", "pyspark", "overhead", "minimum_overhead", "native")


def spark_memory_command(parser: ArgumentParser) -> Run:
    """Plan a Spark executor's memory, compare it with a running one, judge a run, or show the rules on a real Spark."""
    parser.add_argument("action", choices=["plan", "compare", "advise", "show"])
    sizes = parser.add_argument_group("sizes (default: those of HEADWAY_SPARK_*)")
    sizes.add_argument("--heap", help="of an executor, for example 4g")
    sizes.add_argument("--off-heap", help="memory outside the heap that Spark manages; 0: none")
    sizes.add_argument("--pyspark", help="all Python workers of an executor together")
    sizes.add_argument("--overhead", help="beside the heap of a pod, instead of a factor")
    sizes.add_argument("--minimum-overhead", help="the least that a factor gives (Spark: 384m)")
    sizes.add_argument("--native", help="what LightGBM and the like allocate outside every heap")
    sizes.add_argument("--fraction", type=float, help="spark.memory.fraction")
    sizes.add_argument("--storage-fraction", type=float, help="spark.memory.storageFraction")
    sizes.add_argument("--overhead-factor", type=float, help="spark.executor.memoryOverheadFactor")
    sizes.add_argument("--cores", type=int, help="of an executor")
    sizes.add_argument("--task-cpus", type=float, help="spark.task.cpus")
    sizes.add_argument("--deployment", choices=["local", "standalone", "kubernetes"], help="plan: where")
    sizes.add_argument("--application", choices=["python", "jvm"], help="plan: whether executors run Python")
    plan = parser.add_argument_group("plan")
    plan.add_argument("--rows", type=int, help="say whether a sort of so many rows in each task spills")
    plan.add_argument("--columns", type=int, default=8, help="of each row, eight bytes each (default: %(default)s)")
    plan.add_argument("--cached", default="0", help="what is cached meanwhile (default: %(default)s)")
    plan.add_argument("--picture", metavar="FILE", help="draw it as PNG")
    run_of = parser.add_argument_group("compare and advise")
    run_of.add_argument("--url", help="of a running driver's pages, for example http://127.0.0.1:18080")
    run_of.add_argument("--log", metavar="FILE", help="advise: an event log (default: the newest session's)")

    def run(arguments: Namespace, say: Say) -> Outcome:
        action = {"plan": _plan, "compare": _compare, "advise": _advise, "show": _show}[arguments.action]
        return action(arguments, say)

    return run


def _plan(arguments: Namespace, _say: Say) -> Outcome:
    from headway.memory_configuration import parse_size
    from headway.memory_forecast import forecast_sort, row_bytes
    from headway.memory_picture import plan_lines
    from headway.memory_plan import plan_memory
    from headway.memory_rules import broken_rules

    configuration = _configuration(arguments)
    if broken := broken_rules(configuration):
        lines = [line for each in broken for line in _broken_lines(each)]
        return Outcome(holds=False, facts={"broken": [asdict(each) for each in broken]}, lines=lines)
    plan = plan_memory(configuration)
    facts, lines = facts_of(plan), list(plan_lines(plan))
    if arguments.rows is not None:
        row = row_bytes(arguments.columns)
        told = forecast_sort(
            plan, rows=arguments.rows, row=row, tasks=configuration.tasks, cached_bytes=parse_size(arguments.cached)
        )
        facts["forecast"] = asdict(told)
        lines += ["", _forecast_line(told, rows=arguments.rows, row=row)]
    if arguments.picture is not None:
        from headway.plots import memory_picture

        Path(arguments.picture).write_bytes(memory_picture(plan))
        lines.append(f"picture: {arguments.picture}")
    return Outcome(holds=True, facts=facts, lines=lines)


def _compare(arguments: Namespace, say: Say) -> Outcome:
    from headway.memory_compare import compare_executor
    from headway.memory_plan import lay_out
    from headway.memory_rules import broken_rules

    if arguments.url is None:
        compared = _compare_with_own(arguments, say)
        return _compared_outcome(compared, broken=())
    run = _read_url(arguments.url)
    plan = lay_out(run.configuration())
    found = [each for worker in run.workers for each in compare_executor(plan, worker)]
    broken = [str(each) for each in broken_rules(plan.configuration)]
    return _compared_outcome(found, broken=broken)


def _compare_with_own(arguments: Namespace, say: Say) -> "list[Compared]":
    from headway.adapters.spark import spark_session
    from headway.adapters.spark_compare import compare_session

    settings, spark = _settings(arguments)
    say(f"starting a session, {spark.master}, heap {spark.heap} ...")
    with spark_session("headway spark-memory compare", settings, spark) as running:
        return compare_session(running)


def _advise(arguments: Namespace, _say: Say) -> Outcome:
    from headway.memory_advice import advise, told_peaks

    run = _read_url(arguments.url) if arguments.url is not None else _read_log(arguments)
    found = advise(run)
    lines = [f"application {run.application}, {len(run.stages)} stages"]
    lines += [f"  executor {each.name}: {told_peaks(each)}" for each in run.workers]
    lines += ["", *(line for each in found for line in _advice_lines(each))]
    facts = {"application": run.application, "advice": [asdict(each) for each in found]}
    return Outcome(holds=all(each.finding in ("healthy", "heap-too-large") for each in found), facts=facts, lines=lines)


def _show(arguments: Namespace, say: Say) -> Outcome:
    from headway.adapters.spark_trials import run_trials

    arguments.heap = arguments.heap or _SHOWN_HEAP
    settings, spark = _settings(arguments)
    trials = run_trials(settings, spark.model_copy(update={"master": "local[1]", "cores": 1}), say)
    lines = [""]
    for each in trials:
        lines += [f"{'ok  ' if each.held else 'FAIL'}  {each.name}", f"      predicted  {each.predicted}"]
        lines += [f"      seen       {each.seen}"]
    return Outcome(
        holds=all(each.held for each in trials), facts={"trials": [asdict(each) for each in trials]}, lines=lines
    )


def facts_of(plan: "MemoryPlan") -> dict[str, Any]:  # Any: JSON
    """Give a plan as JSON holds it; sizes are bytes."""
    share = plan.task_share(cached_bytes=0, tasks=plan.configuration.tasks)
    return {
        "configuration": asdict(plan.configuration),
        "segments": [asdict(each) for each in plan.segments()],
        "unified_bytes": plan.unified_bytes,
        "storage_bytes": plan.storage_bytes,
        "container_bytes": plan.container_bytes,
        "page_bytes": plan.page_bytes,
        "worker_bytes": plan.worker_bytes,
        "task": asdict(share),
        "properties": plan.configuration.properties(),
    }


def _settings(arguments: Namespace) -> "tuple[Settings, SparkSettings]":
    from headway.settings import Settings
    from headway.spark_settings import read_spark_settings

    asked = ((name, getattr(arguments, name)) for name in (*_SIZES, "fraction", "storage_fraction", "overhead_factor"))
    spark = read_spark_settings({name: value for name, value in asked if value is not None})
    if arguments.cores is not None:
        threads = spark.master.startswith("local") and not spark.master.startswith("local-cluster")
        master = f"local[{arguments.cores}]" if threads else spark.master
        spark = spark.model_copy(update={"master": master, "cores": arguments.cores})
    return Settings(), spark


def _configuration(arguments: Namespace) -> "MemoryConfiguration":
    from dataclasses import replace

    _, spark = _settings(arguments)
    memory = spark.memory(machine_cores=os.cpu_count() or 1)
    asked = {name: getattr(arguments, name) for name in ("deployment", "application", "task_cpus", "cores")}
    return replace(memory, **{name: value for name, value in asked.items() if value is not None})


def _read_url(url: str) -> "RunReading":
    from headway.adapters.spark_rest import read_driver

    return read_driver(url)


def _read_log(arguments: Namespace) -> "RunReading":
    from headway.adapters.spark_history import newest_log, read_log
    from headway.settings import Settings

    return read_log(Path(arguments.log) if arguments.log else newest_log(Settings().state / "spark" / "events"))


def _compared_outcome(compared: "Iterable[Compared]", *, broken: Iterable[str]) -> Outcome:
    found, broken = list(compared), list(broken)
    lines = [f"{'where':<16} {'figure':<20} {'planned':>16} {'told by Spark':>16}   off by"]
    lines += [
        f"{each.where:<16} {each.name:<20} {each.planned_bytes:>16,} {each.told_bytes:>16,}   {each.off_by:.2%}"
        for each in found
    ]
    if any(not each.holds for each in found):
        lines.append(
            "over 1 %: a JVM without G1 (-XX:+UseG1GC) gives Spark less than its heap; or sizes were set elsewhere"
        )
    lines += broken
    holds = bool(found) and all(each.holds for each in found) and not broken
    facts = {"compared": [asdict(each) | {"off_by": each.off_by} for each in found], "broken": broken}
    return Outcome(holds=holds, facts=facts, lines=lines)


def _forecast_line(told: "Forecast", *, rows: int, row: int) -> str:
    return f"a sort of {rows:,} rows of {row} bytes in each of {told.share.tasks} tasks {told.reason}: {told.verdict}"


def _broken_lines(broken: "Broken") -> Iterator[str]:
    yield f"FAIL  {broken.rule}: {broken.field} is {broken.got}, wanted {broken.wanted}"
    yield f"      because {broken.reason}"
    yield f"      {broken.way_out}"


def _advice_lines(advice: "Advice") -> Iterator[str]:
    yield f"{advice.finding}: {advice.where}"
    yield f"  seen    {advice.seen}"
    yield f"  change  {advice.change}"
    yield f"  reason  {advice.reason}"
