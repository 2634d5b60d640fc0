"""P11 with bare Polars: running totals per entity, and joins as of both ends of every window.

A ``rolling`` window starts at T - W and not at a multiple of the hop, so it cannot give these values; its totals per tile
can, and give the maxima.
"""

from pathlib import Path

import polars as pl

from benchmarks.peers.backfill_work import Aggregate, View, main


def make(views: list[View], events: str, out: Path) -> int:
    """Write the rows of all views; return how many."""
    total = 0
    for view in views:
        rows = changelog(view, events)
        rows.write_parquet(out / f"{view.name}.parquet", compression="snappy")
        total += rows.height
    return total


def changelog(view: View, events: str) -> pl.DataFrame:
    """Return the view's rows."""
    present = [pl.col(key).is_not_null() for key in view.keys]
    read = pl.scan_parquet(events, hive_partitioning=False).filter(pl.col("type") == view.source, *present)
    found = read.select(*view.keys, pl.col("time").dt.timestamp("us").alias("t"), "id", *view.fields).collect()
    entities = found.select(view.keys).unique().with_columns(pl.int_range(pl.len()).alias("e"))
    ordered = found.join(entities, on=view.keys, how="left").drop(view.keys).sort("e", "t", "id")
    tile = -(-pl.col("t") // view.hop_us)
    ends = [ordered.select("e", tile * view.hop_us + window_us).unique() for window_us in view.windows_us]
    ends = [each.rename({each.columns[1]: "t"}) for each in ends]
    instants = pl.concat([ordered.select("e", "t"), *ends]).unique().sort("t")
    totals = _totals(view, ordered)
    rows = instants.join_asof(totals, on="t", by="e", check_sortedness=False)
    counts = [name for name in totals.columns if name == "n" or name[:2] in ("n_", "s_")]
    for window_us in view.windows_us:
        before = totals.select("e", pl.col("t").alias("start"), *(pl.col(c).alias(f"{c}@{window_us}") for c in counts))
        start = ((pl.col("t") - window_us) // view.hop_us * view.hop_us).alias("start")
        rows = rows.with_columns(start).join_asof(before, on="start", by="e", check_sortedness=False)
    for each in view.aggregates:
        if each.function == "max":
            rows = _with_maximum(view, each, ordered, rows)
    features = [_feature(each).alias(each.name) for each in view.aggregates]
    instant = pl.col("t").cast(pl.Datetime("us", "UTC")).alias("event_timestamp")
    return rows.join(entities, on="e").select(*view.keys, instant, *features)


def _totals(view: View, ordered: pl.DataFrame) -> pl.DataFrame:
    totals = ordered.select(
        "e",
        "t",
        pl.col("t").alias("last_t"),
        pl.int_range(1, pl.len() + 1).over("e").alias("n"),
        *(pl.col(f).is_not_null().cum_sum().over("e").alias(f"n_{f}") for f in view.fields),
        *(pl.col(f).fill_null(0).cum_sum().over("e").alias(f"s_{f}") for f in view.fields_of("sum", "mean")),
        *(pl.col(f).forward_fill().over("e").alias(f"l_{f}") for f in view.fields_of("last")),
    )
    return totals.unique(["e", "t"], keep="last", maintain_order=True).sort("t")


def _with_maximum(view: View, each: Aggregate, ordered: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Add the maximum over whole tiles, and over the events of the open one."""
    tile, name = -(-pl.col("t") // view.hop_us), str(each.field)
    closed = ordered.group_by("e", tile.alias("k")).agg(pl.col(name).max().alias("m"))
    asked = rows.select("e", (pl.col("t") // view.hop_us).alias("k")).unique().join(closed, on=["e", "k"], how="anti")
    every = pl.concat([closed, asked.with_columns(m=pl.lit(None, dtype=closed.schema["m"]))]).sort("e", "k")
    rolled = pl.col("m").rolling_max_by("k", f"{each.window_us // view.hop_us}i").over("e").alias("closed")
    opened = ordered.select(
        "e", "t", tile.alias("k"), pl.col(name).cum_max().forward_fill().over("e", tile).alias("opened")
    )
    opened = opened.unique(["e", "t"], keep="last", maintain_order=True).sort("t")
    rows = rows.with_columns((pl.col("t") // view.hop_us).alias("at_tile"))
    rows = rows.join(every.select("e", pl.col("k").alias("at_tile"), rolled), on=["e", "at_tile"], how="left")
    rows = rows.sort("t").join_asof(opened, on="t", by="e", check_sortedness=False)
    of_open = pl.when(pl.col("k") == pl.col("at_tile") + 1).then("opened")
    return rows.with_columns(pl.max_horizontal("closed", of_open).alias(f"max:{each.name}")).drop(
        "at_tile", "closed", "opened", "k"
    )


def _feature(each: Aggregate) -> pl.Expr:
    counted = "n" if each.field is None else f"n_{each.field}"
    count = pl.col(counted) - pl.col(f"{counted}@{each.window_us}").fill_null(0)
    if each.function == "count":
        return count
    if each.function in ("sum", "mean"):
        total = pl.col(f"s_{each.field}") - pl.col(f"s_{each.field}@{each.window_us}").fill_null(0)
        return pl.when(count > 0).then(total if each.function == "sum" else total.cast(pl.Float64) / count)
    value = {"last": f"l_{each.field}", "last_at": "last_t", "max": f"max:{each.name}"}[each.function]
    return pl.when(count > 0).then(value)


if __name__ == "__main__":
    main(make)
