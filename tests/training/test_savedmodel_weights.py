"""Weights of SavedModels: all of them, with roles that no name gave away."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crossfade.runtimes.core.errors import FailedPrecondition, InvalidArgument, LoadFailed
from crossfade.runtimes.savedmodel.library import tensorflow
from crossfade.serving.cli.main import main
from crossfade.training.weights import savedmodel_file
from crossfade.training.weights.inventory import Inventory, inventory
from crossfade.training.weights.roles import Role


@pytest.fixture(scope="module")
def weights(small_net: Path) -> Inventory:
    return inventory(savedmodel_file.read(small_net))


def test_every_variable_is_there_once_with_its_role(weights: Inventory) -> None:
    assert Counter(w.role for w in weights.weights) == {
        Role.CONV_KERNEL: 5,
        Role.DEPTHWISE_KERNEL: 2,
        Role.DENSE_KERNEL: 1,
        Role.BIAS: 5,
        Role.BN_GAMMA: 4,
        Role.BN_BETA: 4,
        Role.BN_MEAN: 5,
        Role.BN_VARIANCE: 5,
    }
    # Keras writes each variable twice; what is left over has been read under its other name.
    assert not [name for name, stored in weights.unread.items() if stored.dtype == "float32"]


def test_values_are_those_of_keras_own_objects(weights: Inventory, small_net: Path) -> None:
    loaded = tensorflow().saved_model.load(str(small_net))
    values = [v.numpy() for v in loaded.signatures["serving_default"].variables]
    for weight in weights.weights:
        assert any(v.shape == weight.value.shape and (v == weight.value).all() for v in values)


def test_details_come_from_the_operation(weights: Inventory) -> None:
    by_name = {w.name: w for w in weights.weights}
    stem, down = by_name["stem/kernel"], by_name["down/kernel"]
    assert (stem.attributes["padding"], down.attributes["padding"]) == ("VALID", "SAME")
    assert stem.attributes["strides"] == down.attributes["strides"] == (2, 2)
    assert (stem.layout, by_name["wide/kernel"].layout) == ("HWIO", "HWIM")
    assert by_name["stem_bn/gamma"].attributes["epsilon"] == pytest.approx(1e-3)
    assert by_name["project_bn/beta"].attributes["epsilon"] == pytest.approx(1e-2)
    orders = [w.order for w in weights.weights]
    assert orders == sorted(orders)
    names = [w.name for w in weights.of(Role.CONV_KERNEL)]
    assert names == [f"{n}/kernel" for n in ("stem", "squeeze", "excite", "project", "down")]


def test_an_embedding_and_constants_of_preprocessing(table_net: Path) -> None:
    found = inventory(savedmodel_file.read(table_net))
    (table,) = found.of(Role.EMBEDDING)
    assert table.value.shape == (9, 4)
    assert sorted(w.value.mean() for w in found.of(Role.CONSTANT)) == [1.0, 4.0]


def _fused(folder: Path) -> None:
    """Keras 2's and TensorFlow 1's spelling: one fused operation, a bias in a variable."""
    tf = tensorflow()

    class Net(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            self.a = tf.Variable(np.ones((3, 3, 2, 4), np.float32), name="q")
            self.b = [tf.Variable(np.full(4, i, np.float32)) for i in (1, 2, 3, 4)]
            self.unused = tf.Variable([1.0, 2.0])

        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 2], name="x")])
        def __call__(self, x: Any) -> Any:
            y = tf.nn.conv2d(x, self.a, 2, "SAME")
            y, *_ = tf.compat.v1.nn.fused_batch_norm(
                y, *self.b[:2], mean=self.b[2], variance=self.b[3], epsilon=0.05, is_training=False
            )
            return {"y": tf.nn.relu6(y)}

    module = Net()
    tf.saved_model.save(module, str(folder), signatures=module.__call__)


def test_fused_batch_norms_and_variables_that_nobody_reads(tmp_path: Path) -> None:
    _fused(tmp_path)
    found = inventory(savedmodel_file.read(tmp_path))
    norms = (Role.BN_GAMMA, Role.BN_BETA, Role.BN_MEAN, Role.BN_VARIANCE)
    assert [w.role for w in found.weights] == [Role.CONV_KERNEL, *norms]
    assert [w.value[0] for w in found.of(*norms)] == [1, 2, 3, 4]
    assert found.weights[1].attributes["epsilon"] == pytest.approx(0.05)
    (unread,) = [n for n, s in found.unread.items() if s.dtype == "float32"]
    assert unread.startswith("unused/")


def test_tensorflow_serving_s_own_models(shared: Path) -> None:
    """TensorFlow 1 and 2, variables of both kinds: y = a x + b with a = 0.5 and b = 2."""
    for folder in sorted((shared / "savedmodel").glob("*half_plus_two*")):
        version = next((p for p in folder.rglob("saved_model.pb*")), None)
        if version is None or folder.name.startswith("bad"):
            continue
        graph = savedmodel_file.read(version.parent)
        numbers = [v for v in graph.constants.values() if v.size == 1 and v.dtype.kind == "f"]
        values = {float(v.reshape(())) for v in numbers}
        assert {0.5, 2.0} <= values, folder.name


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda f: (f / "saved_model.pb").unlink(), "no saved_model.pb"),
        (lambda f: (f / "saved_model.pb").write_bytes(b"\xff" * 64), "corrupt"),
        (lambda f: (f / "variables" / "variables.index").unlink(), "no value for the variable"),
        (
            lambda f: (f / "variables" / "variables.index").write_bytes(b"junk" * 40),
            "cannot be read",
        ),
    ],
)
def test_damage_is_named(break_it: Callable[[Path], Any], says: str, tmp_path: Path) -> None:
    _fused(tmp_path)
    break_it(tmp_path)
    with pytest.raises(LoadFailed, match=says) as caught:
        savedmodel_file.read(tmp_path)
    assert str(tmp_path) not in caught.value.message


def test_an_unknown_signature_and_a_weight_that_is_not_finite(tmp_path: Path) -> None:
    _fused(tmp_path)
    with pytest.raises(InvalidArgument, match="it has serving_default"):
        savedmodel_file.read(tmp_path, "other")
    graph = savedmodel_file.read(tmp_path)
    name = next(n for n, v in graph.constants.items() if v.shape == (4,))
    graph.constants[name][1] = np.nan  # type: ignore[index]
    with pytest.raises(FailedPrecondition, match="NaN or infinity"):
        inventory(graph)


def test_the_command(small_net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors import safe_open
    from safetensors.numpy import load_file

    output = tmp_path / "weights.safetensors"
    assert main(["weights", str(small_net), "--json", "--output", str(output)]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert len(listed["weights"]) == 31
    assert {row["name"] for row in listed["weights"]} == set(load_file(output))
    with safe_open(output, "numpy") as file:
        assert file.metadata()["wide/kernel"] == "depthwise_kernel HWIM"
    assert main(["weights", str(small_net)]) == 0
    assert "depthwise_kernel" in capsys.readouterr().out
    assert main(["weights", str(tmp_path / "nothing")]) == 1
    assert "crossfade: " in capsys.readouterr().err
