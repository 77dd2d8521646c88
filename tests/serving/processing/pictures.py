"""Image files for tests, made in memory."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image


def scene(height: int = 30, width: int = 40, channels: int = 3) -> np.ndarray[Any, Any]:
    """Smooth colours, different in every corner: [height, width, channels] UINT8."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [255 * x / width, 255 * y / height, 255 * (x + y) / (width + height)]
    return np.stack(planes[:channels], axis=-1).astype(np.uint8)


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def file_of(pixels: np.ndarray[Any, Any], file_format: str = "PNG", **options: Any) -> bytes:
    return encoded(Image.fromarray(pixels.squeeze()), file_format, **options)


def png_that_says(width: int, height: int, body: bytes = b"") -> bytes:
    """A small PNG file whose header claims any size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        whole = kind + data
        return struct.pack(">I", len(data)) + whole + struct.pack(">I", zlib.crc32(whole))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", head), chunk(b"IDAT", body or zlib.compress(b"\0" * 64))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def icon(width: int, height: int, content: bytes) -> bytes:
    """An ICO file of one entry that claims a size and holds anything."""
    entry = struct.pack("<BBBBHHII", width % 256, height % 256, 0, 0, 1, 32, len(content), 22)
    return b"\0\0\1\0\1\0" + entry + content
