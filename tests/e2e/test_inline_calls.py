"""A model that was quick a thousand times and then hangs holds nobody up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton

from tests.conftest import ServerProcess

STALLS = """
behaviour: echo
delay_ms: 2500
delay_when: {input: x, value: 13}
inputs: [{name: x, dtype: INT32, shape: [-1, 2]}]
"""


def ask(client: Any, value: int) -> Any:
    x = np.array([[value, 2]], dtype=np.int32)
    tensor = triton.InferInput("x", x.shape, "INT32")
    tensor.set_data_from_numpy(x)
    return client.infer("stalls", [tensor]).as_numpy("x")


def test_a_call_that_hangs_where_it_was_received(
    serve: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    version = tmp_path / "stalls" / "1"
    version.mkdir(parents=True)
    (version / "fake.yaml").write_text(STALLS)
    server = serve("--model-repository", tmp_path)
    with triton.InferenceServerClient(server.grpc) as client:
        for value in range(20, 70):
            ask(client, value)
        stalled: list[Any] = []
        threads = [
            threading.Thread(target=lambda: stalled.append(ask(client, 13))) for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        time.sleep(0.1)
        began_s = time.monotonic()
        assert client.is_server_live()
        assert client.is_server_ready()
        assert time.monotonic() - began_s < 1.5
        for thread in threads:
            thread.join(20)
        assert [answer[0, 0] for answer in stalled] == [13, 13, 13]
        assert ask(client, 7)[0, 0] == 7
    server.terminate()
    assert server.process.wait(20) == 0
    assert not any(line["severity"] == "ERROR" for line in server.lines)
