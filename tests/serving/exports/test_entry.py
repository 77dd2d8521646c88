"""Which files a version gets, and what ``model.yaml`` says."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.serving.exports.entry import plan
from crossfade.serving.exports.findings import look
from crossfade.serving.exports.recognise import recognise
from tests.runtimes import tflite_models
from tests.serving.exports import samples
from tests.serving.exports.test_onnx_files import model


def test_weights_of_an_onnx_model_go_along(tmp_path: Path) -> None:
    path = model(tmp_path / "net.onnx", "net.data", "deep/er.bin")
    (tmp_path / "notes.txt").write_text("not the model's")
    (tmp_path / "labels.txt").write_text("cat\ndog")
    (tmp_path / "net.data").write_bytes(b"12345678")
    export = recognise(path)
    with pytest.raises(InvalidArgument, match=r"deep/er\.bin"):
        plan(export, look(export))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "er.bin").write_bytes(b"1")
    entry = plan(export, look(export))
    assert entry.files.keys() == {"model.onnx", "net.data", "deep/er.bin", "labels.txt"}
    assert entry.size_bytes == path.stat().st_size + 8 + 1 + 7
    assert (entry.texts, entry.config) == ({}, {})


def test_hidden_files_stay_and_labels_come_from_where_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "7"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(samples.saved_model(["Placeholder"], {}))
    (folder / "variables" / ".DS_Store").write_bytes(b"")
    (folder / ".crossfade-digests.json").write_text("{}")
    (tmp_path / "dict.txt").write_text("cat\ndog")  # beside the version, as in a repository
    export = recognise(tmp_path)
    entry = plan(export, look(export))
    assert entry.files.keys() == {"saved_model.pb"}
    assert entry.texts == {"labels.txt": "cat\ndog\n"}


def test_a_tflite_model_takes_only_what_tells_of_it(tmp_path: Path) -> None:
    (tmp_path / "net.tflite").write_bytes(tflite_models.build(tflite_models.affine(2, 1)))
    (tmp_path / "labels.txt").write_text("cat\ndog")
    (tmp_path / "picture.jpg").write_bytes(b"")
    export = recognise(tmp_path / "net.tflite")
    entry = plan(export, look(export))
    assert entry.files.keys() == {"model.tflite"}
    assert entry.texts == {"labels.txt": "cat\ndog\n"}
