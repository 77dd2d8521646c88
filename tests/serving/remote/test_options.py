"""What may be said of a model of another server, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from crossfade.runtimes import registry
from crossfade.runtimes.core.errors import LoadFailed
from crossfade.runtimes.core.model import Artifact
from crossfade.serving.remote.options import RemoteOptions

TENSOR = {"name": "x", "dtype": "FP32", "shape": [-1]}
DECLARED = {"inputs": [TENSOR], "outputs": [TENSOR]}
GRPC = {"protocol": "open_inference_grpc", "url": "far.example.com:8001"}
HTTP = {"protocol": "open_inference_http", "url": "http://far.example.com:8000"}
VERTEX = {"protocol": "vertex", "url": "https://r-aiplatform.googleapis.com/v1/p:predict"}


@pytest.mark.parametrize(
    "options",
    [
        GRPC,
        {**GRPC, "url": "[::1]:8001"},
        {**GRPC, "tls": {"ca_file": "ca.pem"}, "token_file": "token"},
        {**GRPC, "url": "127.0.0.1:8001", "token_file": "token"},
        {**HTTP, "url": "https://far.example.com/prefix", "google_auth": True},
        {**HTTP, "url": "http://localhost:8000", "token_file": "token"},
        {**HTTP, "headers": {"x-api-key": "abc def"}},
        {**VERTEX, **DECLARED, "google_auth": True, "parameters": {"top": 3}},
    ],
)
def test_taken(options: dict[str, Any]) -> None:
    assert RemoteOptions.read(options)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "option 'protocol': field required; option 'url': field required"),
        ({**GRPC, "protocol": "smoke"}, "input should be 'open_inference_grpc'"),
        ({**GRPC, "protocl": "x"}, "option 'protocl' is unknown; did you mean 'protocol'?"),
        ({**GRPC, "url": "http://far:8001"}, "url must be host:port"),
        ({**GRPC, "url": "far"}, "url must be host:port"),
        ({**GRPC, "url": "unix:/run/x.sock"}, "url must be host:port"),
        ({**HTTP, "url": "far:8000"}, "url must be http://"),
        ({**HTTP, "url": "file:///etc/passwd"}, "url must be http://"),
        ({**HTTP, "url": "http://far:0"}, "url must be http://"),
        ({**HTTP, "url": "http://far:99999"}, "url must be http://"),
        ({**HTTP, "url": "http://user:secret@far"}, "url must be http://"),
        ({**HTTP, "url": "http://far/a b"}, "characters that no URL has"),
        ({**HTTP, "url": "http://far/a\r\nx: y"}, "characters that no URL has"),
        ({**HTTP, "tls": {}}, "tls needs an https url"),
        ({**HTTP, "model": "a/../b"}, "option 'model'"),
        ({**HTTP, "headers": {"Host": "x"}}, "is no header that can be set"),
        ({**HTTP, "headers": {"content-length": "1"}}, "is no header that can be set"),
        ({**HTTP, "headers": {"x-y": "a\r\nb: c"}}, "the value of 'x-y' cannot be sent"),
        ({**HTTP, "token_file": "token"}, "a token is not sent in the clear"),
        ({**GRPC, "token_file": "token"}, "a token is not sent in the clear"),
        ({**GRPC, "tls": {"cert_file": "c.pem"}}, "cert_file and key_file go together"),
        ({**GRPC, "signature": "s"}, "open_inference_grpc has no signatures"),
        ({**GRPC, "parameters": {"a": 1}}, "parameters are for vertex"),
        ({**GRPC, "inputs": [TENSOR]}, "declare inputs and outputs, or neither"),
        ({**GRPC, "inputs": [{**TENSOR, "dtype": "FLOAT"}]}, "unknown dtype"),
        ({**GRPC, "retries": 99}, "option 'retries'"),
        ({**GRPC, "timeout_ms": 0}, "option 'timeout_ms'"),
        (VERTEX, "vertex has no metadata: declare inputs and outputs"),
        ({**VERTEX, **DECLARED, "google_auth": True, "token_file": "t"}, "give token_file or"),
    ],
)
def test_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(LoadFailed) as failed:
        RemoteOptions.read(options)
    assert reason in failed.value.message


@pytest.mark.parametrize("content", ["", "- a", "a: [", "\xff", "{" * 5000, "a: 2001-99-99"])
def test_a_file_that_is_none(tmp_path: Path, content: str) -> None:
    file = tmp_path / "remote.yaml"
    file.write_text(content, "latin-1")
    with pytest.raises(LoadFailed, match=r"remote\.yaml") as failed:
        registry.create("remote").load(Artifact(file, "m", 1))
    assert str(tmp_path) not in failed.value.message


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"token_file": "none"}, "option 'token_file': the file cannot be read"),
        ({"tls": {"ca_file": "none.pem"}}, "option 'tls': a file cannot be"),
    ],
)
@pytest.mark.parametrize("options", [GRPC, {**HTTP, "url": "https://far"}])
def test_files_that_are_not_there(
    tmp_path: Path, options: dict[str, Any], more: dict[str, Any], reason: str
) -> None:
    chosen = {**options, "tls": {}, **more, **DECLARED}
    with pytest.raises(LoadFailed) as failed:
        registry.create("remote").load(Artifact(tmp_path, "m", 1, options=chosen))
    assert reason in failed.value.message
    assert str(tmp_path) not in failed.value.message


def test_declared_tensors_need_no_server(tmp_path: Path) -> None:
    session = registry.create("remote").load(
        Artifact(tmp_path, "m", 1, options={**GRPC, **DECLARED})
    )
    (signature,) = session.signatures.values()
    assert signature.batched
    session.close()


def test_weights_elsewhere_take_no_memory_here(tmp_path: Path) -> None:
    assert registry.create("remote").estimate(Artifact(tmp_path, "far", 1)) == 0
