"""What transforms are made of, so that one definition runs in NumPy and as an ONNX graph.

Values are opaque: arrays here, names of tensors in ``graph``. All are [rows] unless said otherwise,
with the semantics of the ONNX operators.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

V = TypeVar("V")
Array = npt.NDArray[Any]
Dtype = Literal["float64", "float32", "int64"]
Binary = Literal["add", "sub", "mul", "div", "mod", "max", "min"]
Comparison = Literal["equal", "greater", "less_or_equal"]


class Operations(Protocol[V]):
    """The operations; integers divide towards zero, and ``mod`` has the sign of the divisor."""

    def number(self, column: str) -> V:
        """A number column, float64; NaN where there is none."""

    def text(self, column: str) -> V:
        """A text or timestamp column."""

    def constant(self, value: float | int | str | bool | Array) -> V:
        """A scalar, which broadcasts, or a table for ``gather``."""

    def binary(self, kind: Binary, left: V, right: V) -> V:
        """Arithmetic on two float64 or two int64."""

    def compare(self, kind: Comparison, left: V, right: V) -> V:
        """A truth value for each row; ``equal`` also of texts."""

    def both(self, left: V, right: V) -> V:
        """Logical and."""

    def negate(self, value: V) -> V:
        """Logical not."""

    def where(self, condition: V, yes: V, no: V) -> V:
        """Of each row one of two."""

    def finite(self, value: V) -> V:
        """Whether a float64 is neither NaN nor infinite."""

    def log(self, value: V) -> V:
        """The natural logarithm."""

    def floor(self, value: V) -> V:
        """Rounds float64 down."""

    def cast(self, value: V, dtype: Dtype) -> V:
        """Numbers or texts as another type; a text has to be such a number."""

    def place(self, texts: V, categories: Sequence[str]) -> V:
        """The place of each text among distinct categories, int64; -1 for others."""

    def gather(self, table: V, places: V) -> V:
        """Rows of a table [n] or [n, width] by int64 places."""

    def one_hot(self, places: V, depth: int) -> V:
        """Float32 [rows, depth] of int64 places; a row of zeros for -1."""

    def count_below(self, value: V, boundaries: Sequence[float]) -> V:
        """How many boundaries are below each float64, as a text."""

    def concatenate(self, left: V, right: V) -> V:
        """Texts after each other."""

    def full_match(self, texts: V, pattern: str) -> V:
        """Whether all of a text matches; patterns that RE2 and Python read alike."""

    def piece(self, texts: V, delimiter: str, place: int) -> V:
        """A piece of each text between delimiters; all must have that many."""

    def hash32(self, texts: V, seed: int) -> V:
        """MurmurHash3 of the UTF-8 bytes, x86, 32 bits, without sign, as int64."""


_BINARY: Final[Mapping[Binary, Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "mod": np.mod,
    "max": np.maximum,
    "min": np.minimum,
}
_COMPARE: Final[Mapping[Comparison, Any]] = {
    "equal": np.equal,
    "greater": np.greater,
    "less_or_equal": np.less_equal,
}


class NumpyOperations:
    """Runs them at once.

    Args:
        numbers: float64 [rows] by column.
        texts: object [rows] of ``str`` by column.
    """

    def __init__(self, numbers: Mapping[str, Array], texts: Mapping[str, Array]) -> None:
        self._numbers = numbers
        self._texts = texts

    def number(self, column: str) -> Array:
        """See ``Operations``."""
        return self._numbers[column]

    def text(self, column: str) -> Array:
        """See ``Operations``."""
        return self._texts[column]

    def constant(self, value: float | int | str | bool | Array) -> Array:
        """See ``Operations``."""
        if isinstance(value, np.ndarray):
            return value
        return np.array(value, np.object_ if isinstance(value, str) else None)

    def binary(self, kind: Binary, left: Array, right: Array) -> Array:
        """See ``Operations``."""
        with np.errstate(all="ignore"):
            if kind != "div":
                return np.asarray(_BINARY[kind](left, right))
            if left.dtype.kind == "f":
                return np.asarray(left / right)
            return np.asarray(np.trunc(left / right).astype(np.int64))

    def compare(self, kind: Comparison, left: Array, right: Array) -> Array:
        """See ``Operations``."""
        return np.asarray(_COMPARE[kind](left, right), bool)

    def both(self, left: Array, right: Array) -> Array:
        """See ``Operations``."""
        return np.asarray(left & right)

    def negate(self, value: Array) -> Array:
        """See ``Operations``."""
        return np.asarray(~value)

    def where(self, condition: Array, yes: Array, no: Array) -> Array:
        """See ``Operations``."""
        return np.where(condition, yes, no)

    def finite(self, value: Array) -> Array:
        """See ``Operations``."""
        return np.isfinite(value)

    def log(self, value: Array) -> Array:
        """See ``Operations``."""
        with np.errstate(all="ignore"):
            return np.asarray(np.log(value))

    def floor(self, value: Array) -> Array:
        """See ``Operations``."""
        return np.asarray(np.floor(value))

    def cast(self, value: Array, dtype: Dtype) -> Array:
        """See ``Operations``."""
        with np.errstate(all="ignore"):
            if value.dtype == object and dtype == "int64":
                return np.array([int(text) for text in value.tolist()], np.int64)
            return np.asarray(value, dtype)

    def place(self, texts: Array, categories: Sequence[str]) -> Array:
        """See ``Operations``."""
        places = {category: place for place, category in enumerate(categories)}
        return np.array([places.get(text, -1) for text in texts.tolist()], np.int64)

    def gather(self, table: Array, places: Array) -> Array:
        """See ``Operations``."""
        return np.asarray(table[places])

    def one_hot(self, places: Array, depth: int) -> Array:
        """See ``Operations``."""
        return np.asarray(places[:, None] == np.arange(depth), np.float32)

    def count_below(self, value: Array, boundaries: Sequence[float]) -> Array:
        """See ``Operations``."""
        counts = np.searchsorted(np.array(boundaries), value, side="left")
        return np.array([str(count) for count in range(len(boundaries) + 1)], object)[counts]

    def concatenate(self, left: Array, right: Array) -> Array:
        """See ``Operations``."""
        return np.asarray(left + right, object)

    def full_match(self, texts: Array, pattern: str) -> Array:
        """See ``Operations``."""
        match = re.compile(pattern).fullmatch
        return np.array([match(text) is not None for text in texts.tolist()], bool)

    def piece(self, texts: Array, delimiter: str, place: int) -> Array:
        """See ``Operations``."""
        made = np.empty(len(texts), object)
        made[:] = [text.split(delimiter)[place] for text in texts.tolist()]
        return made

    def hash32(self, texts: Array, seed: int) -> Array:
        """See ``Operations``."""
        from sklearn.utils import murmurhash3_32

        hashes = [murmurhash3_32(t.encode(), seed, positive=True) for t in texts.tolist()]
        return np.array(hashes, np.int64)
