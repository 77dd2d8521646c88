"""TensorFlow's operations in the common vocabulary."""

from __future__ import annotations

from typing import Any, Final

from crossfade.runtimes.core.errors import LoadFailed
from crossfade.training.weights.graph import Node

# Same inputs, same meaning, no attributes.
_PLAIN: Final = {
    **{name: name.lower() for name in ("Abs", "Ceil", "Cos", "Div", "Elu", "Erf", "Exp", "Floor")},
    **{name: name.lower() for name in ("Log", "Log1p", "Maximum", "Minimum", "Mul", "Neg", "Pow")},
    **{name: name.lower() for name in ("Relu", "Relu6", "Reshape", "Round", "Rsqrt", "Selu")},
    **{name: name.lower() for name in ("Shape", "Sigmoid", "Sign", "Sin", "Softplus", "Sqrt")},
    **{name: name.lower() for name in ("Square", "Sub", "Tanh", "Fill", "Tile", "Greater", "Less")},
    "Add": "add",
    "AddV2": "add",
    "BiasAdd": "add",
    "RealDiv": "div",
    "Softmax": "softmax",
    "GreaterEqual": "greater_equal",
    "LessEqual": "less_equal",
    "Equal": "equal",
    "SquaredDifference": "squared_difference",
    "IsNan": "is_nan",
    "SelectV2": "where",
    "LogicalAnd": "logical_and",
    "LogicalOr": "logical_or",
    "LogicalNot": "logical_not",
    "ExpandDims": "expand_dims",
    "Transpose": "transpose",
    "ZerosLike": "zeros_like",
    "OnesLike": "ones_like",
    "Pad": "pad",
    "PadV2": "pad",
    "Slice": "slice",
    "ReadVariableOp": "identity",
    "PreventGradient": "identity",
    "CheckNumerics": "identity",
    "DivNoNan": "div_no_nan",
    "BroadcastTo": "broadcast_to",
}
_REDUCTIONS: Final = {"Mean": "mean", "Sum": "sum", "Max": "max", "Min": "min", "Prod": "prod"}
_POOLS: Final = {"MaxPool": "max_pool", "AvgPool": "avg_pool"}
_CONVOLUTIONS: Final = {"Conv2D": "HWIO", "DepthwiseConv2dNative": "HWIM"}
_RESIZES: Final = {"ResizeBilinear": "bilinear", "ResizeNearestNeighbor": "nearest"}


def translated(  # noqa: PLR0912 - a table
    name: str, op: str, inputs: tuple[str, ...], proto: Any
) -> list[Node]:
    """The node in the common vocabulary; an operation that it lacks becomes ``tf:Name``."""
    attrs = proto.attr
    attributes: dict[str, Any] = {}
    outputs: tuple[str, ...] = (f"{name}:0",)
    if op in _PLAIN:
        kind = _PLAIN[op]
        if op == "BiasAdd":
            attributes["layout"] = _layout(attrs)
    elif op in _CONVOLUTIONS:
        kind = "conv"
        attributes = _window(attrs) | {"kernel_layout": _CONVOLUTIONS[op]}
    elif op in _POOLS:
        kind = _POOLS[op]
        attributes = _window(attrs) | {"size": _sides(attrs["ksize"].list.i, _layout(attrs))}
    elif op.startswith("FusedBatchNorm"):
        kind = "batch_norm" if not attrs["is_training"].b else f"tf:{op} in training"
        attributes = {"epsilon": float(attrs["epsilon"].f), "layout": _layout(attrs)}
    elif op in _REDUCTIONS:
        kind, attributes = _REDUCTIONS[op], {"keep": bool(attrs["keep_dims"].b)}
    elif op in ("MatMul", "BatchMatMulV2"):
        kind = "matmul"
        turns = ("transpose_a", "transpose_b") if op == "MatMul" else ("adj_x", "adj_y")
        attributes = {"turned": tuple(bool(attrs[turn].b) for turn in turns)}
    elif op in ("GatherV2", "ResourceGather", "Gather"):
        kind, attributes = "gather", {"axis": 0}
    elif op == "Cast":
        kind, attributes = "cast", {"dtype": _type(attrs["DstT"].type)}
    elif op == "Squeeze":
        kind, attributes = "squeeze", {"axes": tuple(int(i) for i in attrs["squeeze_dims"].list.i)}
    elif op == "LeakyRelu":
        kind, attributes = "leaky_relu", {"alpha": float(attrs["alpha"].f)}
    elif op == "ConcatV2":
        kind = "concat"
    elif op == "Pack":
        kind, attributes = "pack", {"axis": int(attrs["axis"].i)}
    elif op == "OneHot":
        kind, attributes = "one_hot", {"axis": int(attrs["axis"].i)}
    elif op == "Split":
        kind, attributes = "split", {"parts": int(attrs["num_split"].i)}
        outputs = tuple(f"{name}:{i}" for i in range(attributes["parts"]))
    elif op == "StridedSlice":
        names = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")
        kind, attributes = "strided_slice", {each: int(attrs[each].i) for each in names}
    elif op in _RESIZES:
        kind = "resize"
        attributes = {
            "filter": _RESIZES[op],
            "centers": bool(attrs["half_pixel_centers"].b),
            "corners": bool(attrs["align_corners"].b),
        }
    else:
        kind, outputs = f"tf:{op}", tuple(f"{name}:{i}" for i in range(_count(op, proto)))
    return [Node(name, kind, inputs, outputs, attributes)]


def _window(attrs: Any) -> dict[str, Any]:
    layout = _layout(attrs)
    padding: Any = attrs["padding"].s.decode()
    if padding == "EXPLICIT":
        sizes = [int(i) for i in attrs["explicit_paddings"].list.i]
        pairs = [(sizes[2 * i], sizes[2 * i + 1]) for i in range(4)]
        padding = tuple(pairs[1:3] if layout == "NHWC" else pairs[2:4])
    return {
        "strides": _sides(attrs["strides"].list.i, layout),
        "dilations": _sides(attrs["dilations"].list.i or (1, 1, 1, 1), layout),
        "padding": padding,
        "layout": layout,
    }


def _sides(sizes: Any, layout: str) -> tuple[int, int]:
    first = layout.index("H")
    return int(sizes[first]), int(sizes[first + 1])


def _layout(attrs: Any) -> str:
    layout = attrs["data_format"].s.decode() or "NHWC"
    if layout not in ("NHWC", "NCHW"):
        raise LoadFailed(f"a picture's layout is {layout}, which is not known")
    return layout


def _type(number: int) -> str:
    from tensorflow.python.framework import dtypes

    return str(dtypes.as_dtype(number).name)


def _count(op: str, proto: Any) -> int:
    """How many outputs an operation has that is not known here."""
    from tensorflow.python.framework import op_def_registry

    definition = op_def_registry.get(op)
    if definition is None:
        return 8
    total = 0
    for arg in definition.output_arg:
        if arg.number_attr:
            total += int(proto.attr[arg.number_attr].i)
        elif arg.type_list_attr:
            total += len(proto.attr[arg.type_list_attr].list.type)
        else:
            total += 1
    return total
