"""A model's folder as others lay it out, read from nothing but a listing of its files."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.runtimes.core.errors import Code, InvalidArgument, NotFound
from crossfade.serving.config.model_config import ModelConfig
from crossfade.serving.repository.layout import (
    MAX_VERSION,
    FileInfo,
    ModelFiles,
    check_name,
    read_model,
    unknown_model,
)

Folder = Mapping[str, str | bytes]


def read(folder: Folder, name: str = "m", stamps: Mapping[str, str] | None = None) -> ModelFiles:
    contents = {p: c.encode() if isinstance(c, str) else c for p, c in folder.items()}
    listing = {
        path: FileInfo(len(content), (stamps or {}).get(path, "t0"))
        for path, content in contents.items()
    }
    return read_model(name, listing, contents.__getitem__)


# -- layouts ------------------------------------------------------------------------------------


def test_tensorflow_servings() -> None:
    found = read(
        {
            "1/saved_model.pb": "a",
            "1/variables/variables.index": "b",
            "00000123/saved_model.pb": "c",
        }
    )
    assert (found.error, found.config, found.label_files) == (None, ModelConfig(), {})
    assert list(found.versions) == [123, 1] or sorted(found.versions) == [1, 123]
    assert found.versions[123].folder == "00000123"
    assert found.versions[1].files.keys() == {"saved_model.pb", "variables/variables.index"}


@pytest.mark.parametrize(
    ("config", "versions"), [("platform: remote", [1]), ("platform: onnx", []), ("", [])]
)
def test_a_platform_without_files_is_version_1_by_itself(config: str, versions: list[int]) -> None:
    found = read({"model.yaml": config})
    assert found.error is None
    assert list(found.versions) == versions
    changed = read({"model.yaml": config}, stamps={"model.yaml": "t1"})
    assert [v.fingerprint for v in found.versions.values()] != [
        v.fingerprint for v in changed.versions.values()
    ] or not versions


def test_version_folders_count_more_than_the_configuration_alone() -> None:
    found = read({"model.yaml": "platform: remote", "3/remote.yaml": "a"})
    assert list(found.versions) == [3]


def test_tritons() -> None:
    found = read(
        {
            "config.pbtxt": 'platform: "onnxruntime_onnx" max_batch_size: 8',
            "labels.txt": "cat\ndog\n",
            "1/model.onnx": "a",
            "3/model.onnx": "b",
        }
    )
    assert found.error is None
    assert (found.config.platform, found.config.max_batch_size) == ("onnxruntime_onnx", 8)
    assert found.label_files == {"labels.txt": "cat\ndog\n"}
    assert sorted(found.versions) == [1, 3]


def test_ours_wins_over_tritons() -> None:
    found = read(
        {"model.yaml": "instances: 2", "config.pbtxt": "max_batch_size: 8", "1/model.onnx": "a"}
    )
    assert (found.config.instances, found.config.max_batch_size) == (2, None)


@pytest.mark.parametrize(
    "folder",
    [
        {"model.tflite": "a", "dict.txt": "cat\ndog", "tflite_metadata.json": "{}"},
        {"model.onnx": "a"},
        {"saved_model.pb": "a", "variables/variables.index": "b"},
        {"flowers_model.tflite": "a"},
        {"model.savedmodel/saved_model.pb": "a"},
        {"net.bin": "a", "model.yaml": "{platform: tflite, default_filename: net.bin}"},
    ],
    ids=min,
)
def test_an_unpacked_export_is_version_1(folder: Folder) -> None:
    found = read(folder)
    assert found.error is None
    (version,) = found.versions.values()
    assert (version.version, version.folder) == (1, "")
    assert version.files.keys() == folder.keys()


def test_version_folders_count_more_than_a_file_beside_them() -> None:
    found = read({"model.onnx": "old", "2/model.onnx": "new"})
    assert found.versions.keys() == {2}


@pytest.mark.parametrize(
    "folder",
    [
        {},
        {"README.md": "a"},
        {"model.yaml": "instances: 2"},
        {"0/model.onnx": "a"},
        {"-1/model.onnx": "a"},
        {"v1/model.onnx": "a"},
        {"1.5/model.onnx": "a"},
        {"1_000/model.onnx": "a"},
        {"\u0661/model.onnx": "a"},  # a digit, but none of ours
        {"²/model.onnx": "a"},
        {f"{MAX_VERSION + 1}/model.onnx": "a"},
        {"0" * 20 + "1/model.onnx": "a"},
        {"1": "a file, not a folder"},
        {"archive/1/model.onnx": "a"},
    ],
    ids=str,
)
def test_what_is_no_version(folder: Folder) -> None:
    found = read(folder)
    assert found.versions == {}
    assert found.error is None


def test_the_largest_version() -> None:
    assert read({f"{MAX_VERSION}/model.onnx": "a"}).versions.keys() == {MAX_VERSION}


@given(number=st.integers(1, 10**9), zeros=st.integers(0, 9))
def test_leading_zeros_are_no_part_of_the_number(number: int, zeros: int) -> None:
    folder = "0" * zeros + str(number)
    found = read({f"{folder}/model.onnx": "a"})
    assert {v.version: v.folder for v in found.versions.values()} == {number: folder}


def test_two_folders_of_one_version_are_an_error() -> None:
    found = read({"7/model.onnx": "a", "007/model.onnx": "b", "8/model.onnx": "c"})
    assert found.error == "version 7 has two folders"


# -- configuration ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "content", "error"),
    [
        ("model.yaml", "platfrom: x", "model.yaml: key 'platfrom' is unknown"),
        ("model.yaml", b"\xff\xfe", "model.yaml: not UTF-8 text"),
        ("config.pbtxt", "max_batch_sice: 1", "config.pbtxt: "),
        ("config.pbtxt", b"\x80", "config.pbtxt: not UTF-8 text"),
    ],
)
def test_a_broken_configuration_is_kept_as_the_reason(
    file: str, content: str | bytes, error: str
) -> None:
    found = read({file: content, "1/model.onnx": "a"})
    assert found.error is not None
    assert found.error.startswith(error)
    assert found.versions.keys() == {1}


def test_label_files_are_those_that_are_usual_and_those_that_are_named() -> None:
    found = read(
        {
            "config.pbtxt": 'output { name: "y" label_filename: "mine.txt" dims: 2 }',
            "mine.txt": "a\nb",
            "labels.txt": "c",
            "dict.txt": b"d\xff",
            "other.txt": "e",
            "1/labels.txt": "not of the model, but of the version",
            "1/model.onnx": "x",
        }
    )
    assert found.label_files == {"mine.txt": "a\nb", "labels.txt": "c", "dict.txt": "d\ufffd"}


# -- fingerprints -------------------------------------------------------------------------------

BASE: dict[str, str] = {
    "model.yaml": "instances: 1",
    "labels.txt": "a",
    "1/model.onnx": "one",
    "1/extra/weights.bin": "w",
    "2/model.onnx": "two",
    "notes/todo.md": "n",
}


def prints(folder: Folder, stamps: Mapping[str, str] | None = None) -> dict[int, str]:
    return {number: v.fingerprint for number, v in read(folder, stamps=stamps).versions.items()}


def test_the_same_files_have_the_same_fingerprint_in_any_order() -> None:
    assert prints(BASE) == prints(dict(reversed(list(BASE.items()))))
    assert prints(BASE)[1] != prints(BASE)[2]


@pytest.mark.parametrize(
    ("path", "changed"),
    [
        ("1/model.onnx", {1}),
        ("1/extra/weights.bin", {1}),
        ("2/model.onnx", {2}),
        ("model.yaml", {1, 2}),
        ("labels.txt", {1, 2}),
        ("notes/todo.md", set()),
    ],
)
def test_a_change_is_seen_by_the_versions_that_it_touches(path: str, changed: set[int]) -> None:
    before = prints(BASE)
    bigger = prints({**BASE, path: BASE[path] + "  "})
    touched = prints(BASE, {path: "t1"})
    removed = prints({p: c for p, c in BASE.items() if p != path})
    for after in (bigger, touched):
        assert {n for n in before if before[n] != after[n]} == changed
    if "model.onnx" not in path:
        assert {n for n in before if before[n] != removed[n]} == changed


def test_a_new_file_is_a_change() -> None:
    after = prints({**BASE, "2/more.bin": ""})
    assert {n for n, found in prints(BASE).items() if found != after[n]} == {2}


def test_a_renamed_file_is_a_change() -> None:
    moved = {**BASE}
    moved["1/other.onnx"] = moved.pop("1/model.onnx")
    assert prints(moved)[1] != prints(BASE)[1]


PATHS = st.sampled_from(["model.onnx", "a.bin", "b.bin", "sub/a.bin", "ab.bin"])
LISTING = st.dictionaries(PATHS, st.tuples(st.integers(0, 99), st.integers(0, 99).map(str)))


@given(one=LISTING, other=LISTING)
def test_fingerprints_are_equal_if_and_only_if_the_files_are(
    one: dict[str, tuple[int, str]], other: dict[str, tuple[int, str]]
) -> None:
    def fingerprint(listing: dict[str, tuple[int, str]]) -> str | None:
        files = {f"1/{path}": FileInfo(*info) for path, info in listing.items()}
        versions = read_model("m", files, lambda path: b"").versions
        return versions[1].fingerprint if versions else None

    assert (fingerprint(one) == fingerprint(other)) == (one == other)


# -- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "A9", "flowers_v2.1-x", "0", "x" * 128])
def test_good_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("", "names no model"),
        ("  \t", "names no model"),
        ("../../etc/passwd", "must not contain path traversal characters"),
        ("a/b", "must not contain path traversal characters"),
        ("a\\b", "must not contain path traversal characters"),
        ("a..b", "must not contain path traversal characters"),
        ("..", "must not contain path traversal characters"),
        (".hidden", "is not a model name"),
        ("_a", "is not a model name"),
        ("-a", "is not a model name"),
        ("a b", "is not a model name"),
        ("a\n", "is not a model name"),
        ("simple\0evil", "is not a model name"),
        ("modèle", "is not a model name"),
        ("abc\u202egnp", "is not a model name"),
        ("x" * 129, "is not a model name"),
    ],
)
def test_bad_names(name: str, part: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_name(name)
    assert part in caught.value.message
    assert caught.value.message.isascii()
    assert caught.value.message.isprintable()


@given(name=st.text(max_size=200))
def test_a_name_is_a_single_harmless_word_or_refused(name: str) -> None:
    try:
        assert check_name(name) == name
    except InvalidArgument:
        return
    assert name.isascii()
    assert 1 <= len(name) <= 128
    assert all(c.isalnum() or c in "._-" for c in name)
    assert name[0].isalnum()
    assert ".." not in name


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("flowers", Code.NOT_FOUND, "Request for unknown model: 'flowers' is not found"),
        ("../x", Code.NOT_FOUND, "Request for unknown model: '../x' is not found"),
        ("a\u202eb", Code.NOT_FOUND, r"Request for unknown model: 'a\u202eb' is not found"),
        ("", Code.INVALID_ARGUMENT, "the request names no model"),
        ("simple\0evil", Code.INVALID_ARGUMENT, r"'simple\x00evil' is not a model name"),
        ("a\r\nb", Code.INVALID_ARGUMENT, r"'a\r\nb' is not a model name"),
    ],
)
def test_the_error_for_a_name_that_is_not_served(name: str, code: Code, message: str) -> None:
    error = unknown_model(name)
    assert error.code is code
    assert isinstance(error, NotFound if code is Code.NOT_FOUND else InvalidArgument)
    assert error.message.startswith(message)
