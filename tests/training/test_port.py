"""Ports to PyTorch: parity with the export, and mistakes that parity must see."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from crossfade.runtimes.core.errors import FailedPrecondition, InvalidArgument
from crossfade.training.torch_port.coverage import Coverage, coverage, require_complete
from crossfade.training.torch_port.fill import fill
from crossfade.training.torch_port.module import Ported, port
from crossfade.training.torch_port.parity import Report, compare
from crossfade.training.torch_port.probes import picture_files, probes
from crossfade.training.torch_port.reference import SavedModelReference
from crossfade.training.weights import savedmodel_file
from crossfade.training.weights.graph import Graph, Stored
from crossfade.training.weights.inventory import inventory
from tests.training import keras_models


@pytest.fixture(scope="module")
def graph(small_net: Path) -> Graph:
    return savedmodel_file.read(small_net)


@pytest.fixture(scope="module")
def reference(small_net: Path, graph: Graph) -> SavedModelReference:
    return SavedModelReference(small_net, graph, "")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    was = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(was)


def compared(ported: Ported, graph: Graph, reference: Any, side: int = 40) -> Report:
    return compare(ported, reference, probes(graph, side=side))


def say(name: str, covered: Coverage, report: Report) -> None:
    """The numbers of the table in docs/training.md, which ``pytest -rP`` shows."""
    weights = f"{len(covered.carried)} of {covered.as_dict()['weights']} weights"
    relative = max(layer.relative for layer in report.layers)
    largest = max(layer.max_abs for layer in report.layers)
    outputs = max(output.max_abs for output in report.outputs)
    sys.stdout.write(
        f"{name}: {weights}, {len(report.probes)} probes, worst layer {relative:.1e} of its"
        f" magnitude (largest difference {largest:.1e}), outputs {outputs:.1e}\n"
    )


def test_each_layer_answers_alike(graph: Graph, reference: SavedModelReference) -> None:
    report = compared(port(graph), graph, reference)
    assert report.passed, report.wrong
    assert len(report.layers) == 13
    assert report.rows > 10
    assert {"chessboard", "spike", "noise 39x41", "noise -1..1, batch 7"} <= set(report.probes)


def test_real_pictures(graph: Graph, reference: SavedModelReference, shared: Path) -> None:
    files = picture_files(shared / "images", 4)
    report = compare(port(graph), reference, probes(graph, files, 224))
    assert report.passed, report.wrong
    assert "noise 223x225" in report.probes


def test_a_table(table_net: Path) -> None:
    graph = savedmodel_file.read(table_net)
    ported = port(graph)
    report = compare(ported, SavedModelReference(table_net, graph, ""), probes(graph))
    assert report.passed, report.wrong
    assert {"embedding", "first_bn"} <= {layer.name for layer in report.layers}
    covered = coverage(inventory(graph), ported.carried)
    assert covered.as_dict()["fraction"] == 1
    say("tabular MLP", covered, report)


def _swap_depthwise(ported: Ported) -> str:
    """A multiplier's kernels taken multiplier first: [H, W, C, M] to [M * C, 1, H, W]."""
    weight = ported.layers.wide.weight
    channels = weight.shape[0] // 2
    swapped = weight.data.reshape(channels, 2, 1, *weight.shape[2:]).transpose(0, 1)
    weight.data = swapped.reshape(weight.shape).contiguous()
    return "wide"


def _turn_depthwise(ported: Ported) -> str:
    """Height and width exchanged."""
    weight = ported.layers.depthwise.weight
    weight.data = weight.data.transpose(2, 3).contiguous()
    return "depthwise"


def _pytorch_epsilon(ported: Ported) -> str:
    ported.layers.stem_bn.eps = 1e-5
    return "stem_bn"


def _padding_one(ported: Ported) -> str:
    ported.layers.down.padding = ((1, 1), (1, 1))
    return "down"


def _no_statistics(ported: Ported) -> str:
    ported.layers.project_bn.reset_running_stats()
    return "project_bn"


def _no_bias(ported: Ported) -> str:
    ported.layers.excite.bias.data.zero_()
    return "excite"


def _training(ported: Ported) -> str:
    ported.layers.down_bn.train()
    return "down_bn"


@pytest.mark.parametrize(
    "mutate",
    [
        _swap_depthwise,
        _turn_depthwise,
        _pytorch_epsilon,
        _padding_one,
        _no_statistics,
        _no_bias,
        _training,
    ],
)
def test_a_mistake_is_caught_where_it_was_made(
    mutate: Callable[[Ported], str], graph: Graph, reference: SavedModelReference
) -> None:
    ported = port(graph)
    layer = mutate(ported)
    report = compared(ported, graph, reference)
    assert not report.passed
    assert report.wrong[0] == layer


def test_one_weight_left_behind_is_an_error_with_a_full_diff(graph: Graph) -> None:
    found = inventory(graph)
    ported = port(graph)
    assert coverage(found, ported.carried).complete
    fewer = ported.carried - {"stem/kernel", "down_bn/moving_mean"}
    with pytest.raises(FailedPrecondition) as caught:
        require_complete(coverage(found, fewer))
    assert "stem/kernel (conv_kernel, 3x3x3x8)" in caught.value.message
    assert "down_bn/moving_mean (bn_mean, 16)" in caught.value.message
    allowed = coverage(found, fewer, ["^stem/", "moving_mean$"])
    assert allowed.complete
    assert set(allowed.allowed) >= {"stem/kernel", "down_bn/moving_mean"}


def test_what_the_signature_does_not_read_must_be_allowed(graph: Graph) -> None:
    stored = {"extra/kernel": Stored("float32", (3, 4)), "seed": Stored("uint32", (2,))}
    found = dataclasses.replace(inventory(graph), unread=stored)
    left = coverage(found, port(graph).carried)
    assert left.missing == ("extra/kernel (float32, 3x4, not read by the signature)",)
    assert set(left.allowed) == {"seed"}


def test_unknown_operations_are_named(graph: Graph) -> None:
    node = dataclasses.replace(graph.nodes[-1], op="tf:DecodeJpeg")
    with pytest.raises(InvalidArgument, match="cannot be ported to PyTorch: DecodeJpeg"):
        port(dataclasses.replace(graph, nodes=(*graph.nodes[:-1], node)))


def test_a_weight_that_is_not_finite_is_named(graph: Graph) -> None:
    name = next(n for n, o in graph.origins.items() if o == "stem/kernel")
    broken = graph.constants[name].copy()
    broken[0, 0, 0, 0] = np.nan
    constants = {**graph.constants, name: broken}
    with pytest.raises(FailedPrecondition, match="'stem/kernel' holds NaN"):
        port(dataclasses.replace(graph, constants=constants))


def test_it_trains_and_its_statistics_move(graph: Graph) -> None:
    ported = port(graph).train()
    before = ported.layers.stem_bn.running_mean.clone()
    picture = torch.rand(4, 40, 40, 3) * 255
    loss = -ported(picture)[:, 0].log().mean()
    loss.backward()
    assert all(p.grad is not None for p in ported.parameters() if p.requires_grad)
    assert not torch.equal(before, ported.layers.stem_bn.running_mean)


def test_it_can_be_traced_with_a_free_batch(graph: Graph) -> None:
    """Shapes stay numbers inside, so that PyTorch's exporter finds no data-dependent sizes."""
    ported, picture = port(graph), torch.rand(2, 40, 40, 3) * 255
    sizes = (({0: torch.export.Dim("batch")},),)
    program = torch.export.export(ported, (picture,), dynamic_shapes=sizes)
    pictures = torch.rand(5, 40, 40, 3) * 255
    torch.testing.assert_close(program.module()(pictures), ported(pictures))


class _Own(nn.Module):
    """A net of one's own, in the order of the export; padding as it comes."""

    def __init__(self, wide: int = 32) -> None:
        super().__init__()
        self.stem, self.stem_bn = nn.Conv2d(3, 8, 3, 2, bias=False), nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.depthwise_bn = nn.BatchNorm2d(8)
        self.squeeze, self.excite = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)
        self.project, self.project_bn = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        self.down, self.down_bn = nn.Conv2d(8, 16, 3, 2, bias=False), nn.BatchNorm2d(16)
        self.wide, self.wide_bn = nn.Conv2d(16, wide, 5, 2, groups=16), nn.BatchNorm2d(wide)
        self.scores = nn.Linear(32, 5)


def test_a_module_of_ones_own_is_filled_by_role(graph: Graph) -> None:
    own = _Own()
    names = fill(own, graph)
    ported = port(graph)
    assert names == {weight.name for weight in inventory(graph).weights}
    for name in ("stem", "depthwise", "wide", "scores"):
        assert torch.equal(getattr(own, name).weight, ported.layers[name].weight)
    assert torch.equal(own.down_bn.running_var, ported.layers.down_bn.running_var)
    assert own.stem_bn.eps == pytest.approx(1e-3)
    assert own.project_bn.eps == pytest.approx(1e-2)


def test_what_does_not_fit_is_told_in_full_and_nothing_is_copied(graph: Graph) -> None:
    own = _Own(wide=16)
    own.extra = nn.Conv2d(8, 8, 1)
    before = own.stem.weight.clone()
    with pytest.raises(FailedPrecondition) as caught:
        fill(own, graph)
    message = caught.value.message
    assert "'wide': weight is (16, 1, 5, 5) here and (32, 1, 5, 5) in the export" in message
    assert "convolution 'extra': not in the export" in message
    assert torch.equal(before, own.stem.weight)


@pytest.mark.large
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["EfficientNetB0", "MobileNetV2", "ResNet50"])
def test_architectures(name: str, tmp_path: Path, shared: Path) -> None:
    keras_models.application(name, tmp_path)
    graph = savedmodel_file.read(tmp_path)
    ported = port(graph)
    covered = coverage(inventory(graph), ported.carried)
    require_complete(covered)
    files = picture_files(shared / "images", 4)
    report = compare(ported, SavedModelReference(tmp_path, graph, ""), probes(graph, files))
    assert report.passed, report.wrong
    assert max(output.max_abs for output in report.outputs) <= 1e-4
    say(name, covered, report)
