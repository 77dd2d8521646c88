"""Proof that a port answers as its export does: layer by layer, on inputs that look for trouble."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import numpy as np
import torch

from crossfade.training.torch_port.module import Ported
from crossfade.training.torch_port.reference import Reference
from crossfade.training.weights.graph import Array

TOLERANCE: Final = 1e-4
# Of a graph of 8 bits: a value between two steps of its grid may be rounded either way.
STEPS: Final = 1.01


@dataclasses.dataclass(slots=True)
class Difference:
    """The worst of one tensor over all probes.

    Attributes:
        max_abs: largest difference of two elements.
        relative: the same, as a part of the reference's largest magnitude where that is above 1;
            in a graph of 8 bits in steps of the tensor's grid.
        cosine: smallest, of the two as vectors.
        probe: the one with the largest ``relative``.
    """

    name: str
    max_abs: float = 0.0
    relative: float = 0.0
    cosine: float = 1.0
    probe: str = ""
    step: float = 0.0

    def add(self, probe: str, was: Array, now: Array) -> None:
        """Takes in one probe; other shapes and values that are not finite are infinitely far."""
        if was.shape != now.shape or not np.isfinite(now[np.isfinite(was)]).all():
            found = (np.inf, np.inf, -1.0)
        else:
            found = _distance(was.astype(np.float64), now.astype(np.float64), self.step)
        self.max_abs, self.cosine = max(self.max_abs, found[0]), min(self.cosine, found[2])
        if found[1] > self.relative or not self.probe:
            self.relative, self.probe = found[1], probe


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """What a comparison found.

    Attributes:
        layers: those with weights, in the order of computing.
        outputs: of the signature.
        reading: the flat graph run by the export's own library beside the export: a difference
            here is a mistake in reading the file.
        agreement: fraction of rows whose largest score is at the same place, over the outputs
            with scores.
    """

    tolerance: float
    layers: tuple[Difference, ...]
    outputs: tuple[Difference, ...]
    reading: tuple[Difference, ...]
    agreement: float
    rows: int
    probes: tuple[str, ...]

    @property
    def wrong(self) -> list[str]:
        """Names of what is too far away, the first layer first."""
        every = (*self.reading, *self.layers, *self.outputs)
        return [d.name for d in every if not d.relative <= self.tolerance]

    @property
    def passed(self) -> bool:
        """Every tensor is within the tolerance, and the first choices are the same.

        In a graph of 8 bits nine of ten must be: noise has no clear first choice.
        """
        return not self.wrong and self.agreement >= (0.9 if self.tolerance == STEPS else 1.0)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for a report."""
        return {
            "passed": self.passed,
            "tolerance": self.tolerance,
            "wrong": self.wrong,
            "max_abs_output": max((d.max_abs for d in self.outputs), default=0.0),
            "worst_layer": max(self.layers, key=lambda d: d.relative).name if self.layers else None,
            "worst_relative": max((d.relative for d in self.layers), default=0.0),
            "first_choice_agreement": self.agreement,
            "rows": self.rows,
            "probes": list(self.probes),
            "outputs": [dataclasses.asdict(d) for d in self.outputs],
            "reading": [dataclasses.asdict(d) for d in self.reading],
            "layers": [dataclasses.asdict(d) for d in self.layers],
        }


def compare(
    ported: Ported,
    reference: Reference,
    inputs: Iterable[tuple[str, Mapping[str, Array]]],
    tolerance: float = TOLERANCE,
    progress: Callable[[str], None] = lambda _: None,
) -> Report:
    """Runs both on every probe.

    In a graph of 8 bits each layer is given what the reference's layer was given, because one
    value that is rounded the other way changes all that follows; then its answer may be one step
    of the grid away. What such steps add up to by the end is seen in ``agreement`` alone.

    Args:
        ported: the module, in eval mode.
        reference: the export.
        inputs: probes by name.
        tolerance: the largest difference of any element, absolute up to a magnitude of 1 and
            relative above.
        progress: is told each probe's name.
    """
    taps = ported.layer_outputs()
    grid = {n.outputs[0]: n.attributes["scale"] for n in ported.graph.nodes if n.op == "quantized"}
    tolerance = STEPS if grid else tolerance
    kept = list(dict.fromkeys((*taps.values(), *grid)))
    layers = {name: Difference(name, step=grid.get(t, 0.0)) for name, t in taps.items()}
    ends = ported.graph.outputs
    outputs = {n: Difference(n, step=grid.get(ends[n], 0.0)) for n in ported.output_names}
    reading = {name: Difference(f"reading {name}") for name in ported.output_names}
    same, rows, names = 0, 0, []
    for name, values in inputs:
        progress(name)
        names.append(name)
        found = reference.run(values, kept)
        with torch.no_grad():
            tensors = [torch.from_numpy(np.array(values[n])) for n in ported.input_names]
            mine = ported.run(tensors, kept)
            forced = {n: torch.from_numpy(np.array(found[n])) for n in grid}
            stepped = ported.run(tensors, kept, forced) if grid else mine
        for layer, tensor in taps.items():
            layers[layer].add(name, found[tensor], stepped[tensor].numpy())
        for output in ported.output_names:
            was, now = found[output], mine[ends[output]].numpy()
            outputs[output].add(name, was, stepped[ends[output]].numpy())
            if (flat := found.get(f"flat:{output}")) is not None:
                reading[output].add(name, was, flat)
            if was.ndim == 2 and was.shape == now.shape and was.shape[1] > 1:
                rows += len(was)
                same += int(_same_choice(was, now, tolerance).sum())
    return Report(
        tolerance,
        tuple(layers.values()),
        tuple(outputs.values()),
        tuple(difference for difference in reading.values() if difference.probe),
        same / rows if rows else 1.0,
        rows,
        tuple(names),
    )


def _same_choice(was: Array, now: Array, tolerance: float) -> Array:
    """Rows with one first choice; where the reference has two alike, either will do."""
    chosen = np.take_along_axis(was, now.argmax(1)[:, None], 1)[:, 0]
    best: Array = was.max(1)
    return np.asarray(chosen >= best - tolerance * np.maximum(1.0, np.abs(best)))


def _distance(was: Array, now: Array, step: float) -> tuple[float, float, float]:
    usual = np.isfinite(was)
    was, now = was[usual], now[usual]
    if not was.size:
        return 0.0, 0.0, 1.0
    far, scale = float(np.abs(was - now).max()), float(np.abs(was).max())
    norms = float(np.linalg.norm(was)), float(np.linalg.norm(now))
    cosine = float(was @ now / (norms[0] * norms[1])) if all(norms) else float(norms[0] == norms[1])
    return far, far / (step or max(1.0, scale)), cosine
