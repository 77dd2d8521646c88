"""The list of an export's weights: each with its role, its place and the layer that reads it."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crossfade.runtimes.core.errors import FailedPrecondition, InvalidArgument
from crossfade.runtimes.extras import require
from crossfade.training.weights.graph import Array, Graph, Stored
from crossfade.training.weights.roles import Role, uses
from crossfade.training.weights.simplify import simplified


@dataclasses.dataclass(frozen=True, slots=True)
class Weight:
    """One tensor of an export.

    Attributes:
        name: in the file.
        value: as the file has it, dequantised, in the file's order of axes.
        layout: what the axes of a kernel are: HWIO, HWIM (depthwise), OIHW, IO …
        layer: the graph's node that reads it, ``order`` its number in the order of computing.
        attributes: of that node: strides, padding, dilations, epsilon.
    """

    name: str
    role: Role
    value: Array
    layout: str
    layer: str
    order: int
    attributes: dict[str, Any]

    def row(self) -> dict[str, Any]:
        """The entry without its values, as plain data."""
        return {
            "order": self.order,
            "name": self.name,
            "role": self.role.value,
            "layer": self.layer,
            "shape": list(self.value.shape),
            "dtype": str(self.value.dtype),
            "layout": self.layout,
            **self.attributes,
            "sha256": digest(self.value),
        }


@dataclasses.dataclass(frozen=True, slots=True)
class Inventory:
    """All weights of one signature, in the order in which they are first read.

    Attributes:
        unread: what the file has and the signature does not read.
    """

    source: str
    weights: tuple[Weight, ...]
    unread: dict[str, Stored]

    def of(self, *roles: Role) -> list[Weight]:
        """Those with one of the roles, in order."""
        return [weight for weight in self.weights if weight.role in roles]


def inventory(graph: Graph) -> Inventory:
    """Lists the weights of a graph as it was read.

    Raises:
        FailedPrecondition: a weight holds NaN or infinity; the message names it.
    """
    plain = simplified(graph)
    first: dict[str, str] = {}
    for tensor, origin in graph.origins.items():
        first.setdefault(origin, tensor)
    found: dict[str, Weight] = {}
    for use in uses(plain):
        name = plain.origins.get(use.tensor, use.tensor)
        known = found.get(name)
        if known is not None and (known.role is not Role.CONSTANT or use.role is Role.CONSTANT):
            continue
        value = graph.constants[first.get(name, use.tensor)]
        kept = ("strides", "dilations", "padding", "groups", "epsilon")
        attributes = {k: v for k, v in use.node.attributes.items() if k in kept}
        if use.role in (Role.BIAS, Role.EMBEDDING, Role.CONSTANT):
            attributes = {}
        found[name] = Weight(
            name, use.role, value, use.layout, use.node.name, use.order, attributes
        )
    odd = [w.name for w in found.values() if not np.isfinite(w.value).all()]
    if odd:
        raise FailedPrecondition(f"weights hold NaN or infinity: {_few(odd)}")
    return Inventory(graph.source, tuple(found.values()), dict(graph.unread))


def digest(value: Array) -> str:
    """SHA-256 of an array's type, shape and bytes."""
    head = f"{value.dtype.str}{value.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(value).tobytes()).hexdigest()


def save(found: Inventory, path: Path) -> None:
    """Writes the weights as safetensors, with roles and layouts as metadata; in one step.

    Raises:
        InvalidArgument: the file cannot be written.
        MissingExtra: safetensors is not installed.
    """
    numpy_io = require("safetensors.numpy", "training", "writing weights")
    tensors = {w.name: np.ascontiguousarray(w.value) for w in found.weights}
    metadata = {w.name: f"{w.role.value} {w.layout}".strip() for w in found.weights}
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        numpy_io.save_file(tensors, str(unfinished), metadata=metadata)
        unfinished.replace(path)
    except Exception as error:
        unfinished.unlink(missing_ok=True)
        raise InvalidArgument(f"'{path.name}' cannot be written") from error


def table(weights: Iterable[Weight]) -> str:
    """The weights as lines of text."""
    rows: list[Sequence[str]] = [("#", "role", "shape", "layout", "details", "name")]
    for w in weights:
        details = " ".join(f"{k}={_plain(v)}" for k, v in w.attributes.items() if k != "groups")
        shape = "x".join(map(str, w.value.shape)) or "scalar"
        rows.append((str(w.order), w.role.value, shape, w.layout, details, w.name))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = [
        "  ".join([*(c.ljust(w) for c, w in zip(r, widths, strict=False)), r[5]]) for r in rows
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).replace(" ", "")


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
