"""The lake's compaction as a job: no asset, as it makes no data; what it did is the step's output metadata.

A table that could not be compacted does not keep the others from it; the step then fails and is tried again.
"""

from dataclasses import asdict
from datetime import timedelta

import dagster as dg

from assets.resources import LakeResource
from headway.errors import ContractViolation, TransientFailure
from headway.lake_upkeep import KEEP_DAYS, TableFiles, keep_few

_SHOWN = ("table", "version", "files_before", "files", "merged", "deleted")


class UpkeepConfig(dg.Config):
    """How much of the past stays readable.

    Attributes:
        keep_days: versions of so many days; at least 7.
    """

    keep_days: int = KEEP_DAYS


# A backfill that rewrites what is being merged comes first and wins; it is done within minutes.
@dg.op(
    name="compact",
    description="Merges small files and deletes those that no version in reach uses, in every table.",
    retry_policy=dg.RetryPolicy(max_retries=3, delay=60, jitter=dg.Jitter.PLUS_MINUS),
)
def compact(context: dg.OpExecutionContext, config: UpkeepConfig, lake: LakeResource) -> None:
    """Keep the files of every table few."""
    opened, done, failed = lake.open(), [], []
    for table in opened.tables():
        try:
            done.append(keep_few(opened, table, keep=timedelta(days=config.keep_days)))
        except TransientFailure as error:
            failed.append(error)
        except ContractViolation as error:  # of what was asked; another try asks the same
            raise dg.Failure(str(error), allow_retries=False) from error
    context.add_output_metadata({"tables": told(done), "files": sum(each.files for each in done)})
    if failed:
        raise TransientFailure("; ".join(map(str, failed)))


def told(done: list[TableFiles]) -> dg.TableMetadataValue:
    """Return what was done as a table, one row per table of the lake."""
    rows = [{name: value for name, value in asdict(each).items() if name in _SHOWN} for each in done]
    schema = dg.TableSchema([dg.TableColumn(name, "string" if name == "table" else "int") for name in _SHOWN])
    return dg.MetadataValue.table([dg.TableRecord(row) for row in rows], schema=schema)


def compaction_job() -> dg.JobDefinition:
    """Return the job that compacts the lake."""

    @dg.job(name="compact_lake", description="Keep the lake's files few; rows and versions in reach stay as they are.")
    def compact_lake() -> None:
        compact()

    return compact_lake
