"""Operations without weights: one table from the common vocabulary to PyTorch.

A shape is a tuple of integers all the way (also in ``shape``, ``strided_slice``, ``pack``), so that
tracing a module finds sizes and not tensors. Integer constants arrive as numpy arrays.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from crossfade.training.torch_port.layers import from_nchw, padded, to_nchw, window_padding

Attributes = Mapping[str, Any]
Operation = Callable[[list[Any], Attributes], Any]
_DTYPES: Final = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16}
_INTEGERS: Final = {"int32": torch.int32, "int64": torch.int64, "bool": torch.bool}


def ints(value: Any) -> tuple[Any, ...]:
    """Sizes or axes as a tuple: of a constant, a shape, a number or an integer tensor."""
    if isinstance(value, (tuple, list)):
        return tuple(value)
    if isinstance(value, (np.ndarray, Tensor)):
        return tuple(int(i) for i in value.reshape(-1))
    return (value,)


def tensor(value: Any, like: Tensor | None = None) -> Tensor:
    """A value as a tensor, on the device of another."""
    if isinstance(value, Tensor):
        return value
    return torch.as_tensor(np.asarray(value), device=None if like is None else like.device)


def _pair(function: Callable[[Tensor, Tensor], Tensor]) -> Operation:
    def run(values: list[Any], _: Attributes) -> Any:
        if not any(isinstance(value, Tensor) for value in values):  # arithmetic on sizes
            return _sizes(function, values)
        like = next(value for value in values if isinstance(value, Tensor))
        return function(tensor(values[0], like), tensor(values[1], like))

    return run


def _add(values: list[Any], attributes: Attributes) -> Any:
    if attributes.get("layout") == "NCHW":  # TensorFlow's BiasAdd
        return values[0] + tensor(values[1], values[0]).reshape(-1, *[1] * (values[0].ndim - 2))
    return _BINARY_ADD(values, attributes)


def _sizes(function: Callable[[Tensor, Tensor], Tensor], values: list[Any]) -> Any:
    a, b = (ints(value) for value in values)
    count = max(len(a), len(b))
    a, b = a * (count // len(a)), b * (count // len(b))
    plain: dict[Any, Any] = {torch.mul: operator.mul, torch.add: operator.add}
    plain[torch.sub] = operator.sub
    number = plain.get(function) or (lambda x, y: int(function(torch.tensor(x), torch.tensor(y))))
    found = tuple(number(x, y) for x, y in zip(a, b, strict=True))
    return found if count > 1 else found[0]


def _one(function: Callable[[Tensor], Tensor]) -> Operation:
    return lambda values, _: function(tensor(values[0]))


def _reduced(function: Callable[..., Tensor]) -> Operation:
    def run(values: list[Any], attributes: Attributes) -> Any:
        x = values[0]
        if not isinstance(x, Tensor):
            return int(getattr(np, function.__name__.removeprefix("a"))(ints(x)))
        given = values[1] if len(values) > 1 else attributes.get("axes")
        axes = ints(given) if given is not None else tuple(range(x.ndim))
        return function(x, dim=axes, keepdim=bool(attributes["keep"])) if axes else x

    return run


def _prod(values: list[Any], attributes: Attributes) -> Any:
    if not isinstance(values[0], Tensor):
        total: Any = 1
        for size in ints(values[0]):
            total = total * size
        return total
    return torch.prod(values[0], dim=ints(values[1])[0], keepdim=bool(attributes["keep"]))


def _reshape(values: list[Any], attributes: Attributes) -> Any:
    sizes = list(ints(values[1]))
    if attributes.get("keep_zeros"):  # ONNX: 0 is "as it was"
        sizes = [values[0].shape[i] if s == 0 else s for i, s in enumerate(sizes)]
    return tensor(values[0]).reshape(sizes)


def _squeeze(values: list[Any], attributes: Attributes) -> Any:
    x = values[0]
    axes = attributes.get("axes") or (ints(values[1]) if len(values) > 1 else ())
    axes = axes or tuple(i for i, size in enumerate(x.shape) if size == 1)
    return x.squeeze(tuple(axes)) if isinstance(x, Tensor) else x[0]


def _expand(values: list[Any], attributes: Attributes) -> Any:
    x = values[0]
    if not isinstance(x, Tensor):
        return ints(x)
    for axis in sorted(ints(attributes["axes"] if "axes" in attributes else values[1])):
        x = x.unsqueeze(axis)
    return x


def _pad(values: list[Any], _: Attributes) -> Any:
    x, flat = values[0], np.asarray(values[1]).reshape(-1, 2)
    fill = float(tensor(values[2])) if len(values) > 2 and values[2] is not None else 0.0
    return functional.pad(x, [int(i) for pair in flat[::-1] for i in pair], value=fill)


def _pool(values: list[Any], attributes: Attributes, largest: bool) -> Any:
    layout, size, strides = attributes["layout"], attributes["size"], attributes["strides"]
    x = to_nchw(values[0], layout)
    pixels = window_padding(attributes["padding"], x.shape[2:], size, strides, (1, 1))
    pixels = _ceiled(pixels, x.shape[2:], size, strides) if attributes.get("ceil") else pixels
    if largest:
        x = functional.max_pool2d(padded(x, pixels, -torch.inf), size, strides)
    else:
        counted = functional.avg_pool2d(padded(x, pixels), size, strides)
        if any(i for pair in pixels for i in pair) and not attributes.get("count_padding"):
            ones = padded(torch.ones_like(x[:1, :1]), pixels)
            counted = counted / functional.avg_pool2d(ones, size, strides)
        x = counted
    return from_nchw(x, layout)


def _ceiled(pixels: Any, shape: Any, size: Any, strides: Any) -> Any:
    """Padding so that the last window, which is not full, counts."""
    sides = []
    for (front, behind), length, k, step in zip(pixels, shape, size, strides, strict=True):
        rest = (length + front + behind - k) % step
        sides.append((front, behind + (step - rest if rest else 0)))
    return tuple(sides)


def _concat(values: list[Any], attributes: Attributes) -> Any:
    axis = attributes["axis"] if "axis" in attributes else ints(values[-1])[0]
    parts = values if "axis" in attributes else values[:-1]
    if not any(isinstance(part, Tensor) for part in parts):
        return tuple(size for part in parts for size in ints(part))
    like = next(part for part in parts if isinstance(part, Tensor))
    return torch.cat([tensor(part, like) for part in parts], dim=axis)


def _pack(values: list[Any], attributes: Attributes) -> Any:
    if not any(isinstance(value, Tensor) for value in values):
        return tuple(ints(value)[0] for value in values)
    return torch.stack([tensor(value) for value in values], dim=attributes["axis"])


def _strided_slice(values: list[Any], attributes: Attributes) -> Any:
    x = values[0]
    begins, ends, steps = (ints(value) for value in values[1:4])
    index: list[Any] = []
    for i, (begin, end, step) in enumerate(zip(begins, ends, steps, strict=True)):
        bit = 1 << i
        if attributes["ellipsis_mask"] & bit:
            index.append(...)
        elif attributes["new_axis_mask"] & bit:
            index.append(None)
        elif attributes["shrink_axis_mask"] & bit:
            index.append(begin)
        else:
            start = None if attributes["begin_mask"] & bit else begin
            stop = None if attributes["end_mask"] & bit else end
            index.append(slice(start, stop, step))
    return x[tuple(index)] if isinstance(x, (Tensor, np.ndarray)) else ints(x)[index[0]]


def _slice(values: list[Any], _: Attributes) -> Any:
    x, begins, sizes = values[0], ints(values[1]), ints(values[2])
    ends = [None if s == -1 else b + s for b, s in zip(begins, sizes, strict=True)]
    index = tuple(slice(b, e) for b, e in zip(begins, ends, strict=True))
    return x[index] if isinstance(x, Tensor) else ints(x)[index[0]]


def _cast(values: list[Any], attributes: Attributes) -> Any:
    x, wanted = values[0], attributes["dtype"]
    if not isinstance(x, Tensor):
        return x if not wanted.startswith("float") else tensor(x).to(_DTYPES[wanted])
    return x.to(_DTYPES.get(wanted) or _INTEGERS.get(wanted) or getattr(torch, wanted))


def _matmul(values: list[Any], attributes: Attributes) -> Any:
    a, b = (
        value.transpose(-1, -2) if turned else value
        for value, turned in zip(values[:2], attributes["turned"], strict=True)
    )
    product = a @ b
    return product if len(values) < 3 or values[2] is None else product + values[2]


def _gather(values: list[Any], attributes: Attributes) -> Any:
    axis = ints(values[2])[0] if len(values) > 2 else attributes["axis"]
    x = values[0]
    if not isinstance(x, Tensor) and not isinstance(values[1], Tensor):
        found = tuple(ints(x)[i] for i in ints(values[1]))
        return found if np.ndim(values[1]) else found[0]
    x = tensor(x)
    at = tensor(values[1], x).long()
    at = torch.where(at < 0, at + x.shape[axis], at)
    return x.index_select(axis, at.reshape(-1)).reshape(
        x.shape[:axis] + at.shape + x.shape[axis + 1 :]
    )


def _one_hot(values: list[Any], attributes: Attributes) -> Any:
    indices, on, off = values[0].long(), tensor(values[2]), tensor(values[3])
    depth = int(ints(values[1])[0])
    hot = indices.unsqueeze(-1) == torch.arange(depth, device=indices.device)
    hot = torch.where(hot, on.to(indices.device), off.to(indices.device))
    return hot if attributes["axis"] in (-1, indices.ndim) else hot.movedim(-1, attributes["axis"])


def _resize(values: list[Any], attributes: Attributes) -> Any:
    layout = attributes.get("layout", "NHWC")
    x, size = to_nchw(values[0].float(), layout), [int(i) for i in ints(values[1])]
    if attributes["filter"] == "nearest":
        mode = "nearest-exact" if attributes["centers"] else "nearest"
        return from_nchw(functional.interpolate(x, size, mode=mode), layout)
    if not attributes["centers"] and not attributes["corners"]:
        return from_nchw(_resize_from_corner(x, size), layout)
    x = functional.interpolate(
        x, size, mode="bilinear", align_corners=bool(attributes["corners"]), antialias=False
    )
    return from_nchw(x, layout)


def _resize_from_corner(x: Tensor, size: list[int]) -> Tensor:
    """TensorFlow 1's bilinear resize: pixel i of the answer is at i * in / out."""
    for axis, wanted in ((2, size[0]), (3, size[1])):
        length = x.shape[axis]
        at = torch.arange(wanted, device=x.device) * (length / wanted)
        low = at.floor().long().clamp(max=length - 1)
        high = (low + 1).clamp(max=length - 1)
        part = (at - low).reshape((-1, 1) if axis == 2 else (-1,))
        x = x.index_select(axis, low) * (1 - part) + x.index_select(axis, high) * part
    return x


def _clip(values: list[Any], attributes: Attributes) -> Any:
    low, high = (
        float(tensor(values[i]).item()) if len(values) > i and values[i] is not None else default
        for i, default in ((1, attributes.get("low")), (2, attributes.get("high")))
    )
    return values[0] if low is None and high is None else values[0].clamp(low, high)


def _quantized(values: list[Any], attributes: Attributes) -> Any:
    """Rounded to the grid of 8 bits and cut at its ends; a gradient passes the rounding."""
    steps = (values[0] / attributes["scale"]).clamp(attributes["low"], attributes["high"])
    return (steps + (steps.round() - steps).detach()) * attributes["scale"]


def _softmax(values: list[Any], attributes: Attributes) -> Any:
    return torch.softmax(values[0] * attributes.get("beta", 1.0), attributes.get("axis", -1))


def _transpose(values: list[Any], attributes: Attributes) -> Any:
    return values[0].permute(ints(attributes["order"] if "order" in attributes else values[1]))


def _split(values: list[Any], attributes: Attributes) -> Any:
    axis, x = ints(values[0])[0], values[1]
    return x.split(attributes.get("sizes") or x.shape[axis] // attributes["parts"], axis)


def _where(values: list[Any], _: Attributes) -> Any:
    like = next(value for value in values if isinstance(value, Tensor))
    return torch.where(*(tensor(value, like) for value in values))


def _div_no_nan(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(b == 0, torch.zeros_like(a / b), a / b)


_UNARY: Final[Mapping[str, Callable[[Tensor], Tensor]]] = {
    **{name: getattr(torch, name) for name in ("abs", "ceil", "cos", "erf", "exp", "floor", "log")},
    **{
        name: getattr(torch, name) for name in ("log1p", "neg", "round", "rsqrt", "sigmoid", "sign")
    },
    **{name: getattr(torch, name) for name in ("sin", "sqrt", "square", "tanh", "logical_not")},
    "relu": functional.relu,
    "relu6": functional.relu6,
    "elu": functional.elu,
    "selu": functional.selu,
    "softplus": functional.softplus,
    "is_nan": torch.isnan,
    "hard_swish": functional.hardswish,
    "hard_sigmoid": functional.hardsigmoid,
    "zeros_like": torch.zeros_like,
    "ones_like": torch.ones_like,
    "identity": lambda x: x,
}
_BINARY: Final[Mapping[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "pow": torch.pow,
    "equal": torch.eq,
    "greater": torch.gt,
    "less": torch.lt,
    "greater_equal": torch.ge,
    "less_equal": torch.le,
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "squared_difference": lambda a, b: (a - b) ** 2,
    "div_no_nan": _div_no_nan,
}
_BINARY_ADD: Final = _pair(torch.add)
OPERATIONS: Final[Mapping[str, Operation]] = {
    **{name: _one(function) for name, function in _UNARY.items()},
    **{name: _pair(function) for name, function in _BINARY.items()},
    "add": _add,
    "mean": _reduced(torch.mean),
    "sum": _reduced(torch.sum),
    "prod": _prod,
    "max": _reduced(torch.amax),
    "min": _reduced(torch.amin),
    "reshape": _reshape,
    "squeeze": _squeeze,
    "expand_dims": _expand,
    "pad": _pad,
    "max_pool": lambda values, attributes: _pool(values, attributes, True),
    "avg_pool": lambda values, attributes: _pool(values, attributes, False),
    "concat": _concat,
    "pack": _pack,
    "strided_slice": _strided_slice,
    "slice": _slice,
    "cast": _cast,
    "matmul": _matmul,
    "gather": _gather,
    "one_hot": _one_hot,
    "resize": _resize,
    "clip": _clip,
    "softmax": _softmax,
    "quantized": _quantized,
    "transpose": _transpose,
    "split": _split,
    "where": _where,
    "shape": lambda values, _: tuple(values[0].shape),
    "leaky_relu": lambda v, attributes: functional.leaky_relu(v[0], attributes["alpha"]),
    "tile": lambda values, _: values[0].tile(ints(values[1])),
    "fill": lambda values, _: torch.full(ints(values[0]), float(tensor(values[1]))),
    "broadcast_to": lambda values, _: tensor(values[0]).broadcast_to(ints(values[1])),
}
