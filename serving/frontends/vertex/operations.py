"""What is published of Vertex AI's routes."""

from __future__ import annotations

from typing import Final

from crossfade.serving.frontends.vertex import redirect
from crossfade.serving.transport.operation import Operation

HEALTH: Final = Operation(
    "vertex_health",
    "Could the default model answer now?",
    answer={"type": "object"},
    also={503: {"type": "object"}},
)
_BYTES: Final = {"type": "string", "format": "binary"}
PREDICT: Final = Operation(
    "vertex_predict",
    "Runs the default model on instances, or does what the header says.",
    body={
        "type": "object",
        "properties": {
            "instances": {"type": "array", "minItems": 1},
            "parameters": {
                "type": ["object", "null"],
                "properties": {"signature_name": {"type": ["string", "null"]}},
            },
            "inputs": {
                "type": "array",
                "description": "inputs of the Open Inference Protocol",
                "items": {"type": "object"},
            },
        },
        "oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}],
    },
    optional_body=True,  # where the header asks for something without one
    # By the header any answer of the Open Inference Protocol, and the metrics.
    answer={},
    media={f"{redirect.BINARY_MEDIA};json-header-size=0": _BYTES},
    answer_media={"application/octet-stream": _BYTES, "text/plain": {"type": "string"}},
    errors=(404, 409, 501, 504),
    parameters=(
        {
            "name": redirect.HEADER,
            "in": "header",
            "required": False,
            "description": "the path of the Open Inference Protocol that is meant, or metrics",
            "schema": {"type": "string", "pattern": "^(v2(/[A-Za-z0-9._/-]*)?|metrics)$"},
        },
    ),
)
