"""Bytes of an image file to pixels: bounded before anything is decoded, each file once."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import io
import logging
import re
import struct
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Final

import numpy as np
from PIL import (  # by name, or the first picture would import every plug-in there is
    BmpImagePlugin,
    GifImagePlugin,
    IcoImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    UnidentifiedImageError,
)

from crossfade.runtimes.core.errors import InvalidArgument

_log = logging.getLogger(__name__)
# Pillow warns of what is odd in a client's file; that is no fault of this program.
warnings.filterwarnings("ignore", module="PIL")
_FORMATS: Final = (
    JpegImagePlugin.JpegImageFile.format,
    PngImagePlugin.PngImageFile.format,
    GifImagePlugin.GifImageFile.format,
    BmpImagePlugin.BmpImageFile.format,
    IcoImagePlugin.IcoImageFile.format,
)
_ORIENTATION_TAG: Final = 0x0112
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# A progressive JPEG of a few bytes a scan costs all its pixels for each; real ones have about ten.
_MAX_SCANS: Final = 100
# One line of millions of pixels would be made wide before it is made short.
_MAX_SIDE: Final = 65_535
_MAX_SEGMENTS: Final = 10_000
_MARKER: Final = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # others belong to a scan's own data
_SCAN, _END = 0xDA, 0xD9
_JPEG: Final = b"\xff\xd8\xff"
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_ICO: Final = b"\x00\x00\x01\x00"
_ICO_ENTRY: Final = struct.Struct("<BBBBHHII")
_ICO_MAX_SIDE: Final = 256
# Pixels that models share in one call: a batch of small files can be gigabytes.
_MAX_SHARED_BYTES: Final = 256 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class Picture:
    """One decoded picture; nobody changes it.

    Attributes:
        image: in the mode that its file has.
        orientation: EXIF's, 1 to 8; 1 is upright.
    """

    image: Image.Image
    orientation: int

    def pixels(self, gray: bool, upright: bool) -> Image.Image:
        """The picture in mode L or RGB, turned as its file says if ``upright``.

        Transparency is dropped, palettes are looked up, of 16 bits the upper 8 count, and CMYK is
        converted without its colour profile.
        """
        image = self.image
        if image.mode.startswith("I"):  # 16 bits of gray
            high = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255)
            image = Image.fromarray(high.astype(np.uint8))
        mode = "L" if gray else "RGB"
        if image.mode != mode:
            image = image.convert(mode)
        turn = _UPRIGHT.get(self.orientation) if upright else None
        return image if turn is None else image.transpose(turn)


class _Shared:
    """Pictures by the identity of the bytes that they were made of, which it keeps alive.

    Those that come first are kept, up to a number of bytes; the others are decoded again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[int, tuple[bytes, Future[Picture]]] = {}
        self._kept_bytes = 0

    def decode(self, data: bytes, max_pixels: int) -> Picture:
        with self._lock:
            _, made = self._made.get(id(data), (data, None))
            first = made is None
            if made is None:
                made = Future()
                self._made[id(data)] = (data, made)
        if first:
            try:
                decoded = _decode(data, max_pixels)
                self._keep(data, decoded)
                made.set_result(decoded)
            except BaseException as error:
                with self._lock:  # another model may allow more pixels
                    del self._made[id(data)]
                made.set_exception(error)
                raise
        picture = made.result()
        _check_size(*picture.image.size, max_pixels)
        return picture

    def _keep(self, data: bytes, picture: Picture) -> None:
        width, height = picture.image.size
        size = width * height * len(picture.image.getbands())
        with self._lock:
            if self._kept_bytes + size > _MAX_SHARED_BYTES:
                del self._made[id(data)]
            else:
                self._kept_bytes += size


_shared: contextvars.ContextVar[_Shared | None] = contextvars.ContextVar("_shared", default=None)


@contextlib.contextmanager
def decode_once() -> Iterator[None]:
    """While it is entered, each bytes object is decoded once, whichever model asks for it.

    For one request that goes to several models. It holds for the context that entered it and for
    those copied from it (``contextvars.copy_context``), whose threads may decode at the same time.
    Inside another one it is that one.
    """
    if _shared.get() is not None:
        yield
        return
    token = _shared.set(_Shared())
    try:
        yield
    finally:
        _shared.reset(token)


def decode(data: bytes, max_pixels: int) -> Picture:
    """Decodes a JPEG, PNG, GIF (its first frame), BMP or ICO (its largest picture) file.

    Raises:
        InvalidArgument: it is none of these, has more than ``max_pixels``, or is damaged; the
            message is what follows "the image".
    """
    shared = _shared.get()
    return _decode(data, max_pixels) if shared is None else shared.decode(data, max_pixels)


def _decode(data: bytes, max_pixels: int) -> Picture:
    if not data:
        raise InvalidArgument("is empty")
    if data.startswith(_JPEG):
        _check_scans(data)
    try:
        if data.startswith(_ICO):
            data = _largest(data, max_pixels)
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _check_size(*image.size, max_pixels)
            image.load()
            image.info.pop("transparency", None)  # it is dropped; converting would warn of it
            return Picture(image, _orientation(image))
    except InvalidArgument:
        raise
    except UnidentifiedImageError:
        raise InvalidArgument("is no JPEG, PNG, GIF, BMP or ICO file") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InvalidArgument(f"has more than the {max_pixels} pixels allowed") from None
    except Exception as error:  # Pillow's decoders raise whatever a damaged file leads them to
        _log.debug("a picture cannot be decoded", exc_info=error)
        raise InvalidArgument("is truncated or damaged") from None


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if max(width, height) > _MAX_SIDE:
        raise InvalidArgument(f"has a side of {max(width, height)} pixels, more than {_MAX_SIDE}")
    if width * height > max_pixels:
        raise InvalidArgument(
            f"has {width} x {height} pixels, which are more than the {max_pixels} allowed"
        )


def _check_scans(data: bytes) -> None:
    """Counts the scans of a JPEG file; what follows its end, such as a film, does not count."""
    at, scans = 2, 0
    for _ in range(_MAX_SEGMENTS):
        found = _MARKER.search(data, at)
        if found is None or data[found.end() - 1] == _END:
            return
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
        scans += data[found.end() - 1] == _SCAN
        if scans > _MAX_SCANS:
            raise InvalidArgument(f"has more than {_MAX_SCANS} scans")
    raise InvalidArgument(f"has more than {_MAX_SEGMENTS} segments")


def _orientation(image: Image.Image) -> int:
    try:
        found = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # a picture whose EXIF data is damaged is shown as it lies, by browsers too
        return 1
    return found if isinstance(found, int) and found in _UPRIGHT else 1


def _largest(data: bytes, max_pixels: int) -> bytes:
    """The largest picture of an ICO file, the deepest of its size, as a file of its own.

    Pillow decodes an ICO file as it opens it, before anybody can look at its size.
    """
    count = int.from_bytes(data[4:6], "little")
    entries = [_ICO_ENTRY.unpack_from(data, 6 + 16 * index) for index in range(count)]
    chosen = max(entries, key=lambda e: ((e[0] or 256) * (e[1] or 256), e[5]))
    *rest, size, offset = chosen[2:]
    content = data[offset : offset + size]
    if content.startswith(_PNG):
        return content
    wide, high = struct.unpack_from("<ii", content, 4)
    high //= 2  # a mask of the same size follows the picture
    if not (0 < wide <= _ICO_MAX_SIDE and 0 < high <= _ICO_MAX_SIDE):
        raise InvalidArgument("is truncated or damaged")
    _check_size(wide, high, max_pixels)
    entry = _ICO_ENTRY.pack(wide % 256, high % 256, *rest, len(content), 6 + _ICO_ENTRY.size)
    return _ICO + b"\x01\x00" + entry + content
