"""What a configuration gives for an input of a warm-up request, as a tensor."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from crossfade.runtimes.core.dtypes import NUMPY
from crossfade.runtimes.core.errors import InvalidArgument, LoadFailed
from crossfade.runtimes.core.model import Tensor, TensorSpec
from crossfade.serving.tensors import cells


def given(spec: TensorSpec, value: object, folder: Path) -> Tensor:
    """Makes a tensor of JSON values.

    Args:
        spec: the input.
        value: nested lists; a string may be ``{file: NAME}``, what a file holds, and bytes that
            are no text are written as YAML's ``!!binary``.
        folder: where such files are: the version's.

    Raises:
        LoadFailed: the values do not fit the dtype, or there is no such file.
    """
    if spec.cells:
        try:
            column = cells.to_raw(spec, value).data
        except InvalidArgument as error:
            raise LoadFailed(f"warmup: {error.message}") from None
        assert isinstance(column, np.ndarray)
        return column
    if spec.dtype == "BYTES":
        strings = np.asarray(value, dtype=np.object_)
        encoded: Tensor = np.vectorize(lambda v: _element(v, folder), otypes=[np.object_])(strings)
        return encoded
    try:
        return np.asarray(value, dtype=NUMPY[spec.dtype])
    except (ValueError, TypeError, OverflowError):
        raise LoadFailed(f"warmup: input '{spec.name}' is not {spec.dtype}") from None


def _element(value: object, folder: Path) -> bytes:
    if not isinstance(value, dict):
        return value if isinstance(value, bytes) else str(value).encode()
    name = value.get("file")
    if value.keys() != {"file"} or not isinstance(name, str) or Path(name).name != name:
        raise LoadFailed("warmup: a file is written as {file: NAME}, without folders")
    try:
        return (folder / name).read_bytes()
    except OSError:
        raise LoadFailed(f"warmup: the version's folder has no file '{name}'") from None
