"""Inputs that a port is compared on: real pictures, and those that show a wrong edge or scale."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.training.weights.graph import Array, Graph, Input

_SIDE: Final = 224
_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".bmp"})


def probes(
    graph: Graph, images: Sequence[Path] = (), side: int = _SIDE, seed: int = 0
) -> Iterator[tuple[str, dict[str, Array]]]:
    """Names and inputs: for pictures in both usual ranges, with odd sizes where they are free.

    Args:
        graph: whose inputs are to be made.
        images: picture files, resized to the model's size.
        side: of a square picture, in pixels, where the graph leaves it open.
        seed: of the random ones.

    Raises:
        InvalidArgument: an input is text, or its rank is not known.
    """
    random = np.random.default_rng(seed)
    pictured = [name for name, entry in graph.inputs.items() if _is_picture(entry)]
    if len(pictured) == 1 and len(graph.inputs) == 1:
        yield from _pictures(pictured[0], graph.inputs[pictured[0]], images, side, random)
        return
    rows = _smallest_table(graph)
    for batch in (1, 7):
        for kind in ("normal", "zeros", "ones", "large", "tiny"):
            yield (
                f"{kind}, batch {batch}",
                {
                    n: _values(n, entry, batch=batch, kind=kind, rows=rows, random=random)
                    for n, entry in graph.inputs.items()
                },
            )


def picture_files(place: Path, most: int = 8) -> list[Path]:
    """A folder's first pictures, or the file itself.

    Raises:
        InvalidArgument: there is none.
    """
    found = sorted(p for p in ([place] if place.is_file() else place.rglob("*")) if _suffix(p))
    if not found:
        raise InvalidArgument(f"there is no picture at '{place.name}'")
    return found[:most]


def _suffix(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES


def _is_picture(entry: Input) -> bool:
    return entry.shape is not None and len(entry.shape) == 4


def _pictures(
    name: str, entry: Input, images: Sequence[Path], side: int, random: np.random.Generator
) -> Iterator[tuple[str, dict[str, Array]]]:
    shape = entry.shape or ()
    first = shape[1] in (1, 3) and shape[3] not in (1, 3)
    sides = shape[2:] if first else shape[1:3]
    channels = max(shape[1] if first else shape[3], 1)
    height, width = (side if size < 1 else size for size in sides)

    def made(picture: Array, low: float = 0.0, high: float = 255.0) -> dict[str, Array]:
        values = low + picture * (high - low)
        if first:
            values = values.transpose(0, 3, 1, 2)
        return {name: _fitting(values, entry)}

    def noise(batch: int, h: int, w: int) -> Array:
        return random.uniform(size=(batch, h, w, channels))

    for path in images:
        yield f"picture {path.name}", made(_read(path, height, width, channels))
    yield "noise 0..255, batch 1", made(noise(1, height, width))
    if shape[0] != 1:
        yield "noise -1..1, batch 7", made(noise(7, height, width), -1, 1)
    for label, value in (("black", 0.0), ("grey", 0.5), ("white", 1.0)):
        yield label, made(np.full((1, height, width, channels), value))
    board = (np.add.outer(np.arange(height), np.arange(width)) % 2)[None, :, :, None]
    yield "chessboard", made(np.repeat(board, channels, axis=3).astype(np.float64))
    yield "spike", made(_spike(height, width, channels))
    if all(size < 1 for size in sides):
        for h, w in ((side - 1, side + 1), (side + 1, side - 1), (side + 2, side + 3)):
            yield f"noise {h}x{w}", made(noise(1, h, w))


def _spike(height: int, width: int, channels: int) -> Array:
    """Black, but for a white corner: what a margin on the wrong side moves."""
    picture = np.zeros((1, height, width, channels))
    picture[0, -3:, -3:] = 1.0
    return picture


def _read(path: Path, height: int, width: int, channels: int) -> Array:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            small = image.convert("L" if channels == 1 else "RGB").resize((width, height))
            pixels = np.asarray(small, np.float64) / 255
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError):
        raise InvalidArgument(f"the picture '{path.name}' cannot be read") from None
    return pixels.reshape(1, height, width, channels)


def _fitting(values: Array, entry: Input) -> Array:
    if entry.quantization is not None:  # the graph computes with real numbers
        scale, zero = entry.quantization
        return ((np.clip(np.round(values), 0, 255) - zero) * scale).astype(np.float32)
    if entry.dtype.startswith(("uint", "int")):
        return np.clip(np.round(values), 0, 255).astype(entry.dtype)
    return values.astype(entry.dtype)


def _values(
    name: str, entry: Input, *, batch: int, kind: str, rows: int, random: np.random.Generator
) -> Array:
    if entry.shape is None or entry.dtype in ("string", "object"):
        raise InvalidArgument(f"no values can be made up for the input '{name}'")
    shape = [batch if i == 0 and s < 1 else max(s, 1) for i, s in enumerate(entry.shape)]
    if entry.dtype.startswith(("int", "uint")):
        return random.integers(0, rows, shape).astype(entry.dtype)
    if entry.dtype == "bool":
        return random.integers(0, 2, shape).astype(bool)
    scale = {"normal": 1.0, "large": 1e3, "tiny": 1e-6}.get(kind)
    values = random.normal(size=shape) * scale if scale else np.full(shape, kind == "ones")
    return values.astype(entry.dtype)


def _smallest_table(graph: Graph) -> int:
    """How many rows every table has that numbers are looked up in."""
    tables = [n.inputs[0] for n in graph.nodes if n.op == "gather" and n.inputs[0]]
    sizes = [graph.constants[t].shape[0] for t in tables if t in graph.constants]
    return int(min(sizes, default=2))


def batch_of(inputs: Mapping[str, Array]) -> int:
    """How many rows an input has."""
    return int(next(iter(inputs.values())).shape[0])
