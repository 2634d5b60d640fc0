"""P11 in DuckDB's SQL: ``asof`` joins running totals as of both ends of every window, ``frames`` uses window frames.

Frames are the plain way, each with bounds of its own per row. Joins as of are several times faster here, and less plain.
"""

import os
from pathlib import Path

import duckdb

from benchmarks.peers.backfill_work import Aggregate, View, main


def make(views: list[View], events: str, out: Path) -> int:
    """Write the rows of all views; return how many."""
    form = _asof if os.environ["PEER_FORM"] == "asof" else _frames
    link = duckdb.connect()
    link.execute("SET TimeZone = 'UTC'; SET preserve_insertion_order = false")
    link.execute(f"SET temp_directory = '{out}/spill'")
    total = 0
    for view in views:
        file = out / f"{view.name}.parquet"
        link.execute(f"COPY ({form(view, events)}) TO '{file}' (FORMAT parquet, COMPRESSION snappy)")
        total += link.execute(f"SELECT count(*) FROM '{file}'").fetchall()[0][0]
    link.close()
    return total


def _events(view: View, events: str) -> str:
    fields = "".join(f", {name}" for name in view.fields)
    present = "".join(f" AND {key} IS NOT NULL" for key in view.keys)
    return (
        f"SELECT {', '.join(view.keys)}, epoch_us(time) AS t, id{fields} "
        f"FROM read_parquet('{events}', hive_partitioning = false) WHERE type = '{view.source}'{present}"
    )


def _instants(view: View) -> str:
    keys, hop = ", ".join(view.keys), view.hop_us
    ends = [f"SELECT {keys}, (t + {hop - 1}) // {hop} * {hop} + {window} AS t FROM e" for window in view.windows_us]
    return " UNION ".join([f"SELECT {keys}, t FROM e", *ends])


def _frame(view: View, window_us: int) -> str:
    start = f"(t - {window_us}) // {view.hop_us} * {view.hop_us}"
    return (
        f"(PARTITION BY {', '.join(view.keys)} ORDER BY t RANGE BETWEEN (t - ({start} + 1)) PRECEDING AND CURRENT ROW)"
    )


def _frames(view: View, events: str) -> str:
    keys = ", ".join(view.keys)
    fields, nulls = "".join(f", {n}" for n in view.fields), "".join(f", NULL AS {n}" for n in view.fields)
    features = ", ".join(f"{_framed(each)} AS {each.name}" for each in view.aggregates)
    frames = ", ".join(f"w{window} AS {_frame(view, window)}" for window in view.windows_us)
    return f"""
        WITH e AS MATERIALIZED ({_events(view, events)}), i AS ({_instants(view)}),
        u AS (SELECT {keys}, t, id{fields}, false AS row FROM e
              UNION ALL SELECT {keys}, t, NULL AS id{nulls}, true AS row FROM i),
        x AS (SELECT {keys}, t, row, {features} FROM u WINDOW {frames})
        SELECT {keys}, make_timestamptz(t) AS event_timestamp, * EXCLUDE ({keys}, t, row) FROM x WHERE row
    """


def _framed(each: Aggregate) -> str:
    field, over = each.field or "id", f"OVER w{each.window_us}"
    return {
        "count": f"count({field}) {over}",
        "sum": f"CAST(sum({field}) {over} AS BIGINT)",
        "mean": f"CAST(sum({field}) {over} AS DOUBLE) / count({field}) {over}",
        "max": f"max({field}) {over}",
        "last": f"last_value({field} ORDER BY t, id IGNORE NULLS) {over}",
        "last_at": f"max(CASE WHEN {field} IS NOT NULL THEN t END) {over}",
    }[each.function]


def _asof(view: View, events: str) -> str:
    keys = ", ".join(view.keys)
    running = ["count(*) OVER p AS n", *(f"count({name}) OVER p AS n_{name}" for name in view.fields)]
    running += [f"CAST(sum({name}) OVER p AS BIGINT) AS s_{name}" for name in view.fields_of("sum", "mean")]
    running += [f"last_value({name} IGNORE NULLS) OVER p AS l_{name}" for name in view.fields_of("last")]
    names = [each.rpartition(" ")[2] for each in running]
    newest = ", ".join(f"arg_max({name}, n) AS {name}" for name in names if name != "n")
    joins = f"ASOF LEFT JOIN c a ON {_same(view, 'a')} AND i.t >= a.t"
    for window in view.windows_us:
        start = f"(i.t - {window}) // {view.hop_us} * {view.hop_us}"
        joins += f" ASOF LEFT JOIN c a{window} ON {_same(view, f'a{window}')} AND {start} >= a{window}.t"
    maxima = ""
    for each in view.aggregates:
        if each.function == "max":
            maxima += f", m_{each.name} AS ({_maximum(view, each)})"
            joins += f" JOIN m_{each.name} ON {_same(view, f'm_{each.name}')} AND i.t = m_{each.name}.t"
    features = ", ".join(f"{_joined(each)} AS {each.name}" for each in view.aggregates)
    return f"""
        WITH e AS MATERIALIZED ({_events(view, events)}), i AS MATERIALIZED ({_instants(view)}){maxima},
        x AS (SELECT {keys}, t, {", ".join(running)} FROM e
              WINDOW p AS (PARTITION BY {keys} ORDER BY t, id ROWS UNBOUNDED PRECEDING)),
        c AS MATERIALIZED (SELECT {keys}, t, max(n) AS n{", " if newest else ""}{newest} FROM x GROUP BY {keys}, t)
        SELECT {", ".join(f"i.{key}" for key in view.keys)}, make_timestamptz(i.t) AS event_timestamp, {features}
        FROM i {joins}
    """


def _same(view: View, other: str) -> str:
    return " AND ".join(f"i.{key} = {other}.{key}" for key in view.keys)


def _maximum(view: View, each: Aggregate) -> str:
    keys = ", ".join(view.keys)
    return f"""
        SELECT {keys}, t, {each.name} FROM (
            SELECT {keys}, t, row, max({each.field}) OVER {_frame(view, each.window_us)} AS {each.name}
            FROM (SELECT {keys}, t, {each.field}, false AS row FROM e UNION ALL SELECT {keys}, t, NULL, true FROM i)
        ) WHERE row
    """


def _joined(each: Aggregate) -> str:
    counted, before = ("n" if each.field is None else f"n_{each.field}"), f"a{each.window_us}"
    count = f"(a.{counted} - coalesce({before}.{counted}, 0))"
    total = f"(a.s_{each.field} - coalesce({before}.s_{each.field}, 0))"
    value = {
        "sum": total,
        "mean": f"{total}::DOUBLE / {count}",
        "max": f"m_{each.name}.{each.name}",
        "last": f"a.l_{each.field}",
        "last_at": "a.t",
        "count": count,
    }[each.function]
    return count if each.function == "count" else f"CASE WHEN {count} > 0 THEN {value} END"


if __name__ == "__main__":
    main(make)
