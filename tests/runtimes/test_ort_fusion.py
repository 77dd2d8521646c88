"""Fusing ONNX graphs: what is shared is there once, and the answers stay what they were."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfade.runtimes.core.errors import FailedPrecondition, LoadFailed, MissingExtra
from crossfade.runtimes.fusing import Branch, Fused
from crossfade.runtimes.ort import fusion, fusion_child
from crossfade.runtimes.ort.fusion_graph import fuse_graphs
from tests.runtimes.onnx_models import FLOAT, INT64, STRING, model, node, value, weight

SIZE = 8
X = np.random.default_rng(0).normal(size=(3, SIZE)).astype(np.float32)


def tower(
    layers: Sequence[int],
    head: int,
    *,
    batch: str = "n",
    tag: str = "",
    outputs: str = "yz",
    **more: Any,
) -> bytes:
    """y = softmax(tower(x) head); weights by seed, so that equal seeds are equal weights."""

    def random(seed: int, *shape: int) -> np.ndarray:
        return np.random.default_rng(seed).normal(size=shape).astype(np.float32)

    nodes, weights, at = [], [], "x"
    for index, seed in enumerate(layers):
        weights.append(weight(f"{tag}w{index}", random(seed, SIZE, SIZE)))
        nodes += [
            node("MatMul", f"{at} {tag}w{index}", f"{tag}h{index}"),
            node("Tanh", f"{tag}h{index}", f"{tag}t{index}"),
        ]
        at = f"{tag}t{index}"
    weights.append(weight("head", random(1000 + head, SIZE, 4)))
    nodes += [node("MatMul", f"{at} head", "z"), node("Softmax", "z", "y")]
    return model(
        nodes,
        [value("x", FLOAT, [batch, SIZE])],
        [value(name, FLOAT, [batch, 4]) for name in outputs],
        weights,
        **more,
    )


def branches(folder: Path, *models: bytes, outputs: Sequence[str] = ("y",)) -> list[Branch]:
    found = []
    for index, content in enumerate(models):
        path = folder / f"{index}.onnx"
        path.write_bytes(content)
        names = [v.name for v in onnx.load(path).graph.input]
        found.append(Branch(path, {name: name for name in names}, outputs))
    return found


def fuse(folder: Path, given_branches: Sequence[Branch]) -> Fused:
    target = folder / "fused.onnx"
    return Fused(path=target, **fuse_graphs(given_branches, target))


def same_answers(
    fused: Fused, members: Sequence[Branch], feed: dict[str, Any], tolerance: float = 0
) -> bool:
    session = ort.InferenceSession(fused.path)
    for member, outputs in zip(members, fused.outputs, strict=True):
        alone = ort.InferenceSession(member.path)
        own = {name: feed[shared] for name, shared in member.inputs.items()}
        want = alone.run(list(member.outputs), own)
        got = session.run([outputs[name] for name in member.outputs], feed)
        pairs = zip(want, got, strict=True)
        if not all(np.allclose(a, b, rtol=0, atol=tolerance) for a, b in pairs):
            return False
    return True


def test_a_shared_backbone_is_computed_once(tmp_path: Path) -> None:
    pair = branches(tmp_path, tower([1, 2, 3], 1), tower([1, 2, 3], 2, batch="b", tag="other_"))

    fused = fuse(tmp_path, pair)

    assert (fused.nodes, fused.fused_nodes, fused.shared_nodes) == (16, 10, 6)
    assert fused.shared_bytes == 3 * SIZE * SIZE * 4
    assert 0.35 < fused.saved < 0.5
    assert same_answers(fused, pair, {"x": X})


def test_three_models_of_which_two_are_equal(tmp_path: Path) -> None:
    members = branches(tmp_path, tower([1], 1), tower([1], 1), tower([1], 2), outputs=("z", "y"))

    fused = fuse(tmp_path, members)

    names = [name for outputs in fused.outputs for name in outputs.values()]
    assert len(set(names)) == 6
    assert same_answers(fused, members, {"x": X})


def test_what_nobody_wants_is_not_computed(tmp_path: Path) -> None:
    pair = branches(tmp_path, tower([1], 1), tower([1], 2), outputs=("z",))

    fused = fuse(tmp_path, pair)

    assert "Softmax" not in {n.op_type for n in onnx.load(fused.path).graph.node}


def test_nothing_shared_saves_nothing(tmp_path: Path) -> None:
    pair = branches(tmp_path, tower([1, 2], 1), tower([3, 2], 2))

    fused = fuse(tmp_path, pair)

    assert (fused.saved, fused.shared_nodes) == (0, 0)
    assert fused.shared_bytes == 4 * SIZE * SIZE  # the second layers' weights, fed differently
    assert same_answers(fused, pair, {"x": X})


@settings(max_examples=25, deadline=None)
@given(
    towers=st.lists(
        st.tuples(st.lists(st.integers(0, 2), max_size=4), st.integers(0, 1)),
        min_size=2,
        max_size=3,
    )
)
def test_the_common_prefix_is_shared_and_no_more(
    towers: list[tuple[list[int], int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("pair")
    members = branches(folder, *(tower(layers, head) for layers, head in towers))

    fused = fuse(folder, members)

    prefixes = {tuple(layers[: i + 1]) for layers, _ in towers for i in range(len(layers))}
    heads = {(tuple(layers), head) for layers, head in towers}
    outputs = len(towers) - len(heads)  # equal models' second outputs are copies of the first
    assert fused.fused_nodes == 2 * len(prefixes) + 2 * len(heads) + outputs
    assert same_answers(fused, members, {"x": X})


def test_inputs_are_mapped_and_may_be_one_members_own(tmp_path: Path) -> None:
    one = model(
        [node("Add", "image shift", "y")],
        [value("image", FLOAT, ["n", SIZE]), value("shift", FLOAT, ["n", SIZE])],
        [value("y", FLOAT, ["n", SIZE])],
    )
    first, second = branches(tmp_path, tower([1], 1), one)
    pair = [first, Branch(second.path, {"image": "x", "shift": "1/y"}, ("y",))]

    fused = fuse(tmp_path, pair)

    session = ort.InferenceSession(fused.path)
    assert [i.name for i in session.get_inputs()] == ["x", "1/y"]
    assert same_answers(fused, pair, {"x": X, "1/y": 2 * X})


def test_names_that_collide_and_outputs_that_are_inputs(tmp_path: Path) -> None:
    passing = model(
        [node("Identity", "x", "y"), node("Neg", "x", "0/y")],
        [value("x", FLOAT, ["n", SIZE])],
        [value("y", FLOAT, ["n", SIZE]), value("0/y", FLOAT, ["n", SIZE])],
    )
    pair = branches(tmp_path, passing, passing, outputs=("y", "0/y"))

    assert same_answers(fuse(tmp_path, pair), pair, {"x": X})


def test_symbolic_sizes_of_one_name_in_two_graphs_are_not_one_size(tmp_path: Path) -> None:
    def kept(rows: int) -> bytes:  # both graphs call their own number of rows "k"
        return model(
            [node("Slice", "x zero rows zero", "s"), node("Exp", "s", "e"), node("Neg", "e", "y")],
            [value("x", FLOAT, ["n", SIZE])],
            [value("y", FLOAT, ["k", SIZE])],
            [weight("zero", np.int64([0])), weight("rows", np.int64([rows]))],
        )

    pair = branches(tmp_path, kept(1), kept(3))

    assert same_answers(fuse(tmp_path, pair), pair, {"x": X})


def test_quantised_models_share_their_quantised_backbone(tmp_path: Path) -> None:
    def quantised(head: int) -> bytes:
        table = np.random.default_rng(7).integers(-99, 99, (SIZE, SIZE)).astype(np.int8)
        own = np.random.default_rng(head).integers(-99, 99, (SIZE, 4)).astype(np.int8)
        return model(
            [
                node("QuantizeLinear", "x s zero", "q"),
                node("DequantizeLinear", "q s zero", "d"),
                node("DequantizeLinear", "w s zero", "dw"),
                node("MatMul", "d dw", "h"),
                node("Relu", "h", "r"),
                node("DequantizeLinear", "own s zero", "down"),
                node("MatMul", "r down", "y"),
            ],
            [value("x", FLOAT, ["n", SIZE])],
            [value("y", FLOAT, ["n", 4])],
            [
                weight("w", table),
                weight("own", own),
                weight("s", np.float32(0.05)),
                weight("zero", np.int8(0)),
            ],
        )

    pair = branches(tmp_path, quantised(1), quantised(2))

    fused = fuse(tmp_path, pair)

    assert fused.fused_nodes == 9
    # ONNX Runtime makes other kernels of them where a value has one user than where it has two.
    assert same_answers(fused, pair, {"x": X}, 1e-5)


def test_constants_in_nodes_and_functions_are_compared_by_content(tmp_path: Path) -> None:
    table = np.random.default_rng(1).normal(size=(SIZE, 4)).astype(np.float32)

    def made(name: str) -> bytes:
        constant = onnx.helper.make_node(
            "Constant", [], [name], value=onnx.numpy_helper.from_array(table)
        )
        built = onnx.load_from_string(
            model(
                [constant, node("MatMul", f"x {name}", "h"), node("twice", "h", "y", domain="own")],
                [value("x", FLOAT, ["n", SIZE])],
                [value("y", FLOAT, ["n", 4])],
                domains=[("own", 1)],
            )
        )
        opset = [onnx.helper.make_opsetid("", 17)]
        body = [node("Add", "a a", "b")]
        built.functions.append(onnx.helper.make_function("own", "twice", ["a"], ["b"], body, opset))
        return built.SerializeToString()

    pair = branches(tmp_path, made("one"), made("two"))

    fused = fuse(tmp_path, pair)

    assert [n.op_type for n in onnx.load(fused.path).graph.node] == ["MatMul", "Add", "Identity"]
    assert same_answers(fused, pair, {"x": X})


def test_control_flow_keeps_its_outer_values(tmp_path: Path) -> None:
    def branching(add: float) -> bytes:
        inner = {
            way: onnx.helper.make_graph(
                [node(op, "t add", "out")], way, [], [value("out", FLOAT, ["n", SIZE])]
            )
            for way, op in (("then_branch", "Add"), ("else_branch", "Sub"))
        }
        return model(
            [
                node("Tanh", "x", "t"),
                node("ReduceSum", "t", "sum", keepdims=0),
                node("Greater", "sum limit", "c"),
                onnx.helper.make_node("If", ["c"], ["y"], **inner),
            ],
            [value("x", FLOAT, ["n", SIZE])],
            [value("y", FLOAT, ["n", SIZE])],
            [weight("add", np.float32([add])), weight("limit", np.float32(0))],
        )

    pair = branches(tmp_path, branching(1), branching(2))

    fused = fuse(tmp_path, pair)

    assert fused.shared_nodes == 3
    assert same_answers(fused, pair, {"x": X})
    assert same_answers(fused, pair, {"x": -X})


def test_weights_beside_the_file_are_read_and_text_is_left_alone(tmp_path: Path) -> None:
    beside = onnx.load_from_string(tower([1], 1))
    onnx.save(
        beside, tmp_path / "a.onnx", save_as_external_data=True, location="a.bin", size_threshold=0
    )
    pair = [
        Branch(tmp_path / "a.onnx", {"x": "x"}, ("y",)),
        *branches(tmp_path, tower([1], 2)),
    ]

    fused = fuse(tmp_path, pair)
    (tmp_path / "a.bin").rename(tmp_path / "elsewhere")

    assert fused.shared_nodes == 2
    ort.InferenceSession(fused.path)


def refused(folder: Path, *models: bytes) -> str:
    with pytest.raises(FailedPrecondition) as error:
        fuse(folder, branches(folder, *models))
    return error.value.message


def test_what_cannot_be_one_graph_is_refused_with_the_reason(tmp_path: Path) -> None:
    plain = tower([1], 1)
    fixed = model([node("Neg", "x", "y")], [value("x", FLOAT, [1, 8])], [value("y", FLOAT, [1, 8])])
    whole = model(
        [node("Neg", "x", "y")], [value("x", INT64, ["n", 8])], [value("y", INT64, ["n", 8])]
    )
    drawn = model(
        [node("RandomNormalLike", "x", "r"), node("Add", "x r", "y")],
        [value("x", FLOAT, ["n", 8])],
        [value("y", FLOAT, ["n", 8])],
    )

    assert refused(tmp_path, plain, tower([1], 1, opset=18)) == (
        "the graphs are of different operator sets (ai.onnx 17 and 18);"
        " export them with the same one"
    )
    assert "input 'x' is FLOAT in one graph and INT64 in another" in refused(tmp_path, plain, whole)
    assert "input 'x' is [n,8] in one graph and [1,8]" in refused(tmp_path, plain, fixed)
    assert refused(tmp_path, drawn, plain) == "a graph draws random numbers (RandomNormalLike)"


def test_the_child_answers_what_the_server_reads(tmp_path: Path) -> None:
    pair = branches(tmp_path, tower([1, 2], 1), tower([1, 2], 2))
    folder = tmp_path / "fused"
    folder.mkdir()

    fused = fusion.fuse(pair, folder)

    assert fused.shared_nodes == 4
    assert same_answers(fused, pair, {"x": X})
    with pytest.raises(FailedPrecondition, match="operator sets"):
        fusion.fuse(branches(tmp_path, tower([1], 1), tower([1], 1, opset=18)), folder)


def test_what_is_no_graph_and_text_that_is_not_comparable_are_refused(tmp_path: Path) -> None:
    texts = model(
        [node("Equal", "x word", "e"), node("Cast", "e", "y", to=FLOAT)],
        [value("x", STRING, ["n"])],
        [value("y", FLOAT, ["n"])],
        [onnx.helper.make_tensor("word", STRING, [1], [b"rose"])],
        opset=19,
    )
    pair = branches(tmp_path, texts, texts)
    job = [{"path": str(b.path), "inputs": b.inputs, "outputs": b.outputs} for b in pair]
    assert json.dumps(fusion_child._answer(tmp_path, job))  # either way, and no crash
    (tmp_path / "0.onnx").write_bytes(b"\xff" * 40)
    assert "merged" in fusion_child._answer(tmp_path, job)["refused"]


def test_ends_of_the_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusion_child.importlib.util, "find_spec", lambda name: None)
    assert fusion_child._answer(tmp_path, []) == {"missing": True}

    def child(script: str) -> None:
        monkeypatch.setattr(fusion.sys, "executable", str(tmp_path / "python"))
        (tmp_path / "python").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "python").chmod(0o755)

    child("echo '{\"missing\": true}'")
    with pytest.raises(MissingExtra, match=r"\[fusion\]"):
        fusion.fuse([], tmp_path)
    child("echo 'no memory' >&2; exit 3")
    with pytest.raises(LoadFailed, match="ended with 3: no memory"):
        fusion.fuse([], tmp_path)
    child("exec sleep 5")
    with pytest.raises(LoadFailed, match=r"longer than 0\.1 s"):
        fusion.fuse([], tmp_path, timeout_s=0.1)
