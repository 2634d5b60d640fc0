"""Load on the feature API over gRPC: ``python -m benchmarks.grpc_load ADDRESS ROWS SECONDS CALLS AS_OF``, one JSON line out."""

import asyncio
import itertools
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import grpc

from headway.clock import monotonic_s
from serving.grpc_server import FEATURE_SERVICE as SERVICE
from serving.proto import features_pb2 as pb


async def _load(address: str, questions: list[bytes], seconds: float, calls: int) -> dict[str, Any]:
    took_s: list[float] = []
    errors = 0
    async with grpc.aio.insecure_channel(address) as channel:
        ask = channel.unary_unary(f"/{SERVICE}/GetFeatures", response_deserializer=pb.GetFeaturesResponse.FromString)
        began_s = monotonic_s()
        next_question = itertools.cycle(questions)

        async def caller() -> None:
            nonlocal errors
            while (asked_s := monotonic_s()) - began_s < seconds:
                try:
                    await ask(next(next_question))
                except grpc.RpcError:
                    errors += 1
                else:
                    took_s.append(monotonic_s() - asked_s)

        await asyncio.gather(*(caller() for _ in range(calls)))
        spent_s = monotonic_s() - began_s
    cuts = statistics.quantiles(took_s, n=100)
    return {
        "answers": len(took_s),
        "errors": errors,
        "seconds": spent_s,
        "p50_ms": cuts[49] * 1e3,
        "p99_ms": cuts[98] * 1e3,
    }


def main() -> None:
    """Ask for so long, so many at a time."""
    address, rows, seconds, calls, as_of = sys.argv[1:]
    questions = []
    for row in json.loads(Path(rows).read_text(encoding="utf-8")):
        request = pb.GetFeaturesRequest(service="flight_delay")
        request.rows.add().update(row)
        request.as_of.FromJsonString(as_of)
        questions.append(request.SerializeToString())
    sys.stdout.write(json.dumps(asyncio.run(_load(address, questions, float(seconds), int(calls)))) + "\n")


if __name__ == "__main__":
    main()
