"""What the environment of a container on Vertex AI says."""

from __future__ import annotations

import pytest

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.serving.config.vertex_config import VertexConfig, is_vertex, read

ON_VERTEX = {
    "AIP_MODE": "PREDICTION",
    "AIP_HTTP_PORT": "8081",
    "AIP_ENDPOINT_ID": "12",
    "AIP_DEPLOYED_MODEL_ID": "34",
    "AIP_STORAGE_URI": "gs://bucket/folder",
}


def test_where_it_runs() -> None:
    assert is_vertex(ON_VERTEX)
    assert not is_vertex({})
    assert not is_vertex({"AIP_MODE": "TRAINING"})


def test_routes_by_the_ids() -> None:
    assert read(ON_VERTEX) == VertexConfig(
        8081,
        "/v1/endpoints/12/deployedModels/34",
        "/v1/endpoints/12/deployedModels/34:predict",
        "gs://bucket/folder",
    )


def test_routes_that_the_model_was_uploaded_with() -> None:
    told = read({**ON_VERTEX, "AIP_HEALTH_ROUTE": "/v2/health/ready", "AIP_PREDICT_ROUTE": "/p"})
    assert (told.health_route, told.predict_route) == ("/v2/health/ready", "/p")


def test_elsewhere() -> None:
    assert read({}) == VertexConfig(8080, "/health", "/predict", "")
    assert read({"AIP_ENDPOINT_ID": "1"}).predict_route == "/predict"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("AIP_HTTP_PORT", port) for port in ("0", "65536", "http", "-1", "8080 ", "٣")),
        *(
            ("AIP_HEALTH_ROUTE", route)
            for route in ("health", "/a b", "/a?b", "/{a}", "/é", "//\n")
        ),
        ("AIP_PREDICT_ROUTE", "http://x/"),
    ],
)
def test_what_vertex_would_never_say(name: str, value: str) -> None:
    with pytest.raises(InvalidArgument, match=name):
        read({**ON_VERTEX, name: value})
