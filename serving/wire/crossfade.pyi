from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StartFadeRequest(_message.Message):
    __slots__ = ("name", "primary", "candidate", "plan")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PRIMARY_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    name: str
    primary: str
    candidate: str
    plan: str
    def __init__(self, name: _Optional[str] = ..., primary: _Optional[str] = ..., candidate: _Optional[str] = ..., plan: _Optional[str] = ...) -> None: ...

class FadeRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListFadesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ActOnFadeRequest(_message.Message):
    __slots__ = ("name", "action", "reason", "force")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    action: str
    reason: str
    force: bool
    def __init__(self, name: _Optional[str] = ..., action: _Optional[str] = ..., reason: _Optional[str] = ..., force: _Optional[bool] = ...) -> None: ...

class FadeDocument(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: str
    def __init__(self, json: _Optional[str] = ...) -> None: ...

class Truth(_message.Message):
    __slots__ = ("request_id", "truth")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TRUTH_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    truth: str
    def __init__(self, request_id: _Optional[str] = ..., truth: _Optional[str] = ...) -> None: ...

class RecordRequest(_message.Message):
    __slots__ = ("model_name", "truths")
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    TRUTHS_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    truths: _containers.RepeatedCompositeFieldContainer[Truth]
    def __init__(self, model_name: _Optional[str] = ..., truths: _Optional[_Iterable[_Union[Truth, _Mapping]]] = ...) -> None: ...

class RecordedTruth(_message.Message):
    __slots__ = ("request_id", "outcome")
    class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNKNOWN: _ClassVar[RecordedTruth.Outcome]
        JOINED: _ClassVar[RecordedTruth.Outcome]
        WAITING: _ClassVar[RecordedTruth.Outcome]
        REPEATED: _ClassVar[RecordedTruth.Outcome]
        CONFLICT: _ClassVar[RecordedTruth.Outcome]
    UNKNOWN: RecordedTruth.Outcome
    JOINED: RecordedTruth.Outcome
    WAITING: RecordedTruth.Outcome
    REPEATED: RecordedTruth.Outcome
    CONFLICT: RecordedTruth.Outcome
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    outcome: RecordedTruth.Outcome
    def __init__(self, request_id: _Optional[str] = ..., outcome: _Optional[_Union[RecordedTruth.Outcome, str]] = ...) -> None: ...

class RecordResponse(_message.Message):
    __slots__ = ("truths",)
    TRUTHS_FIELD_NUMBER: _ClassVar[int]
    truths: _containers.RepeatedCompositeFieldContainer[RecordedTruth]
    def __init__(self, truths: _Optional[_Iterable[_Union[RecordedTruth, _Mapping]]] = ...) -> None: ...
