"""Nested state (of an optimiser, of generators) as JSON and named tensors, exactly.

Dictionaries with any keys, lists, tuples, numbers, text, ``None`` and tensors; nothing that would
need pickling.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch

_TENSOR: Final = "$tensor"
_TUPLE: Final = "$tuple"
_ITEMS: Final = "$items"
_MARKS: Final = (_TENSOR, _TUPLE, _ITEMS)


def split(value: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    """Moves the tensors of ``value`` into ``tensors`` under names below ``path``.

    Returns:
        The rest, as JSON can hold it (with infinity and NaN as Python's ``json`` writes them).

    Raises:
        TypeError: there is something else in it.
    """
    if isinstance(value, torch.Tensor):
        name = path
        while name in tensors:  # "a/b" is also the path of b in a
            name += "'"
        tensors[name] = value.detach().cpu().contiguous().clone()  # clone: safetensors shares none
        return {_TENSOR: name}
    if isinstance(value, tuple):
        return {_TUPLE: [split(v, f"{path}/{i}", tensors) for i, v in enumerate(value)]}
    if isinstance(value, list):
        return [split(v, f"{path}/{i}", tensors) for i, v in enumerate(value)]
    if isinstance(value, Mapping):
        if all(isinstance(k, str) and k not in _MARKS for k in value):
            return {k: split(v, f"{path}/{k}", tensors) for k, v in value.items()}
        items = [
            [split(k, path, tensors), split(v, f"{path}/{k}", tensors)] for k, v in value.items()
        ]
        return {_ITEMS: items}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{path}: a checkpoint cannot hold a {type(value).__name__}")


def join(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """The opposite of ``split``.

    Raises:
        KeyError: a tensor is missing.
    """
    if isinstance(value, list):
        return [join(v, tensors) for v in value]
    if not isinstance(value, Mapping):
        return value
    if _TENSOR in value:
        return tensors[value[_TENSOR]]
    if _TUPLE in value:
        return tuple(join(v, tensors) for v in value[_TUPLE])
    if _ITEMS in value:
        return {join(k, tensors): join(v, tensors) for k, v in value[_ITEMS]}
    return {k: join(v, tensors) for k, v in value.items()}
