"""``crossfade-tf-serving`` in a process of its own, and models that answer with their number."""

from __future__ import annotations

import json
import socket
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ServerProcess

PROGRAM = "import sys; from crossfade.serving.cli.tf_serving import main; sys.exit(main())"
COMMAND = (
    *(sys.executable, "-c", PROGRAM, "--host", "127.0.0.1", "--log-format", "json"),
    *("--probe", "never"),
)
Start = Callable[..., ServerProcess]


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts servers with TensorFlow Serving's flags; stops them all at the end."""
    started: list[ServerProcess] = []

    def begin(*flags: str | Path, wait_ready: bool = True) -> ServerProcess:
        server = ServerProcess(*map(str, flags), wait_ready=wait_ready, command=COMMAND)
        started.append(server)
        return server

    yield begin
    for server in started:
        assert server.stop() == 0 or server.process.returncode in (1, 2)


def write(base: Path, version: int, answer: float | None = None, **fake: Any) -> Path:
    """A version whose output ``y`` is ``answer``, its own number by default, for each row."""
    content = {
        "inputs": [{"name": "x", "dtype": "FP32", "shape": [-1]}],
        "outputs": [
            {"name": "y", "dtype": "FP32", "shape": [-1], "value": answer or version},
        ],
        **fake,
    }
    folder = base / str(version)
    scratch = base.parent / f".{base.name}-{version}"
    scratch.mkdir(parents=True)
    (scratch / "fake.yaml").write_text(json.dumps(content))
    base.mkdir(exist_ok=True)
    scratch.rename(folder)
    return base


def config(*entries: str) -> str:
    inside = "\n".join(f"config {{ {entry} }}" for entry in entries)
    return f"model_config_list {{\n{inside}\n}}\n"


def entry(name: str, base: Path, more: str = "") -> str:
    return f'name: "{name}" base_path: "{base}" model_platform: "tensorflow" {more}'


def get(url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=20) as answer:
        text = answer.read()
        return json.loads(text) if "json" in answer.headers["content-type"] else text.decode()


def predicted(server: ServerProcess, model: str, where: str = "") -> float:
    """What the model answers over REST."""
    url = f"http://{server.http}/v1/models/{model}{where}:predict"
    return float(get(url, {"instances": [1.0]})["predictions"][0])
