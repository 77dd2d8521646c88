"""Building engines, on a TensorRT that is made here: what the builder is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfade.runtimes.core.errors import CrossfadeError, LoadFailed
from crossfade.runtimes.core.model import Artifact
from crossfade.runtimes.trt.build import Plan, build, default_profile
from crossfade.runtimes.trt.libraries import Libraries
from crossfade.runtimes.trt.runtime import TensorRtRuntime
from crossfade.runtimes.trt.shapes import Range
from tests.runtimes.fake_cuda import FakeCuda
from tests.runtimes.fake_tensorrt import FakeTensorRt


class Site:
    def __init__(self, folder: Path, version: str = "10.16.1") -> None:
        self.cuda = FakeCuda()
        self.trt: Any = FakeTensorRt(self.cuda, version)
        self.onnx = folder / "model.onnx"

    def build(self, plan: Plan, calibration: Any = None, **inputs: Any) -> bytes:
        self.onnx.write_text(json.dumps(inputs or {"x": [-1, 3]}))
        return build(self.onnx, plan, calibration, Libraries(self.trt, self.cuda))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.mark.parametrize("version", ["10.16.1", "11.4.0"])
def test_what_was_built_is_served(tmp_path: Path, version: str) -> None:
    site = Site(tmp_path, version)
    path = tmp_path / "model.plan"
    path.write_bytes(site.build(Plan(max_rows=5)))
    runtime = TensorRtRuntime(lambda: Libraries(site.trt, site.cuda))
    session = runtime.load(Artifact(path, "model", 1))
    assert session.max_rows == 5  # type: ignore[attr-defined]
    y = session.run({"x": np.ones((5, 3), np.float32)}, "serving_default", ("y",))["y"]
    assert y.tolist() == [[3, 3, 3]] * 5


def test_profiles_are_as_given(site: Site) -> None:
    small, large = (Range((1, 3), (n, 3), (n, 3)) for n in (2, 32))
    site.build(Plan(profiles=[{"x": small}, {"x": large}], workspace_bytes=1 << 20))
    assert [p.shapes["x"] for p in site.trt.last.profiles] == [
        [[1, 3], [2, 3], [2, 3]],
        [[1, 3], [32, 3], [32, 3]],
    ]
    assert list(site.trt.last.pools.values()) == [1 << 20]


def test_a_model_of_fixed_shapes_needs_no_profile(site: Site) -> None:
    site.build(Plan(), x=[1, 3])
    assert site.trt.last.profiles == []


@pytest.mark.parametrize(
    ("precision", "flags"), [("fp32", set()), ("fp16", {"FP16"}), ("int8", {"FP16", "INT8"})]
)
def test_precision_is_allowed_on_tensorrt_10(site: Site, precision: Any, flags: set[str]) -> None:
    site.build(Plan(precision=precision), [{"x": np.ones((8, 3), np.float32)}])
    assert site.trt.last.flags_set == flags


def test_calibration_sees_every_batch_and_leaves_nothing_behind(site: Site) -> None:
    random = np.random.default_rng(0)
    batches = [{"x": random.normal(size=(8, 3)).astype(np.float32)} for _ in range(3)]
    site.build(Plan(precision="int8"), iter(batches))
    seen = [
        np.frombuffer(b["x"][: 8 * 3 * 4], np.float32).reshape(8, 3) for b in site.trt.calibrated
    ]
    for got, batch in zip(seen, batches, strict=True):
        np.testing.assert_array_equal(got, batch["x"])
    assert site.trt.last.calibration_profile is site.trt.last.profiles[0]
    assert (site.cuda.on_device, site.cuda.on_host, site.cuda.streams) == ({}, {}, {})


def test_a_quantised_model_brings_its_ranges(site: Site) -> None:
    site.build(Plan(precision="int8"), x=[-1, 3], quantized=True)
    assert site.trt.last.int8_calibrator is None
    with pytest.raises(LoadFailed, match="needs calibration data"):
        site.build(Plan(precision="int8"))


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_tensorrt_11_takes_precision_from_the_model(tmp_path: Path, precision: Any) -> None:
    with pytest.raises(LoadFailed, match=f"11.4.0 takes precision.* to {precision} first"):
        Site(tmp_path, "11.4.0").build(Plan(precision=precision))


def test_compatible_engines(site: Site) -> None:
    site.build(Plan(version_compatible=True, hardware_compatible=True))
    assert site.trt.last.flags_set == {"VERSION_COMPATIBLE"}
    assert site.trt.last.hardware_compatibility_level.name == "AMPERE_PLUS"


def test_the_timing_cache_is_kept_and_used_again(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "timings"
    for count in (1, 2):
        site.build(Plan(timing_cache=cache))
        assert cache.read_bytes() == b"timings" + b" more" * count
    cache.write_bytes(b"of another GPU")
    site.build(Plan(timing_cache=cache))
    assert cache.read_bytes() == b"timings more"
    assert "made anew" in caplog.text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "timings"]


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ((Plan(), "no model", ""), r"cannot read the ONNX model: Could not parse model\.onnx"),
        ((Plan(), '{"x": [-1, 3]}', "build"), "cannot build the engine: Could not find any impl"),
        ((Plan(), '{"x": [-1, -1]}', ""), r"dynamic beyond its batch dimension \(\[-1, -1\]\)"),
        ((Plan(profiles=[{}]), '{"x": [-1, 3]}', ""), "says nothing of input 'x'"),
        ((Plan(device_id=3), '{"x": [-1, 3]}', ""), "no GPU 3"),
    ],
)
def test_what_cannot_be_built_says_why(
    site: Site,
    tmp_path: Path,
    broken: tuple[Plan, str, str],
    says: str,
    assert_clean: Callable[[CrossfadeError, Path], None],
) -> None:
    plan, content, refuses = broken
    site.onnx.write_text(content)
    site.trt.refuses.add(refuses)
    with pytest.raises(LoadFailed, match=says) as failed:
        build(site.onnx, plan, None, Libraries(site.trt, site.cuda))
    assert_clean(failed.value, tmp_path)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.text("abc", min_size=1, max_size=2),
        st.tuples(st.sampled_from([-1, 1, 4]), st.integers(1, 9), st.integers(1, 9)),
        min_size=1,
    ),
    st.integers(1, 64),
)
def test_the_default_profile_takes_one_row_and_the_most(
    inputs: dict[str, tuple[int, ...]], rows: int
) -> None:
    profile = default_profile(inputs, rows)
    for name, shape in inputs.items():
        for count in (1, rows):
            assert profile[name].takes((count if shape[0] == -1 else shape[0], *shape[1:]))
        assert not profile[name].takes((rows + 5, *shape[1:]))
