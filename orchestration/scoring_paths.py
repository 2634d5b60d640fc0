"""The paths by which a row can be scored, each asked the same rows with the code that serves it (DESIGN 7.11).

A path is one entry of `PATHS`: a name, and a function from an `Asking` to one answer per row. What the online store or
the lake would hold of each row's entities comes with the row, so that paths are compared and not what they read.
"""

from collections.abc import Callable, Mapping

from headway.path_parity import PathAnswer, PathReport, compare_paths
from orchestration.asking import Asking
from orchestration.batch_paths import by_batch, by_spark
from orchestration.request_paths import by_grpc, by_rest
from orchestration.stream_paths import by_stream

Answers = Callable[[Asking], list[PathAnswer]]

# The first is what the others are held to.
PATHS: Mapping[str, Answers] = {
    "rest": by_rest,
    "grpc": by_grpc,
    "stream": by_stream,
    "batch": by_batch,
    "spark": by_spark,
}


def check_paths(asking: Asking, paths: Mapping[str, Answers] = PATHS) -> PathReport:
    """Ask every path, and compare."""
    return compare_paths(
        {name: answers(asking) for name, answers in paths.items()},
        rows=[row.name for row in asking.rows],
        columns=[column.name for column in asking.manifest.columns],
    )
