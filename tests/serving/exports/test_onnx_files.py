"""The files that an ONNX model keeps its weights in."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from crossfade.runtimes.core.errors import CrossfadeError, InvalidArgument, LoadFailed
from crossfade.serving.exports.onnx_files import external


def weights(location: str) -> TensorProto:
    tensor = numpy_helper.from_array(np.zeros(2, np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("offset", "0"), ("location", location)):
        tensor.external_data.add(key=key, value=value)
    return tensor


def model(path: Path, *locations: str) -> Path:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in "xy")
    inner = helper.make_graph([], "inner", [], [y], [weights(locations[-1])] if locations else [])
    nodes = [
        helper.make_node("Add", ["x", "w"], ["y"]),
        helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner),
    ]
    graph = helper.make_graph(nodes, "g", [x], [y], [weights(name) for name in locations[:-1]])
    path.write_bytes(helper.make_model(graph).SerializeToString())
    return path


def test_weights_of_the_graph_and_of_graphs_in_it(tmp_path: Path) -> None:
    assert external(model(tmp_path / "a.onnx", "a.data", "b/c.bin")) == {"a.data", "b/c.bin"}
    assert external(model(tmp_path / "b.onnx")) == set()


def test_the_library_writes_what_is_found(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(np.zeros(1000, np.float32), "w")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1000])
    node = helper.make_node("Add", ["x", "w"], ["y"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1000])
    built = helper.make_model(helper.make_graph([node], "g", [x], [y], [tensor]))
    path = tmp_path / "m.onnx"
    onnx.save(built, str(path), save_as_external_data=True, location="m.onnx.data")
    assert external(path) == {"m.onnx.data"}


@pytest.mark.parametrize("location", ["../evil", "/etc/passwd", "a/../../b"])
def test_weights_elsewhere_are_refused(tmp_path: Path, location: str) -> None:
    with pytest.raises(InvalidArgument, match="leaves"):
        external(model(tmp_path / "a.onnx", location))


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x3a\xff\xff\xff\xff\x0f"])
def test_garbage(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(content)
    with pytest.raises(LoadFailed):
        external(path)


def test_damage(tmp_path: Path) -> None:
    path = model(tmp_path / "a.onnx", "a.data", "b.data")
    content = path.read_bytes()
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
        with contextlib.suppress(CrossfadeError):
            external(path)
