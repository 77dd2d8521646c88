"""JSON from strangers: orjson for speed, and two checks that it does not make.

Nesting is limited before anything is built, and a key that stands twice in one object is refused
(parsers disagree on which one counts, so that a proxy and a server may see different requests).
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

import numpy as np
import orjson

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.runtimes.core.model import Tensor

MAX_DEPTH: Final = 100
# A list of two bytes becomes an object of sixty: a body may not say more than what a request needs.
MAX_LISTS: Final = 2**20
MAX_KEYS: Final = 2**14
_TOKENS: Final = re.compile(rb"NaN|Infinity")
_NUMBERS: Final = frozenset({int, float})
# Python types that a JSON value may have, by kind of numpy dtype; True is no 1.
_KINDS: Final = {"b": frozenset({bool}), "i": frozenset({int}), "u": frozenset({int})}
_NOT_STRUCTURE: Final = bytes(set(range(256)) - set(b'"[]{}:'))


def loads(body: bytes, nonfinite: bool = False) -> dict[str, Any]:
    """Parses a JSON object.

    Args:
        body: UTF-8.
        nonfinite: take the tokens NaN, Infinity and -Infinity, which JSON does not have.

    Raises:
        InvalidArgument: not JSON, not an object, nested too deeply, too many lists, objects or
            keys, or a key that stands twice.
    """
    marks = _structure(body)
    brackets = marks[marks != ord(":")]
    if brackets.size:
        first = brackets[: 2 * (MAX_LISTS + MAX_KEYS)]
        steps = np.where((first == ord("[")) | (first == ord("{")), 1, -1)
        if int(np.cumsum(steps).max()) > MAX_DEPTH:
            raise InvalidArgument(f"JSON nesting depth exceeds maximum allowed limit ({MAX_DEPTH})")
    if np.count_nonzero(marks == ord("[")) > MAX_LISTS:
        raise InvalidArgument(f"the body has more than {MAX_LISTS} JSON lists; send 'data' flat")
    if np.count_nonzero((marks == ord("{")) | (marks == ord(":"))) > MAX_KEYS:
        raise InvalidArgument(f"the body has more than {MAX_KEYS} JSON objects and keys")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if not nonfinite or not _TOKENS.search(body):
            raise InvalidArgument(f"the body is not valid JSON: {error}") from None
        document = _with_tokens(body)
    if not isinstance(document, dict):
        raise InvalidArgument("the body must be a JSON object")
    if marks.size - brackets.size != _count_keys(document):
        raise InvalidArgument("a key stands twice in one JSON object")
    return document


def _with_tokens(body: bytes) -> Any:
    """Parses what orjson refuses; the depth has been checked."""

    def finite(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            raise ValueError("number out of range")
        return value

    try:
        document = json.loads(body.decode(), parse_float=finite)
        orjson.dumps(document)  # refuses half of a surrogate pair, and integers beyond 64 bits
    except (ValueError, TypeError):
        raise InvalidArgument("the body is not valid JSON") from None
    return document


def _structure(body: bytes) -> Tensor:
    """Brackets and colons outside of strings, in order; exact for JSON that is valid.

    Linear in time and memory whatever the body holds, which a regular expression is not.
    """
    unescaped = body.replace(rb"\\", b"").replace(rb"\"", b"")
    marks = np.frombuffer(unescaped.translate(None, _NOT_STRUCTURE), dtype=np.uint8)
    quotes = marks == ord('"')
    found: Tensor = marks[~(np.logical_xor.accumulate(quotes) | quotes)]
    return found


def _count_keys(value: Any) -> int:
    """Keys of all objects in ``value``; lists of plain values are not walked."""
    if isinstance(value, dict):
        return len(value) + sum(_count_keys(item) for item in value.values())
    if isinstance(value, list) and value and isinstance(value[0], (dict, list)):
        return sum(_count_keys(item) for item in value)
    if isinstance(value, list):
        return sum(_count_keys(item) for item in value if isinstance(item, (dict, list)))
    return 0


def to_array(
    name: str, dtype: str, values: Any, target: np.dtype[Any], *, nonfinite: bool = False
) -> Tensor:
    """Makes an array of JSON values, flat or nested, without changing any of them.

    Args:
        name: the input's name, for messages.
        dtype: the protocol's name of the element type.
        values: a JSON list (or a single value).
        target: its numpy dtype.
        nonfinite: whether NaN and infinity among the values may stay.

    Raises:
        InvalidArgument: a value is of another kind, or does not fit; or the nesting is ragged.
    """
    if dtype == "BYTES":
        return _strings(name, values)
    kinds = _kinds(values)
    if not kinds <= _KINDS.get(target.kind, _NUMBERS) or (not kinds and target.kind != "f"):
        raise InvalidArgument(f"input '{name}' has a value that is not {dtype}")
    try:
        found = np.array(values)
        if found.dtype.kind == "f" and target.kind == "u":  # 2^63 and more beside smaller ones
            found = np.array(values, dtype=np.object_)
    except ValueError:
        raise InvalidArgument(f"input '{name}' has rows of different lengths") from None
    if target.kind in "iu" and found.size:
        limits = np.iinfo(target)
        if int(found.min()) < limits.min or int(found.max()) > limits.max:
            raise InvalidArgument(f"input '{name}' has a value that {dtype} cannot hold")
    with np.errstate(over="ignore"):
        array: Tensor = found.astype(target)
    if target.kind in "biu":
        return array
    fine = np.isfinite(array.astype(np.float64))
    if nonfinite and not fine.all():
        fine |= ~np.isfinite(found.astype(np.float64))
    if not fine.all():
        raise InvalidArgument(f"input '{name}' has a value that {dtype} cannot hold")
    return array


def _kinds(values: Any) -> set[type]:
    """Types of all plain values in nested lists."""
    if not isinstance(values, list):
        return {type(values)}
    kinds: set[type] = set(map(type, values))
    if list in kinds:
        kinds.remove(list)
        for item in values:
            if isinstance(item, list):
                kinds |= _kinds(item)
    return kinds


def _strings(name: str, values: Any) -> Tensor:
    flat: list[bytes] = []
    pending = [values]
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending.extend(reversed(value))
        elif isinstance(value, str):
            flat.append(value.encode())
        else:
            raise InvalidArgument(f"input '{name}' has a value that is not a string")
    array = np.empty(len(flat), dtype=np.object_)
    array[:] = flat
    return array
