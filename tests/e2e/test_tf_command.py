"""A TensorFlow Serving command line, as it is, starts this server."""

from __future__ import annotations

import http.client
import json
import os
import socket
import stat
import time
import urllib.error
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.e2e.tf_command import Start, config, entry, free_port, get, predicted, start, write

__all__ = ["start"]


def rest() -> tuple[str, ...]:
    return (f"--port={free_port()}", f"--rest_api_port={free_port()}")


def refusal(url: str, body: Any = None) -> tuple[int, str]:
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(url, body)
    with caught.value as answer:
        return answer.code, json.loads(answer.read())["error"]


def test_one_model(start: Start, tmp_path: Path) -> None:
    base = write(tmp_path / "somewhere", 7)
    grpc_port, http_port = free_port(), free_port()
    server = start(
        *("--port", grpc_port, f"--rest_api_port={http_port}", "--model_name", "seven"),
        *(f"--model_base_path={base}", "--enable_batching=false", "--rest_api_num_threads=4"),
    )
    assert server.ports == {"grpc_port": int(grpc_port), "http_port": int(http_port)}
    assert predicted(server, "seven") == 7
    assert ":tensorflow:serving:request_count" in get(
        f"http://{server.http}/monitoring/prometheus/metrics"
    )
    write(base, 8)  # the folder is looked at every second, as there
    server.wait_for("loaded", version=8)
    assert predicted(server, "seven") == 8
    assert not any(line["severity"] in ("WARNING", "ERROR") for line in server.lines)


def test_flags_without_effect_are_said(start: Start, tmp_path: Path) -> None:
    base = write(tmp_path / "m", 1)
    server = start(
        *rest(), "--model_base_path", base, "--max_num_load_retries=3", "--enable_profiler=false"
    )
    assert predicted(server, "default") == 1
    said = [line["message"] for line in server.lines if line["severity"] == "WARNING"]
    assert [text.partition(" has no effect: ")[0] for text in said] == [
        "--max_num_load_retries",
        "--enable_profiler",
    ]


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        (["--modle_name=x"], 2, "unknown argument --modle_name=x; did you mean --model_name?"),
        (["--port=x"], 2, "invalid int value"),
        (["--enable_batching=perhaps"], 2, "neither true nor false"),
        (["--use_alts_credentials"], 2, "--use_alts_credentials is not supported"),
        (["--platform_config_file=x"], 2, "--platform_config_file is not supported"),
        ([], 1, "give --model_config_file"),
        (["--model_base_path=relative"], 1, "to have an absolute path or URI"),
        (["--model_base_path=/x", "--port=0"], 1, "neither --port nor --grpc_socket_path"),
        (["--model_base_path=/x", "--port=70000"], 1, "70000 is not a port"),
        (["--model_base_path=/x", "--port=5", "--rest_api_port=5"], 1, "cannot be same"),
        (["--model_base_path=/x", "--rest_api_timeout_in_ms=0"], 1, "it must be 1 or more"),
        (["--model_base_path=/x", "--batching_parameters_file=y"], 1, "without --enable_batching"),
        (["--model_base_path=/x", "--grpc_channel_arguments=a"], 1, "of the form key=value"),
        (["--model_base_path=/x", "--model_name=../x"], 1, "path traversal"),
        (["--model_config_file=/nowhere"], 1, "cannot be read"),
    ],
)
def test_wrong_command_lines(start: Start, flags: list[str], code: int, says: str) -> None:
    server = start(*flags, wait_ready=False)
    assert server.process.wait(30) == code
    server.stop()
    text = "".join(server.raw)
    assert says in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("no config", "Error parsing text-format tensorflow.serving.ModelServerConfig: 1:"),
        ("custom_model_config {}", "custom_model_config"),
        ("", "give a model_config_list"),
        (config('name: "a" base_path: "/a"', 'name: "a" base_path: "/b"'), "multiple times"),
        (config('name: "a" base_path: "/a" model_platform: "x"'), "unknown platform 'x'"),
    ],
)
def test_bad_model_config(start: Start, tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "models.config").write_text(text)
    flags = (*rest(), "--model_config_file", tmp_path / "models.config")
    server = start(*flags, wait_ready=False)
    assert server.process.wait(30) == 1
    server.stop()
    assert says in "".join(server.raw)


def test_models_anywhere_with_policies_and_labels(start: Start, tmp_path: Path) -> None:
    for version in (1, 2, 3):
        write(tmp_path / "a" / "deep", version)
        write(tmp_path / "b", version, answer=10 + version)
    (tmp_path / "models.config").write_text(
        config(
            entry(
                *("one", tmp_path / "a" / "deep", "model_version_policy { specific {"),
            )
            + ' versions: 1 versions: 3 } } version_labels { key: "stable" value: 1 }'
            ' version_labels { key: "canary" value: 3 }',
            entry("two", tmp_path / "b", "model_version_policy { latest { num_versions: 2 } }"),
            entry("all", tmp_path / "b", "model_version_policy { all {} }"),
            entry("late", tmp_path / "late"),
        )
    )
    server = start(*rest(), f"--model_config_file={tmp_path / 'models.config'}")
    assert predicted(server, "one", "/labels/stable") == 1
    assert predicted(server, "one", "/labels/canary") == 3
    states = {
        name: {
            line["version"]
            for line in get(f"http://{server.http}/v1/models/{name}")["model_version_status"]
        }
        for name in ("one", "two", "all")
    }
    assert states == {"one": {"1", "3"}, "two": {"2", "3"}, "all": {"1", "2", "3"}}
    assert predicted(server, "two") == 13
    url = f"http://{server.http}/v1/models"
    assert refusal(f"{url}/one/versions/2:predict", {"instances": [1.0]})[0] == 404
    assert refusal(f"{url}/late")[0] == 404
    write(tmp_path / "late", 5)  # a folder that comes later is found
    server.wait_for("loaded", model="late")
    assert predicted(server, "late") == 5
    missing = [line for line in server.lines if line["message"] == "model not updated"]
    assert len(missing) == 1  # said once, not every second


def test_the_file_is_looked_at_again(start: Start, tmp_path: Path) -> None:
    first, second = write(tmp_path / "a", 1), write(tmp_path / "b", 2)
    file = tmp_path / "models.config"
    file.write_text(config(entry("m", first), entry("gone", first)))
    server = start(
        *rest(), f"--model_config_file={file}", "--model_config_file_poll_wait_seconds", "1"
    )
    assert predicted(server, "m") == 1
    file.write_text("model_config_list {")
    server.wait_for("model list not taken")
    assert predicted(server, "m") == 1
    file.write_text(config(entry("m", second), entry("new", first)))
    server.wait_for("model list replaced")
    assert (predicted(server, "m"), predicted(server, "new")) == (2, 1)
    assert refusal(f"http://{server.http}/v1/models/gone:predict", {"instances": [1.0]})[0] == 503


def test_batching_parameters(start: Start, tmp_path: Path) -> None:
    own = write(tmp_path / "own", 1)
    (own / "model.yaml").write_text("batching: {max_size: 5}\n")
    (tmp_path / "batching.config").write_text(
        "max_batch_size { value: 32 } batch_timeout_micros { value: 2000 }"
        " num_batch_threads { value: 3 } allowed_batch_sizes: 8 allowed_batch_sizes: 32"
        " max_enqueued_batches { value: 7 } pad_variable_length_inputs: true"
    )
    (tmp_path / "models.config").write_text(
        config(entry("m", write(tmp_path / "m", 1)), entry("own", own))
    )
    server = start(
        *(*rest(), f"--model_config_file={tmp_path / 'models.config'}", "--enable_batching"),
        f"--batching_parameters_file={tmp_path / 'batching.config'}",
    )
    found = get(f"http://{server.http}/v2/models/m/config")
    batching = found["dynamic_batching"]
    assert batching["preferred_batch_size"] == [32]
    assert int(batching["max_queue_delay_microseconds"]) == 2000
    assert found["instance_group"][0]["count"] == 3
    found = get(f"http://{server.http}/v2/models/own/config")
    assert found["dynamic_batching"]["preferred_batch_size"] == [5]  # the folder knows better
    said = [line["message"] for line in server.lines if line["severity"] == "WARNING"]
    for name in ("allowed_batch_sizes", "pad_variable_length_inputs"):
        assert any(f"'{name}' has no effect" in text for text in said)
    rows = [float(row) for row in range(40)]  # more than a batch, and still one request
    url = f"http://{server.http}/v1/models/m:predict"
    assert get(url, {"instances": rows})["predictions"] == [1.0] * 40


def test_bad_batching_parameters(start: Start, tmp_path: Path) -> None:
    for text, says in (
        ("max_batch_size: 3", "Error parsing text-format tensorflow.serving.BatchingParameters"),
        ("max_batch_size { value: 0 }", "max_batch_size is 0; it must be 1 or more"),
        ("batch_timeout_micros { value: 20000000 }", "batch_timeout_micros is 20000000"),
    ):
        (tmp_path / "b").write_text(text)
        flags = ("--enable_batching", f"--batching_parameters_file={tmp_path / 'b'}")
        server = start("--model_base_path=/x", *flags, wait_ready=False)
        assert server.process.wait(30) == 1
        server.stop()
        assert says in "".join(server.raw)


def test_monitoring_config(start: Start, tmp_path: Path) -> None:
    base = write(tmp_path / "m", 1)
    file = tmp_path / "monitoring.config"
    flags = (f"--model_base_path={base}", f"--monitoring_config_file={file}")
    file.write_text('prometheus_config { enable: true path: "/my.metrics" }')
    server = start(*rest(), *flags)
    for _ in range(3):
        predicted(server, "default")
    text = get(f"http://{server.http}/my.metrics")
    labels = 'API="Predict",entrypoint="REST",model_name="default"'
    assert f":tensorflow:serving:request_latency_count{{{labels}}} 3.0" in text
    assert ':tensorflow:serving:runtime_latency_count{API="Predict"' in text
    assert ':tensorflow:serving:request_count{model_name="default",status="OK"} 3.0' in text
    assert refusal(f"http://{server.http}/monitoring/prometheus/metrics")[0] == 404
    assert refusal(f"http://{server.http}/myxmetrics")[0] == 404
    file.write_text("prometheus_config { enable: false }")
    server = start(*rest(), *flags)
    assert refusal(f"http://{server.http}/monitoring/prometheus/metrics")[0] == 404


def test_rest_timeout(start: Start, tmp_path: Path) -> None:
    when = {"input": "x", "value": 99}
    base = write(tmp_path / "m", 1, behaviour="sleep", delay_ms=4000, delay_when=when)
    (base / "model.yaml").write_text("instances: 2")  # one stays busy for a while
    server = start(*rest(), f"--model_base_path={base}", "--rest_api_timeout_in_ms", "300")
    url = f"http://{server.http}/v1/models/default:predict"
    began_s = time.monotonic()
    code, error = refusal(url, {"instances": [99.0]})
    assert (code, "too long" in error) == (504, True)
    assert time.monotonic() - began_s < 3  # it was told before the model was done
    assert predicted(server, "default") == 1


# -- Unix sockets -------------------------------------------------------------------------------


def test_socket(start: Start, tmp_path: Path) -> None:
    base = write(tmp_path / "m", 1)
    path = tmp_path / "grpc.sock"
    flags = ("--port=0", f"--grpc_socket_path={path}", f"--model_base_path={base}")
    server = start(*flags)
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    assert live(path)
    second = start(*flags, wait_ready=False)
    assert second.process.wait(30) == 1
    second.stop()
    assert "a server answers there" in "".join(second.raw)
    assert live(path)  # and still does
    assert server.stop() == 0
    assert not path.exists()


def test_socket_that_was_left_behind(start: Start, tmp_path: Path) -> None:
    base = write(tmp_path / "m", 1)
    path = tmp_path / "grpc.sock"
    flags = ("--port=0", f"--grpc_socket_path={path}", f"--model_base_path={base}")
    server = start(*flags)
    server.process.kill()
    server.process.wait(10)
    assert path.exists()
    again = start(*flags)
    assert live(path)
    assert again.stop() == 0
    server.process.returncode = 0  # it was killed on purpose


@pytest.mark.parametrize("kind", ["file", "link", "folder", "long"])
def test_socket_never_removes_anything_else(start: Start, tmp_path: Path, kind: str) -> None:
    base = write(tmp_path / "m", 1)
    path = tmp_path / "grpc.sock"
    if kind == "file":
        path.write_text("mine")
    elif kind == "link":
        (tmp_path / "target").write_text("mine")
        path.symlink_to(tmp_path / "target")
    elif kind == "folder":
        path = tmp_path / "none" / "grpc.sock"
    else:
        path = tmp_path / ("x" * 120)
    flags = ("--port=0", f"--grpc_socket_path={path}", f"--model_base_path={base}")
    server = start(*flags, wait_ready=False)
    assert server.process.wait(30) == 1
    server.stop()
    text = "".join(server.raw)
    assert "cannot listen on" in text
    assert "Traceback" not in text
    if kind in ("file", "link"):
        assert path.read_text() == "mine"


def live(path: Path) -> bool:
    import grpc

    from crossfade.serving.wire import open_inference as wire

    with grpc.insecure_channel(f"unix:{path}") as channel:
        call = channel.unary_unary(
            "/inference.GRPCInferenceService/ServerLive",
            wire.ServerLiveRequest.SerializeToString,
            wire.ServerLiveResponse.FromString,
        )
        return bool(call(wire.ServerLiveRequest(), timeout=10).live)


# -- TLS ----------------------------------------------------------------------------------------


def test_ssl_config_file(start: Start, tmp_path: Path) -> None:
    import ssl

    import grpc

    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    client = authority.issue_cert("client")

    def pem(blobs: Any) -> bytes:
        return b"".join(blob.bytes() for blob in blobs)

    fields = {
        "server_key": issued.private_key_pem.bytes(),
        "server_cert": pem(issued.cert_chain_pems),
        "custom_ca": authority.cert_pem.bytes(),
    }
    text = "".join(f"{name}: {json.dumps(value.decode())}\n" for name, value in fields.items())
    file = tmp_path / "ssl.config"
    file.write_text(text + "client_verify: true\n")
    base = write(tmp_path / "m", 1)
    server = start(*rest(), f"--model_base_path={base}", f"--ssl_config_file={file}")
    root = authority.cert_pem.bytes()

    def grpc_live(credentials: Any) -> bool:
        with grpc.secure_channel(server.grpc, credentials) as channel:
            try:
                grpc.channel_ready_future(channel).result(5)
            except grpc.FutureTimeoutError:
                return False
            return True

    chain = pem(client.cert_chain_pems)
    key = client.private_key_pem.bytes()
    assert grpc_live(grpc.ssl_channel_credentials(root, key, chain))
    assert not grpc_live(grpc.ssl_channel_credentials(root))
    context = ssl.create_default_context(cadata=root.decode())
    client.configure_cert(context)
    connection = http.client.HTTPSConnection(server.http, context=context, timeout=10)
    connection.request("GET", "/v1/models/default")
    assert connection.getresponse().status == 200
    connection.close()
    with socket.create_connection(("127.0.0.1", server.ports["http_port"]), timeout=10) as plain:
        plain.sendall(b"GET /v1/models/default HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" not in plain.recv(100)
    opened = os.listdir(f"/proc/{server.process.pid}/fd")
    assert opened  # the key lies in none of the files of the disk
    targets = {os.readlink(f"/proc/{server.process.pid}/fd/{one}") for one in opened}
    assert any("memfd:tls_key" in target for target in targets)


# -- SavedModels ----------------------------------------------------------------------------------


def test_saved_models(start: Start, shared: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    models = shared / "savedmodel"
    half = models / "saved_model_half_plus_two_cpu"
    both = tmp_path / "both" / "1"
    both.mkdir(parents=True)
    for path in (half / "00000123").iterdir():
        (both / path.name).symlink_to(path)
    lite = models / "saved_model_half_plus_two_tflite" / "00000123" / "model.tflite"
    (both / "model.tflite").symlink_to(lite)
    file = tmp_path / "models.config"
    file.write_text(config(entry("half", half), entry("both", both.parent)))
    server = start(
        *(*rest(), f"--model_config_file={file}", "--prefer_tflite_model=true"),
        *("--tensorflow_intra_op_parallelism=2", "--tensorflow_session_parallelism=1"),
        *("--enable_batching", "--saved_model_tags=serve"),
    )
    url = f"http://{server.http}/v1/models"
    for model in ("half", "both"):
        answer = get(f"{url}/{model}:predict", {"instances": [1.0, 2.0, 5.0]})
        assert answer == {"predictions": [2.5, 3.0, 4.5]}
    found = {name: get(f"http://{server.http}/v2/models/{name}") for name in ("half", "both")}
    assert found["half"]["platform"] == "tensorflow_savedmodel"
    assert found["both"]["platform"] == "tflite"
    status = get(f"{url}/half")["model_version_status"]
    assert [line["version"] for line in status] == ["123"]


def test_saved_model_tags_are_obeyed(start: Start, shared: Path) -> None:
    pytest.importorskip("tensorflow")
    half = shared / "savedmodel" / "saved_model_half_plus_two_cpu"
    server = start(*rest(), f"--model_base_path={half}", "--saved_model_tags=serve,tpu")
    assert "tpu" in server.wait_for("load failed")["reason"]
