"""Models that lie anywhere, under names of their own."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import fsspec
import pytest

from crossfade.runtimes.core.errors import InvalidArgument, LoadFailed, NotFound
from crossfade.serving.repository.layout import ModelFiles
from crossfade.serving.repository.places import Place, PlacedSource


def model(folder: Path, *versions: int, config: str = "") -> Path:
    for version in versions:
        (folder / str(version)).mkdir(parents=True)
        (folder / str(version) / "fake.yaml").write_text("inputs: []")
    if config:
        (folder / "model.yaml").write_text(config)
    return folder


def test_names_are_those_given_and_folders_may_be_shared(tmp_path: Path) -> None:
    folder = str(model(tmp_path / "odd name!", 1, 3))
    source = PlacedSource({"b": Place(folder), "a": Place(folder)})
    assert source.names() == ["a", "b"]
    files = source.read("a")
    assert (files.name, sorted(files.versions)) == ("a", [1, 3])
    assert source.fetch(files, files.versions[3]) == Path(folder) / "3"


def test_a_folder_without_versions_is_version_1(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"x")
    source = PlacedSource({"bare": Place(str(tmp_path))})
    files = source.read("bare")
    assert list(files.versions) == [1]
    assert source.fetch(files, files.versions[1]) == tmp_path


def test_what_counts_more(tmp_path: Path) -> None:
    """The place, then the folder, then the defaults; field by field."""
    folder = model(tmp_path / "m", 1, config="instances: 3\nlabels: {own: 1}\n")

    def defaults(files: ModelFiles) -> dict[str, object]:
        assert files.name == "m"
        return {"instances": 7, "max_batch_size": 9, "labels": {"default": 1}}

    place = Place(str(folder), {"labels": {"stable": 1}})
    config = PlacedSource({"m": place}, defaults=defaults).read("m").config
    assert (config.instances, config.max_batch_size) == (3, 9)
    assert config.labels == {"stable": 1}


def test_what_is_said_of_models_with_files_is_not_said_of_an_ensemble(tmp_path: Path) -> None:
    members = "members: [{model: a}, {model: b}]"
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "model.yaml").write_text(f"ensemble: {{kind: fallback, {members}}}")
    place = Place(str(tmp_path / "e"), {"platform": "tensorflow_savedmodel", "labels": {"x": 1}})
    source = PlacedSource({"e": place}, defaults=lambda _: {"batching": {"max_size": 8}})
    config = source.read("e").config
    assert config.ensemble is not None
    assert (config.platform, config.batching, config.labels) == (None, None, {"x": 1})


def test_settings_that_contradict(tmp_path: Path) -> None:
    place = Place(str(model(tmp_path / "m", 1)), {"instances": 0})
    with pytest.raises(LoadFailed, match="model 'm'"):
        PlacedSource({"m": place}).read("m")


def test_twin_folders_are_not_the_same(tmp_path: Path) -> None:
    first, second = model(tmp_path / "a", 1), model(tmp_path / "b", 1)
    for folder in (first, second):
        os.utime(folder / "1" / "fake.yaml", (1, 1))
    prints = {
        PlacedSource({"m": Place(str(f))}).read("m").versions[1].fingerprint
        for f in (first, second)
    }
    assert len(prints) == 2
    again = PlacedSource({"m": Place(str(first))}).read("m").versions[1].fingerprint
    assert again in prints


def test_what_is_not_there(tmp_path: Path) -> None:
    source = PlacedSource({"late": Place(str(tmp_path / "late"))})
    assert source.names() == ["late"]
    for name in ("late", "other"):
        with pytest.raises(NotFound):
            source.read(name)
    model(tmp_path / "late", 4)
    assert list(source.read("late").versions) == [4]
    for name in ("", "../x", "a/b"):
        with pytest.raises(InvalidArgument):
            PlacedSource({name: Place("/x")})
    with pytest.raises(NotFound, match="nope"):
        PlacedSource({"m": Place("nope://x")})


def test_remote(tmp_path: Path) -> None:
    root = f"memory://{uuid.uuid4().hex}/deep/model"
    with fsspec.open(f"{root}/2/fake.yaml", "wb") as file:
        file.write(b"inputs: []")
    source = PlacedSource({"far": Place(root)}, tmp_path)
    files = source.read("far")
    copy = source.fetch(files, files.versions[2])
    assert (copy / "fake.yaml").read_bytes() == b"inputs: []"
    assert copy.is_relative_to(tmp_path)
    assert source.fetch(files, files.versions[2]) == copy
