"""Backbones cut out of exports: where; features are the export's; frozen is frozen."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from crossfade.runtimes.core.errors import FailedPrecondition, InvalidArgument
from crossfade.training.backbones import heads
from crossfade.training.backbones.backbone import Backbone, Pixels
from crossfade.training.backbones.cutting import Cut, cut
from crossfade.training.backbones.feature_cache import FeatureCache
from crossfade.training.torch_port.module import port
from crossfade.training.torch_port.parity import compare
from crossfade.training.torch_port.probes import picture_files, probes
from crossfade.training.torch_port.proof import reference
from crossfade.training.weights import onnx_file, savedmodel_file, tflite_file
from crossfade.training.weights.inventory import inventory
from crossfade.training.weights.roles import Role


@pytest.fixture(scope="module")
def small(small_net: Path) -> Cut:
    return cut(savedmodel_file.read(small_net))


def backbone_of(found: Cut, **options: bool) -> Backbone:
    return Backbone(found, Pixels.of(found, "0..255"), **options)


def test_features_end_where_everything_is_pooled(small: Cut) -> None:
    """Not at the pooling of squeeze-and-excitation, which a skip goes around."""
    assert small.before == "the global pooling"
    assert small.layout == "NHWC"
    backbone = backbone_of(small)
    assert backbone(torch.zeros(2, 3, 64, 48, dtype=torch.uint8)).shape == (2, 32, 4, 3)
    assert [len(stage) for stage in backbone.stages] == [8, 2, 2]


def test_features_are_the_exports(small: Cut, small_net: Path) -> None:
    graph = savedmodel_file.read(small_net)
    pictures = torch.randint(256, (3, 3, 47, 61), dtype=torch.uint8)
    inputs = {"image": pictures.permute(0, 2, 3, 1).float().numpy()}
    wanted = reference(small_net, graph).run(inputs, [small.tensor])[small.tensor]
    found = backbone_of(small)(pictures).detach().permute(0, 2, 3, 1).numpy()
    assert np.abs(found - wanted).max() <= 1e-4 * max(1.0, np.abs(wanted).max())


@pytest.mark.slow
def test_a_real_automl_export(shared: Path) -> None:
    """Weights in 8 bits: each layer within one step of its grid, all first choices the same."""
    path = shared / "automl-vision-edge" / "flowers" / "model.tflite"
    graph = tflite_file.read(path)
    found = inventory(graph)
    assert len(found.of(Role.DEPTHWISE_KERNEL)) == 17
    assert len(found.of(Role.CONV_KERNEL)) == 35
    assert len(found.of(Role.DENSE_KERNEL)) == 1
    images = [
        (name, values)
        for name, values in probes(graph, picture_files(path.parent, 6))
        if name.startswith(("picture", "spike"))
    ]
    report = compare(port(graph), reference(path, graph), images)
    assert report.passed, report.wrong
    assert report.agreement == 1
    features = cut(graph)
    backbone = Backbone(features, Pixels.of(features))
    assert backbone.side == 224
    name, values = images[0]
    (wanted,) = reference(path, graph).run(values, [features.tensor])[features.tensor]
    (picture,) = (torch.from_numpy(value) for value in values.values())
    found = backbone.net(picture).detach().numpy()[0]
    assert found.shape[2] == backbone_width(features)
    means = [maps.mean((0, 1)) for maps in (wanted, found)]
    assert np.corrcoef(*means)[0, 1] > 0.99, name


def test_a_backbone_of_8_bits_keeps_the_grids_ends_and_rounds_nothing(shared: Path) -> None:
    features = cut(tflite_file.read(shared / "automl-vision-edge" / "flowers" / "model.tflite"))
    backbone = Backbone(features, Pixels.of(features))
    assert not any(step.node.op == "quantized" for step in backbone.net.steps)
    ends = [step.node.attributes for step in backbone.net.steps if step.node.op == "clip"]
    assert {end["low"] == 0 for end in ends} == {True, False}, "with ReLU, and without"


def backbone_width(features: Cut) -> int:
    last = [n for n in features.graph.nodes if n.op == "conv"][-1]
    return int(features.graph.constants[last.inputs[1]].shape[0])


def test_a_real_onnx_file_is_cut_where_it_is_flattened(shared: Path) -> None:
    path = shared / "onnx" / "mnist" / "mnist.onnx"
    graph = onnx_file.read(path)
    report = compare(port(graph), reference(path, graph), probes(graph))
    assert report.passed, report.wrong
    features = cut(graph)
    assert (features.before, features.layout) == ("the flattening", "NCHW")
    backbone = Backbone(features, Pixels.of(features, "0..255"))
    assert backbone(torch.zeros(1, 1, 28, 28, dtype=torch.uint8)).shape == (1, 16, 4, 4)


def test_a_table_is_cut_in_front_of_its_last_layer(table_net: Path) -> None:
    features = cut(savedmodel_file.read(table_net))
    assert features.before == "the last dense layer"
    with pytest.raises(InvalidArgument, match="one input"):
        Pixels.of(features)


def test_a_place_of_ones_own_and_one_that_is_not_there(small_net: Path) -> None:
    graph = savedmodel_file.read(small_net)
    node = next(n.name for n in graph.nodes if n.op == "max_pool")
    assert len(cut(graph, node).graph.nodes) < len(cut(graph).graph.nodes)
    with pytest.raises(InvalidArgument, match="no tensor or node 'nowhere'"):
        cut(graph, "nowhere")


def test_the_digest_is_of_what_is_computed(small: Cut) -> None:
    """Two cuts with the same weights, the second behind one more operation."""
    nodes = small.graph.nodes
    (last,) = (node for node in nodes if small.graph.outputs["features"] in node.outputs)
    assert last.op == "relu"
    sooner = dataclasses.replace(small.graph, outputs={"features": last.inputs[0]})
    shorter = backbone_of(dataclasses.replace(small, graph=sooner))
    shorter_again = backbone_of(dataclasses.replace(small, graph=sooner))
    whole = backbone_of(small)
    assert shorter.net.state_dict().keys() == whole.net.state_dict().keys()
    assert shorter.digest() == shorter_again.digest() != whole.digest()


def test_an_export_with_one_open_side_is_not_taken_as_square(small: Cut) -> None:
    ((name, entry),) = small.graph.inputs.items()
    narrow = dataclasses.replace(entry, shape=(-1, -1, 224, 3))
    backbone = backbone_of(
        dataclasses.replace(small, graph=dataclasses.replace(small.graph, inputs={name: narrow}))
    )
    assert backbone.size is None
    with pytest.raises(InvalidArgument, match="not square"):
        _ = backbone.side


def test_the_range_of_pixels_is_never_guessed(small: Cut) -> None:
    with pytest.raises(InvalidArgument, match="does not say which"):
        Pixels.of(small)
    with pytest.raises(InvalidArgument, match=r"is one of 0\.\.255"):
        Pixels.of(small, "0..2")


def test_frozen_is_byte_identical_after_training(small: Cut) -> None:
    backbone = backbone_of(small)
    model = heads.WarmClassifier(backbone, heads.build(heads.Head(widths=()), 32, 3))
    backbone.unfreeze(1)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    before = {name: value.clone() for name, value in backbone.net.state_dict().items()}
    model.train()
    for _ in range(3):
        optimizer.zero_grad()
        pictures = torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8)
        nn.functional.cross_entropy(model(pictures), torch.arange(8) % 3).backward()
        optimizer.step()
    changed = {
        name.split(".")[1]
        for name, value in backbone.net.state_dict().items()
        if value.numpy().tobytes() != before[name].numpy().tobytes()
    }
    assert changed == set(backbone.stages[-1])
    statistics = [n for n in before if "running" in n or "batches" in n]
    after = backbone.net.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in statistics)


def test_statistics_move_only_where_that_was_asked_for(small: Cut) -> None:
    backbone = backbone_of(small, moving_statistics=True)
    backbone.unfreeze(1)
    backbone.train()
    before = {name: value.clone() for name, value in backbone.net.state_dict().items()}
    backbone(torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8))
    after = backbone.net.state_dict()
    moved = {
        n.split(".")[1] for n in before if "mean" in n and not torch.equal(before[n], after[n])
    }
    assert moved == {"wide_bn"}


def test_rates_fall_towards_the_picture(small: Cut) -> None:
    backbone = backbone_of(small)
    backbone.unfreeze(3)
    assert [group["lr"] for group in backbone.rates(1.0, 0.5)] == [1.0, 0.5, 0.25]
    counted = sum(p.numel() for g in backbone.rates(1.0, 0.5) for p in g["params"])
    assert counted == sum(p.numel() for p in backbone.parameters())
    with pytest.raises(InvalidArgument, match="3 stages"):
        backbone.unfreeze(4)


def test_the_head_of_the_recipe() -> None:
    head = heads.build(heads.Head(), 32, 5)
    assert [type(layer).__name__ for layer in head] == ["Linear", "ReLU", "Dropout", "Linear"]
    assert head[0].weight.shape == (512, 32)
    assert head[2].p == 0.3


def rows_of(cache: FeatureCache, pictures: torch.Tensor, seen: list[int]) -> torch.Tensor:
    def compute(some: torch.Tensor) -> torch.Tensor:
        seen.append(len(some))
        return some.float().mean(dim=(2, 3)).repeat(1, 8)

    return cache.rows(pictures, compute)


def test_the_cache_answers_as_the_backbone(tmp_path: Path) -> None:
    pictures = torch.randint(256, (40, 3, 8, 8), dtype=torch.uint8)
    first, seen = FeatureCache(tmp_path, "b", "p", 1 << 20), list[int]()
    wanted = rows_of(first, pictures, seen)
    assert seen == [32, 8]
    again = FeatureCache(tmp_path, "b", "p", 1 << 20)
    assert torch.equal(rows_of(again, pictures.flip(0), seen), wanted.flip(0))
    assert (again.hits, again.misses) == (40, 0)
    for backbone, words in (("other", "p"), ("b", "other")):
        other = FeatureCache(tmp_path, backbone, words, 1 << 20)
        rows_of(other, pictures, seen)
        assert other.hits == 0


def test_a_damaged_entry_is_computed_again(tmp_path: Path) -> None:
    pictures, seen = torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8), list[int]()
    wanted = rows_of(FeatureCache(tmp_path, "b", "p", 1 << 20), pictures, seen)
    damaged = sorted(tmp_path.rglob("*.features"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    cache = FeatureCache(tmp_path, "b", "p", 1 << 20)
    assert torch.equal(rows_of(cache, pictures, seen), wanted)
    assert (cache.hits, cache.misses) == (3, 1)


def test_the_cache_is_bounded(tmp_path: Path) -> None:
    limit = 10 * (24 * 4 + 32)
    cache, seen = FeatureCache(tmp_path, "b", "p", limit), list[int]()
    for _ in range(5):
        rows_of(cache, torch.randint(256, (8, 3, 8, 8), dtype=torch.uint8), seen)
    assert 0 < sum(p.stat().st_size for p in tmp_path.rglob("*.features")) <= limit


def test_features_that_are_not_finite_are_an_error(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, "b", "p", 1 << 20)
    with pytest.raises(FailedPrecondition, match="not finite"):
        cache.rows(
            torch.zeros(2, 3, 4, 4, dtype=torch.uint8), lambda x: torch.full((len(x), 2), torch.nan)
        )
    assert not list(tmp_path.rglob("*.features"))
    (tmp_path / "file").touch()
    with pytest.raises(FailedPrecondition, match="cannot be at"):
        FeatureCache(tmp_path / "file", "b", "p", 1)
