"""Real inputs: a folder of images, an ``.npz`` of tensors, and a CSV of right answers.

All of it comes from a user and is checked: nothing is unpickled, sizes are bounded, and values
that are no numbers are refused.
"""

from __future__ import annotations

import csv
import dataclasses
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from crossfade.runtimes.core.dtypes import NUMPY
from crossfade.runtimes.core.errors import InvalidArgument, NotFound, escape
from crossfade.runtimes.core.model import Signature, Tensor, Tensors, TensorSpec
from crossfade.serving.conversion.probes import Range

_IMAGES: Final = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp"})
_PIXELS: Final = ("UINT8", "FP32", "FP16")
_MODES: Final = {1: "L", 3: "RGB"}
# More rows prove nothing new, and have to fit into memory.
MAX_ROWS: Final = 1000
MAX_BYTES: Final = 4 << 30
_MAX_PIXELS: Final = 100_000_000


@dataclasses.dataclass(frozen=True, slots=True)
class Rows:
    """Inputs for a signature, a row each.

    Attributes:
        inputs: arrays that all lead with the rows.
        origin: where they come from, in words.
        real: somebody gave them; they are not made up.
        names: what the rows are called, where they have names.
        stacked: the model's inputs lead with a batch dimension; otherwise a row is a whole input.
    """

    inputs: Tensors
    origin: str
    real: bool = True
    names: Sequence[str] = ()
    stacked: bool = True

    @property
    def count(self) -> int:
        """How many rows there are."""
        return min((len(array) for array in self.inputs.values()), default=0)

    def batch(self, first: int, end: int) -> Tensors:
        """The inputs of some rows, as a model takes them; of one row where it has no batch."""
        return {n: a[first:end] if self.stacked else a[first] for n, a in self.inputs.items()}

    @property
    def sizes(self) -> Mapping[str, tuple[int, ...]]:
        """Each input's shape without the batch."""
        return {n: a.shape[1:] if self.stacked else a.shape[2:] for n, a in self.inputs.items()}


def is_stacked(signature: Signature) -> bool:
    """Whether inputs lead with a dimension that may be a row's: any size, or 1."""
    return all(spec.shape is None or spec.shape[:1] in ((-1,), (1,)) for spec in signature.inputs)


def read(
    path: Path,
    signature: Signature,
    value_range: Range | None,
    max_rows: int = MAX_ROWS,
    others: Mapping[str, Sequence[Any]] | None = None,
) -> Rows:
    """Reads a folder of images or an ``.npz`` for a signature.

    Args:
        path: the folder or file.
        signature: what the inputs must fit.
        value_range: what 0 and 255 of a picture become for an input of floats.
        max_rows: what is beyond is left out.
        others: rows of the inputs beside the images, taken in turn; those that are not there are
            zero or empty.

    Raises:
        NotFound: there is nothing there.
        InvalidArgument: it is neither, or does not fit the signature; the message says how.
    """
    if path.is_dir():
        return _images(path, signature, value_range, max_rows, others or {})
    if others:
        raise InvalidArgument("values of other inputs go with a folder of images; an .npz has all")
    if path.is_file() and path.suffix == ".npz":
        return _archive(path, signature, max_rows)
    if not path.exists():
        raise NotFound(f"there is no data at '{path}'")
    raise InvalidArgument(f"'{path.name}' is neither a folder of images nor an .npz of tensors")


def _archive(path: Path, signature: Signature, max_rows: int) -> Rows:
    stacked = is_stacked(signature)
    arrays: dict[str, Tensor] = {}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            members = getattr(archive, "zip", None)
            if members is None:  # one array: not an archive
                raise ValueError
            unpacked = sum(info.file_size for info in members.infolist())
            if unpacked > MAX_BYTES:
                raise InvalidArgument(f"'{path.name}' unpacks to {unpacked:,} bytes: too much")
            for spec in signature.inputs:
                if spec.name in archive.files:
                    arrays[spec.name] = _checked(archive[spec.name], spec, stacked, path.name)
                elif not spec.optional:
                    there = ", ".join(escape(name) for name in archive.files[:10]) or "nothing"
                    raise InvalidArgument(
                        f"'{path.name}' has no array '{spec.name}', as the model's input is"
                        f" called; it has {there}"
                    )
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        if "Object arrays" in str(error):
            raise InvalidArgument(
                f"'{path.name}' holds Python objects, which are not read; texts are arrays of"
                " dtype S"
            ) from None
        raise InvalidArgument(f"'{path.name}' is not an .npz that can be read") from None
    lengths = {len(array) for array in arrays.values()}
    if len(lengths) != 1 or lengths == {0}:
        raise InvalidArgument(f"the arrays in '{path.name}' must have the same rows, at least one")
    arrays = {name: array[:max_rows] for name, array in arrays.items()}
    count = len(next(iter(arrays.values())))
    return Rows(arrays, f"{count} rows of {path.name}", stacked=stacked)


def _checked(array: Tensor, spec: TensorSpec, stacked: bool, file: str) -> Tensor:
    where = f"array '{spec.name}' of '{file}'"
    dtype = NUMPY[spec.dtype]
    if spec.dtype == "BYTES":
        if array.dtype.kind not in "SU":
            raise InvalidArgument(f"{where} is {array.dtype}; the model takes texts (dtype S)")
        texts = np.empty(array.shape, dtype=np.object_)
        flat = np.char.encode(array, "utf-8") if array.dtype.kind == "U" else array
        texts.reshape(-1)[:] = [bytes(text) for text in flat.reshape(-1)]
        array = texts
    elif not np.can_cast(array.dtype, dtype, "same_kind"):
        raise InvalidArgument(f"{where} is {array.dtype}; the model takes {spec.dtype}")
    if spec.shape is not None:
        row = spec.shape[1:] if stacked else spec.shape
        fits = array.ndim == len(row) + 1 and all(
            want in (-1, size) for size, want in zip(array.shape[1:], row, strict=True)
        )
        if not fits:
            wanted = ", ".join(["rows", *("any" if n == -1 else str(n) for n in row)])
            raise InvalidArgument(
                f"{where} has the shape {list(array.shape)}; the model needs [{wanted}]"
            )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InvalidArgument(f"{where} holds NaN or infinity: nothing can be proved with that")
    return array if spec.dtype == "BYTES" else array.astype(dtype)


def _images(
    folder: Path,
    signature: Signature,
    value_range: Range | None,
    max_rows: int,
    others: Mapping[str, Sequence[Any]],
) -> Rows:
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in _IMAGES and p.is_file())
    if not files:
        raise InvalidArgument(f"the folder '{folder.name}' holds no images")
    files = files[:max_rows]
    spec = _picture_input(signature)
    stacked = is_stacked(signature)
    if spec.dtype == "BYTES":
        rows = np.empty(len(files), dtype=np.object_)
        rows[:] = [file.read_bytes() for file in files]
        depth = len(spec.shape or ()) - stacked
        pictures = rows.reshape((len(files), *(1,) * max(depth, 0)))
    else:
        pictures = np.stack([_picture(file, spec, stacked, value_range) for file in files])
    inputs = {spec.name: pictures}
    beside = {other.name: other for other in signature.inputs if other is not spec}
    for name in others:
        if name not in beside:
            raise InvalidArgument(
                f"'{escape(name)}' is no input beside the images; there are"
                f" {', '.join(beside) or 'none'}"
            )
    for other in beside.values():
        if other.name in others:
            inputs[other.name] = _in_turn(others[other.name], other, len(files), stacked)
        elif not other.optional:
            shape = tuple(1 if n == -1 else n for n in (other.shape or (1,))[stacked:])
            empty: object = b"" if other.dtype == "BYTES" else 0
            inputs[other.name] = np.full((len(files), *shape), empty, dtype=NUMPY[other.dtype])
    names = [file.name for file in files]
    return Rows(inputs, f"{len(files)} images of {folder.name}", True, names, stacked)


def _in_turn(rows: Sequence[Any], spec: TensorSpec, count: int, stacked: bool) -> Tensor:
    """``count`` rows of JSON values, from the first again after the last."""
    try:
        given = np.array(rows)
    except ValueError:  # lists of different lengths
        raise InvalidArgument(f"the rows of input '{spec.name}' differ in shape") from None
    made = _checked(given, spec, stacked, "the other inputs")
    if spec.dtype != "BYTES" and not np.array_equal(made, given):
        raise InvalidArgument(f"a value of input '{spec.name}' is beyond {spec.dtype}")
    return made[np.arange(count) % len(made)]


def _picture_input(signature: Signature) -> TensorSpec:
    """The input that takes the picture."""
    found = [s for s in signature.inputs if s.dtype != "BYTES" and len(s.shape or ()) in (3, 4)]
    found = [s for s in found if s.dtype in _PIXELS] or found  # other numbers are seldom pixels
    texts = [s for s in signature.inputs if s.dtype == "BYTES"]
    if not found and len(texts) > 1:
        texts = [s for s in texts if "image" in s.name or "bytes" in s.name]
    found = found or texts
    if len(found) == 1:
        return found[0]
    raise InvalidArgument(
        "which of the model's inputs takes the images is not clear; give an .npz with an array"
        " for each input"
    )


def _picture(file: Path, spec: TensorSpec, stacked: bool, value_range: Range | None) -> Tensor:
    from PIL import Image

    dims = list(spec.shape or ())[stacked:]
    first = len(dims) == 3 and dims[0] in _MODES and dims[2] not in _MODES
    channels = dims[0] if first else dims[-1]
    height, width = dims[1:3] if first else dims[:2]
    if len(dims) != 3 or channels not in _MODES or spec.dtype not in _PIXELS:
        raise InvalidArgument(
            f"how an image becomes input '{spec.name}' ({spec.dtype} {list(spec.shape or ())}) is"
            " not known; give an .npz"
        )
    if spec.dtype != "UINT8" and value_range is None:
        raise InvalidArgument(
            f"input '{spec.name}' takes floats, and what range a picture's values have there is"
            " not written in the model: say it (--range 0 255, --range 0 1, --range -1 1)"
        )
    try:
        with Image.open(file) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise InvalidArgument(f"the image '{file.name}' is too large")
            picture = image.convert(_MODES[channels])
    except (OSError, Image.DecompressionBombError, ValueError, SyntaxError):
        raise InvalidArgument(f"'{file.name}' is not an image that can be read") from None
    if -1 not in (height, width):
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    values = np.asarray(picture).reshape(picture.height, picture.width, channels)
    if value_range is not None and spec.dtype != "UINT8":
        low, high = value_range
        values = (low + values.astype(np.float64) * ((high - low) / 255)).astype(NUMPY[spec.dtype])
    return np.ascontiguousarray(values.transpose(2, 0, 1)) if first else values


def read_labels(path: Path, rows: Rows, class_names: Sequence[str]) -> Tensor:
    """The right class of each row.

    Args:
        path: a CSV with the columns ``label`` and, for images, ``file``; without ``file`` the
            lines are the rows. A label is a class's name or index.
        rows: what it is about.
        class_names: in index order.

    Returns:
        INT64 [rows]; -1 where the file says nothing of a row.

    Raises:
        NotFound, InvalidArgument: it cannot be read, or says nothing of these rows.
    """
    indexes = {name: index for index, name in enumerate(class_names)}
    texts = read_label_texts(path, rows)
    found = [-1 if text is None else _index(text, indexes, path.name) for text in texts]
    return np.array(found, np.int64)


def read_label_texts(path: Path, rows: Rows) -> list[str | None]:
    """The right label of each row as the file writes it; ``None`` where it says nothing.

    Raises:
        NotFound, InvalidArgument: as ``read_labels``, but for what the labels are.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.DictReader(file))
    except OSError as error:
        raise NotFound(f"the labels '{path.name}' cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error):
        raise InvalidArgument(f"'{path.name}' is not a CSV that can be read") from None
    if not lines or "label" not in lines[0]:
        raise InvalidArgument(
            f"'{path.name}' needs a first line with the columns 'file,label', or 'label' alone"
        )
    found: list[str | None] = [None] * rows.count
    places = {name: index for index, name in enumerate(rows.names)}
    for number, line in enumerate(lines):
        place = places.get(Path(line["file"] or "").name) if "file" in line else number
        if place is not None and place < rows.count:
            found[place] = (line["label"] or "").strip()
    if all(text is None for text in found):
        raise InvalidArgument(f"'{path.name}' has no label for any row of the data")
    return found


def _index(label: str, indexes: Mapping[str, int], file: str) -> int:
    if label in indexes:
        return indexes[label]
    if label.isascii() and label.isdigit() and len(label) < 10:
        return int(label)
    raise InvalidArgument(f"'{file}': '{escape(label)}' is neither a class's name nor an index")
