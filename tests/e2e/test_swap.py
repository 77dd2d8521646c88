"""Versions are swapped, and broken ones offered, under load: nothing is lost, nothing mixed."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tritonclient.grpc as triton
from onnx import TensorProto, helper

from tests.conftest import ServerProcess

CLIENTS = 32
SWAPS = 20
BROKEN_AFTER = {3, 7, 11, 15, 19}


def write_version(model: Path, version: int) -> None:
    """A model whose two outputs are its input plus the version, put in place in one step."""
    shape: list[Any] = ["batch", 4]
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["x", "version"], ["a"]),
            helper.make_node("Identity", ["a"], ["b"]),
        ],
        "versioned",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "ab"],
        [helper.make_tensor("version", TensorProto.FLOAT, [], [float(version)])],
    )
    opset = helper.make_opsetid("", 17)
    built = helper.make_model(graph, ir_version=9, opset_imports=[opset])
    scratch = model.parent / f".{version}"
    scratch.mkdir()
    onnx.save(built, str(scratch / "model.onnx"))
    os.replace(scratch, model / str(version))


class Load:
    """Clients that ask for the latest version until they are told to stop."""

    def __init__(self, address: str) -> None:
        self.stop = threading.Event()
        self.faults: list[str] = []
        self.seen: set[int] = set()
        self.count = 0
        self._address = address
        self._threads = [
            threading.Thread(target=self._ask, args=(seed,)) for seed in range(CLIENTS)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join(30)

    def _ask(self, seed: int) -> None:
        rows = 1 + seed % 3
        x = np.full((rows, 4), seed * 1000, dtype=np.float32)
        with triton.InferenceServerClient(self._address) as client:
            tensor = triton.InferInput("x", x.shape, "FP32")
            tensor.set_data_from_numpy(x)
            while not self.stop.is_set():
                try:
                    answer = client.infer("m", [tensor], client_timeout=20)
                except Exception as error:
                    self.faults.append(f"failed: {error}")
                    return
                version = int(answer.get_response().model_version)
                for name in "ab":
                    if not np.array_equal(answer.as_numpy(name), x + version):
                        self.faults.append(f"version {version} mixed: {answer.as_numpy(name)}")
                        return
                self.seen.add(version)
                self.count += 1


@pytest.mark.parametrize("mode", ["poll", "explicit"])
def test_versions_swap_under_load(
    serve: Callable[..., ServerProcess], tmp_path: Path, mode: str
) -> None:
    model = tmp_path / "m"
    model.mkdir()
    write_version(model, 1)
    options = {"poll": ("--poll-s", "0.1"), "explicit": ("--load-model", "*")}[mode]
    server = serve("--model-repository", tmp_path, "--model-control-mode", mode, *options)
    with triton.InferenceServerClient(server.grpc) as admin, Load(server.grpc) as load:
        version = 1
        for swap in range(SWAPS):
            if swap in BROKEN_AFTER:
                version += 1
                (model / f".{version}").mkdir()
                (model / f".{version}" / "model.onnx").write_bytes(b"not a model")
                os.replace(model / f".{version}", model / str(version))
                if mode == "explicit":
                    with pytest.raises(Exception, match="failed to load 'm'"):
                        admin.load_model("m")
                server.wait_for("load failed", version=version)
            version += 1
            write_version(model, version)
            if mode == "explicit":
                admin.load_model("m")
            server.wait_for("loaded", version=version)
            before = load.count
            while load.count < before + CLIENTS and not load.faults:
                time.sleep(0.005)
            for old in model.iterdir():
                if old.name.isdigit() and int(old.name) < version - 1:
                    shutil.rmtree(old)
        assert not load.faults, load.faults[:3]
        assert admin.is_model_ready("m", str(version))
    assert load.seen >= {1, version}
    assert len(load.seen) >= SWAPS
    assert not load.faults


def test_memory_is_given_back_after_unload(
    serve: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    weights = np.random.default_rng(0).standard_normal((2048, 4096)).astype(np.float32)  # 32 MiB
    shape: list[Any] = ["batch", 2048]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4096])],
        [helper.make_tensor("w", TensorProto.FLOAT, weights.shape, weights.tobytes(), raw=True)],
    )
    built = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)])
    (tmp_path / "large" / "1").mkdir(parents=True)
    onnx.save(built, str(tmp_path / "large" / "1" / "model.onnx"))
    server = serve("--model-repository", tmp_path, "--model-control-mode", "explicit")
    x = triton.InferInput("x", [1, 2048], "FP32")
    x.set_data_from_numpy(np.ones((1, 2048), dtype=np.float32))
    after: list[float] = []
    with triton.InferenceServerClient(server.grpc) as client:
        for cycle in range(6):
            client.load_model("large")
            client.infer("large", [x])
            loaded_mib = server.rss_mib
            client.unload_model("large")
            assert not client.is_model_ready("large")
            for _ in range(200):
                if len([ln for ln in server.lines if ln["message"] == "unloaded"]) > cycle:
                    break
                time.sleep(0.05)
            after.append(server.rss_mib)
            assert loaded_mib - after[-1] > 24, (loaded_mib, after)
    assert max(after[1:]) - after[0] < 16, after
