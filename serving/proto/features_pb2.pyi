import datetime

from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATUS_UNSPECIFIED: _ClassVar[Status]
    PRESENT: _ClassVar[Status]
    MISSING: _ClassVar[Status]
    STALE: _ClassVar[Status]
STATUS_UNSPECIFIED: Status
PRESENT: Status
MISSING: Status
STALE: Status

class GetFeaturesRequest(_message.Message):
    __slots__ = ("service", "rows", "as_of")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    service: str
    rows: _containers.RepeatedCompositeFieldContainer[_struct_pb2.Struct]
    as_of: _timestamp_pb2.Timestamp
    def __init__(self, service: _Optional[str] = ..., rows: _Optional[_Iterable[_Union[_struct_pb2.Struct, _Mapping]]] = ..., as_of: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class GetFeaturesResponse(_message.Message):
    __slots__ = ("service", "as_of", "views", "rows")
    class ViewsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: View
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[View, _Mapping]] = ...) -> None: ...
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    VIEWS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    service: str
    as_of: _timestamp_pb2.Timestamp
    views: _containers.MessageMap[str, View]
    rows: _containers.RepeatedCompositeFieldContainer[Row]
    def __init__(self, service: _Optional[str] = ..., as_of: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., views: _Optional[_Mapping[str, View]] = ..., rows: _Optional[_Iterable[_Union[Row, _Mapping]]] = ...) -> None: ...

class View(_message.Message):
    __slots__ = ("watermark", "lag_s", "stale")
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    LAG_S_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    watermark: _timestamp_pb2.Timestamp
    lag_s: float
    stale: bool
    def __init__(self, watermark: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., lag_s: _Optional[float] = ..., stale: _Optional[bool] = ...) -> None: ...

class Row(_message.Message):
    __slots__ = ("views",)
    class ViewsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Entity
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Entity, _Mapping]] = ...) -> None: ...
    VIEWS_FIELD_NUMBER: _ClassVar[int]
    views: _containers.MessageMap[str, Entity]
    def __init__(self, views: _Optional[_Mapping[str, Entity]] = ...) -> None: ...

class Entity(_message.Message):
    __slots__ = ("status", "event_timestamp", "age_s", "values")
    class ValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...
    STATUS_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    status: Status
    event_timestamp: _timestamp_pb2.Timestamp
    age_s: float
    values: _containers.MessageMap[str, Value]
    def __init__(self, status: _Optional[_Union[Status, str]] = ..., event_timestamp: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., age_s: _Optional[float] = ..., values: _Optional[_Mapping[str, Value]] = ...) -> None: ...

class Value(_message.Message):
    __slots__ = ("int64", "double")
    INT64_FIELD_NUMBER: _ClassVar[int]
    DOUBLE_FIELD_NUMBER: _ClassVar[int]
    int64: int
    double: float
    def __init__(self, int64: _Optional[int] = ..., double: _Optional[float] = ...) -> None: ...
