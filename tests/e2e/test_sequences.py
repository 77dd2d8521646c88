"""Sequences over gRPC, HTTP and streams: Triton's samples, and an AutoML Video tracker."""

from __future__ import annotations

import queue
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from PIL import Image

from tests.conftest import ServerProcess

TRACKER = """
sequence:
  max_idle_ms: 5000
  states:
    - {input: raw_inputs/init_lstm_c, output: raw_outputs/lstm_c, initial: INITIAL}
    - {input: raw_inputs/init_lstm_h, output: raw_outputs/lstm_h, initial: INITIAL}
"""
# This export gives back a state of zeros, whatever it sees: that the state is kept shows only
# where a sequence begins with another one.
INITIAL = 200
FRAME = "normalized_input_image_tensor"


def number(value: int, module: Any = triton) -> Any:
    tensor = module.InferInput("INPUT", [1, 1], "INT32")
    tensor.set_data_from_numpy(np.array([[value]], dtype=np.int32))
    return tensor


def test_triton_samples(triton_server: ServerProcess) -> None:
    """Their graphs add the controls to the answer, so that it shows what the model was told."""
    with triton.InferenceServerClient(triton_server.grpc) as client:
        metadata = client.get_model_metadata("simple_sequence")
        assert [tensor.name for tensor in metadata.inputs] == ["INPUT"]
        assert "sequence" in client.get_server_metadata().extensions
        for model in ("simple_sequence", "simple_dyna_sequence"):
            assert client.is_model_ready(model)
            answers = [
                client.infer(
                    model,
                    [number(n)],
                    sequence_id=1001,
                    sequence_start=n == 10,
                    sequence_end=n == 12,
                ).as_numpy("OUTPUT")
                for n in (10, 11, 12)
            ]
            # OUTPUT = READY * (INPUT + START), and in the second + END * CORRID.
            end = 1001 if model == "simple_dyna_sequence" else 0
            assert [int(answer[0, 0]) for answer in answers] == [11, 11, 12 + end]
            with pytest.raises(triton.InferenceServerException, match="START flag"):
                client.infer(model, [number(1)], sequence_id=1001)
            with pytest.raises(triton.InferenceServerException, match="correlation ID"):
                client.infer(model, [number(1)])
    with triton_http.InferenceServerClient(triton_server.http) as over_http:
        one = over_http.infer(
            "simple_sequence",
            [number(5, triton_http)],
            sequence_id=77,
            sequence_start=True,
            sequence_end=True,
        )
        assert one.as_numpy("OUTPUT").shape == (1, 1)
        with pytest.raises(triton_http.InferenceServerException, match="START flag"):
            over_http.infer("simple_sequence", [number(5, triton_http)], sequence_id=77)


def frames(shared: Path) -> list[np.ndarray]:
    """Two pictures of one scene, what lies between them by mixing, and noise around it."""
    folder = shared / "automl-video" / "traffic"
    first, last = (
        np.asarray(Image.open(folder / name).convert("RGB").resize((256, 256)), np.float32)
        for name in ("0001.bmp", "0010.bmp")
    )
    noise = np.random.default_rng(1).integers(0, 255, (1, 256, 256, 3), dtype=np.uint8)
    mixed = [((1 - t) * first + t * last).astype(np.uint8)[None] for t in np.linspace(0, 1, 4)]
    return [noise, *mixed, noise]


def by_hand(shared: Path, pictures: list[np.ndarray]) -> list[dict[str, np.ndarray]]:
    """The bare interpreter with the state carried by the caller."""
    from ai_edge_litert.interpreter import Interpreter

    path = shared / "automl-video" / "traffic" / "traffic_model.tflite"
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    inputs = {d["name"]: d for d in interpreter.get_input_details()}
    outputs = {d["name"]: d for d in interpreter.get_output_details()}
    c, h = (np.full((1, 8, 8, 320), INITIAL, np.uint8) for _ in range(2))
    found: list[dict[str, np.ndarray]] = []
    for picture in pictures:
        interpreter.set_tensor(inputs[FRAME]["index"], picture)
        interpreter.set_tensor(inputs["raw_inputs/init_lstm_c"]["index"], c)
        interpreter.set_tensor(inputs["raw_inputs/init_lstm_h"]["index"], h)
        interpreter.invoke()
        got = {name: interpreter.get_tensor(d["index"]) for name, d in outputs.items()}
        c, h = got.pop("raw_outputs/lstm_c"), got.pop("raw_outputs/lstm_h")
        found.append(got)
    return found


@pytest.fixture
def tracker(serve: Callable[..., ServerProcess], shared: Path, tmp_path: Path) -> ServerProcess:
    """A server over the export; the configuration says which tensors are its state."""
    folder = tmp_path / "models" / "traffic"
    (folder / "1").mkdir(parents=True)
    shutil.copy(shared / "automl-video" / "traffic" / "traffic_model.tflite", folder / "1")
    (folder / "1" / "traffic_model.tflite").rename(folder / "1" / "model.tflite")
    (folder / "model.yaml").write_text(TRACKER.replace("INITIAL", str(INITIAL)))
    return serve("--model-repository", tmp_path / "models")


def frame(picture: np.ndarray) -> Any:
    tensor = triton.InferInput(FRAME, list(picture.shape), "UINT8")
    tensor.set_data_from_numpy(picture)
    return tensor


def same(result: Any, expected: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(result.as_numpy(name), array) for name, array in expected.items())


def test_the_video_tracker_over_a_stream_of_frames(tracker: ServerProcess, shared: Path) -> None:
    pictures = frames(shared)
    expected = by_hand(shared, pictures)
    # The state matters: the same picture at the beginning and at the end is not answered alike.
    scores = "TFLite_Detection_PostProcess:2"
    assert not np.array_equal(expected[0][scores], expected[-1][scores])
    arrived: queue.Queue[Any] = queue.Queue()
    with triton.InferenceServerClient(tracker.grpc) as client:
        metadata = client.get_model_metadata("traffic")
        assert [tensor.name for tensor in metadata.inputs] == [FRAME]
        assert not any("lstm" in tensor.name for tensor in metadata.outputs)
        client.start_stream(lambda result, error: arrived.put(error or result))
        last = len(pictures) - 1
        for n, picture in enumerate(pictures):
            for camera in (1, 2):  # two sequences through one stream do not mix
                client.async_stream_infer(
                    "traffic",
                    [frame(pictures[last - n] if camera == 2 else picture)],
                    request_id=f"{camera}-{n}",
                    sequence_id=camera,
                    sequence_start=n == 0,
                    sequence_end=n == last,
                )
        results: dict[str, Any] = {}
        for _ in range(2 * len(pictures)):
            got = arrived.get(timeout=30)
            assert not isinstance(got, Exception), got
            results[got.get_response().id] = got
        client.stop_stream()
        assert all(same(results[f"1-{n}"], one) for n, one in enumerate(expected))
        backwards = by_hand(shared, pictures[::-1])
        assert all(same(results[f"2-{n}"], one) for n, one in enumerate(backwards))
        with pytest.raises(triton.InferenceServerException, match="START flag"):
            client.infer("traffic", [frame(pictures[0])], sequence_id=1)
