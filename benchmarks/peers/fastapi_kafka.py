"""The Collector's work as most would write it: FastAPI, a pydantic envelope, aiokafka with acks=all before the answer.

Batches of at most 10 ms are aiokafka's own doing: its sender takes what came while a request was under way
(``linger_ms=0`` is the documented way to low latency). The topic is the Collector's own.
"""

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Literal

from aiokafka import AIOKafkaProducer  # type: ignore[import-not-found]  # the peer's own environment
from fastapi import FastAPI
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field


class CloudEvent(BaseModel):
    """The fields the Collector judges, and what it adds."""

    model_config = ConfigDict(extra="allow")

    specversion: Literal["1.0"]
    id: str = Field(min_length=1, max_length=1024)
    source: str = Field(min_length=1, max_length=1024)
    type: str = Field(min_length=1, max_length=1024)
    subject: str = Field(min_length=1, max_length=1024)
    time: AwareDatetime
    data: dict[str, Any]
    receivedat: AwareDatetime | None = None
    requestid: str | None = None


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Hold one producer for the life of the process."""
    producer = AIOKafkaProducer(
        bootstrap_servers=os.environ["PEER_KAFKA"],
        acks="all",
        enable_idempotence=True,
        compression_type="lz4",
    )
    await producer.start()
    app.state.producer = producer
    yield
    await producer.stop()


app = FastAPI(lifespan=lifespan)


@app.post("/v1/events", status_code=202)
async def accept(event: CloudEvent) -> dict[str, Any]:
    """Store one event and say so."""
    event.receivedat = datetime.now(UTC)
    event.requestid = str(uuid.uuid4())
    headers = [("ce_type", event.type.encode()), ("ce_id", event.id.encode()), ("ce_source", event.source.encode())]
    value = event.model_dump_json(exclude_none=True).encode()
    await app.state.producer.send_and_wait("events.raw", value, key=event.subject.encode(), headers=headers)
    return {"id": event.id, "accepted": True}
