"""Repositories on the local disk and behind a URL: what is listed, copied, checked and refused."""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from crossfade.runtimes.core.errors import InvalidArgument, LoadFailed, MissingExtra, NotFound
from crossfade.serving.repository.folders import read_folder
from crossfade.serving.repository.layout import FileInfo, ModelFiles, VersionFiles, is_model
from crossfade.serving.repository.source import LocalSource, Source, open_source

FILES = {
    "flowers/model.yaml": b"instances: 2",
    "flowers/labels.txt": b"rose\ntulip\n",
    "flowers/1/model.onnx": b"one",
    "flowers/2/model.onnx": b"two",
    "flowers/2/assets/deep/vocabulary.txt": b"a\nb\n",
    "flowers/2/empty": b"",
    "digits/1/model.tflite": b"three",
    "_hidden/1/model.onnx": b"no name for a model",
    "README.md": b"no model",
}


class Remote:
    """A repository behind a URL, and the means to change it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.fs, self.root = fsspec.core.url_to_fs(url)

    def write(self, path: str, content: bytes) -> None:
        place = f"{self.root}/{path}"
        self.fs.makedirs(place.rpartition("/")[0], exist_ok=True)
        self.fs.pipe_file(place, content)


@pytest.fixture(params=["memory", "file"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Remote]:
    if request.param == "memory":
        url = f"memory://{uuid.uuid4().hex}/models"
    else:
        url = f"file://{tmp_path}/remote"
    made = Remote(url)
    for path, content in FILES.items():
        made.write(path, content)
    yield made
    if request.param == "memory":
        made.fs.rm(made.root, recursive=True)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def local(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    for path, content in FILES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return root


def files_of(folder: Path) -> dict[str, bytes]:
    """Everything below a folder but what the cache keeps for itself."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".crossfade")
    }


def fetch(source: Source, name: str, version: int) -> Path:
    model = source.read(name)
    return source.fetch(model, model.versions[version])


VERSION_2 = {"model.onnx": b"two", "assets/deep/vocabulary.txt": b"a\nb\n", "empty": b""}


# -- the local disk -----------------------------------------------------------------------------


def test_a_local_folder(local: Path) -> None:
    source = open_source(str(local))
    assert source.names() == ["digits", "flowers"]
    model = source.read("flowers")
    assert model.config.instances == 2
    assert model.label_files == {"labels.txt": "rose\ntulip\n"}
    assert sorted(model.versions) == [1, 2]
    assert fetch(source, "flowers", 2) == local / "flowers" / "2", "nothing is copied"


def test_an_unpacked_export_on_the_local_disk(tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "model.tflite").write_bytes(b"x")
    source = LocalSource(tmp_path)
    assert fetch(source, "export", 1) == tmp_path / "export"
    found = read_folder("another", tmp_path / "export")
    assert (found.name, list(found.versions)) == ("another", [1])


@pytest.mark.parametrize("name", ["../flowers", "flowers/1", "..", "/etc", "a\0b", ""])
def test_a_name_cannot_leave_the_repository(local: Path, name: str) -> None:
    with pytest.raises(InvalidArgument):
        LocalSource(local).read(name)


def test_what_is_not_there(local: Path) -> None:
    with pytest.raises(NotFound, match="the model repository has no model 'birds'"):
        LocalSource(local).read("birds")
    with pytest.raises(NotFound):
        LocalSource(local).read("README.md")
    with pytest.raises(NotFound, match="is not a folder"):
        open_source(str(local / "nowhere"))


def test_hidden_folders_are_not_looked_into(local: Path) -> None:
    before = LocalSource(local).read("flowers")
    (local / "flowers" / "2" / ".git").mkdir()
    (local / "flowers" / "2" / ".git" / "index").write_bytes(b"x")
    assert LocalSource(local).read("flowers") == before


def test_a_broken_link_is_left_out(local: Path) -> None:
    (local / "flowers" / "1" / "gone").symlink_to(local / "nowhere")
    assert LocalSource(local).read("flowers").versions[1].files.keys() == {"model.onnx"}


def test_linked_folders_are_models_too(local: Path, tmp_path: Path) -> None:
    (local / "roses").symlink_to(local / "flowers")
    source = LocalSource(local)
    assert "roses" in source.names()
    assert sorted(source.read("roses").versions) == [1, 2]


def test_a_file_that_is_written_again_is_another_version_of_the_files(local: Path) -> None:
    source = LocalSource(local)
    before = source.read("flowers").versions
    path = local / "flowers" / "2" / "model.onnx"
    stat = path.stat()
    path.write_bytes(b"TWO")  # as long as before
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    after = source.read("flowers").versions
    assert before[2].fingerprint != after[2].fingerprint
    assert before[1].fingerprint == after[1].fingerprint


# -- a folder that is one model's ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "is_one"),
    [
        (["model.tflite", "dict.txt"], True),
        (["saved_model.pb", "variables/"], True),
        (["net.onnx"], True),
        (["model.savedmodel/"], True),
        (["0000123/"], True),
        (["1/", "notes/"], True),
        (["model.yaml"], True),
        (["config.pbtxt", "1/"], True),
        (["flowers/", "digits/"], False),
        (["flowers/", "README.md", "1", "0/"], False),
        ([], False),
    ],
)
def test_what_is_one_models_folder(names: list[str], is_one: bool) -> None:
    assert is_model(names) is is_one


@pytest.mark.parametrize(
    ("files", "folder"),
    [
        ({"model.tflite": b"t", "dict.txt": b"a\n"}, {"model.tflite": b"t", "dict.txt": b"a\n"}),
        (
            {"saved_model.pb": b"s", "variables/a": b"v"},
            {"saved_model.pb": b"s", "variables/a": b"v"},
        ),
        ({"1/model.onnx": b"o", "config.pbtxt": b'name: "other"'}, {"model.onnx": b"o"}),
    ],
)
def test_one_model_under_a_name(
    remote: Remote, cache: Path, tmp_path: Path, files: dict[str, bytes], folder: dict[str, bytes]
) -> None:
    root, beside = tmp_path / "plain", Remote(f"{remote.url}-one")
    for path, content in files.items():
        beside.write(path, content)
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    for place in (f"{remote.url}-one", f"{remote.url}-one/", str(root)):
        source = open_source(place, cache, "rose")
        assert source.names() == ["rose"]
        assert files_of(fetch(source, "rose", 1)) == folder
        with pytest.raises(NotFound):
            source.read("other")


def test_a_repository_stays_one_whatever_the_name(remote: Remote, local: Path, cache: Path) -> None:
    for place in (remote.url, str(local)):
        source = open_source(place, cache, "rose")
        assert source.names() == ["digits", "flowers"]
        assert files_of(fetch(source, "flowers", 2)) == VERSION_2
    assert LocalSource(local).names() == ["digits", "flowers"]


def test_one_model_that_is_nowhere(remote: Remote, tmp_path: Path, cache: Path) -> None:
    for place in (f"{remote.url}/nothing", str(tmp_path / "nothing")):
        with pytest.raises(NotFound, match="is not a folder"):
            open_source(place, cache, "rose")
    with pytest.raises(InvalidArgument, match="path traversal"):
        open_source(str(tmp_path), cache, "../rose")


# -- behind a URL -------------------------------------------------------------------------------


def test_a_remote_repository_reads_as_a_local_one(remote: Remote, local: Path, cache: Path) -> None:
    source = open_source(remote.url, cache)
    assert source.names() == ["digits", "flowers"]
    found, expected = source.read("flowers"), LocalSource(local).read("flowers")
    assert (found.name, found.config, found.label_files, found.error) == (
        expected.name,
        expected.config,
        expected.label_files,
        None,
    )
    for number, version in expected.versions.items():
        assert {p: i.size_bytes for p, i in found.versions[number].files.items()} == {
            p: i.size_bytes for p, i in version.files.items()
        }
    assert not cache.exists(), "nothing is copied before it is wanted"


def test_a_version_is_copied_once(remote: Remote, cache: Path) -> None:
    source = open_source(remote.url, cache)
    folder = fetch(source, "flowers", 2)
    assert folder.is_relative_to(cache)
    assert files_of(folder) == VERSION_2
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert fetch(open_source(remote.url, cache), "flowers", 2) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert fetch(source, "flowers", 1) != folder


def test_two_repositories_do_not_share_their_copies(
    remote: Remote, cache: Path, tmp_path: Path
) -> None:
    other = Remote(f"file://{tmp_path}/other")
    other.write("flowers/1/model.onnx", b"ONE")
    assert files_of(fetch(open_source(remote.url, cache), "flowers", 1)) == {"model.onnx": b"one"}
    assert files_of(fetch(open_source(other.url, cache), "flowers", 1)) == {"model.onnx": b"ONE"}


def damage_content(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"TWO")


def damage_missing(folder: Path) -> None:
    (folder / "empty").unlink()


def damage_extra(folder: Path) -> None:
    (folder / "assets" / "more.txt").write_bytes(b"x")


def damage_manifest_gone(folder: Path) -> None:
    (manifest,) = folder.glob(".crossfade*")
    manifest.unlink()


def damage_manifest_garbled(folder: Path) -> None:
    (manifest,) = folder.glob(".crossfade*")
    manifest.write_bytes(manifest.read_bytes()[:-5] + b"\xff")


def damage_manifest_empty(folder: Path) -> None:
    (manifest,) = folder.glob(".crossfade*")
    manifest.write_bytes(b"")


@pytest.mark.parametrize(
    "damage",
    [
        damage_content,
        damage_missing,
        damage_extra,
        damage_manifest_gone,
        damage_manifest_garbled,
        damage_manifest_empty,
    ],
)
def test_a_damaged_copy_is_fetched_again(remote: Remote, cache: Path, damage: Any) -> None:
    source = open_source(remote.url, cache)
    folder = fetch(source, "flowers", 2)
    damage(folder)
    again = fetch(source, "flowers", 2)
    assert files_of(again) == VERSION_2
    assert fetch(source, "flowers", 2) == again


def test_the_digests_are_those_of_the_files(remote: Remote, cache: Path) -> None:
    folder = fetch(open_source(remote.url, cache), "flowers", 2)
    (manifest,) = folder.glob(".crossfade*")
    assert json.loads(manifest.read_bytes()).keys() == VERSION_2.keys()


def test_a_changed_remote_file_is_another_version_of_the_files(remote: Remote, cache: Path) -> None:
    source = open_source(remote.url, cache)
    before = source.read("flowers")
    old = source.fetch(before, before.versions[2])
    remote.write("flowers/2/model.onnx", b"TWO")  # as long as before
    after = source.read("flowers")
    assert after.versions[2].fingerprint != before.versions[2].fingerprint
    assert after.versions[1].fingerprint == before.versions[1].fingerprint
    new = source.fetch(after, after.versions[2])
    assert new != old
    assert files_of(new)["model.onnx"] == b"TWO"


def test_new_models_and_versions_are_seen(remote: Remote, cache: Path) -> None:
    source = open_source(remote.url, cache)
    assert source.names() == ["digits", "flowers"]
    assert source.read("digits").versions.keys() == {1}
    remote.write("birds/1/model.onnx", b"x")
    remote.write("digits/2/model.tflite", b"x")
    assert source.names() == ["birds", "digits", "flowers"]
    assert source.read("digits").versions.keys() == {1, 2}


def test_a_file_that_changes_while_it_is_copied_is_refused(remote: Remote, cache: Path) -> None:
    source = open_source(remote.url, cache)
    model = source.read("flowers")
    remote.write("flowers/2/model.onnx", b"longer than it was listed")
    with pytest.raises(LoadFailed, match=r"'model\.onnx' changed while it was copied"):
        source.fetch(model, model.versions[2])
    assert list(cache.rglob("model.onnx")) == [], "nothing half copied is left"
    assert files_of(fetch(source, "flowers", 2))["model.onnx"].startswith(b"longer")


@pytest.mark.parametrize("path", ["../../../escaped", "a/../../../escaped", "../escaped"])
def test_a_file_name_cannot_leave_the_cache(
    remote: Remote, cache: Path, tmp_path: Path, path: str
) -> None:
    source = open_source(remote.url, cache)
    model = source.read("flowers")
    remote.write("escaped", b"evil")
    version = VersionFiles(2, "2", {path: FileInfo(4, "t")}, "f" * 64)
    with pytest.raises(LoadFailed, match="leaves the version's folder"):
        source.fetch(ModelFiles("flowers", model.config, {2: version}, {}), version)
    found = [p for p in tmp_path.rglob("escaped") if not p.is_relative_to(tmp_path / "remote")]
    assert found == []
    assert files_of(cache) == {}


@pytest.mark.parametrize("name", ["../flowers", "flowers/1", ""])
def test_a_remote_name_cannot_leave_the_repository(remote: Remote, cache: Path, name: str) -> None:
    with pytest.raises(InvalidArgument):
        open_source(remote.url, cache).read(name)


def test_a_remote_model_that_is_not_there(remote: Remote, cache: Path) -> None:
    with pytest.raises(NotFound, match="the model repository has no model 'birds'"):
        open_source(remote.url, cache).read("birds")


def test_two_servers_may_share_a_cache(cache: Path, tmp_path: Path) -> None:
    """Both copy at the same time; the second finds the first one's copy in its place."""
    remote = Remote(f"file://{tmp_path}/remote")
    for path, content in FILES.items():
        remote.write(path, content)
    begin = threading.Barrier(4)
    found: list[Path] = []

    def one_server(place: Path) -> None:
        source = open_source(remote.url, place)
        begin.wait(10)
        found.append(fetch(source, "flowers", 2))

    for turn in range(10):
        place = cache / str(turn)
        servers = [
            threading.Thread(target=one_server, args=(place,), daemon=True) for _ in range(4)
        ]
        for server in servers:
            server.start()
        for server in servers:
            server.join(20)
        assert len(found) == 4
        assert len(set(found)) == 1
        assert files_of(found[0]) == VERSION_2
        assert list(place.glob("*/.copy-*")) == []
        found.clear()


def test_the_users_own_cache_is_where_copies_go_by_default(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    folder = fetch(open_source(remote.url), "flowers", 1)
    assert folder.is_relative_to(tmp_path / "xdg" / "crossfade")


def test_file_systems_that_nobody_knows() -> None:
    with pytest.raises(NotFound, match="'zzz://' is not a file system that fsspec knows"):
        open_source("zzz://bucket/models")


def test_a_file_system_without_its_package_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(url: str) -> None:
        raise ImportError("Please install gcsfs")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(MissingExtra, match=r"pip install 'crossfade\[gs\]'") as caught:
        open_source("gs://bucket/models")
    assert caught.value.extra == "gs"
