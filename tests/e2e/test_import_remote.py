"""Exports behind ``s3://`` and ``gs://``: s3fs and gcsfs against emulators on this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton

from tests.conftest import ServerProcess
from tests.e2e.test_real_files import infer
from tests.serving.exports import samples

pytestmark = pytest.mark.timeout(300)
BUCKET = "exports"
FOLDER = "model-7/tflite/2026-01-01T00:00:00.5Z"


class Emulator:
    """An object store on a free port of 127.0.0.1, and how a command reaches it."""

    def __init__(self, scheme: str) -> None:
        self.scheme = scheme
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        address = ["127.0.0.1", str(self._port)]
        url = f"http://127.0.0.1:{self._port}"
        if scheme == "s3":
            command = ["moto.server", "-H", address[0], "-p", address[1]]
            self.environment = {
                "FSSPEC_S3_ENDPOINT_URL": url,
                **dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "test"),
                "AWS_DEFAULT_REGION": "us-east-1",
            }
        else:
            command = ["gcp_storage_emulator", "start", "--host", address[0], "--port", address[1]]
            command += ["--in-memory", "--default-bucket", BUCKET, "--quiet"]
            self.environment = {"STORAGE_EMULATOR_HOST": url}
        self._url = url
        self.process = subprocess.Popen(
            [sys.executable, "-m", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), 1).close()
                break
            except OSError:
                if time.monotonic() > until or self.process.poll() is not None:
                    pytest.fail("the emulator does not start")
                time.sleep(0.1)
        if scheme == "s3":
            self._send("PUT", f"/{BUCKET}", b"")

    def put(self, key: str, content: bytes) -> None:
        quoted = urllib.parse.quote(key)
        if self.scheme == "s3":
            self._send("PUT", f"/{BUCKET}/{quoted}", content)
        else:
            name = urllib.parse.quote(key, safe="")
            upload = f"/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name={name}"
            self._send("POST", upload, content)

    def _send(self, method: str, path: str, content: bytes) -> None:
        asked = urllib.request.Request(
            self._url + path,
            content,
            {"Content-Type": "application/octet-stream"},
            method=method,
        )
        with urllib.request.urlopen(asked, timeout=30) as answer:
            assert answer.status == 200

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture(scope="module", params=["s3", "gs"])
def store(
    request: pytest.FixtureRequest, digits: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Emulator]:
    emulator = Emulator(request.param)
    for file in (digits / "models" / "digits_automl" / "1").iterdir():
        emulator.put(f"{FOLDER}/{file.name}", file.read_bytes())
    root = tmp_path_factory.mktemp("tabular")
    samples.tabular(root)
    for file in root.rglob("*"):
        if file.is_file():
            emulator.put(f"tabular/{file.relative_to(root).as_posix()}", file.read_bytes())
    yield emulator
    emulator.stop()


@pytest.fixture
def run(store: Emulator, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def start(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **store.environment, "XDG_CACHE_HOME": str(tmp_path / "cache")}
        command = [sys.executable, "-m", "crossfade", *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=120, check=False
        )

    return start


def test_an_export_in_a_bucket_is_served(
    store: Emulator,
    run: Callable[..., subprocess.CompletedProcess[str]],
    serve: Callable[..., ServerProcess],
    tmp_path: Path,
) -> None:
    models = tmp_path / "models"
    url = f"{store.scheme}://{BUCKET}/{FOLDER}"
    done = run("import", url, "--name", "digits", "--repository", models)
    assert done.returncode == 0, done.stderr
    assert "AutoML Vision Edge export, TFLite (Vertex AI)" in done.stdout
    done = run("import", f"{url}/model.tflite", "--name", "digits", "--repository", models)
    assert done.returncode == 0, done.stderr
    assert "digits version 2: TFLite model" in done.stdout
    server = serve("--model-repository", models)
    with triton.InferenceServerClient(server.grpc) as client:
        assert client.get_model_metadata("digits").versions == ["2"]
        scores = infer(client, "digits", image=np.zeros((1, 32, 32, 3), np.uint8))
        assert scores.as_numpy("scores").shape == (1, 10)


def test_a_tabular_export_in_a_bucket(
    store: Emulator, run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = run("inspect", f"{store.scheme}://{BUCKET}/tabular/")
    assert "AutoML Tabular export" in done.stdout, done.stderr
    assert "struct2tensor==0.48.1" in done.stdout


def test_what_is_not_there(
    store: Emulator, run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    for place in (f"{BUCKET}/nothing", "no-such-bucket/x"):
        done = run("inspect", f"{store.scheme}://{place}")
        assert done.returncode == 1
        assert "nothing at" in done.stderr
        assert "Traceback" not in done.stderr
