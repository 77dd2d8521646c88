"""Image files of every kind, good and bad."""

from __future__ import annotations

import contextvars
import io
import re
import struct
import threading
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.serving.processing import decoding
from crossfade.serving.processing.decoding import Picture, decode, decode_once
from tests.serving.processing.pictures import encoded, file_of, icon, png_that_says, scene

EXAMPLES = settings(deadline=None)

MANY = 1_000_000
SCENE = scene()


def rgb(data: bytes, *, upright: bool = True) -> np.ndarray:
    return np.asarray(decode(data, MANY).pixels(False, upright))


def gray(data: bytes) -> np.ndarray:
    return np.asarray(decode(data, MANY).pixels(True, True))


def refused(data: bytes, says: str, max_pixels: int = MANY) -> None:
    with pytest.raises(InvalidArgument) as caught:
        decode(data, max_pixels)
    assert says in caught.value.message
    assert not re.search("0x[0-9a-f]{6}", caught.value.message)


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_formats_without_loss(kind: str) -> None:
    np.testing.assert_array_equal(rgb(file_of(SCENE, kind)), SCENE)


def test_an_icon() -> None:
    """Its largest picture; PNG or BMP inside."""
    for form in ("png", "bmp"):
        file = encoded(
            Image.fromarray(scene(64, 64)), "ICO", sizes=[(16, 16), (64, 64)], bitmap_format=form
        )
        np.testing.assert_array_equal(rgb(file), scene(64, 64))


def test_jpeg_is_near() -> None:
    off = np.abs(rgb(file_of(SCENE, "JPEG", quality=95)).astype(int) - SCENE)
    assert off.mean() < 3


def test_of_an_animation_the_first_frame() -> None:
    frames = [Image.new("RGB", (8, 6), color) for color in ("red", "lime", "blue")]
    file = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (rgb(file) == [255, 0, 0]).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_orientation(kind: str, orientation: int) -> None:
    """What Pillow's own exif_transpose does."""
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    file = encoded(Image.fromarray(SCENE), kind, exif=exif)
    with Image.open(io.BytesIO(file)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
        as_it_lies = np.asarray(image)
    np.testing.assert_array_equal(rgb(file), expected)
    np.testing.assert_array_equal(rgb(file, upright=False), as_it_lies)
    assert rgb(file).shape[:2] == ((40, 30) if orientation > 4 else (30, 40))


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_is_none(value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    np.testing.assert_array_equal(rgb(encoded(Image.fromarray(SCENE), "PNG", exif=exif)), SCENE)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_damaged_exif_block_does_not_matter() -> None:
    for junk in (b"Exif\0\0" + b"\xff" * 4000, b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"):
        file = encoded(Image.fromarray(SCENE), "JPEG", exif=junk)
        assert rgb(file).shape == SCENE.shape


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_huge_exif_block() -> None:
    block = (
        b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 65535) + b"\1\1\3\0\1\0\0\0\1\0\0\0" * 5000
    )
    file = encoded(Image.fromarray(SCENE), "JPEG")
    block = block[:65000]
    segment = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block
    assert rgb(file[:2] + segment * 50 + file[2:]).shape == SCENE.shape


def test_transparency_is_dropped() -> None:
    clear = np.dstack([SCENE, np.zeros(SCENE.shape[:2], np.uint8)])
    np.testing.assert_array_equal(rgb(encoded(Image.fromarray(clear), "PNG")), SCENE)
    palette = Image.fromarray(SCENE).quantize(16)
    colours = np.asarray(palette.convert("RGB"))
    for transparency in (0, bytes(range(16))):
        file = encoded(palette, "PNG", transparency=transparency)
        np.testing.assert_array_equal(rgb(file), colours)
        assert gray(file).shape == SCENE.shape[:2]


def test_gray_and_colour() -> None:
    luma = np.asarray(Image.fromarray(SCENE).convert("L"))
    np.testing.assert_array_equal(gray(file_of(SCENE)), luma)
    file = encoded(Image.fromarray(luma), "PNG")
    np.testing.assert_array_equal(rgb(file), np.repeat(luma[..., None], 3, axis=2))
    np.testing.assert_array_equal(
        gray(encoded(Image.fromarray(luma > 99), "PNG")), (luma > 99) * 255
    )


def test_of_16_bits_the_upper_8() -> None:
    deep = (np.arange(600, dtype=np.uint16) * 109).reshape(20, 30)
    file = encoded(Image.fromarray(deep), "PNG")
    np.testing.assert_array_equal(gray(file), deep >> 8)
    np.testing.assert_array_equal(rgb(file)[..., 1], deep >> 8)


def test_cmyk() -> None:
    file = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95)
    red = rgb(file).reshape(-1, 3).mean(axis=0)
    assert red[0] > 200
    assert red[1:].max() < 60


# -- bad files ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"not a picture", "is no JPEG, PNG, GIF, BMP or ICO file"),
        (b"\xff\xd8\xff", "is no JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "is no JPEG"),
        (b"P6 1 1 255 aaa", "is no JPEG"),
        (b"II*\0\x08\0\0\0", "is no JPEG"),  # a TIFF is a picture, but not one of those
        (b"\0\0\1\0\xff\xff", "is truncated or damaged"),
        (b"\0\0\1\0\0\0", "is truncated or damaged"),
        (icon(16, 16, b"\x28\0\0\0" + b"\xff" * 36), "is truncated or damaged"),
        (icon(16, 16, b""), "is truncated or damaged"),
        (png_that_says(60_000, 60_000), "has "),
        (png_that_says(30_000, 3_000), "has "),  # Pillow itself only warns
        (
            png_that_says(2000, 600),
            "has 2000 x 600 pixels, which are more than the 1000000 allowed",
        ),
        (png_that_says(1, 70_000), "has a side of 70000 pixels, more than 65535"),
        (icon(16, 16, png_that_says(20_000, 20_000)), "has "),
        (
            icon(16, 16, struct.pack("<IiiHHIIiiII", 40, 16_000, 32_000, 1, 32, *[0] * 6)),
            "is trunc",
        ),
    ],
)
def test_refusals(data: bytes, says: str) -> None:
    refused(data, says)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "ICO"])
def test_truncated(kind: str) -> None:
    file = file_of(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8), kind)
    for size in (len(file) // 2, len(file) - 40):
        refused(file[:size], "is ")


def test_a_png_bomb_is_not_inflated() -> None:
    """Its header admits it: nothing is decoded."""
    bomb = png_that_says(10_000, 10_000, zlib.compress(b"\0" * 30_001 * 1000, 9))
    refused(bomb, "allowed")


def test_a_png_with_a_text_bomb() -> None:
    text = zlib.compress(b"a" * 100_000_000, 9)
    whole = b"zTXt" + b"a\0\0" + text
    chunk = struct.pack(">I", len(text) + 3) + whole + struct.pack(">I", zlib.crc32(whole))
    file = png_that_says(4, 4, zlib.compress(b"\0" * 13 * 4))
    refused(file[:33] + chunk + file[33:], "is truncated or damaged")


def test_a_jpeg_of_too_many_scans() -> None:
    file = file_of(SCENE, "JPEG", progressive=True)
    assert rgb(file).shape == SCENE.shape
    at = file.index(b"\xff\xda")
    refused(file[:at] + file[at:-2] * 120 + file[-2:], "has more than 100 scans")


def test_what_follows_a_jpeg_does_not_count() -> None:
    """A film behind the picture, as some telephones write it; a thumbnail in its EXIF data."""
    file = file_of(SCENE, "JPEG")
    assert (rgb(file + b"\xff\xda\0\2" * 500) == rgb(file)).all()
    thumbnails = b"Exif\0\0" + b"\xff\xda\0\2" * 500
    segment = b"\xff\xe5" + struct.pack(">H", len(thumbnails) + 2) + thumbnails
    assert (rgb(file[:2] + segment + file[2:]) == rgb(file)).all()


def test_a_jpeg_of_too_many_segments() -> None:
    file = file_of(SCENE, "JPEG")
    refused(file[:2] + b"\xff\xfe\0\2" * 20_000 + file[2:], "has more than 10000 segments")


def test_an_animation_that_grows() -> None:
    """A later frame may be as large as it likes: nobody looks at it."""
    file = encoded(
        Image.new("P", (8, 8)),
        "GIF",
        save_all=True,
        append_images=[Image.new("P", (8, 8), 1)] * 999,
    )
    assert rgb(file).shape == (8, 8, 3)


@EXAMPLES
@given(st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "ICO"]), st.data())
def test_bent_files_are_pictures_or_refused(kind: str, data: st.DataObject) -> None:
    file = bytearray(file_of(scene(16, 16), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(file) - 1))
        file[at] = data.draw(st.integers(0, 255))
    try:
        pixels = rgb(bytes(file))
    except InvalidArgument:
        return
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3


# -- decoded once -------------------------------------------------------------------------------


def test_one_decode_for_all_members() -> None:
    file, other = file_of(SCENE), file_of(scene(5, 5))
    with decode_once():
        first = decode(file, MANY)
        assert decode(file, MANY) is first
        assert decode(other, MANY) is not first
        with pytest.raises(InvalidArgument, match="allowed"):
            decode(file, 100)
        for _ in range(2):
            with pytest.raises(InvalidArgument, match="is empty"):
                decode(b"", MANY)
    assert decode(file, MANY) is not first


def test_ensembles_in_ensembles_share() -> None:
    file = file_of(SCENE)
    with decode_once():
        first = decode(file, MANY)
        with decode_once():
            assert decode(file, MANY) is first
        assert decode(file, MANY) is first


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = file_of(SCENE), file_of(scene(60, 40))
    monkeypatch.setattr(decoding, "_MAX_SHARED_BYTES", 40 * 30 * 3)
    with decode_once():
        kept = decode(first, MANY)
        assert decode(second, MANY) is not decode(second, MANY)
        assert decode(first, MANY) is kept


def test_members_on_threads_of_their_own() -> None:
    file = file_of(scene(400, 400))
    found: list[Picture] = []
    with decode_once():
        contexts = [contextvars.copy_context() for _ in range(8)]
    threads = [
        threading.Thread(target=c.run, args=(lambda: found.append(decode(file, MANY)),))
        for c in contexts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(found) == 8
    assert len({id(picture) for picture in found}) == 1


def test_a_limit_of_one_member_is_not_that_of_another() -> None:
    file = file_of(SCENE)
    with decode_once():
        refused(file, "allowed", 100)
        assert decode(file, MANY).image.size == (40, 30)
