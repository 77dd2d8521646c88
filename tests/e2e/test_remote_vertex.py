"""A Vertex AI endpoint as a member: a strict stand-in for it, and for Google's tokens.

It speaks the public contract (``instances`` and ``parameters`` in, ``predictions`` and
``deployedModelId`` out, errors as ``{"error": {code, message, status}}``), takes only tokens that
its own token endpoint has signed for, and knows AutoML's forms of image and tabular instances.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import pytest
import tritonclient.grpc as triton
import yaml
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.conftest import ServerProcess

BASE = "/v1/projects/p/locations/r/endpoints"
IMAGE, TABLE, BUSY, DENIED = (f"{BASE}/{name}:predict" for name in ("1", "2", "3", "4"))


class Google(ThreadingHTTPServer):
    """The endpoints and the token endpoint."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.key = rsa.generate_private_key(65537, 2048)
        self.tokens: list[str] = []
        self.bodies: list[Any] = []
        self.refusals = 1

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def account(self, path: Path) -> Path:
        """A service account's file, as Google writes it."""
        pem = self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        document = {
            "type": "service_account",
            "project_id": "p",
            "private_key_id": "k",
            "private_key": pem.decode(),
            "client_email": "crossfade@p.iam.gserviceaccount.com",
            "client_id": "1",
            "token_uri": f"{self.url}/token",
        }
        path.write_text(json.dumps(document))
        return path

    def grant(self, form: str) -> dict[str, Any]:
        """A token for a signed assertion."""
        head, claims, signature = parse_qs(form)["assertion"][0].split(".")
        self.key.public_key().verify(
            base64.urlsafe_b64decode(signature + "=="),
            f"{head}.{claims}".encode(),
            padding.PKCS1v15(),
            hashes.SHA256(),
        )
        found = json.loads(base64.urlsafe_b64decode(claims + "=="))
        assert found["iss"] == "crossfade@p.iam.gserviceaccount.com"
        assert found["scope"] == "https://www.googleapis.com/auth/cloud-platform"
        self.tokens.append(f"ya29.{len(self.tokens)}")
        return {"access_token": self.tokens[-1], "expires_in": 3600, "token_type": "Bearer"}

    def predict(self, path: str, document: Any) -> tuple[int, Any]:
        assert document.keys() <= {"instances", "parameters"}
        self.bodies.append(document)
        if path == BUSY and self.refusals:
            self.refusals -= 1
            return 429, _error(429, "RESOURCE_EXHAUSTED")
        if path == DENIED:
            return 403, _error(403, "PERMISSION_DENIED")
        answer = self._image if path == IMAGE else self._row
        predictions = [answer(instance) for instance in document["instances"]]
        return 200, {"predictions": predictions, "deployedModelId": "7", "model": "projects/p/m"}

    def _image(self, instance: Any) -> Any:
        size = len(base64.b64decode(instance["content"], validate=True))
        names = ["rose", "tulip"]
        return {"ids": ["1", "2"], "displayNames": names, "confidences": [1 / size, 0.25]}

    def _row(self, instance: Any) -> Any:
        assert {type(value) for value in instance.values()} == {str}
        return {"classes": ["no", "yes"], "scores": [0.1, float(instance["age"]) / 100]}


def _error(code: int, status: str) -> Any:
    return {"error": {"code": code, "message": "at 10.1.2.3: no", "status": status}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Google

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/token":
            return self._answer(200, self.server.grant(body.decode()))
        token = (self.headers["authorization"] or "").removeprefix("Bearer ")
        if token not in self.server.tokens:
            return self._answer(401, _error(401, "UNAUTHENTICATED"))
        return self._answer(*self.server.predict(self.path, json.loads(body)))

    def _answer(self, status: int, document: Any) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def google() -> Iterator[Google]:
    with Google() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def text(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "dtype": "BYTES", "shape": [-1]} for name in names]


IMAGES = {
    "inputs": [{"name": "content", "dtype": "BYTES", "shape": [-1], "encoding": "base64"}],
    "outputs": [
        {"name": "displayNames", "dtype": "BYTES", "shape": [-1, -1]},
        {"name": "confidences", "dtype": "FP32", "shape": [-1, -1]},
    ],
    "parameters": {"confidenceThreshold": 0.2, "maxPredictions": 5},
}
ROWS = {
    "inputs": text("age", "town"),
    "outputs": [
        {"name": "classes", "dtype": "BYTES", "shape": [-1, 2]},
        {"name": "scores", "dtype": "FP64", "shape": [-1, 2]},
    ],
}


@pytest.fixture(scope="module")
def near(google: Google, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    root = tmp_path_factory.mktemp("near")
    (root / "token").write_text("nobody.knows.it")
    members = {
        "image": {"url": google.url + IMAGE, **IMAGES, "google_auth": True},
        "table": {"url": google.url + TABLE, **ROWS, "google_auth": True},
        "busy": {"url": google.url + BUSY, **ROWS, "google_auth": True},
        "denied": {"url": google.url + DENIED, **ROWS, "google_auth": True},
        "unknown": {"url": google.url + TABLE, **ROWS, "token_file": str(root / "token")},
    }
    for name, options in members.items():
        (root / "models" / name).mkdir(parents=True)
        config = {"platform": "remote", "options": {"protocol": "vertex", **options}}
        (root / "models" / name / "model.yaml").write_text(yaml.safe_dump(config))
    server = ServerProcess(
        *("--model-repository", str(root / "models")),
        environment={"GOOGLE_APPLICATION_CREDENTIALS": str(google.account(root / "sa.json"))},
    )
    yield server
    assert server.stop() == 0


def infer(server: ServerProcess, model: str, **inputs: list[bytes]) -> Any:
    tensors = []
    for name, values in inputs.items():
        tensors.append(triton.InferInput(name, [len(values)], "BYTES"))
        tensors[-1].set_data_from_numpy(np.array(values, object))
    with triton.InferenceServerClient(server.grpc) as client:
        return client.infer(model, tensors)


def test_pictures(google: Google, near: ServerProcess) -> None:
    found = infer(near, "image", content=[b"\xff\xd8", b"\xff\xd8\xff\xe0"])
    assert found.as_numpy("displayNames").tolist() == [[b"rose", b"tulip"]] * 2
    assert found.as_numpy("confidences").tolist() == [[0.5, 0.25], [0.25, 0.25]]
    assert google.bodies[-1]["parameters"] == IMAGES["parameters"]


def test_rows(google: Google, near: ServerProcess) -> None:
    found = infer(near, "table", age=[b"42"], town=["Zürich".encode()])
    assert found.as_numpy("classes").tolist() == [[b"no", b"yes"]]
    assert found.as_numpy("scores").tolist() == [[0.1, 0.42]]
    assert google.bodies[-1] == {"instances": [{"age": "42", "town": "Zürich"}]}
    with pytest.raises(triton.InferenceServerException, match="'encoding'") as failed:
        infer(near, "table", age=[b"\xff"], town=[b""])
    assert failed.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_a_token_is_kept(google: Google, near: ServerProcess) -> None:
    infer(near, "table", age=[b"1"], town=[b""])
    before = len(google.tokens)
    for _ in range(5):
        infer(near, "table", age=[b"1"], town=[b""])
    assert len(google.tokens) == before


def test_too_many_requests_are_sent_again(google: Google, near: ServerProcess) -> None:
    assert infer(near, "busy", age=[b"1"], town=[b""]).as_numpy("classes") is not None
    assert google.refusals == 0


@pytest.mark.parametrize("model", ["denied", "unknown"])
def test_who_may_not(near: ServerProcess, model: str) -> None:
    with pytest.raises(triton.InferenceServerException, match="does not let this server in") as no:
        infer(near, model, age=[b"1"], town=[b""])
    assert no.value.status() == "StatusCode.FAILED_PRECONDITION"
    assert "10.1.2.3" not in str(no.value)
