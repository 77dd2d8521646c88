"""What is published of the routes of fades and feedback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from crossfade.serving.transport.operation import Operation

Schema = Mapping[str, Any]
_TEXT: Final[Schema] = {"type": "string"}
_NUMBER: Final[Schema] = {"type": "number"}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_LINE: Final[dict[str, Schema]] = {
    "name": _TEXT,
    "from": _TEXT,
    "to": _TEXT,
    "status": {"enum": ["RUNNING", "PAUSED", "PROMOTED", "RETIRED", "ROLLED_BACK"]},
    "step": _COUNT,
    "steps": _COUNT,
    "traffic_percent": _NUMBER,
    "mirror_percent": _NUMBER,
    "version": _COUNT,
}
_STATUS: Final[Schema] = {
    "type": "object",
    "required": [*_LINE, "findings", "missing", "last_decision"],
    "properties": {
        **_LINE,
        "step_seconds": _NUMBER,
        "min_time_s": _NUMBER,
        "samples": _COUNT,
        "min_samples": _COUNT,
        "labels": _COUNT,
        "findings": {"type": "array", "items": {"type": "object"}},
        "missing": {"type": "array", "items": _TEXT},
        "last_decision": {"type": "object"},
        "answered": {"type": "object", "additionalProperties": _COUNT},
        "label": {"type": ["string", "null"]},
        "plan": {"type": "object"},
    },
}
_OUTCOMES: Final[Schema] = {"enum": ["joined", "waiting", "repeated", "conflict"]}

LIST: Final = Operation(
    "fades",
    "The newest fade of each name.",
    answer={
        "type": "array",
        "items": {"type": "object", "required": list(_LINE), "properties": _LINE},
    },
    errors=(409,),
)
START: Final = Operation(
    "start_fade",
    "Starts a fade.",
    body={
        "type": "object",
        "required": ["from", "to"],
        "properties": {"from": _TEXT, "to": _TEXT, "plan": {"type": ["string", "object"]}},
    },
    answer=_STATUS,
    errors=(409, 501),
)
STATUS: Final = Operation(
    "fade_status", "Where a fade stands, and what it waits for.", answer=_STATUS, errors=(409,)
)
HISTORY: Final = Operation(
    "fade_history",
    "All decisions of a fade, with the evidence.",
    answer={
        "type": "object",
        "required": ["name", "from", "to", "plan", "decisions"],
        "properties": {
            "name": _TEXT,
            "from": _TEXT,
            "to": _TEXT,
            "plan": {"type": "object"},
            "decisions": {"type": "array", "items": {"type": "object"}},
        },
    },
    errors=(409,),
)
ACT: Final = Operation(
    "act_on_fade",
    "Pauses, resumes, promotes, rolls back a fade, or retires its primary.",
    body={"type": "object", "properties": {"reason": _TEXT, "force": {"type": "boolean"}}},
    optional_body=True,
    answer=_STATUS,
    errors=(409,),
)
FEEDBACK: Final = Operation(
    "record_feedback",
    "Takes what would have been right, by request id.",
    body={
        "type": "object",
        "required": ["truths"],
        "properties": {
            "truths": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "required": ["id", "truth"],
                    "properties": {"id": _TEXT, "truth": _TEXT},
                },
            }
        },
    },
    answer={
        "type": "object",
        "required": ["truths"],
        "properties": {
            "truths": {
                "type": "array",
                "items": {"type": "object", "properties": {"id": _TEXT, "outcome": _OUTCOMES}},
            }
        },
    },
    errors=(409,),
)
