"""Where an export comes from: folders, files, archives, URLs."""

from __future__ import annotations

import zipfile
from pathlib import Path

import fsspec
import pytest

from crossfade.runtimes.core.errors import InvalidArgument, MissingExtra, NotFound
from crossfade.serving.exports.recognise import recognise
from crossfade.serving.exports.source import opened
from tests.serving.exports import samples


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_and_a_file_are_themselves(tmp_path: Path) -> None:
    file = tmp_path / "model.pt2"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("inside", "x")
    for place in (tmp_path, file):  # a torch program is a zip that stays one
        with opened(str(place)) as found:
            assert found == place


def test_an_archive_is_unpacked_and_removed(tmp_path: Path) -> None:
    samples.tabular(tmp_path / "in")
    path = tmp_path / "export.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in (tmp_path / "in").rglob("*"):
            archive.write(file, file.relative_to(tmp_path / "in"))
    with opened(str(path)) as found:
        assert names(found) == names(tmp_path / "in")
        assert recognise(found).kind.value == "tabular"
    assert not found.exists()


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_a_url_of_a_folder_a_file_and_an_archive(tmp_path: Path, scheme: str) -> None:
    here = tmp_path / "here"
    samples.tabular(here)
    with zipfile.ZipFile(here / "packed.zip", "w") as archive:
        archive.writestr("dict.txt", "cat")
    base = f"file://{here}" if scheme == "file" else "memory://export"
    if scheme == "memory":
        fsspec.filesystem("memory").put(f"{here}/", "/export/", recursive=True)
    cache = tmp_path / "cache"
    told: list[tuple[int, int]] = []
    with opened(base, cache, lambda *at: told.append(at)) as found:
        assert names(here) <= names(found)
        assert recognise(found).kind.value == "tabular"  # colons in a name and all
    assert told[-1][0] == told[-1][1] > 0
    with opened(f"{base}/packed.zip", cache) as found:
        assert names(found) == {"dict.txt"}
    (one,) = (p for p in here.rglob("instance.yaml"))
    with opened(f"{base}/{one.relative_to(here)}", cache) as found:
        assert found.read_text() == samples.INSTANCE
    with pytest.raises(NotFound), opened(f"{base}/nothing", cache):
        pass


def test_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFound, match="nothing at"), opened(str(tmp_path / "nowhere")):
        pass
    with pytest.raises(NotFound, match="not a file system"), opened("nope://x"):
        pass
    monkeypatch.setattr(fsspec.core, "url_to_fs", _no_library)
    with pytest.raises(MissingExtra, match="s3"), opened("s3://bucket/x"):
        pass


def _no_library(location: str) -> None:
    raise ImportError


def test_the_name_of_a_model_in_vertex_ai() -> None:
    place = "projects/p/locations/us-central1/models/123"
    with pytest.raises(InvalidArgument, match="export_model"), opened(place):
        pass
