"""``crossfade import`` and what ``crossfade inspect`` says of exports, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from crossfade.serving.cli import progress
from tests.runtimes import tflite_models
from tests.serving.exports import samples
from tests.serving.test_cli import crossfade


def test_inspect_of_a_tabular_export_needs_no_tensorflow_ops(tmp_path: Path) -> None:
    root = samples.tabular(tmp_path)
    done = crossfade("inspect", tmp_path)
    assert done.returncode == 0, done.stderr
    for part in (
        "AutoML Tabular export",
        "missing op RunLengthBefore: struct2tensor==0.48.1",
        "feature    Age: string, may be null, such as '39'",
        "answers    classes, scores",
        "made with  tensorflow 2.8.0",
        f"container  {samples.CONTAINER}",
        "warm-up    3 recorded requests",
        "signature  serving_default (as declared)",
    ):
        assert part in done.stdout
    (report,) = json.loads(crossfade("inspect", root, "--json").stdout)
    assert report["kind_id"] == "tabular"
    assert report["missing_ops"][0]["pin"] == "struct2tensor==0.48.1"
    assert report["signatures"]["serving_default"]["inputs"]["inputs"]["dtype"] == "BYTES"


def test_a_tabular_export_is_refused_without_its_ops(tmp_path: Path) -> None:
    models = ("--repository", tmp_path / "models", "--environments-dir", tmp_path / "none")
    root = samples.tabular(tmp_path / "known")
    done = crossfade("import", root, "--name", "t", *models)
    assert done.returncode == 1
    assert "nothing was written" in done.stderr
    assert "`crossfade env create automl-tabular` makes it" in done.stderr
    assert list((tmp_path / "models").iterdir()) == []
    root = samples.tabular(tmp_path / "unknown", [*samples.STRUCT2TENSOR_OPS, "Addons>Image"])
    done = crossfade("import", root, "--name", "t", *models)
    assert done.returncode == 1
    assert "Addons>Image (tensorflow-addons)" in done.stderr
    assert samples.CONTAINER in done.stderr


def test_inspect_of_what_is_not_hosted(tmp_path: Path) -> None:
    done = crossfade("inspect", samples.tf_js(tmp_path / "js"))
    assert done.returncode == 1
    for part in ("TF.js model", "cat, dog", "export_format_id='tflite'"):
        assert part in done.stdout


def test_inspect_of_flowers(shared: Path) -> None:
    done = crossfade("inspect", shared / "automl-vision-edge" / "flowers")
    assert done.returncode == 0, done.stderr
    for part in (
        "labels     5: daisy, dandelion, roses, sunflowers, tulips  [dict.txt]",
        "width x height: 224 x 224  [the shape of 'image'",
        "network sees -1.008..1.000",
        "resize filter: unknown",
        "labels a picture: one",
        "signature  serving_default (batched)",
    ):
        assert part in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["import"], 2, "--name"),
        (["import", "x", "--name", "m", "--repository", "r", "--version", "0"], 2, "--version"),
        (["import", "nowhere", "--name", "m", "--repository", "r"], 1, "nothing at"),
        (["import", ".", "--name", "m", "--repository", "s3://b"], 1, "local folder"),
        (
            ["import", "projects/p/locations/l/models/1", "--name", "m", "--repository", "r"],
            1,
            "export_model",
        ),
        (["import", "--help"], 0, ""),
    ],
)
def test_errors_are_readable(arguments: list[str], code: int, says: str) -> None:
    done = crossfade(*arguments)
    assert (done.returncode, says in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr


def test_import_refuses_what_would_not_be_served(tmp_path: Path, digits: Path) -> None:
    to = ("--name", "m", "--repository", tmp_path / "models")
    broken = tmp_path / "model.tflite"
    broken.write_bytes(tflite_models.build(tflite_models.affine(2, 1))[:300])
    done = crossfade("import", broken, *to)
    assert done.returncode == 1
    assert "nothing was written" in done.stderr
    assert list((tmp_path / "models").iterdir()) == []
    entry = tmp_path / "entry"
    entry.mkdir()
    (entry / "model.yaml").write_text("instances: 1\n")
    assert "a model of a repository" in crossfade("import", entry, *to).stderr
    export = digits / "models" / "digits_automl"
    assert crossfade("import", export, *to).returncode == 0
    done = crossfade("import", export, *to, "--version", "1")
    assert done.returncode == 1
    assert "--force" in done.stderr
    done = crossfade("import", export, *to, "--version", "1", "--force")
    assert done.returncode == 0
    assert sorted(p.name for p in (tmp_path / "models" / "m" / "1").iterdir()) == [
        "dict.txt",
        "model.tflite",
        "tflite_metadata.json",
    ]


def test_the_bar_is_for_big_copies_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert progress.bar("copying") is None
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    draw = progress.bar("copying")
    assert draw is not None
    draw(1, 1000)
    assert capsys.readouterr().err == ""
    draw(50 << 20, 100 << 20)
    draw(100 << 20, 100 << 20)
    err = capsys.readouterr().err
    assert f"copying [{'#' * 15}{' ' * 15}] 50 of 100 MiB" in err
    assert err.endswith("100 of 100 MiB\n")
