"""A server for the hostile-input tests, and what must hold after each of them."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import re
import socket
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from onnx import TensorProto
from tritonclient.grpc import service_pb2 as pb

from tests.conftest import ServerProcess
from tests.runtimes.onnx_models import model, node, value

SERVICE = "/inference.GRPCInferenceService/"
MAX_GROWTH_MIB = 64.0
# What a client must never read: paths, and names of ours or of the libraries beneath.
LEAK = re.compile(
    r"/|site-packages|Traceback|\.py\b|tmp|crossfade\.|serving\.|runtimes\.|numpy|ndarray|upb"
    r"|onnxruntime|orjson|pydantic|protobuf|h11|asyncio|zlib|grpc|Error\b|Exception|<class|0x[0-9a-f]+"
    r"|object at"
)
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]")
ADDEND = np.arange(16, dtype=np.int32)


def fake(*lines: str) -> str:
    return "\n".join(lines)


def echo(dtype: str, shape: str = "[-1, 2]") -> str:
    return fake("inputs:", f"  - {{name: x, dtype: {dtype}, shape: {shape}}}")


# One row at a time, on one instance, 0.5 s each: a second request waits.
SLOW_MS = 500
MODELS = {
    "text": echo("BYTES"),
    "scores": echo("FP32", "[-1, 4]"),
    "half": echo("FP16"),
    "tiny": echo("INT8"),
    "flags": echo("BOOL"),
    "long": echo("INT64"),
    "any": "inputs: [{name: x, dtype: FP32}]",  # of any rank and size
    "repeat": fake(
        "repeat: n",
        "inputs: [{name: x, dtype: FP32, shape: [2]}, {name: n, dtype: INT32, shape: [1]}]",
        "outputs: [{name: y, dtype: FP32, from: x}]",
    ),
    "slow": fake(
        "behaviour: sleep", f"delay_ms: {SLOW_MS}", "inputs: [{name: x, dtype: FP32, shape: [2]}]"
    ),
}


def make_repository(root: Path) -> Path:
    """Writes ``simple`` (Triton's: two INT32 [16], sum and difference), fakes, and a broken one."""
    for name, text in MODELS.items():
        (root / name / "1").mkdir(parents=True)
        (root / name / "1" / "fake.yaml").write_text(text)
    (root / "slow" / "model.yaml").write_text("instances: 1")
    (root / "repeat" / "model.yaml").write_text("decoupled: true")
    (root / "simple" / "1").mkdir(parents=True)
    (root / "simple" / "model.yaml").write_text("max_batch_size: 8")
    names = ("INPUT0", "INPUT1"), ("OUTPUT0", "OUTPUT1")
    inputs, outputs = ([value(n, TensorProto.INT32, ["n", 16]) for n in half] for half in names)
    nodes = [node("Add", "INPUT0 INPUT1", "OUTPUT0"), node("Sub", "INPUT0 INPUT1", "OUTPUT1")]
    (root / "simple" / "1" / "model.onnx").write_bytes(model(nodes, inputs, outputs))
    (root / "broken" / "1").mkdir(parents=True)
    (root / "broken" / "1" / "model.onnx").write_bytes(b"\x08\x07not a model")
    return root


def tensor(name: str, dtype: str, shape: Sequence[int], **parameters: Any) -> Any:
    made = pb.ModelInferRequest.InferInputTensor(name=name, datatype=dtype, shape=shape)
    for key, choice in parameters.items():
        made.parameters[key].CopyFrom(choice)
    return made


def simple(*rows: int, raws: Sequence[bytes] | None = None, **fields: Any) -> Any:
    """A good request for ``simple``, or one with another shape or other bytes."""
    shape = rows or (1, 16)
    request = pb.ModelInferRequest(**{"model_name": "simple", **fields})
    request.inputs.extend(tensor(name, "INT32", shape) for name in ("INPUT0", "INPUT1"))
    request.raw_input_contents.extend([ADDEND.tobytes()] * 2 if raws is None else raws)
    return request


def single(name: str, dtype: str, shape: Sequence[int], raw: bytes | None = None) -> Any:
    """A request for a model with the one input ``x``."""
    request = pb.ModelInferRequest(model_name=name, inputs=[tensor("x", dtype, shape)])
    if raw is not None:
        request.raw_input_contents.append(raw)
    return request


def document(**fields: Any) -> dict[str, Any]:
    """A good JSON body for ``simple``, or one with other fields."""
    inputs = [
        {"name": name, "datatype": "INT32", "shape": [1, 16], "data": list(range(16))}
        for name in ("INPUT0", "INPUT1")
    ]
    return {"inputs": inputs, **fields}


@dataclasses.dataclass(frozen=True)
class Reply:
    """An HTTP answer as it came off the wire."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> str:
        assert self.headers["content-type"] == "application/json"
        parsed = json.loads(self.body)
        assert list(parsed) == ["error"]
        return str(parsed["error"])


def assert_clean(text: str, sent: Sequence[str] = ()) -> None:
    """Fails if ``text`` tells a client about the server's inside; ``sent`` is the client's own."""
    for own in sent:
        text = text.replace(own, "")
    assert not LEAK.search(text), text
    assert not CONTROL.search(text), text
    assert len(text) < 1024, text


class Target:
    """One server under attack."""

    def __init__(self, server: ServerProcess, root: Path) -> None:
        self.server = server
        self.root = root
        self.channel = grpc.insecure_channel(
            server.grpc,
            options=(("grpc.max_send_message_length", -1), ("grpc.enable_retries", 0)),
        )

    def close(self) -> None:
        self.channel.close()

    # gRPC.

    def call(
        self, method: str, message: bytes | Any, timeout_s: float = 20, **options: Any
    ) -> tuple[grpc.StatusCode, str, bytes]:
        """Calls with raw bytes; returns the status, its text, and the answer's bytes."""
        data = message if isinstance(message, bytes) else message.SerializeToString()
        path = method if method.startswith("/") else SERVICE + method
        try:
            answer = self.channel.unary_unary(path)(data, timeout=timeout_s, **options)
        except grpc.RpcError as error:
            trailers = error.trailing_metadata() or ()
            assert_clean("".join(str(v) for k, v in trailers if not k.startswith("grpc-")))
            return error.code(), error.details() or "", b""
        return grpc.StatusCode.OK, "", answer

    def refused(
        self,
        message: bytes | Any,
        code: str = "INVALID_ARGUMENT",
        says: str = "",
        *,
        method: str = "ModelInfer",
        sent: Sequence[str] = (),
    ) -> None:
        """Calls, and checks the refusal: its code, that its text helps, and that it is clean."""
        got, text, _ = self.call(method, message)
        assert (got.name, text) == (code, text)
        assert text
        assert re.search(says, text), text
        assert_clean(text, sent)

    def infer(self, request: Any, timeout_s: float = 20) -> list[bytes]:
        """A good request's raw outputs."""
        code, text, answer = self.call("ModelInfer", request, timeout_s)
        assert code is grpc.StatusCode.OK, text
        return list(pb.ModelInferResponse.FromString(answer).raw_output_contents)

    def successes(self, name: str) -> int:
        """How many requests the model has answered."""
        request = pb.ModelStatisticsRequest(name=name)
        _, _, answer = self.call("ModelStatistics", request)
        stats = pb.ModelStatisticsResponse.FromString(answer).model_stats[0]
        return int(stats.inference_stats.success.count)

    # HTTP.

    def connect(self, timeout_s: float = 20) -> socket.socket:
        """A raw connection to the HTTP port."""
        host, port = self.server.http.split(":")
        return socket.create_connection((host, int(port)), timeout_s)

    def send(self, data: bytes, timeout_s: float = 20) -> Reply:
        """Sends bytes on a connection of its own; returns the first answer."""
        with self.connect(timeout_s) as connection:
            with contextlib.suppress(ConnectionError):  # refused while it was still sending
                connection.sendall(data)
            return read_reply(connection)

    def post(
        self, path: str, body: bytes | dict[str, Any], headers: dict[str, str] | None = None
    ) -> Reply:
        """Posts with a client library that does its best."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.ask("POST", path, data, headers)

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Reply:
        connection = http.client.HTTPConnection(self.server.http, timeout=20)
        try:
            connection.request(method, path, body or None, headers or {})
            return _reply(connection.getresponse())
        finally:
            connection.close()

    # Afterwards.

    @contextlib.contextmanager
    def survives(self, peak_mib: float = MAX_GROWTH_MIB) -> Iterator[None]:
        """Checks that what happens inside does the server no harm."""
        self._forget_peak()
        before_mib, lines = self._peak_mib(), len(self.server.lines)
        yield
        assert self.server.process.poll() is None, "the server is gone"
        growth_mib = self._peak_mib() - before_mib
        assert growth_mib < peak_mib, f"{growth_mib:.0f} MiB more at the peak"
        self.assert_serving()
        traces = [line["exception"] for line in self.server.lines[lines:] if "exception" in line]
        assert not traces, traces[0]

    def assert_serving(self) -> None:
        """The server is live and gives right answers, over both protocols."""
        code, text, answer = self.call("ServerLive", b"", 5)
        assert code is grpc.StatusCode.OK, text
        assert pb.ServerLiveResponse.FromString(answer).live
        total, difference = self.infer(simple(), 5)
        assert total == (ADDEND * 2).tobytes()
        assert difference == bytes(64)
        assert self.ask("GET", "/v2/health/live").status == 200
        reply = self.post("/v2/models/simple/infer", document())
        assert reply.status == 200
        outputs = {out["name"]: out["data"] for out in json.loads(reply.body)["outputs"]}
        assert outputs == {"OUTPUT0": (ADDEND * 2).tolist(), "OUTPUT1": [0] * 16}

    def _forget_peak(self) -> None:
        Path(f"/proc/{self.server.process.pid}/clear_refs").write_text("5")

    def _peak_mib(self) -> float:
        status = Path(f"/proc/{self.server.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found
        return int(found[1]) / 1024


def read_reply(connection: socket.socket) -> Reply:
    """Reads one answer off a raw connection."""
    response = http.client.HTTPResponse(connection)
    try:
        response.begin()
        return _reply(response)
    finally:
        response.close()


def _reply(response: http.client.HTTPResponse) -> Reply:
    headers = {name.lower(): text for name, text in response.getheaders()}
    return Reply(response.status, headers, response.read())


@contextlib.contextmanager
def target(root: Path, *arguments: str) -> Iterator[Target]:
    """A server over the hostile tests' repository, in mode ``explicit`` with all models loaded."""
    repository = make_repository(root / "repository")
    server = ServerProcess(
        "--model-repository",
        str(repository),
        *("--model-control-mode", "explicit", "--load-model", "*"),
        *arguments,
    )
    attacked = Target(server, repository)
    try:
        yield attacked
    finally:
        attacked.close()
        code = server.stop()
    assert code == 0


def bomb(coding: str, size: int, fill: bytes) -> bytes:
    """As ``gzip.compress`` or ``zlib.compress`` of so many ``fill``."""
    block = fill * 2**24
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = deflate.compress(block) + deflate.flush(zlib.Z_FULL_FLUSH)
    digest, check = (zlib.crc32, 0) if coding == "gzip" else (zlib.adler32, 1)
    for _ in range(size // len(block)):
        check = digest(block, check)
    whole = packed * (size // len(block)) + deflate.flush()
    if coding == "gzip":
        return b"\x1f\x8b\x08" + bytes(6) + b"\xff" + whole + struct.pack("<II", check, size)
    return b"\x78\xda" + whole + struct.pack(">I", check)


def tree(repository: Path) -> dict[str, int]:
    """Every file in and beside the repository, with its time."""
    return {str(path): path.stat().st_mtime_ns for path in repository.parent.rglob("*")}
