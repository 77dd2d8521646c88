"""The part of VizierService that a search needs, as messages in a pool of their own.

Vertex AI's ``google.cloud.aiplatform.v1`` and the open-source server's ``vizier`` have the same
messages with the same numbers, but for the algorithm, an enum here and a string there. A pool of
their own: the client libraries of both register the same names in the default one.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Any, Final, Literal

from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    struct_pb2,
)

Dialect = Literal["vertex", "oss"]
PACKAGES: Final[dict[Dialect, str]] = {"vertex": "google.cloud.aiplatform.v1", "oss": "vizier"}

# name: type [name] number, …; types of other messages are named from the package on; a star
# before the type is "repeated".
_MESSAGES: Final = """
Study: string name 1, string display_name 2, StudySpec study_spec 3, Study.State state 4
Study.State= STATE_UNSPECIFIED 0, ACTIVE 1, INACTIVE 2, COMPLETED 3
StudySpec: *StudySpec.MetricSpec metrics 1, *StudySpec.ParameterSpec parameters 2, \
ALGORITHM algorithm 3
StudySpec.MetricSpec: string metric_id 1, StudySpec.MetricSpec.GoalType goal 2
StudySpec.MetricSpec.GoalType= GOAL_TYPE_UNSPECIFIED 0, MAXIMIZE 1, MINIMIZE 2
StudySpec.ParameterSpec: string parameter_id 1, \
StudySpec.ParameterSpec.DoubleValueSpec double_value_spec 2, \
StudySpec.ParameterSpec.IntegerValueSpec integer_value_spec 3, \
StudySpec.ParameterSpec.CategoricalValueSpec categorical_value_spec 4, \
StudySpec.ParameterSpec.ScaleType scale_type 6
StudySpec.ParameterSpec.DoubleValueSpec: double min_value 1, double max_value 2
StudySpec.ParameterSpec.IntegerValueSpec: int64 min_value 1, int64 max_value 2
StudySpec.ParameterSpec.CategoricalValueSpec: *string values 1
StudySpec.ParameterSpec.ScaleType= SCALE_TYPE_UNSPECIFIED 0, UNIT_LINEAR_SCALE 1, \
UNIT_LOG_SCALE 2, UNIT_REVERSE_LOG_SCALE 3
Trial: string name 1, string id 2, Trial.State state 3, *Trial.Parameter parameters 4, \
Measurement final_measurement 5, string client_id 9, string infeasible_reason 10
Trial.State= STATE_UNSPECIFIED 0, REQUESTED 1, ACTIVE 2, STOPPING 3, SUCCEEDED 4, INFEASIBLE 5
Trial.Parameter: string parameter_id 1, .google.protobuf.Value value 2
Measurement: int64 step_count 2, *Measurement.Metric metrics 3
Measurement.Metric: string metric_id 1, double value 2
CreateStudyRequest: string parent 1, Study study 2
GetStudyRequest: string name 1
ListStudiesRequest: string parent 1, string page_token 2, int32 page_size 3
ListStudiesResponse: *Study studies 1, string next_page_token 2
SuggestTrialsRequest: string parent 1, int32 suggestion_count 2, string client_id 3
SuggestTrialsResponse: *Trial trials 1, Study.State study_state 2
CreateTrialRequest: string parent 1, Trial trial 2
ListTrialsRequest: string parent 1, string page_token 2, int32 page_size 3
ListTrialsResponse: *Trial trials 1, string next_page_token 2
CompleteTrialRequest: string name 1, Measurement final_measurement 2, bool trial_infeasible 3, \
string infeasible_reason 4
Operation: string name 1, bool done 3, Status error 4, .google.protobuf.Any response 5
Status: int32 code 1, string message 2
GetOperationRequest: string name 1
"""
_SCALARS: Final = {"string": 9, "double": 1, "int64": 3, "int32": 5, "bool": 8}
_ALGORITHM: Final = "StudySpec.Algorithm= ALGORITHM_UNSPECIFIED 0, GRID_SEARCH 2, RANDOM_SEARCH 3"
_FIELD: Final = re.compile(r"(\*?)(\S+) (\w+) (\d+)")


@dataclasses.dataclass(frozen=True, slots=True)
class Messages:
    """Message classes of one dialect, by name; enum values as ``value("State.ACTIVE")``."""

    package: str
    pool: Any

    def of(self, name: str) -> Any:
        """The class of a message."""
        return message_factory.GetMessageClass(
            self.pool.FindMessageTypeByName(f"{self.package}.{name}")
        )

    def value(self, name: str) -> int:
        """The number of an enum's value, such as ``Trial.State.ACTIVE``."""
        enum, _, constant = name.rpartition(".")
        found = self.pool.FindEnumTypeByName(f"{self.package}.{enum}")
        return int(found.values_by_name[constant].number)


@functools.cache
def messages(dialect: Dialect) -> Messages:
    """The messages of a dialect."""
    package = PACKAGES[dialect]
    algorithm = _ALGORITHM if dialect == "vertex" else ""
    kind = "StudySpec.Algorithm" if dialect == "vertex" else "string"
    lines = f"{_MESSAGES.replace('ALGORITHM algorithm', f'{kind} algorithm')}{algorithm}"
    file = descriptor_pb2.FileDescriptorProto(
        name=f"crossfade/{package}.proto", package=package, syntax="proto3"
    )
    needed = [module.DESCRIPTOR for module in (any_pb2, struct_pb2)]
    file.dependency.extend(descriptor.name for descriptor in needed)
    enums = {line.partition("=")[0] for line in lines.splitlines() if "= " in line}
    built: dict[str, Any] = {}
    for line in filter(None, lines.splitlines()):
        name, mark, rest = re.split(r"([:=]) ", line, maxsplit=1)
        owner, _, own = name.rpartition(".")
        if mark == "=":
            enum = (built[owner] if owner else file).enum_type.add(name=own)
            for part in rest.split(", "):
                constant, number = part.split(" ")
                enum.value.add(name=constant, number=int(number))
            continue
        message = (
            built[owner].nested_type.add(name=own) if owner else file.message_type.add(name=own)
        )
        built[name] = message
        for part in rest.split(", "):
            _add_field(message, part, package, enums)
    pool = descriptor_pool.DescriptorPool()
    for descriptor in needed:
        copied = descriptor_pb2.FileDescriptorProto()
        descriptor.CopyToProto(copied)
        pool.Add(copied)
    pool.Add(file)
    return Messages(package, pool)


def _add_field(message: Any, text: str, package: str, enums: set[str]) -> None:
    match = _FIELD.fullmatch(text)
    assert match is not None, text
    star, kind, name, number = match.groups()
    field = message.field.add(name=name, number=int(number), label=3 if star else 1)
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
        return
    field.type = 14 if kind in enums else 11
    field.type_name = kind if kind.startswith(".") else f".{package}.{kind}"
