"""What Vertex AI tells a container, by its environment."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Final

from crossfade.runtimes.core.errors import InvalidArgument

# Requests and answers of a public endpoint; its proxy cuts what is larger.
MAX_PAYLOAD_BYTES: Final = 3 * 512 * 1024
_DEFAULT_PORT: Final = 8080
# What the SDK's local endpoints use, which have no ids.
_LOCAL_ROUTES: Final = ("/health", "/predict")
_ROUTE: Final = re.compile(r"/[A-Za-z0-9/._~!$&'()*+,;=:@%-]*")
_ID: Final = re.compile(r"[A-Za-z0-9_-]+")


@dataclasses.dataclass(frozen=True, slots=True)
class VertexConfig:
    """How a server answers Vertex AI.

    Attributes:
        port: what Vertex AI sends requests to.
        health_route, predict_route: their paths.
        storage_uri: where Vertex AI put the model's files; empty if nowhere.
        default_model: who answers requests that name no model; empty is the only one there is.
        max_payload_bytes: the most that a request or an answer may have.
    """

    port: int = _DEFAULT_PORT
    health_route: str = _LOCAL_ROUTES[0]
    predict_route: str = _LOCAL_ROUTES[1]
    storage_uri: str = ""
    default_model: str = ""
    max_payload_bytes: int = MAX_PAYLOAD_BYTES


def is_vertex(environment: Mapping[str, str]) -> bool:
    """Whether this process runs in a container that Vertex AI has started for predictions."""
    return environment.get("AIP_MODE") == "PREDICTION"


def read(environment: Mapping[str, str]) -> VertexConfig:
    """Reads the variables ``AIP_…``; what is not there is as Vertex AI has it by default.

    Raises:
        InvalidArgument: one of them is not what Vertex AI would say.
    """
    port = environment.get("AIP_HTTP_PORT") or str(_DEFAULT_PORT)
    if not port.isascii() or not port.isdigit() or not 0 < int(port) <= 65535:
        raise InvalidArgument("AIP_HTTP_PORT is not a port (1 to 65535)")
    health, predict = _default_routes(environment)
    return VertexConfig(
        int(port),
        _route(environment, "AIP_HEALTH_ROUTE", health),
        _route(environment, "AIP_PREDICT_ROUTE", predict),
        environment.get("AIP_STORAGE_URI", ""),
    )


def _default_routes(environment: Mapping[str, str]) -> tuple[str, str]:
    ids = [environment.get(name, "") for name in ("AIP_ENDPOINT_ID", "AIP_DEPLOYED_MODEL_ID")]
    if not all(map(_ID.fullmatch, ids)):
        return _LOCAL_ROUTES
    route = f"/v1/endpoints/{ids[0]}/deployedModels/{ids[1]}"
    return route, f"{route}:predict"


def _route(environment: Mapping[str, str], name: str, default: str) -> str:
    route = environment.get(name) or default
    if not _ROUTE.fullmatch(route):
        raise InvalidArgument(f"{name} is not a path that begins with '/'")
    return route
