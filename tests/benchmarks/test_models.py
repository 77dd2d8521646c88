import numpy as np
import onnx
import pytest

from crossfade.benchmarks.client import read_references
from crossfade.benchmarks.framing import unframe
from crossfade.benchmarks.models import REFERENCE_COUNT, make_addsub, make_cnn, write_model
from crossfade.benchmarks.workspace import Workspace


def test_models_are_the_same_every_time():
    assert make_addsub() == make_addsub()
    assert make_cnn().SerializeToString(deterministic=True) == make_cnn().SerializeToString(
        deterministic=True
    )


def test_the_cnn_is_mobilenet_v2():
    model = make_cnn()
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    weights = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
    assert len(convolutions) == 52
    assert weights == pytest.approx(3.5e6, rel=0.02)  # the paper: 3.4 to 3.5 million
    assert sum(node.op_type == "Add" for node in model.graph.node) == 10
    onnx.checker.check_model(model, full_check=True)


def test_write_model_leaves_a_repository_without_config_files(tmp_path):
    workspace = Workspace(tmp_path)
    write_model(workspace, "addsub")
    assert [p.relative_to(tmp_path) for p in tmp_path.rglob("*.onnx")] == [
        workspace.model_file("addsub").relative_to(tmp_path)
    ]
    references = read_references(workspace.reference_file("addsub"), "addsub")
    assert len(references) == REFERENCE_COUNT
    assert unframe(workspace.request_file("addsub").read_bytes()) == references[0].request
