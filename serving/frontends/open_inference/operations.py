"""What is published of the routes of the Open Inference Protocol and of Triton's extensions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from crossfade.runtimes.core.dtypes import NUMPY
from crossfade.serving.frontends.open_inference.binary_body import HEADER
from crossfade.serving.transport.operation import Operation

Schema = Mapping[str, Any]
_TEXT: Final[Schema] = {"type": "string"}
_FLAG: Final[Schema] = {"type": "boolean"}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_PARAMETERS: Final[Schema] = {
    "type": "object",
    "additionalProperties": {"type": ["string", "number", "boolean"]},
}
_SHAPE: Final[Schema] = {"type": "array", "items": {"type": "integer"}}
_DTYPE: Final[Schema] = {"enum": sorted(NUMPY)}
_BYTES: Final[Schema] = {"type": "string", "format": "binary"}


def _object(required: Mapping[str, Schema], **optional: Schema) -> Schema:
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **optional},
    }


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


_SPEC: Final = _object({"name": _TEXT, "datatype": _TEXT, "shape": _SHAPE})
_INPUT: Final = _object(
    {"name": _TEXT, "datatype": _DTYPE, "shape": _SHAPE},
    data={"type": "array"},
    parameters=_PARAMETERS,
)
_OUTPUT: Final = _object(
    {"name": _TEXT, "datatype": _DTYPE, "shape": _SHAPE},
    data={"type": "array"},
    parameters=_PARAMETERS,
)
_REQUEST: Final = _object(
    {"inputs": _list(_INPUT)},
    id=_TEXT,
    parameters=_PARAMETERS,
    outputs=_list(_object({"name": _TEXT}, parameters=_PARAMETERS)),
)
_RESPONSE: Final = _object(
    {"model_name": _TEXT, "model_version": _TEXT, "outputs": _list(_OUTPUT)},
    id=_TEXT,
    parameters=_PARAMETERS,
)
_JSON_LENGTH: Final = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "bytes of JSON in a binary body; 0: the body is the one input of the model",
    "schema": {"type": "string", "pattern": "^[0-9]{1,19}$"},
}
_NOT_READY: Final = _object({"name": _TEXT, "ready": _FLAG})
_READY: Final = _object({"ready": _FLAG})
_CHANGE: Final = _object({}, parameters=_PARAMETERS)
_REGIONS: Final = _list(
    _object({"name": _TEXT, "key": _TEXT, "offset": _COUNT, "byte_size": _COUNT})
)
_SETTINGS: Final[Schema] = {"type": "object"}

INFER: Final = Operation(
    "infer",
    "Runs a model; outputs are JSON, or bytes behind it where the request says so.",
    body=_REQUEST,
    answer=_RESPONSE,
    media={"application/octet-stream": _BYTES},
    answer_media={"application/octet-stream": _BYTES},
    errors=(409, 501, 504),
    parameters=(_JSON_LENGTH,),
)
LIVE: Final = Operation("server_live", "Is the server up?", answer=_object({"live": _FLAG}))
READY: Final = Operation(
    "server_ready", "Have all models been tried?", answer=_READY, also={400: _READY}
)
SERVER: Final = Operation(
    "server_metadata",
    "The server's name, version and extensions.",
    answer=_object({"name": _TEXT, "version": _TEXT, "extensions": _list(_TEXT)}),
)
MODEL_READY: Final = Operation(
    "model_ready", "Could the model answer now?", answer=_NOT_READY, also={400: _NOT_READY}
)
METADATA: Final = Operation(
    "model_metadata",
    "A model's versions, inputs and outputs.",
    answer=_object(
        {
            "name": _TEXT,
            "versions": _list(_TEXT),
            "platform": _TEXT,
            "inputs": _list(_SPEC),
            "outputs": _list(_SPEC),
        }
    ),
)
CONFIG: Final = Operation(
    "model_config",
    "A model's configuration, completed from the model.",
    answer=_object({"name": _TEXT, "platform": _TEXT, "max_batch_size": _COUNT}),
)
_STATISTICS: Final = _object(
    {
        "model_stats": _list(
            _object(
                {
                    "name": _TEXT,
                    "version": _TEXT,
                    "inference_count": _COUNT,
                    "execution_count": _COUNT,
                }
            )
        )
    }
)
STATISTICS: Final = Operation("model_statistics", "Counts and times.", answer=_STATISTICS)
ALL_STATISTICS: Final = Operation(
    "statistics", "Counts and times of all models.", answer=_STATISTICS
)
INDEX: Final = Operation(
    "repository_index",
    "Every model of the repository, with the state of each version.",
    body=_object({}, ready=_FLAG),
    optional_body=True,
    answer=_list(_object({"name": _TEXT, "version": _TEXT, "state": _TEXT, "reason": _TEXT})),
    errors=(501,),
)
LOAD: Final = Operation(
    "load_model",
    "Loads or reloads a model.",
    body=_CHANGE,
    optional_body=True,
    errors=(409, 501),
)
UNLOAD: Final = Operation(
    "unload_model", "Unloads a model.", body=_CHANGE, optional_body=True, errors=(409,)
)
SHARED_STATUS: Final = Operation(
    "system_shared_memory_status", "What is registered.", answer=_REGIONS, errors=(501,)
)
SHARED_REGISTER: Final = Operation(
    "register_system_shared_memory",
    "Registers a region of system shared memory.",
    body=_object({"key": _TEXT, "byte_size": _COUNT}, offset=_COUNT),
    errors=(409, 501),
)
SHARED_UNREGISTER: Final = Operation(
    "unregister_system_shared_memory", "Forgets one region, or all.", errors=(501,)
)
CUDA_STATUS: Final = Operation("cuda_shared_memory_status", "No regions.", answer={"type": "array"})
CUDA_REGISTER: Final = Operation(
    "register_cuda_shared_memory",
    "Not supported.",
    body={"type": "object"},
    optional_body=True,
    errors=(501,),
)
CUDA_UNREGISTER: Final = Operation("unregister_cuda_shared_memory", "Nothing to do.")
GENERATE: Final = Operation(
    "generate", "Not supported: no model here generates.", body=_SETTINGS, errors=(501,)
)
GENERATE_STREAM: Final = dataclasses.replace(GENERATE, name="generate_stream")


def settings(kind: str, method: str) -> Operation:
    """The operation that reads (GET) or changes (POST) trace or log settings.

    Args:
        kind: ``trace``, ``model_trace`` or ``log``.
        method: of HTTP.
    """
    if method == "GET":
        return Operation(f"{kind}_settings", "The settings.", answer=_SETTINGS)
    return Operation(
        f"update_{kind}_settings",
        "Changes settings.",
        body=_SETTINGS,
        optional_body=True,
        answer=_SETTINGS,
        errors=(501,),
    )
