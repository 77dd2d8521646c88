"""One server as the differential test sees it: requests go out, what counts of answers stays."""

from __future__ import annotations

import dataclasses
import gzip
import http.client
import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as pb

SERVICE = "/inference.GRPCInferenceService/"
TIMEOUT_S = 20
Headers = Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One answer: its status in a word, and what is in it when it is good."""

    status: str
    value: Any = None


@dataclasses.dataclass(frozen=True)
class Case:
    """One request, or several that make sense only together."""

    id: str
    run: Callable[[Peer], list[Outcome]]


class Peer:
    """Speaks both protocols with one server, with raw messages: no client library mends them."""

    def __init__(self, grpc_address: str, http_address: str) -> None:
        self._channel = grpc.insecure_channel(grpc_address)
        self._http = http_address

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()

    def call(
        self, method: str, message: Any, answer: Any = None, view: Callable[[Any], Any] = str
    ) -> Outcome:
        """Calls; ``view`` says what of a good answer counts."""
        data = message if isinstance(message, bytes) else message.SerializeToString()
        path = method if method.startswith("/") else SERVICE + method
        kind = answer or getattr(pb, f"{method}Response", None)
        try:
            got = self._channel.unary_unary(path)(data, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            return Outcome(error.code().name)
        return Outcome("OK", view(kind.FromString(got)) if kind else got)

    def infer(self, request: Any) -> Outcome:
        """Calls ``ModelInfer``."""
        return self.call("ModelInfer", request, view=inferred)

    def stream(self, requests: Iterable[Any]) -> list[Outcome]:
        """All answers of one stream, and how it ended."""
        call = self._channel.stream_stream(SERVICE + "ModelStreamInfer")
        found = []
        try:
            for got in call((r.SerializeToString() for r in requests), timeout=TIMEOUT_S):
                answer = pb.ModelStreamInferResponse.FromString(got)
                status = "error" if answer.error_message else "OK"
                value = None if answer.error_message else inferred(answer.infer_response)
                found.append(Outcome(status, value))
        except grpc.RpcError as error:
            return [*found, Outcome(error.code().name)]
        return [*found, Outcome("end")]

    def ask(
        self,
        method: str,
        path: str,
        body: Any = b"",
        headers: Headers | None = None,
        view: Callable[[Any], Any] = lambda found: found,
    ) -> Outcome:
        """Sends an HTTP request; a body that is no bytes goes as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection = http.client.HTTPConnection(self._http, timeout=TIMEOUT_S)
        try:
            connection.request(method, path, data or None, dict(headers or {}))
            response = connection.getresponse()
            got, given = response.read(), response.headers
        except (http.client.HTTPException, OSError):
            return Outcome("hung up")
        finally:
            connection.close()
        if response.status != 200:
            return Outcome(str(response.status))
        coding = given.get("Content-Encoding")
        got = {"gzip": gzip.decompress, "deflate": zlib.decompress}.get(coding, bytes)(got)
        if given.get("Content-Type", "").startswith("text/plain"):
            return Outcome("200", "text")
        length = given.get("Inference-Header-Content-Length")
        head, tail = (got, b"") if length is None else (got[: int(length)], got[int(length) :])
        document = json.loads(head) if head else None
        if isinstance(document, dict) and "model_version" in document:
            return Outcome("200", (_inferred(document, tail), coding))
        return Outcome("200", view(document))

    def post(self, model: str, body: Any, headers: Headers | None = None) -> Outcome:
        """Posts to a model's ``infer``."""
        return self.ask("POST", f"/v2/models/{model}/infer", body, headers)


def inferred(answer: Any) -> Any:
    """What counts of a ``ModelInferResponse``."""
    outputs = [
        (out.name, out.datatype, tuple(out.shape), raw, _parameters(out.parameters))
        for out, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)
    ]
    parameters = _parameters(answer.parameters)
    return answer.model_name, answer.model_version, answer.id, sorted(outputs), parameters


def _inferred(document: Any, tail: bytes) -> Any:
    """What counts of an answer to ``infer``: whose, and the tensors, however they are written."""
    outputs = []
    for out in document["outputs"]:
        size = out.get("parameters", {}).get("binary_data_size")
        if size is not None:
            data, tail = tail[:size], tail[size:]
        elif out["datatype"] == "FP32":
            data = np.float32(out["data"]).tolist()
        else:
            data = out["data"]
        outputs.append((out["name"], out["datatype"], out["shape"], data))
    others = {key: text for key, text in document.items() if key != "outputs"}
    return others, sorted(outputs), tail


def _parameters(given: Any) -> list[tuple[str, str]]:
    return sorted((name, str(value).strip()) for name, value in given.items())
