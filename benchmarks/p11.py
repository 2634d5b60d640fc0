"""Feature backfill of all views: events/s and peak memory beside bare Polars, DuckDB's SQL and Spark, up to 50 million.

One year of flights as Parquet in, every changelog row of the seven views as Parquet out; values are compared before
anything is measured. Headway's rows go into Delta tables, with the columns that Feast wants; the peers write keys, instant
and features alone. More events are the same year again, 53 weeks later each time.
"""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from benchmarks import children
from benchmarks.flights_years import make_years
from benchmarks.frame import Contestant, Plan, Target, compare
from benchmarks.passes import Passes
from benchmarks.peers.environment import FOLDER, peer_python
from benchmarks.report import outcome
from domains.flights.domain import DOMAIN
from headway.adapters.delta import Lake
from headway.commands import Outcome, Say
from headway.drift import Window
from headway.errors import ContractViolation
from headway.features.changelog import changelog_table
from headway.features.definitions import FeatureView
from headway.settings import Settings, project_root

# A year is 1.03 million events: 10 and 50 million.
YEARS = (1, 10, 49)
MOST_MIB = 8 * 1024
HEADWAY, SPARK = "Headway, in process", "Headway, on Spark"
POLARS, ASOF, FRAMES = "bare Polars", "DuckDB, joins as of", "DuckDB, window frames"


def run(plan: Plan, say: Say) -> Outcome:
    """Prove that all make the same rows, then compare on the year, then grow."""
    with tempfile.TemporaryDirectory(prefix="headway-p11-") as name:
        folder = Path(name)
        ours, spark, *peers = _jobs(folder, say)
        _check_same_rows(ours, (spark, *peers), say)
        year = compare(
            f"All views, {ours.count:,} events",
            unit="events/s",
            ours=Contestant(name=ours.name, measure=ours.measure),
            peers=[Contestant(name=peer.name, measure=peer.measure) for peer in (*peers, spark)],
            targets=[
                Target(peer=ASOF, at_least=5.0),
                Target(peer=FRAMES, at_least=5.0),
                Target(peer=POLARS, at_least=0.5),
            ],
            plan=plan,
            say=say,
        )
        small, middle, largest = (_in_process(folder, years, say) for years in YEARS)
        grown = compare(
            f"One pass over {largest.count:,} events, at most {MOST_MIB:,} MiB",
            unit="events/CPU-s",
            ours=Contestant(name=largest.name, measure=largest.grown),
            peers=[Contestant(name=each.name, measure=each.grown) for each in (small, middle)],
            targets=[Target(peer=small.name, at_least=0.9)],
            plan=Plan(windows=1, warmup_s=0.0),
            say=say,
        )
    return outcome("P11", [year, grown])


def _jobs(folder: Path, say: Say) -> list[Passes]:
    lake, events, window = _lake(folder, 1, say)
    spec = folder / "views.json"
    spec.write_text(json.dumps([_spec(view) for view in DOMAIN.views]))
    python = str(peer_python("frames", say=say))

    def own(name: str, engine: str) -> Passes:
        return _own(name, engine, folder=folder, lake=lake, events=events, window=window)

    def peer(name: str, script: str, **env: str) -> Passes:
        found = f"{lake}/events/*/*.parquet"
        command = (python, str(FOLDER / f"{script}.py"), str(spec), found, "{out}", "{window_s}")
        env = {**os.environ, **env, "PYTHONPATH": str(project_root())}
        return _job(name, command, env, folder=folder, events=events)

    return [
        own(HEADWAY, "process"),
        own(SPARK, "spark"),
        peer(POLARS, "backfill_polars"),
        peer(ASOF, "backfill_duckdb", PEER_FORM="asof"),
        peer(FRAMES, "backfill_duckdb", PEER_FORM="frames"),
    ]


def _in_process(folder: Path, years: int, say: Say) -> Passes:
    lake, events, window = _lake(folder, years, say)
    return _own(f"{events:,} events", "process", folder=folder, lake=lake, events=events, window=window)


def _own(name: str, engine: str, *, folder: Path, lake: Path, events: int, window: Window) -> Passes:
    arguments = (lake, engine, "{out}", window.from_us, window.until_us, "{window_s}")
    settings = Settings(state=folder / "state").environment()
    command = tuple(children.module("benchmarks.backfill_job", *arguments))
    env = {**os.environ, **settings, "PYTHONPATH": str(project_root())}
    return _job(name, command, env, folder=folder, events=events)


def _job(name: str, command: tuple[str, ...], env: Mapping[str, str], *, folder: Path, events: int) -> Passes:
    return Passes(name=name, command=command, env=env, folder=folder, count=events, of="event", most_mib=MOST_MIB)


def _lake(folder: Path, years: int, say: Say) -> tuple[Path, int, Window]:
    root = folder / f"years-{years}"
    events, window = make_years(root, years, say)
    return root, events, window


def _spec(view: FeatureView) -> dict[str, object]:
    aggregates = [
        {"name": a.name, "function": a.function, "field": a.field, "window_us": a.window_us} for a in view.aggregates
    ]
    return {
        "name": view.qualified,
        "keys": list(view.keys),
        "source": view.source,
        "hop_us": view.hop_us,
        "fields": list(view.fields),
        "aggregates": aggregates,
    }


def _check_same_rows(ours: Passes, others: Sequence[Passes], say: Say) -> None:
    """Let everybody make the rows once and compare all of them with ours: keys, instants, values, nulls."""
    with ours.running(0.0) as (_, out):
        wanted = {view.qualified: _in_lake(out, view) for view in DOMAIN.views}
    for job in others:
        say(f"{job.name}: one pass, to compare")
        with job.running(0.0) as (_, out):
            for view in DOMAIN.views:
                file = out / f"{view.qualified}.parquet"
                rows = _sorted(pl.read_parquet(file), view) if file.exists() else _in_lake(out, view)
                if not rows.equals(wanted[view.qualified]):
                    raise ContractViolation(
                        f"{job.name}: its {rows.height:,} rows of {view.qualified} are not the "
                        f"{wanted[view.qualified].height:,} of {ours.name}"
                    )
    say(f"all make the same {sum(rows.height for rows in wanted.values()):,} rows")


def _in_lake(out: Path, view: FeatureView) -> pl.DataFrame:
    return _sorted(Lake(out / "lake-0").read(changelog_table(view).name), view)


def _sorted(rows: pl.DataFrame, view: FeatureView) -> pl.DataFrame:
    """Return keys, instant and features in order; a frame's time zone is what its writer called UTC."""
    instant = pl.col("event_timestamp").dt.convert_time_zone("UTC")
    return rows.select(*view.keys, instant, *view.columns).sort(*view.keys, "event_timestamp")
