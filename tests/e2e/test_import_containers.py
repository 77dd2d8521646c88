"""Container exports: imported with their recorded requests, called as Google's container is."""

from __future__ import annotations

import base64
import io
import json
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from tests.conftest import ServerProcess
from tests.e2e.test_import import crossfade, imported
from tests.runtimes import container_exports

pytestmark = pytest.mark.timeout(600)


def picture(colour: str, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 10), colour).save(file, kind)
    return file.getvalue()


def predict(server: ServerProcess, model: str, instances: list[dict[str, Any]]) -> Any:
    asked = urllib.request.Request(
        f"http://{server.http}/v1/models/{model}:predict",
        json.dumps({"instances": instances}).encode(),
    )
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return json.load(answer)["predictions"]
    except urllib.error.HTTPError as error:
        pytest.fail(f"{error.code}: {error.read().decode()}")


def instance(name: str, content: bytes, key: str) -> dict[str, Any]:
    return {name: {"b64": base64.b64encode(content).decode()}, "key": key}


def test_classification_and_detection(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    models = tmp_path / "models"
    export = tmp_path / "0000001"
    container_exports.classifier(export)
    red, blue = picture("red"), picture("blue", "JPEG")
    container_exports.record(
        export, *({"image_bytes": [each], "key": [b"1"]} for each in (red, blue))
    )
    archive = tmp_path / "export.tgz"
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(export, "model-export/1")
    said = imported(models, "colours", archive)
    assert "AutoML Vision Edge container export, classification" in said
    assert "model.yaml has warmup" in said
    config = yaml.safe_load((models / "colours" / "model.yaml").read_text())
    assert [each["inputs"]["image_bytes"] for each in config["warmup"]] == [[red], [blue]]
    inspected = crossfade("inspect", archive).stdout
    for part in ("by the model: send JPEG or PNG", "bilinear, by the model", "2 recorded requests"):
        assert part in inspected
    detector = tmp_path / "detector" / "1"
    container_exports.detector(detector)
    assert "container export, object detection" in imported(models, "cats", detector.parent)
    server = serve("--model-repository", models)
    answers = predict(
        server,
        "colours",
        [instance("image_bytes", red, "a"), instance("image_bytes", blue, "b")],
    )
    assert [answer["key"] for answer in answers] == ["a", "b"]
    best = [max(zip(a["scores"], a["labels"], strict=True))[1] for a in answers]
    assert best == ["red", "blue"]
    (found,) = predict(server, "cats", [instance("encoded_image", red, "c")])
    assert found["detection_boxes"] == [[0, 0, 1, 1]]
    assert found["detection_classes_as_text"] == ["cat"]


def test_a_recorded_request_that_fails_is_told_before_anything_is_written(tmp_path: Path) -> None:
    export = tmp_path / "1"
    container_exports.classifier(export)
    container_exports.record(export, {"image_bytes": [b"no picture"], "key": [b"1"]})
    models = tmp_path / "models"
    done = crossfade("import", export, "--name", "colours", "--repository", models)
    assert done.returncode == 1
    assert "nothing was written" in done.stderr
    assert "warm-up request failed" in done.stderr
    assert list(models.iterdir()) == []
