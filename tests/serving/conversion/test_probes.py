"""Made-up inputs fit whatever a model declares."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.runtimes.core.dtypes import NUMPY
from crossfade.runtimes.core.model import Signature, TensorSpec
from crossfade.serving.conversion.probes import probes

names = st.sampled_from(sorted(NUMPY))
shapes = st.lists(st.sampled_from([-1, 1, 2, 3]), max_size=4).map(tuple)
specs = st.builds(TensorSpec, st.sampled_from("abc"), names, shapes)


def signature(*inputs: TensorSpec) -> Signature:
    return Signature.derive(inputs, [TensorSpec("y", "FP32", (-1, 2))])


@given(st.lists(specs, min_size=1, max_size=3, unique_by=lambda s: s.name))
def test_every_probe_fits_the_signature(inputs: list[TensorSpec]) -> None:
    found = list(probes(signature(*inputs), (-1.0, 2.0), 8, 1))
    assert len({probe.name for probe in found}) == len(found)
    for probe in found:
        for spec in inputs:
            array = probe.inputs[spec.name]
            assert array.dtype == NUMPY[spec.dtype]
            assert spec.shape is not None
            assert array.ndim == len(spec.shape)
            assert all(w in (-1, g) for g, w in zip(array.shape, spec.shape, strict=True))
            if array.dtype.kind == "f":
                assert np.isfinite(array).all()
                if probe.expected and probe.name not in ("zeros", "ones"):
                    assert array.min() >= -1
                    assert array.max() <= 2


def test_they_cover_edges_and_batches() -> None:
    image = TensorSpec("x", "UINT8", (-1, 2, 2, 3))
    found = {probe.name: probe.inputs["x"] for probe in probes(signature(image), (0, 1), 8, 1)}
    assert {array.shape[0] for array in found.values()} == {1, 2, 8}
    assert found["lowest"].max() == 0
    assert found["highest"].min() == 255
    assert set(found["edges of the dtype"].ravel()) == {0, 255}
    assert np.count_nonzero(found["one element"]) == 1


def test_free_sizes_take_odd_values_and_those_of_the_data() -> None:
    free = TensorSpec("x", "FP32", (-1, -1, 3))
    found = list(probes(signature(free), (0, 1), 8, 1, {"x": (5, 3)}))
    assert found[0].inputs["x"].shape == (1, 5, 3)
    sizes = {probe.inputs["x"].shape[1] for probe in found if "free sizes" in probe.name}
    assert sizes == {1, 7, 32, 33}


@pytest.mark.parametrize("value_range", [(0.0, 1.0), (5.0, 6.0)])
def test_a_value_outside_the_range_is_not_held_to_the_tolerance(
    value_range: tuple[float, float],
) -> None:
    spec = TensorSpec("x", "FP32", (-1, 3))
    expected = {p.name for p in probes(signature(spec), value_range, 8, 1) if p.expected}
    assert ("zeros" in expected) == (value_range[0] == 0)
    assert "large" not in expected
    assert "highest" in expected
