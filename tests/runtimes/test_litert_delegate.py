"""The Edge TPU, played by a delegate made here: devices, twins, segments, what runs where."""

from __future__ import annotations

import concurrent.futures
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfade.runtimes import registry
from crossfade.runtimes.core.errors import CrossfadeError, LoadFailed
from crossfade.runtimes.core.model import Artifact, Session
from crossfade.runtimes.litert import edge_tpu as files
from crossfade.runtimes.litert import placement

pytest.importorskip("ai_edge_litert")
from tests.runtimes import tflite_models as tm

Load = Callable[..., Session]
X = np.array([[1, 2, 3, 4]], np.uint8)
# The sum of X's bytes, and one more for each byte of the answer.
ON_DEVICE = [[10, 11, 12, 13]]


def compiled(folder: Path, name: str = "model_edgetpu.tflite", **graph: Any) -> Path:
    path = folder / name
    path.write_bytes(tm.build(tm.edge_tpu(**graph)))
    return path


def plain(folder: Path, name: str = "model.tflite") -> Path:
    """y = x, and that on the CPU."""
    path = folder / name
    path.write_bytes(tm.build(tm.reshape([1, 4], tm.UINT8)))
    return path


def answer(session: Session, x: np.ndarray = X) -> Any:
    return session.run({"x": x}, "serving_default", ("y",))["y"].tolist()


def test_one_interpreter_a_device(
    edge_tpu: Path, tmp_path: Path, load: Load, capfd: pytest.CaptureFixture[str]
) -> None:
    path = compiled(tmp_path)
    session = load("tflite", path, 4, delegate=str(edge_tpu), devices=["usb:0", "usb:1"])
    assert session.instances == 2  # type: ignore[attr-defined]
    # Nothing is tried out on a device: the shapes stay.
    assert session.signatures["serving_default"].inputs[0].shape == (1, 4)
    assert answer(session) == ON_DEVICE
    session.close()
    del session
    said = capfd.readouterr().err
    for device in ("usb:0", "usb:1"):
        assert said.count(f"claimed 1 on {device}") == said.count(f"destroyed {device},") == 1


def test_a_delegate_without_a_device_is_given_its_options(
    edge_tpu: Path, tmp_path: Path, load: Load, capfd: pytest.CaptureFixture[str]
) -> None:
    options = {"delegate": str(edge_tpu), "delegate_options": {"device": "pci:0"}}
    session = load("tflite", compiled(tmp_path), 2, **options)
    assert session.instances == 2  # type: ignore[attr-defined]
    assert answer(session) == ON_DEVICE
    assert capfd.readouterr().err.count("claimed 1 on pci:0") == 2


@pytest.mark.parametrize("then_on_cpu", [False, True])
def test_what_runs_where_is_told(
    edge_tpu: Path, tmp_path: Path, load: Load, caplog: pytest.LogCaptureFixture, then_on_cpu: bool
) -> None:
    caplog.set_level(logging.INFO)
    path = compiled(tmp_path, then_on_cpu=then_on_cpu)
    session = load("tflite", path, delegate=str(edge_tpu), device="usb:0")
    nodes = {"delegate": 1, "cpu": int(then_on_cpu)}
    assert session.nodes == nodes  # type: ignore[attr-defined]
    (record,) = [r for r in caplog.records if "nodes" in r.__dict__]
    assert (record.levelno, record.__dict__["nodes"]) == (logging.INFO, nodes)
    assert record.__dict__["devices"] == ["usb:0"]
    assert answer(session) == ON_DEVICE


def test_a_plain_model_stays_on_the_cpu_and_the_log_warns(
    edge_tpu: Path, tmp_path: Path, load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    session = load("tflite", plain(tmp_path), delegate=str(edge_tpu), device="usb:0")
    assert session.nodes == {"delegate": 0, "cpu": 1}  # type: ignore[attr-defined]
    (record,) = [r for r in caplog.records if "nodes" in r.__dict__]
    assert record.levelno == logging.WARNING
    assert "is it compiled for the Edge TPU?" in record.message
    assert answer(session) == X.tolist()


@pytest.mark.parametrize("name", ["model_edgetpu.tflite", "edgetpu_model.tflite"])
def test_devices_mean_the_compiled_file_of_a_folder_with_both(
    edge_tpu: Path, tmp_path: Path, load: Load, name: str
) -> None:
    compiled(tmp_path, name)
    path = plain(tmp_path)
    assert answer(load("tflite", path)) == X.tolist()
    assert answer(load("tflite", path, delegate=str(edge_tpu), device=":0")) == ON_DEVICE


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "no library": ({"device": "usb"}, "cannot be loaded: libedgetpu.so.1:.*libedgetpu1-std"),
    "no device": ({"delegate": "here", "device": "usb:7"}, "plugged in.*no Edge TPU at"),
    "the second": (
        {"delegate": "here", "devices": ["usb:0", "usb:7"]},
        "plugged in.*no Edge TPU at",
    ),
    "no delegate": ({"delegate": "libc.so.6", "device": "usb"}, "holds no TFLite delegate"),
    "not asked for": ({}, "compiled for the Edge TPU.*'device'.*'fallback: cpu'"),
    "claims nothing": (
        {"delegate": "here", "device": "usb", "delegate_options": {"claims": "nothing"}},
        "compiled for the Edge TPU",
    ),
}


def broken(what: str, library: Path) -> tuple[dict[str, Any], str]:
    options, says = BROKEN[what]
    return {k: str(library) if v == "here" else v for k, v in options.items()}, says


@pytest.mark.parametrize("what", BROKEN)
def test_a_device_that_cannot_be_had_fails_the_load(
    edge_tpu: Path,
    tmp_path: Path,
    load: Load,
    assert_clean: Callable[[CrossfadeError, Path], None],
    what: str,
) -> None:
    options, says = broken(what, edge_tpu)
    plain(tmp_path)
    with pytest.raises(LoadFailed, match=says) as failed:
        load("tflite", compiled(tmp_path), **options)
    assert_clean(failed.value, tmp_path)
    assert str(edge_tpu.parent) not in failed.value.message


@pytest.mark.parametrize("what", BROKEN)
def test_or_the_twin_serves_and_the_log_warns(
    edge_tpu: Path, tmp_path: Path, load: Load, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    options, says = broken(what, edge_tpu)
    plain(tmp_path)
    session = load("tflite", compiled(tmp_path), 3, fallback="cpu", **options)
    assert answer(session) == X.tolist()
    assert session.instances == 3  # type: ignore[attr-defined]
    assert session.nodes == {}  # type: ignore[attr-defined]
    (record,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert re.search(says, record.__dict__["reason"])
    assert record.__dict__["file"] == "model.tflite"


def test_the_twin_may_have_another_name(tmp_path: Path, load: Load) -> None:
    path = compiled(tmp_path)
    plain(tmp_path, "for_the_cpu.tflite")
    with pytest.raises(LoadFailed, match=r"no 'model\.tflite' for the CPU.*'cpu_model'"):
        load("tflite", path, fallback="cpu")
    session = load("tflite", path, fallback="cpu", cpu_model="for_the_cpu.tflite")
    assert answer(session) == X.tolist()
    with pytest.raises(LoadFailed, match=r"no 'gone\.tflite'"):
        load("tflite", path, fallback="cpu", cpu_model="gone.tflite")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"device": "gpu:0"}, "option 'device'"),
        ({"device": ""}, "option 'device'"),
        ({"devices": ["usb:0", "/dev/apex_0"]}, r"option 'devices\.1'"),
        ({"device": "usb", "devices": ["usb"]}, "do not go together"),
        ({"device": "usb", "delegate_options": {"device": "pci"}}, "names a device"),
        ({"fallback": "tpu"}, "option 'fallback'"),
        ({"cpu_model": "cpu.tflite"}, "needs 'fallback: cpu'"),
        ({"fallback": "cpu", "cpu_model": "../cpu.tflite"}, "option 'cpu_model'"),
        ({"fallback": "cpu", "cpu_model": ".."}, "option 'cpu_model'"),
    ],
)
def test_options_that_are_none(
    tmp_path: Path, load: Load, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(LoadFailed, match=says):
        load("tflite", plain(tmp_path), **options)


def most_at_once(session: Session, capfd: pytest.CaptureFixture[str]) -> int:
    session.close()
    return max(map(int, re.findall(r"(\d+) at once", capfd.readouterr().err)))


def test_two_models_on_two_devices_work_at_the_same_time(
    edge_tpu: Path, tmp_path: Path, load: Load, capfd: pytest.CaptureFixture[str]
) -> None:
    options = {"delegate": str(edge_tpu), "delegate_options": {"takes_ms": "20"}}
    path = compiled(tmp_path)
    first = load("tflite", path, device="usb:0", **options)
    second = load("tflite", path, device="usb:1", **options)

    def through_both(value: int) -> Any:
        return answer(second, np.array(answer(first, np.full((1, 4), value, np.uint8)), np.uint8))

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(through_both, range(10)))
    sums = [sum((4 * value + i) % 256 for i in range(4)) for value in range(10)]
    assert answers == [[[(total + i) % 256 for i in range(4)]] for total in sums]
    first.close()
    assert most_at_once(second, capfd) == 2


def segment(number: int, count: int) -> str:
    return f"model_segment_{number}_of_{count}_edgetpu.tflite"


def test_segments_run_one_after_the_other_on_several_devices(
    edge_tpu: Path, tmp_path: Path, load: Load, capfd: pytest.CaptureFixture[str]
) -> None:
    compiled(tmp_path, segment(0, 2), y="middle")
    path = compiled(tmp_path, segment(1, 2), x="middle", y="y")
    options = {"delegate": str(edge_tpu), "devices": ["usb:0", "usb:1"]}
    session = load("tflite", path, **options)
    assert session.nodes == {"delegate": 2, "cpu": 0}  # type: ignore[attr-defined]
    assert session.instances == 2  # type: ignore[attr-defined]
    assert answer(session) == [[46, 47, 48, 49]]  # 10 + 11 + 12 + 13
    runtime, alone = registry.create("tflite"), compiled(tmp_path, "alone_edgetpu.tflite")
    both, one = (runtime.estimate(Artifact(p, "model", 1)) for p in (path, alone))
    assert both > one
    said = capfd.readouterr().err
    assert re.findall("ran on (.*)", said) == ["usb:0", "usb:1"]
    session.close()


def test_the_segments_of_a_pipeline_work_at_the_same_time(
    edge_tpu: Path, tmp_path: Path, load: Load, capfd: pytest.CaptureFixture[str]
) -> None:
    path = compiled(tmp_path, segment(0, 2), y="middle")
    compiled(tmp_path, segment(1, 2), x="middle", y="y")
    options = {"delegate": str(edge_tpu), "devices": ["usb:0", "usb:1"]}
    session = load("tflite", path, **options, delegate_options={"takes_ms": "20"})
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: answer(session), range(10)))
    assert answers == [[[46, 47, 48, 49]]] * 10
    assert most_at_once(session, capfd) == 2


def test_segments_that_do_not_fit(edge_tpu: Path, tmp_path: Path, load: Load) -> None:
    path = compiled(tmp_path, segment(0, 2), y="middle")
    options = {"delegate": str(edge_tpu), "device": "usb"}
    with pytest.raises(LoadFailed, match=f"'{segment(1, 2)}' of the pipeline is missing"):
        load("tflite", path, **options)
    compiled(tmp_path, segment(1, 2), x="elsewhere")
    with pytest.raises(LoadFailed, match="segment 1 takes 'elsewhere'"):
        load("tflite", path, **options)
    plain(tmp_path)
    assert answer(load("tflite", path, fallback="cpu", **options)) == X.tolist()


def test_names_are_not_guessed(tmp_path: Path) -> None:
    """Two compiled models beside a plain one: which is meant is not known, so none is."""
    for name in ("a_edgetpu.tflite", "b_edgetpu.tflite", "model.tflite"):
        (tmp_path / name).touch()
    path = tmp_path / "model.tflite"
    assert files.compiled(path) == path
    assert files.compiled(tmp_path / "b_edgetpu.tflite").name == "b_edgetpu.tflite"


@settings(deadline=None)
@given(st.data())
def test_nodes_are_counted_whatever_parts_a_delegate_takes(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    inputs = [
        data.draw(st.lists(st.integers(0, node), min_size=1, max_size=3)) for node in range(count)
    ]
    own = [{"op_name": "ADD", "inputs": inputs[n], "outputs": [n + 1]} for n in range(count)]
    used = {tensor for taken in inputs for tensor in taken}
    outputs = [n + 1 for n in range(count) if n + 1 not in used]
    taken = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    rows: list[dict[str, Any]] = []
    part: list[int] = []
    for node in range(count + 1):
        if node < count and taken[node]:
            part.append(node)
        elif part:
            made = {n + 1 for n in part}
            outside = {t for n in range(count) if n not in part for t in inputs[n]}
            needs = {t for n in part for t in inputs[n]} - made
            gives = made & (outside | set(outputs))
            row = {"op_name": "DELEGATE", "inputs": sorted(needs), "outputs": sorted(gives)}
            rows.append(row)
            part = []
    found = placement.count([*own, *rows], outputs)
    assert found == {"delegate": sum(taken), "cpu": count - sum(taken)}


def test_the_real_compiled_mobilenet_is_claimed_as_one_node(
    edge_tpu: Path, shared: Path, load: Load
) -> None:
    path = shared / "edgetpu" / "mobilenet_v2_1.0_224_quant_edgetpu.tflite"
    session = load("tflite", path, delegate=str(edge_tpu), device="usb:0")
    assert session.nodes == {"delegate": 1, "cpu": 0}  # type: ignore[attr-defined]


@pytest.mark.edgetpu
def test_the_real_edge_tpu_tells_the_cat(shared: Path, load: Load) -> None:
    from PIL import Image

    folder = shared / "edgetpu"
    session = load("tflite", folder / "mobilenet_v2_1.0_224_quant_edgetpu.tflite", device=":0")
    assert session.nodes == {"delegate": 1, "cpu": 0}  # type: ignore[attr-defined]
    with Image.open(folder / "cat.bmp") as image:
        cat = image.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)
    (spec,) = session.signatures["serving_default"].inputs
    (scores,) = session.run({spec.name: np.asarray(cat)[None]}, "serving_default", ()).values()
    assert int(scores[0].argmax()) == 286
