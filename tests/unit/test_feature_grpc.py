"""A gRPC answer says what the HTTP answer says, value by value; the server itself is in tests/contract."""

from typing import Any

import msgspec
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from headway.clock import HOUR_US, format_us
from headway.errors import InputRejected
from headway.features.online import StoredRow
from headway.features.readiness import ViewState
from headway.service_reads import ServiceRead
from serving.feature_grpc import _instant_us, grpc_answer
from serving.features import features_answer
from serving.grpc_server import CODES
from serving.proto import features_pb2 as pb
from tests.feature_world import AS_OF_US, REFUSED, SERVICE

_VALUE = st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
_INSTANT_US = st.integers(1, AS_OF_US)


def instant(stamp: Timestamp, *, present: bool) -> str | None:
    return format_us(stamp.seconds * 1_000_000 + stamp.nanos // 1_000) if present else None


def document(answer: pb.GetFeaturesResponse) -> dict[str, Any]:
    """A message as the JSON of the other door."""
    return {
        "service": answer.service,
        "as_of": instant(answer.as_of, present=True),
        "views": {
            name: {
                "watermark": instant(view.watermark, present=view.HasField("watermark")),
                "lag_s": view.lag_s if view.HasField("lag_s") else None,
                "stale": view.stale,
            }
            for name, view in answer.views.items()
        },
        "rows": [{name: entity_document(entity) for name, entity in row.views.items()} for row in answer.rows],
    }


def entity_document(entity: pb.Entity) -> dict[str, Any]:
    kinds = {name: value.WhichOneof("kind") for name, value in entity.values.items()}
    return {
        "status": pb.Status.Name(entity.status).lower(),
        "event_timestamp": instant(entity.event_timestamp, present=entity.HasField("event_timestamp")),
        "age_s": entity.age_s if entity.HasField("age_s") else None,
        "values": {name: None if kind is None else getattr(entity.values[name], kind) for name, kind in kinds.items()},
    }


@st.composite
def reads(draw: st.DrawFn) -> ServiceRead:
    states = [
        ViewState(watermark_us=draw(st.none() | st.integers(1, AS_OF_US + HOUR_US)), bootstrapped_us=1, digest="d")
        for _ in SERVICE.served
    ]
    rows: list[tuple[StoredRow | None, ...]] = []
    for _ in range(draw(st.integers(1, 2))):
        row: list[StoredRow | None] = []
        for served in SERVICE.served:
            empty = StoredRow((None,) * len(served.features), None)
            full = StoredRow(tuple(draw(_VALUE) for _ in served.features), draw(_INSTANT_US))
            row.append(draw(st.sampled_from([None, empty, full])))
        rows.append(tuple(row))
    return ServiceRead(AS_OF_US, tuple(states), tuple(draw(st.booleans()) for _ in states), rows)


@given(read=reads())
def test_both_doors_say_the_same(read: ServiceRead) -> None:
    over_http = msgspec.json.decode(msgspec.json.encode(features_answer(SERVICE, read)))
    over_grpc = document(pb.GetFeaturesResponse.FromString(grpc_answer(SERVICE, read).SerializeToString()))

    assert repr(sorted_deep(over_grpc)) == repr(sorted_deep(over_http))


def sorted_deep(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: sorted_deep(value[key]) for key in sorted(value)}
    return [sorted_deep(each) for each in value] if isinstance(value, list) else value


def test_every_refusal_has_a_code() -> None:
    assert {status for _, status, _, _ in REFUSED} | {500, 503} == set(CODES)


@pytest.mark.parametrize("seconds", [-(2**62), -62_135_596_801, 253_402_300_800, 2**62])
def test_an_instant_that_is_none_is_refused(seconds: int) -> None:
    with pytest.raises(InputRejected, match="wanted a year from 2 to 9998"):
        _instant_us(Timestamp(seconds=seconds))


def test_an_instant_is_read_to_the_microsecond() -> None:
    assert _instant_us(Timestamp(seconds=3, nanos=4_005)) == 3_000_004
    with pytest.raises(InputRejected, match="1000000000 ns"):
        _instant_us(Timestamp(seconds=3, nanos=1_000_000_000))
