"""One trace through every contract, two servers and an ensemble, as a collector receives it."""

from __future__ import annotations

import http.server
import json
import queue
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from crossfade.benchmarks.processes import free_ports
from crossfade.serving.wire import tf_serving
from tests.conftest import ServerProcess
from tests.serving.lifecycle.folders import Repository

PARENT = "b7ad6b7169203331"
ROW = [0.25, 0.75]


class Collector:
    """Takes what OpenTelemetry's protocol sends over HTTP."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Span]] = []  # with the service's name
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.take(self.path, ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self, path: str, request: ExportTraceServiceRequest) -> None:
        assert path == "/v1/traces"
        for one in request.resource_spans:
            (service,) = (a.value for a in one.resource.attributes if a.key == "service.name")
            for scope in one.scope_spans:
                self.spans += [(service.string_value, span) for span in scope.spans]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def said(span: Span) -> dict[str, str | int]:
    """Our attributes."""
    return {
        one.key.removeprefix("crossfade."): one.value.string_value or one.value.int_value
        for one in span.attributes
    }


def headers(trace: str) -> dict[str, str]:
    return {"traceparent": f"00-{trace}-{PARENT}-01", "tracestate": "vendor=1"}


def over_grpc(server: ServerProcess, given: Mapping[str, str], model: str = "both") -> None:
    with triton.InferenceServerClient(server.grpc) as client:
        tensor = triton.InferInput("x", [1, 2], "FP32")
        tensor.set_data_from_numpy(np.array([ROW], np.float32))
        client.infer(model, [tensor], headers=dict(given), request_id="seven")


def over_a_stream(server: ServerProcess, given: Mapping[str, str]) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with triton.InferenceServerClient(server.grpc) as client:
        client.start_stream(lambda result, error: answers.put((result, error)), headers=dict(given))
        tensor = triton.InferInput("x", [1, 2], "FP32")
        tensor.set_data_from_numpy(np.array([ROW], np.float32))
        client.async_stream_infer("both", [tensor])
        assert answers.get(timeout=20)[1] is None
        client.stop_stream()


def over_http(server: ServerProcess, given: Mapping[str, str]) -> None:
    with triton_http.InferenceServerClient(server.http) as client:
        tensor = triton_http.InferInput("x", [1, 2], "FP32")
        tensor.set_data_from_numpy(np.array([ROW], np.float32))
        client.infer("both", [tensor], headers=dict(given))


def over_predict(server: ServerProcess, given: Mapping[str, str]) -> None:
    request = tf_serving.PredictRequest()
    request.model_spec.name = "both"
    request.inputs["x"].dtype = 1
    for size in (1, 2):
        request.inputs["x"].tensor_shape.dim.add(size=size)
    request.inputs["x"].float_val.extend(ROW)
    with grpc.insecure_channel(server.grpc) as channel:
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        call(request.SerializeToString(), metadata=list(given.items()), timeout=20)


def over_json(path: str) -> Callable[[ServerProcess, Mapping[str, str]], None]:
    def ask(server: ServerProcess, given: Mapping[str, str]) -> None:
        body = json.dumps({"instances": [ROW]}).encode()
        request = urllib.request.Request(f"http://{server.http}{path}", body, dict(given))
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert answer.status == 200

    return ask


# By trace: how it is asked, and what the span says of that.
WAYS: dict[str, tuple[Callable[[ServerProcess, Mapping[str, str]], None], str, str]] = {
    "1" * 32: (over_grpc, "open_inference", "grpc"),
    "2" * 32: (over_a_stream, "open_inference", "grpc"),
    "3" * 32: (over_http, "open_inference", "http"),
    "4" * 32: (over_predict, "tensorflow_serving", "grpc"),
    "5" * 32: (over_json("/v1/models/both:predict"), "tensorflow_serving", "http"),
    "6" * 32: (over_json("/predict"), "vertex", "http"),
}
FAILED = "7" * 32


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    started = Collector()
    yield started
    started.close()


def repository(folder: Path, **models: dict[str, Any]) -> Repository:
    found = Repository(folder)
    for name, config in models.items():
        found.configure(name, **config)
    return found


def remote(protocol: str, url: str) -> dict[str, Any]:
    return {"platform": "remote", "options": {"protocol": protocol, "url": url, "model": "far"}}


@pytest.fixture(scope="module")
def collected(
    collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[str, Span]]:
    """The spans of two servers that were asked each way, and have ended since."""
    folder = tmp_path_factory.mktemp("traces")
    scores = {
        "inputs": [{"name": "x", "dtype": "FP32", "shape": [-1, 2]}],
        "outputs": [{"name": "y", "from": "x"}],
    }
    behind = repository(folder / "behind")
    behind.add("far", 1, **scores)
    # Nothing is sent before the end, so that what is there then was sent by the end.
    tracing = ("--otlp-endpoint", collector.url, "--trace-sample-percent", "0")
    environment = {"OTEL_BSP_SCHEDULE_DELAY": "600000"}
    far = ServerProcess(
        *("--model-repository", str(behind.root), *tracing),
        environment={**environment, "OTEL_SERVICE_NAME": "far"},
    )
    members = [{"model": "by_grpc"}, {"model": "by_http"}]
    front = repository(
        folder / "front",
        by_grpc=remote("open_inference_grpc", far.grpc),
        by_http=remote("open_inference_http", f"http://{far.http}"),
        both={"ensemble": {"kind": "weighted", "members": members, "scores": "values"}},
    )
    near = ServerProcess(
        *("--model-repository", str(front.root), *tracing, "--host", "127.0.0.1"),
        *("--vertex-ai-default-model", "both"),
        environment={**environment, "AIP_MODE": "PREDICTION", "AIP_STORAGE_URI": str(front.root)},
    )
    try:
        for trace, (ask, _, _) in WAYS.items():
            ask(near, headers(trace))
        over_grpc(near, {})  # whose caller does not trace it
        with pytest.raises(Exception, match="nobody"):
            over_grpc(near, headers(FAILED), "nobody")
        assert collector.spans == []
    finally:
        codes = near.stop(), far.stop()
    assert codes == (0, 0)
    return collector.spans


@pytest.mark.parametrize("trace", WAYS)
def test_one_trace(collected: list[tuple[str, Span]], trace: str) -> None:
    spans = [(service, one) for service, one in collected if one.trace_id.hex() == trace]
    own = {one.span_id: (service, one) for service, one in spans}

    def way(span: Span) -> tuple[str, ...]:
        service, _ = own[span.span_id]
        above = own.get(span.parent_span_id)
        return (*(way(above[1]) if above else ()), f"{service}: {span.name}")

    root, members = "crossfade: infer both", ("by_grpc", "by_http")
    expected = [(root,)]
    for member in members:
        called = f"crossfade: member {member}"
        expected += [(root, called), (root, called, "crossfade: run")]
        expected += [(root, called, "far: infer far"), (root, called, "far: infer far", "far: run")]
    assert sorted(way(one) for _, one in spans) == sorted(expected)
    (first,) = (one for _, one in spans if one.parent_span_id.hex() == PARENT)
    _, contract, transport = WAYS[trace]
    given = said(first)
    assert (given["contract"], given["transport"]) == (contract, transport)
    assert (given["model"], given["version"], given["status"]) == ("both", 1, "OK")
    assert first.kind == Span.SPAN_KIND_SERVER
    assert {one.trace_state for _, one in spans} == {"vendor=1"}
    assert all(one.start_time_unix_nano <= one.end_time_unix_nano for _, one in spans)


def test_what_failed_and_what_nobody_traces(collected: list[tuple[str, Span]]) -> None:
    assert {one.trace_id.hex() for _, one in collected} == {*WAYS, FAILED}
    (failed,) = (one for _, one in collected if one.trace_id.hex() == FAILED)
    assert failed.status.code == Status.STATUS_CODE_ERROR
    given = said(failed)
    assert (given["model"], given["status"]) == ("nobody", "NOT_FOUND")
    assert given["request_id"] == "seven"


def test_a_collector_that_is_not_there(tmp_path: Path) -> None:
    models = repository(tmp_path / "models")
    scores = {"inputs": [{"name": "x", "dtype": "FP32", "shape": [-1, 2]}]}
    models.add("both", 1, outputs=[{"name": "y", "from": "x"}], **scores)
    (port,) = free_ports(1)
    server = ServerProcess(
        *("--model-repository", str(models.root), "--otlp-endpoint", f"http://127.0.0.1:{port}"),
        environment={"OTEL_BSP_SCHEDULE_DELAY": "20", "OTEL_EXPORTER_OTLP_TIMEOUT": "2"},
    )
    message = "traces cannot be exported; they are dropped until they can"
    try:
        over_grpc(server, {})
        line = server.wait_for(message)
        assert line["endpoint"] == f"http://127.0.0.1:{port}/v1/traces"
        assert line["reason"] == "Connection refused"
        for _ in range(20):
            over_grpc(server, {})
    finally:
        code = server.stop()
    assert code == 0
    assert [
        line["message"] for line in server.lines if line["severity"] not in ("INFO", "info")
    ] == [message]
