"""The card of a trained version: written, read, and refused where it is not true."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfade.runtimes.core.errors import FailedPrecondition
from crossfade.serving.repository import lineage
from crossfade.serving.repository.lineage import Card, Origin, Parity


def card(files: dict[str, str], **others: Any) -> Card:
    values: dict[str, Any] = {
        "task": "image-classifier",
        "created": "2026-01-02T03:04:05+00:00",
        "seed": 7,
        "data": Origin(name="flowers", sha256="a" * 64, counts={"training": 1200, "test": 9}),
        "config": {"epochs": 3, "optimisation": {"learning_rate": 1e-3}},
        "metrics": {"test/accuracy": 0.9375},
        "environment": {"python": "3.11"},
        "files": files,
    }
    return Card(**{**values, **others})


@pytest.fixture
def version(tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes(b"weights")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "more.bin").write_bytes(b"more")
    files = {name: lineage.digest_file(tmp_path / name) for name in ("model.onnx", "sub/more.bin")}
    (tmp_path / lineage.FILE).write_text(card(files).text())
    return tmp_path


def test_a_true_card(version: Path) -> None:
    found = lineage.check(version)
    assert found == lineage.read_card(version)
    assert found.config["optimisation"]["learning_rate"] == 1e-3
    (version / "conversion.json").write_text("{}")
    lineage.check(version)


def test_without_a_card(tmp_path: Path) -> None:
    assert lineage.read_card(tmp_path) is None
    with pytest.raises(FailedPrecondition, match=r"the version has no lineage\.json"):
        lineage.check(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("model.onnx", b"others", "'model.onnx' is not the file that"),
        ("sub/more.bin", None, "'sub/more.bin' of the version's lineage.json is not there"),
        ("extra.bin", b"x", "'extra.bin' was added"),
        ("lineage.json", b"{", "cannot be read as JSON"),
        ("lineage.json", b"\xff", "cannot be read as JSON"),
        ("lineage.json", b"[" * 100_000, "cannot be read as JSON"),
        ("lineage.json", b"[]", "lineage.json: input should be a valid dictionary"),
    ],
)
def test_cards_that_are_not_true(
    version: Path, file: str, content: bytes | None, said: str
) -> None:
    if content is None:
        (version / file).unlink()
    else:
        (version / file).write_bytes(content)
    with pytest.raises(FailedPrecondition) as caught:
        lineage.check(version)
    assert said in caught.value.message
    assert str(version) not in caught.value.message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "key 'format'"),
        ({"metric": {}}, "key 'metric' is unknown; did you mean 'metrics'"),
        ({"metrics": {"a": "much"}}, "key 'metrics.a'"),
        ({"data": {"name": "x", "sha256": "short"}}, "key 'data.sha256'"),
    ],
)
def test_faults_are_named(version: Path, change: dict[str, Any], said: str) -> None:
    values = json.loads((version / lineage.FILE).read_text())
    (version / lineage.FILE).write_text(json.dumps({**values, **change}))
    with pytest.raises(FailedPrecondition) as caught:
        lineage.read_card(version)
    assert said in caught.value.message


def test_for_people() -> None:
    lines = lineage.lines_of(
        card(
            {},
            export=Origin(name="flowers_automl", sha256="b" * 64),
            parity=Parity(max_abs=2e-7, tolerance=1e-4, inputs=1000),
            revision="abc-dirty",
        )
    )
    text = "\n".join(lines)
    for part in ("seed 7", "1,200 training", "flowers_automl", "0.9375", "2e-07", "abc-dirty"):
        assert part in text


def test_a_metric_is_a_line_with_its_interval() -> None:
    metrics = {"a": 0.5, "a/low": 0.25, "a/high": 0.75, "b": 2.0, "b/low": 1.0, "c/high": 3.0}
    lines = lineage.lines_of(card({}, metrics=metrics))
    assert lines[2:] == ["a 0.5 (0.25 to 0.75)", "b 2", "b/low 1", "c/high 3"]


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.sampled_from("abcdef"), st.binary(max_size=9), max_size=4))
def test_a_folders_digest_is_of_its_names_and_bytes(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    def made(content: dict[str, bytes]) -> str:
        folder = tmp_path_factory.mktemp("f")
        for name, data in content.items():
            (folder / name).write_bytes(data)
        return lineage.digest_folder(folder)

    digest = made(files)
    assert made(dict(reversed(files.items()))) == digest
    for name, content in files.items():
        assert made({**files, name: content + b"x"}) != digest
        assert made({k: v for k, v in files.items() if k != name}) != digest
