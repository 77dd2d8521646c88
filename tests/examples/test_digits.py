"""The committed sample repository: its files, and what both models say about the pictures.

The models run in their own libraries here, not in crossfade's runtimes: a failure means that the
files are bad.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
AUTOML = DIGITS / "models" / "digits_automl" / "1"
CUSTOM = DIGITS / "models" / "digits_custom"
PICTURES = sorted((DIGITS / "images").glob("*.png"))
LABELS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
FILTERS = [
    Image.Resampling.NEAREST,
    Image.Resampling.BOX,
    Image.Resampling.BILINEAR,
    Image.Resampling.BICUBIC,
]


def label_of(picture: Path) -> int:
    return LABELS.index(picture.stem.partition("_")[0])


@pytest.fixture(scope="module")
def interpreter() -> Any:
    litert = pytest.importorskip(
        "ai_edge_litert.interpreter", reason="ai-edge-litert is not installed (crossfade[tflite])"
    )
    made = litert.Interpreter(model_path=str(AUTOML / "model.tflite"), num_threads=1)
    made.allocate_tensors()
    return made


@pytest.fixture(scope="module")
def session() -> Any:
    ort = pytest.importorskip(
        "onnxruntime", reason="onnxruntime is not installed (crossfade[onnx])"
    )
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(
        CUSTOM / "1" / "model.onnx", options, providers=["CPUExecutionProvider"]
    )


def automl_scores(interpreter: Any, picture: Path, resample: Image.Resampling) -> np.ndarray:
    with Image.open(picture) as opened:
        image = np.asarray(opened.convert("RGB").resize((32, 32), resample), dtype=np.uint8)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[np.newaxis])
    interpreter.invoke()
    scores: np.ndarray = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    answer: np.ndarray = scores[0].astype(np.float32) / 256
    return answer


def custom_input(picture: Path, resample: Image.Resampling) -> np.ndarray:
    with Image.open(picture) as opened:
        image = np.asarray(opened.convert("L").resize((8, 8), resample), dtype=np.float32)
    return image[np.newaxis] / np.float32(255)


def test_the_models_folder_is_a_repository_and_nothing_else() -> None:
    models = DIGITS / "models"
    weights = {p.relative_to(models).as_posix() for p in models.rglob("*") if p.is_file()}
    assert weights >= {
        "digits_automl/1/dict.txt",
        "digits_automl/1/model.tflite",
        "digits_automl/1/tflite_metadata.json",
        "digits_custom/1/model.onnx",
        "digits_custom/labels.txt",
    }
    assert {Path(name).name for name in weights} <= {
        "dict.txt",
        "labels.txt",
        "model.onnx",
        "model.tflite",
        "model.yaml",
        "tflite_metadata.json",
    }


def test_the_folder_stays_small() -> None:
    files = [p for p in DIGITS.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert sum(p.stat().st_size for p in files) < 400_000


def test_both_models_list_the_same_labels() -> None:
    text = (AUTOML / "dict.txt").read_text(encoding="utf-8")
    assert text.split("\n") == LABELS, "AutoML's last newline is missing on purpose"
    assert (CUSTOM / "labels.txt").read_text(encoding="utf-8").split("\n") == [*LABELS, ""]


def test_every_label_has_a_picture_of_64_by_64_rgb() -> None:
    assert {label_of(p) for p in PICTURES} == set(range(10))
    assert len(PICTURES) == 12
    for path in PICTURES:
        with Image.open(path) as picture:
            assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (64, 64))


def test_the_tflite_file_has_the_signature_of_an_automl_export(interpreter: Any) -> None:
    (source,) = interpreter.get_input_details()
    (target,) = interpreter.get_output_details()
    assert (source["name"], source["dtype"]) == ("image", np.uint8)
    assert source["shape"].tolist() == [1, 32, 32, 3]
    assert source["quantization"] == (np.float32(1 / 127), 128)
    assert (target["name"], target["dtype"]) == ("scores", np.uint8)
    assert target["shape"].tolist() == [1, 10]
    assert target["quantization"] == (1 / 256, 0)
    assert interpreter.get_signature_list() == {}


def test_the_metadata_agrees_with_the_tflite_file(interpreter: Any) -> None:
    metadata = json.loads((AUTOML / "tflite_metadata.json").read_text(encoding="utf-8"))
    (source,) = interpreter.get_input_details()
    shape = source["shape"].tolist()
    assert set(metadata) == {
        "batchSize",
        "imageChannels",
        "imageHeight",
        "imageWidth",
        "inferenceType",
        "inputShape",
        "inputTensor",
        "inputType",
        "outputTensor",
        "outputTensorRepresentation",
        "supportedTfVersions",
    }
    assert metadata["inputShape"] == shape
    sizes = ("batchSize", "imageHeight", "imageWidth", "imageChannels")
    assert [metadata[key] for key in sizes] == shape
    assert metadata["inferenceType"] == metadata["inputType"] == "QUANTIZED_UINT8"
    assert (metadata["inputTensor"], metadata["outputTensor"]) == ("image", "scores")


def test_the_onnx_file_has_a_free_batch(session: Any) -> None:
    (source,) = session.get_inputs()
    (target,) = session.get_outputs()
    assert (source.name, source.type) == ("image", "tensor(float)")
    assert source.shape == ["batch", 1, 8, 8]
    assert (target.name, target.type) == ("probabilities", "tensor(float)")
    assert target.shape == ["batch", 10]


@pytest.mark.parametrize("resample", FILTERS, ids=lambda resample: resample.name.lower())
@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.stem)
def test_digits_automl_gets_the_picture_right(
    interpreter: Any, picture: Path, resample: Image.Resampling
) -> None:
    scores = automl_scores(interpreter, picture, resample)
    assert scores.argmax() == label_of(picture)
    assert scores.max() > 0.5
    assert scores.sum() == pytest.approx(1, abs=0.04)  # ten roundings to 1/256


@pytest.mark.parametrize("resample", FILTERS, ids=lambda resample: resample.name.lower())
def test_digits_custom_gets_all_pictures_right_in_one_batch(
    session: Any, resample: Image.Resampling
) -> None:
    images = np.stack([custom_input(picture, resample) for picture in PICTURES])
    (probabilities,) = session.run(["probabilities"], {"image": images})
    assert probabilities.argmax(axis=1).tolist() == [label_of(picture) for picture in PICTURES]
    assert probabilities.max(axis=1).min() > 0.5
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_digits_custom_answers_one_picture_as_it_does_in_a_batch(session: Any) -> None:
    images = np.stack([custom_input(p, Image.Resampling.BILINEAR) for p in PICTURES])
    (together,) = session.run(None, {"image": images})
    alone = np.concatenate([session.run(None, {"image": image[np.newaxis]})[0] for image in images])
    np.testing.assert_allclose(alone, together, atol=1e-5)
