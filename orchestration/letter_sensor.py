"""The lake's letters by cause, recorded in Dagster whenever they changed, so that their node shows what is in them."""

from typing import Any

import dagster as dg
import polars as pl

from assets.names import LAKE_LETTERS
from assets.resources import LakeResource
from headway.errors import HeadwayError
from headway.letter_table import letters_table

_EVERY_S = 60
_CAUSES_SHOWN = 20


def letters_sensor() -> dg.SensorDefinition:
    """Return the sensor that observes ``lake/letters`` when the table has a new version."""

    @dg.sensor(
        name="letters_by_cause",
        minimum_interval_seconds=_EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Records dead letters by cause, the most frequent first, when there are new ones.",
    )
    def observe(context: dg.SensorEvaluationContext, lake: LakeResource) -> dg.SensorResult | dg.SkipReason:
        opened, name = lake.open(), letters_table().name
        try:
            if not opened.exists(name):
                return dg.SkipReason("no letters table yet; the lake loader makes it")
            version = str(opened.version(name))
            if context.cursor == version:
                return dg.SkipReason("no new letters")
            causes = by_cause(opened.read(name, columns=_COLUMNS))
        except HeadwayError as error:
            return dg.SkipReason(str(error))
        observed = dg.AssetObservation(LAKE_LETTERS, metadata=shown(causes))
        return dg.SensorResult(asset_events=[observed], cursor=version)

    return observe


_COLUMNS = ["reason", "fingerprint", "event_type", "path", "detail", "letter_id", "written_at"]


def by_cause(letters: pl.DataFrame) -> pl.DataFrame:
    """Return one row per cause: how many, when first and last, and the newest as an example; the largest first.

    Letters written before causes had names count under their reason.
    """
    newest = [pl.col(name).last() for name in ("reason", "event_type", "path", "detail", "letter_id")]
    return (
        letters.with_columns(pl.col("fingerprint").fill_null(pl.col("reason")))
        .sort("written_at")
        .group_by("fingerprint", maintain_order=True)
        .agg(
            pl.len().alias("letters"),
            pl.col("written_at").first().alias("first"),
            pl.col("written_at").last().alias("last"),
            *newest,
        )
        .sort("letters", "fingerprint", descending=[True, False])
    )


def shown(causes: pl.DataFrame) -> dict[str, Any]:  # Any: Dagster's metadata values
    """Return what an observation shows of the causes."""
    rows = ["| letters | reason | type | where | last | example |", "|---:|---|---|---|---|---|"]
    for row in causes.head(_CAUSES_SHOWN).iter_rows(named=True):
        cells = (row["letters"], row["reason"], row["event_type"], row["path"], row["last"], row["letter_id"])
        rows.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return {
        "letters": int(causes["letters"].sum()),
        "causes": causes.height,
        "by cause": dg.MetadataValue.md("\n".join(rows)),
    }


def _cell(value: object) -> str:
    """Return a value as a cell of a Markdown table; paths and types come from strangers."""
    text = "" if value is None else str(value)[:120]
    return "".join(c if c.isalnum() or c in " .-_:$+" else " " for c in text)
