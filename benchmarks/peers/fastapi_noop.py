"""P9's yardstick: FastAPI answering 202 to a POST and doing nothing else, at its fastest ordinary setting.

No body parameter (FastAPI would parse and validate it), a response without serialisation, no access log. Started by
`benchmarks.p9` with ``uvicorn --loop uvloop --http httptools --no-access-log``, one process, as the Collector has one.
"""

from fastapi import FastAPI, Response  # type: ignore[import-not-found,unused-ignore]  # the peer's own environment

app = FastAPI()


@app.post("/v1/events")
async def noop() -> Response:
    """Take nothing, give nothing."""
    return Response(status_code=202)
