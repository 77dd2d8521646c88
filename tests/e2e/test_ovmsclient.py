"""OpenVINO's unmodified client of TensorFlow Serving's API, over gRPC and REST."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ServerProcess

# In a process of its own: it brings TensorFlow's messages, which TensorFlow in this one has, too.
PROGRAM = """
import json, sys
import numpy as np
import ovmsclient
model, grpc, http = "saved_model_half_plus_two_cpu", *sys.argv[1:]
for client in (ovmsclient.make_grpc_client(grpc), ovmsclient.make_http_client(http)):
    column = client.predict({"x": np.array([[1], [2], [5]], np.float32)}, model)
    flat = client.predict({"x": [1.0, 2.0, 5.0]}, model, 123)
    try:
        client.predict({"z": [1.0]}, model)
    except ovmsclient.tfs_compat.base.errors.InvalidInputError as error:
        refusal = str(error)
    try:
        client.get_model_status("no")
    except ovmsclient.tfs_compat.base.errors.ModelNotFoundError as error:
        unknown = str(error)
    status = client.get_model_status(model)
    metadata = client.get_model_metadata(model)
    line = [column.tolist(), flat.tolist(), status["123"] if "123" in status else status[123]]
    print(json.dumps([*line, "x" in json.dumps(metadata), refusal, unknown]))
"""


def test_predict_status_and_metadata(shared: Path) -> None:
    if importlib.util.find_spec("ovmsclient") is None:
        pytest.skip("ovmsclient is not installed")
    server = ServerProcess("--model-repository", str(shared / "savedmodel"))
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, server.grpc, server.http],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    finally:
        assert server.stop() == 0
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 2
    for column, flat, status, has_input, refusal, unknown in lines:
        assert column == [[2.5], [3.0], [4.5]]
        assert flat == [2.5, 3.0, 4.5]
        assert status["state"] == "AVAILABLE"
        assert has_input
        assert "input size does not match signature" in refusal
        assert "Could not find any versions of model no" in unknown
