"""``--grpc-socket`` and ``--http-timeout-s`` of ``crossfade serve``, with NVIDIA's clients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from tritonclient.utils import InferenceServerException

from tests.conftest import ServerProcess

SLOW = """
behaviour: sleep
delay_ms: 4000
delay_when: {input: x, value: 99}
inputs: [{name: x, dtype: INT32, shape: [-1, 2]}]
"""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    version = tmp_path / "models" / "slow" / "1"
    version.mkdir(parents=True)
    (version / "fake.yaml").write_text(SLOW)
    (version.parent / "model.yaml").write_text("instances: 2")  # one stays busy for a while
    return tmp_path / "models"


def infer(api: Any, client: Any, value: int) -> Any:
    x = np.full((1, 2), value, np.int32)
    tensor = api.InferInput("x", x.shape, "INT32")
    tensor.set_data_from_numpy(x)
    return client.infer("slow", [tensor])


def test_socket(serve: Callable[..., ServerProcess], models: Path, tmp_path: Path) -> None:
    path = tmp_path / "grpc.sock"
    server = serve(
        *("--model-repository", models, "--grpc-socket", path),
        *("--model-control-mode", "explicit"),
    )
    with grpc_client.InferenceServerClient(f"unix:{path}") as client:
        client.load_model("slow")  # an administrator's call, from this machine
        assert infer(grpc_client, client, 1).get_response().model_name == "slow"
    with grpc_client.InferenceServerClient(server.grpc) as client:  # and the port answers, too
        assert infer(grpc_client, client, 1).get_response().model_name == "slow"
    assert server.stop() == 0
    assert not path.exists()


def test_timeout(serve: Callable[..., ServerProcess], models: Path) -> None:
    server = serve("--model-repository", models, "--http-timeout-s", "0.3")
    with http_client.InferenceServerClient(server.http, concurrency=1) as client:
        with pytest.raises(InferenceServerException) as caught:
            infer(http_client, client, 99)
        assert caught.value.status() == "504"
        assert infer(http_client, client, 1).get_response()["model_name"] == "slow"
