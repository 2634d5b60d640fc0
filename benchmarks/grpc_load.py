"""Load on a gRPC server: ``python -m benchmarks.grpc_load ADDRESS METHOD QUESTIONS SECONDS CALLS``, one JSON line out.

The questions are messages that are ready, and answers are counted, not read, so that the client costs as little as it can.
"""

import asyncio
import base64
import itertools
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc

from headway.clock import monotonic_s


def write_questions(questions: Sequence[bytes], file: Path) -> Path:
    """Write messages where the load finds them; return the file."""
    file.write_text(json.dumps([base64.b64encode(question).decode() for question in questions]))
    return file


async def _load(address: str, method: str, questions: list[bytes], seconds: float, calls: int) -> dict[str, Any]:
    took_s: list[float] = []
    errors = 0
    async with grpc.aio.insecure_channel(address) as channel:
        ask = channel.unary_unary(method)
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
    address, method, file, seconds, calls = sys.argv[1:]
    questions = [base64.b64decode(each) for each in json.loads(Path(file).read_text(encoding="utf-8"))]
    said = asyncio.run(_load(address, method, questions, float(seconds), int(calls)))
    sys.stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main()
