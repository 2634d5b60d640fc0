"""The feature API over gRPC, beside HTTP in the same process and event loop: the contract is ``proto/features.proto``.

What is answered and refused is `serving.feature_answers`; how it is served is `serving.grpc_server`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from headway.clock import SECOND_US, from_us
from headway.errors import InputRejected
from headway.features.columns import Value as FeatureValue
from headway.features.online import StoredRow
from headway.features.services import FeatureService, ServedFeatures
from headway.service_reads import ServiceRead
from serving.collector_limits import Refused
from serving.feature_answers import FeatureAnswers, Question, Status, status_of
from serving.grpc_server import FEATURE_SERVICE, GrpcServer, read_message
from serving.proto import features_pb2 as pb

_CONTRACT = "proto/features.proto"
_STATUSES: Mapping[Status, pb.Status] = {"present": pb.PRESENT, "missing": pb.MISSING, "stale": pb.STALE}


class FeatureGrpc(GrpcServer):
    """The gRPC server. Belongs to the event loop it is started in."""

    def __init__(self, answers: FeatureAnswers, *, host: str, port: int) -> None:
        """Prepare; port 0 lets the system choose."""
        size = answers.limits.body_bytes
        super().__init__(FEATURE_SERVICE, {"GetFeatures": self._get}, host=host, port=port, message_bytes=size)
        self._answers = answers

    async def _get(self, raw: bytes, context: Any) -> pb.GetFeaturesResponse:  # Any: grpc has no types
        del context
        try:
            request = read_message(pb.GetFeaturesRequest, raw, kind="invalid-question", contract=_CONTRACT)
        except Refused as refusal:
            self._answers.metrics.refused("grpc", refusal.problem.kind)
            raise
        question = Question(
            service=request.service,
            rows=[_row(row) for row in request.rows],
            instant_us=lambda: _instant_us(request.as_of) if request.HasField("as_of") else None,
        )
        return grpc_answer(*await self._answers.answer(question, "grpc"))


def grpc_answer(service: FeatureService, read: ServiceRead) -> pb.GetFeaturesResponse:
    """Return what was read as a message."""
    response = pb.GetFeaturesResponse(service=service.name)
    _set(response.as_of, read.as_of_us)
    for served, state, stale in zip(service.served, read.states, read.stale, strict=True):
        view = response.views[served.name]
        view.stale = stale
        if state.watermark_us is not None:
            _set(view.watermark, state.watermark_us)
            view.lag_s = max(0, read.as_of_us - state.watermark_us) / SECOND_US
    for stored in read.rows:
        row = response.rows.add()
        for served, found, stale in zip(service.served, stored, read.stale, strict=True):
            _fill(row.views[served.name], served, found, read.as_of_us, stale=stale)
    return response


def _fill(entity: pb.Entity, served: ServedFeatures, row: StoredRow | None, as_of_us: int, *, stale: bool) -> None:
    entity.status = _STATUSES[status_of(row, stale=stale)]
    named: Iterable[tuple[str, FeatureValue]] = served.empty.items()
    if row is not None and row.event_timestamp_us is not None:
        _set(entity.event_timestamp, row.event_timestamp_us)
        entity.age_s = (as_of_us - row.event_timestamp_us) / SECOND_US
        named = zip(served.features, row.values, strict=True)
    for name, value in named:
        slot = entity.values.get_or_create(name)
        if isinstance(value, float):
            slot.double = value
        elif value is not None:
            slot.int64 = value


def _row(row: Struct) -> dict[str, Any]:
    return {key: _plain(value) for key, value in row.fields.items()}


def _plain(value: Value) -> Any:  # Any: what JSON would have been
    match value.WhichOneof("kind"):
        case "string_value":
            return value.string_value
        case "number_value":
            return value.number_value
        case "bool_value":
            return value.bool_value
        case "list_value":
            return []
        case "struct_value":
            return {}
        case _:
            return None


def _instant_us(instant: Timestamp) -> int:
    instant_us: int = instant.seconds * SECOND_US + instant.nanos // 1_000
    try:
        plausible = 0 <= instant.nanos < 1_000_000_000 and 1 < from_us(instant_us).year < 9_999
    except OverflowError:
        plausible = False
    if not plausible:
        raise InputRejected(f"as_of: got {instant.seconds} s and {instant.nanos} ns, wanted a year from 2 to 9998")
    return instant_us


def _set(stamp: Timestamp, instant_us: int) -> None:
    stamp.seconds, micros = divmod(instant_us, SECOND_US)
    stamp.nanos = micros * 1_000
