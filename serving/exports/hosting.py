"""What cannot be hosted, and what to do instead."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from crossfade.serving.exports.kinds import Export, Kind

_AGAIN: Final = (
    "export the same model again with Model.export_model(export_format_id='tflite',"
    " artifact_destination='gs://…') (or 'tf-saved-model' for a container) and import that"
)
_RESOURCE: Final = re.compile(r"projects/[^/]+/locations/[^/]+/models/[^/]+")
_MAX_JSON_BYTES: Final = 64 << 20


def refusal(export: Export) -> str:
    """Why an export cannot be hosted here and what to do instead; empty where it can be."""
    if export.kind is Kind.TF_JS:
        return f"TF.js models run in browsers and are not hosted here: {_AGAIN}"
    if export.kind is Kind.CORE_ML:
        return f"Core ML models run on Apple's systems and are not hosted here: {_AGAIN}"
    if export.kind is Kind.VERTEX_MODEL:
        return _not_exported(read_json(export.model))
    return ""


def is_resource(location: str) -> bool:
    """Whether a place is the name of a model in Vertex AI, and no place at all."""
    return _RESOURCE.fullmatch(location.strip("/")) is not None


def of_resource(location: str) -> str:
    """What to do with the name of a model in Vertex AI."""
    return (
        f"'{location}' is a model in Vertex AI, not an export of it: export it with"
        f" aiplatform.Model('{location}').export_model(export_format_id=…, artifact_destination="
        "'gs://…') and give that place; CLOUD_* models have no export format"
    )


def describes_vertex_model(document: Mapping[str, Any]) -> bool:
    """Whether JSON is what ``gcloud ai models describe --format=json`` prints."""
    return isinstance(document.get("name"), str) and is_resource(document["name"])


def read_json(path: Path) -> Mapping[str, Any]:
    """A JSON object in a file; empty where there is none."""
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            return {}
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _not_exported(document: Mapping[str, Any]) -> str:
    formats = document.get("supportedExportFormats")
    ids = [
        str(each["id"])
        for each in (formats if isinstance(formats, list) else [])
        if isinstance(each, dict) and "id" in each
    ]
    if ids:
        return (
            f"this describes a model in Vertex AI and is no export: export it as one of"
            f" {', '.join(ids)} with Model.export_model and import that"
        )
    return (
        "this describes a model in Vertex AI that cannot be exported (CLOUD_* models cannot): leave"
        " it on its Vertex AI endpoint, or train an edge model (MOBILE_TF_*) or a custom one on the"
        " same data and import that"
    )
