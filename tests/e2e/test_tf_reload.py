"""HandleReloadConfigRequest, with TensorFlow Serving's own stubs, against a real server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import text_format

from tests.conftest import ServerProcess
from tests.e2e.tf_command import Start, config, entry, free_port, start, write

tf = pytest.importorskip("tensorflow")
pytest.importorskip("tensorflow_serving")

from tensorflow_serving.apis import (  # noqa: E402
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

__all__ = ["start"]
CODE = grpc.StatusCode
CLIENTS = 16
RELOADS = 25


class Server:
    """A server that serves a list of models, and TensorFlow Serving's clients of it."""

    def __init__(self, process: ServerProcess, address: str) -> None:
        self.process = process
        self.channel = grpc.insecure_channel(address)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)

    def reload(self, *entries: str) -> Any:
        request = model_management_pb2.ReloadConfigRequest()
        text_format.Parse(config(*entries), request.config)
        return self.models.HandleReloadConfigRequest(request, timeout=30)

    def refused(self, code: Any, says: str, *entries: str) -> None:
        with pytest.raises(grpc.RpcError) as caught:
            self.reload(*entries)
        error: Any = caught.value
        assert (error.code(), error.details()) == (code, error.details())
        assert says in error.details()
        assert "/tmp" not in error.details()

    def ask(self, model: str, label: str = "", version: int = 0) -> tuple[float, int]:
        """The answer, and the version that gave it."""
        answer = self.prediction.Predict(question(model, label, version), timeout=20)
        return answer.outputs["y"].float_val[0], answer.model_spec.version.value

    def states(self, model: str) -> dict[int, int]:
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = model
        found = self.models.GetModelStatus(request, timeout=10).model_version_status
        return {line.version: line.state for line in found}


def question(model: str, label: str = "", version: int = 0) -> Any:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    if label:
        request.model_spec.version_label = label
    if version:
        request.model_spec.version.value = version
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([1.0], dtype=tf.float32))
    return request


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for version in (1, 2):
        write(tmp_path / "a", version)
        write(tmp_path / "b", version, answer=10 + version)
    return tmp_path


@pytest.fixture
def server(start: Start, models: Path) -> Iterator[Server]:
    (models / "models.config").write_text(config(entry("m", models / "a")))
    port = free_port()
    process = start(f"--port={port}", f"--model_config_file={models / 'models.config'}")
    made = Server(process, f"127.0.0.1:{port}")
    yield made
    made.channel.close()


def labelled(**labels: int) -> str:
    pairs = (f'version_labels {{ key: "{k}" value: {v} }}' for k, v in labels.items())
    return " ".join(pairs)


BOTH = "model_version_policy { all {} }"


def test_a_list_replaces_the_one_before(server: Server, models: Path) -> None:
    assert server.ask("m") == (2, 2)
    answer = server.reload(entry("n", models / "b"), entry("m", models / "a", BOTH))
    assert (answer.status.error_code, answer.status.error_message) == (0, "")
    assert server.ask("n") == (12, 2)
    assert server.ask("m", version=1) == (1, 1)
    server.reload(entry("n", models / "a"))  # another folder under a name that is served
    assert server.ask("n") == (2, 2)
    with pytest.raises(grpc.RpcError) as caught:
        server.ask("m")
    error: Any = caught.value
    assert error.code() is CODE.UNAVAILABLE
    server.reload()
    with pytest.raises(grpc.RpcError):
        server.ask("n")
    server.reload(entry("m", models / "a"))
    assert server.ask("m") == (2, 2)


def test_labels(server: Server, models: Path) -> None:
    server.reload(entry("m", models / "a", BOTH + labelled(stable=1, canary=2)))
    assert (server.ask("m", "stable"), server.ask("m", "canary")) == ((1, 1), (2, 2))
    server.reload(entry("m", models / "a", BOTH + labelled(stable=2)))
    assert server.ask("m", "stable") == (2, 2)
    with pytest.raises(grpc.RpcError) as caught:
        server.ask("m", "canary")
    error: Any = caught.value
    assert error.code() is CODE.INVALID_ARGUMENT
    says = "Request to assign label to version 9 of model m, which is not currently available"
    server.refused(
        CODE.FAILED_PRECONDITION, says, entry("m", models / "a", BOTH + labelled(stable=9))
    )
    assert server.ask("m", "stable") == (2, 2)
    # A version that is there and that no policy asks for is not available either.
    server.reload(entry("m", models / "a"))
    wait_for_end(server, "m", 1)
    says = "Request to assign label to version 1 of model m"
    server.refused(CODE.FAILED_PRECONDITION, says, entry("m", models / "a", labelled(old=1)))


def wait_for_end(server: Server, model: str, version: int) -> None:
    until_s = time.monotonic() + 20
    while server.states(model)[version] != 50:
        assert time.monotonic() < until_s
        time.sleep(0.01)


def test_labels_for_versions_to_come(start: Start, models: Path) -> None:
    (models / "models.config").write_text(config(entry("m", models / "a", labelled(stable=2))))
    port = free_port()
    process = start(
        *(f"--port={port}", f"--model_config_file={models / 'models.config'}"),
        "--allow_version_labels_for_unavailable_models",
    )
    server = Server(process, f"127.0.0.1:{port}")
    server.reload(entry("m", models / "a", labelled(stable=2, canary=3)))
    says = "Request to assign label to version 4"
    taken = entry("m", models / "a", labelled(stable=4))  # a label in use does not go astray
    server.refused(CODE.FAILED_PRECONDITION, says, taken)
    write(models / "a", 3)
    process.wait_for("loaded", version=3)
    assert server.ask("m", "canary") == (3, 3)
    assert server.ask("m", "stable") == (2, 2)
    server.channel.close()


def test_what_is_wrong_changes_nothing(server: Server, models: Path) -> None:
    server.reload(entry("m", models / "a", labelled(stable=2)))
    (models / "broken" / "1").mkdir(parents=True)
    (models / "broken" / "1" / "fake.yaml").write_text("inputs: [")
    (models / "empty").mkdir()
    write(models / "only", 1)  # version 2 is served now, but from another folder
    good = entry("n", models / "b")
    elsewhere = entry("m", models / "b")  # would answer 12, were it taken
    invalid, state = CODE.INVALID_ARGUMENT, CODE.FAILED_PRECONDITION
    for code, says, *entries in (
        (CODE.INTERNAL, "model x: version 1: ", good, elsewhere, entry("x", models / "broken")),
        (CODE.INTERNAL, "no version to serve", good, elsewhere, entry("x", models / "empty")),
        (CODE.NOT_FOUND, "failed to load 'x'", good, elsewhere, entry("x", models / "none")),
        (state, "Illegal to change a model's platform", good, 'name: "m" base_path: "/a"'
         ' model_platform: "fake"'),
        (state, "assign label", good, elsewhere, entry("x", models / "a", labelled(z=7))),
        (state, "assign label", good, entry("m", models / "only", labelled(old=2))),
        (invalid, "multiple times", good, good),
        (invalid, "to have an absolute path", good, entry("x", Path("relative"))),
        (invalid, "path traversal", good, entry("../x", models / "a")),
        (invalid, "names no model", good, entry("", models / "a")),
        (invalid, "unknown platform 'tpu'", 'name: "x" base_path: "/a" model_platform: "tpu"'),
        (invalid, "is not a version", good, entry("x", models / "a", labelled(z=0))),
        (CODE.NOT_FOUND, "not a file system", good, 'name: "x" base_path: "nope://x"'),
    ):  # fmt: skip
        server.refused(code, says, *entries)
        assert server.ask("m") == (2, 2), says
        assert server.ask("m", "stable") == (2, 2), says
        with pytest.raises(grpc.RpcError) as caught:
            server.ask("n")
        error: Any = caught.value
        assert error.code() is CODE.NOT_FOUND, says
    request = model_management_pb2.ReloadConfigRequest()
    for message in (request, type(request)(config={"custom_model_config": {}})):
        with pytest.raises(grpc.RpcError) as caught:
            server.models.HandleReloadConfigRequest(message, timeout=10)
        error = caught.value
        assert error.code() is invalid
    server.reload(entry("m", models / "a"), good)
    assert server.ask("n") == (12, 2)


def test_a_model_that_failed_before_holds_nobody_back(server: Server, models: Path) -> None:
    write(models / "a", 3)
    server.process.wait_for("loaded", version=3)
    (models / ".4").mkdir()
    (models / ".4" / "fake.yaml").write_text("inputs: [")
    (models / ".4").rename(models / "a" / "4")
    server.process.wait_for("load failed", version=4)
    server.reload(entry("m", models / "a"), entry("n", models / "b"))
    assert (server.ask("m"), server.ask("n")) == ((3, 3), (12, 2))


def test_over_a_socket(start: Start, models: Path) -> None:
    path = models / "grpc.sock"
    flags = ("--port=0", f"--grpc_socket_path={path}", f"--model_base_path={models / 'a'}")
    server = Server(start(*flags), f"unix:{path}")
    assert server.ask("default") == (2, 2)
    server.reload(entry("default", models / "b"))  # an administrator's call
    assert server.ask("default") == (12, 2)
    server.channel.close()


def test_a_plain_repository_takes_no_list(serve: Any, models: Path) -> None:
    process = serve("--model-repository", models)
    server = Server(process, process.grpc)
    server.refused(CODE.FAILED_PRECONDITION, "not a list of models", entry("m", models / "a"))
    server.channel.close()


def test_reloads_under_load(server: Server, models: Path) -> None:
    """Lists come and go, bad ones among them; no request fails, no answer is mixed."""
    good = {(2.0, 2), (12.0, 2), (1.0, 1), (11.0, 1)}
    stop = threading.Event()
    faults: list[str] = []
    seen: list[set[tuple[float, int]]] = [set() for _ in range(CLIENTS)]

    def hammer(index: int) -> None:
        label = "stable" if index % 2 else ""
        while not stop.is_set():
            try:
                found = server.ask("m", label)
            except grpc.RpcError as error:
                faults.append(str(error))
                return
            if found not in good:
                faults.append(f"mixed: {found}")
                return
            seen[index].add(found)

    server.reload(entry("m", models / "a", BOTH + labelled(stable=1)))
    threads = [threading.Thread(target=hammer, args=(index,)) for index in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(RELOADS):
            base = models / "ab"[turn % 2]
            label = labelled(stable=1 + turn % 3 % 2)
            others = [entry(f"other{n}", models / "b") for n in range(turn % 4)]
            server.reload(entry("m", base, BOTH + label), *others)
            if turn % 5 == 4:
                server.refused(
                    CODE.NOT_FOUND, "failed to load", entry("m", models / "none", BOTH + label)
                )
                server.refused(
                    CODE.FAILED_PRECONDITION,
                    "assign label",
                    entry("m", models / "ba"[turn % 2], BOTH + labelled(stable=77)),
                )
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert not faults, faults[:3]
    assert {answer for one in seen for answer in one} == good
