"""Real inputs come from users: what does not fit is told, and nothing is unpickled."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crossfade.runtimes.core.errors import InvalidArgument, NotFound
from crossfade.runtimes.core.model import Signature, TensorSpec
from crossfade.serving.conversion import data, others

OUT = [TensorSpec("y", "FP32", (-1, 2))]


def of(*inputs: TensorSpec) -> Signature:
    return Signature.derive(inputs, OUT)


ROWS = of(TensorSpec("x", "FP32", (-1, 3)))


def npz(folder: Path, **arrays: np.ndarray) -> Path:
    path = folder / "rows.npz"
    np.savez(path, **arrays)
    return path


def test_an_archive_gives_rows(tmp_path: Path) -> None:
    rows = data.read(npz(tmp_path, x=np.arange(12.0).reshape(4, 3)), ROWS, None)
    assert (rows.count, rows.real, rows.origin) == (4, True, "4 rows of rows.npz")
    batch = rows.batch(1, 3)["x"]
    assert batch.dtype == np.float32
    assert batch.tolist() == [[3, 4, 5], [6, 7, 8]]


def test_a_model_without_a_batch_takes_a_row_as_it_is(tmp_path: Path) -> None:
    whole = Signature((TensorSpec("x", "INT32", (16,)),), tuple(OUT))
    rows = data.read(npz(tmp_path, x=np.zeros((5, 16), np.int32)), whole, None)
    assert rows.batch(0, 1)["x"].shape == (16,)
    assert (rows.count, rows.sizes) == (5, {"x": ()})


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"z": np.zeros((2, 3), np.float32)}, "has no array 'x'"),
        ({"x": np.zeros((2, 4), np.float32)}, r"shape \[2, 4\]; the model needs \[rows, 3\]"),
        ({"x": np.zeros(3, np.float32)}, r"needs \[rows, 3\]"),
        ({"x": np.zeros((0, 3), np.float32)}, "at least one"),
        ({"x": np.zeros((2, 3), np.complex64)}, "complex64; the model takes FP32"),
        ({"x": np.full((2, 3), np.nan, np.float32)}, "NaN or infinity"),
        ({"x": np.full((2, 3), np.inf, np.float32)}, "NaN or infinity"),
        ({"x": np.array([[{}, {}, {}]])}, "Python objects"),
        ({"x": np.array([["a", "b", "c"]])}, "takes FP32"),
    ],
)
def test_what_does_not_fit_is_told(
    tmp_path: Path, arrays: dict[str, np.ndarray], says: str
) -> None:
    with pytest.raises(InvalidArgument, match=says):
        data.read(npz(tmp_path, **arrays), ROWS, None)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04" + b"\0" * 100])
def test_a_broken_archive(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.npz"
    path.write_bytes(content)
    with pytest.raises(InvalidArgument, match=r"not an \.npz that can be read"):
        data.read(path, ROWS, None)


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "MAX_BYTES", 1000)
    path = tmp_path / "rows.npz"
    np.savez_compressed(path, x=np.zeros((1000, 3), np.float32))
    with pytest.raises(InvalidArgument, match="too much"):
        data.read(path, ROWS, None)


def picture(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (8, 6)) -> None:
    Image.new("RGB", size, colour).save(path)


def test_images_for_bytes_pixels_and_floats(tmp_path: Path) -> None:
    for name, colour in (("b.png", (255, 0, 0)), ("a.png", (0, 0, 255))):
        picture(tmp_path / name, colour)
    (tmp_path / "notes.txt").write_text("no image")
    pixels = data.read(tmp_path, of(TensorSpec("x", "UINT8", (-1, 4, 4, 3))), None)
    assert list(pixels.names) == ["a.png", "b.png"]
    assert pixels.inputs["x"][1, 0, 0].tolist() == [255, 0, 0]
    floats = data.read(tmp_path, of(TensorSpec("x", "FP32", (-1, 3, 4, 4))), (-1.0, 1.0))
    assert floats.inputs["x"].shape == (2, 3, 4, 4)
    assert floats.inputs["x"][0, :, 0, 0].tolist() == [-1, -1, 1]
    files = data.read(
        tmp_path,
        of(TensorSpec("image_bytes", "BYTES", (-1,)), TensorSpec("key", "BYTES", (-1,))),
        None,
    )
    assert Image.open(io.BytesIO(files.inputs["image_bytes"][0])).size == (8, 6)
    assert files.inputs["key"].tolist() == [b"", b""]


ASKED = of(
    TensorSpec("x", "UINT8", (-1, 4, 4, 3)),
    TensorSpec("query", "BYTES", (-1, -1)),
    TensorSpec("budget", "INT32", (-1, -1)),
    TensorSpec("key", "BYTES", (-1,)),
)


def test_what_is_asked_of_images_is_taken_in_turn(tmp_path: Path) -> None:
    for name in "abc":
        picture(tmp_path / f"{name}.png", (1, 2, 3))
    asked = {"query": [["cat", "Hünd"], ["bird", ""]], "budget": [[1, 2]]}
    found = data.read(tmp_path, ASKED, None, others=asked).inputs
    first, second = [b"cat", "Hünd".encode()], [b"bird", b""]
    assert found["query"].tolist() == [first, second, first]
    assert found["budget"].dtype == np.int32
    assert found["budget"].tolist() == [[1, 2]] * 3
    assert found["key"].tolist() == [b""] * 3


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"x": [[1]]}, "'x' is no input beside the images; there are query, budget, key"),
        ({"nothing": [1]}, "'nothing' is no input"),
        ({"query": [["a"], ["b", "c"]]}, "'query' differ in shape"),
        ({"query": ["a"]}, r"needs \[rows, any\]"),
        ({"query": [[1]]}, "takes texts"),
        ({"budget": [["a"]]}, "takes INT32"),
        ({"budget": [[2**40]]}, "beyond INT32"),
        ({"budget": [[0.5]]}, "takes INT32"),
        ({"budget": [[None]]}, "takes INT32"),
    ],
)
def test_what_is_asked_must_fit(tmp_path: Path, asked: dict[str, list], says: str) -> None:
    picture(tmp_path / "a.png", (1, 2, 3))
    with pytest.raises(InvalidArgument, match=says):
        data.read(tmp_path, ASKED, None, others=asked)


def test_an_archive_has_all_inputs_itself(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="go with a folder of images"):
        data.read(npz(tmp_path, x=np.zeros((2, 3))), ROWS, None, others={"x": [[1, 2, 3]]})


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff", b"[1]", b'{"a": "b"}', b'{"a": []}', b"[" * 100_000]
)
def test_a_broken_file_of_inputs(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "asked.json"
    path.write_bytes(content)
    with pytest.raises(InvalidArgument, match=r"'asked\.json'"):
        others.read(path)
    with pytest.raises(NotFound):
        others.read(tmp_path / "none.json")


def test_how_floats_are_scaled_is_never_guessed(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", (1, 2, 3))
    with pytest.raises(InvalidArgument, match="--range"):
        data.read(tmp_path, of(TensorSpec("x", "FP32", (-1, 4, 4, 3))), None)


@pytest.mark.parametrize(
    ("files", "says"),
    [({}, "holds no images"), ({"a.png": b"none"}, "'a.png' is not an image")],
)
def test_broken_folders(tmp_path: Path, files: dict[str, bytes], says: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidArgument, match=says):
        data.read(tmp_path, of(TensorSpec("x", "UINT8", (-1, 4, 4, 3))), None)


def test_there_must_be_something(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        data.read(tmp_path / "nowhere", ROWS, None)


def labels(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text)
    return path


ROWS_OF_TWO = data.Rows({"x": np.zeros((2, 3))}, "", names=("a.png", "b.png"))


def test_rows_beyond_the_limit_are_left_out(tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", x=np.zeros((1200, 3), np.float32))
    assert data.read(tmp_path / "rows.npz", ROWS, None).count == data.MAX_ROWS
    assert data.read(tmp_path / "rows.npz", ROWS, None, 1100).count == 1100


def test_label_texts_stay_as_they_are_written(tmp_path: Path) -> None:
    path = labels(tmp_path, "file,label\nb.png, no  class \n")
    assert data.read_label_texts(path, ROWS_OF_TWO) == [None, "no  class"]


def test_labels_by_name_and_by_line(tmp_path: Path) -> None:
    by_name = labels(tmp_path, "file,label\nb.png,cat\nimages/a.png,1\nother.png,cat\n")
    assert data.read_labels(by_name, ROWS_OF_TWO, ["cat", "dog"]).tolist() == [1, 0]
    by_line = labels(tmp_path, "label\ndog\n")
    assert data.read_labels(by_line, ROWS_OF_TWO, ["cat", "dog"]).tolist() == [1, -1]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "needs a first line"),
        ("a,b\n1,2\n", "needs a first line"),
        ("file,label\na.png,horse\n", "'horse' is neither"),
        ("file,label\nz.png,cat\n", "no label for any row"),
    ],
)
def test_labels_that_say_nothing(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        data.read_labels(labels(tmp_path, text), ROWS_OF_TWO, ["cat", "dog"])
