"""What is published of TensorFlow Serving's REST API and KServe's first protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from crossfade.serving.tensors.json_rows import REQUEST, RESPONSE
from crossfade.serving.transport.operation import Operation

Schema = Mapping[str, Any]
_TEXT: Final[Schema] = {"type": "string"}
_EXAMPLES: Final[Schema] = {
    "type": "object",
    "required": ["examples"],
    "properties": {
        "signature_name": _TEXT,
        "context": {"type": "object"},
        "examples": {"type": "array", "minItems": 1, "items": {"type": "object"}},
    },
}
_RESULTS: Final[Schema] = {
    "type": "object",
    "required": ["results"],
    "properties": {"results": {"type": "array"}},
}
_STATUS: Final[Schema] = {
    "type": "object",
    "required": ["model_version_status", "name", "ready"],
    "properties": {
        "model_version_status": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["version", "state", "status"],
                "properties": {
                    "version": _TEXT,
                    "state": {"enum": ["START", "LOADING", "AVAILABLE", "UNLOADING", "END"]},
                    "status": {
                        "type": "object",
                        "properties": {"error_code": _TEXT, "error_message": _TEXT},
                    },
                },
            },
        },
        "name": _TEXT,
        "ready": {"type": "boolean"},
    },
}

PREDICT: Final = Operation(
    "predict",
    "Runs a model on rows (instances) or columns (inputs).",
    body=REQUEST,
    answer=RESPONSE,
    errors=(504,),
)
CLASSIFY: Final = Operation(
    "classify", "Classifies examples.", body=_EXAMPLES, answer=_RESULTS, errors=(504,)
)
REGRESS: Final = Operation(
    "regress", "Regresses on examples.", body=_EXAMPLES, answer=_RESULTS, errors=(504,)
)
METADATA: Final = Operation(
    "signatures",
    "A model's signatures.",
    answer={
        "type": "object",
        "required": ["model_spec", "metadata"],
        "properties": {"model_spec": {"type": "object"}, "metadata": {"type": "object"}},
    },
)
STATUS: Final = Operation(
    "model_status", "The states of a model's versions, and whether it is ready.", answer=_STATUS
)
MODELS: Final = Operation(
    "models",
    "The models that are served.",
    answer={
        "type": "object",
        "required": ["models"],
        "properties": {"models": {"type": "array", "items": _TEXT}},
    },
)
ALIVE: Final = Operation(
    "alive",
    "Is the server up?",
    answer={
        "type": "object",
        "required": ["status"],
        "properties": {"status": {"const": "alive"}},
    },
)
