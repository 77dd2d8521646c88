"""Image files that are none, lie, or are bombs, over every protocol."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tritonclient.grpc import service_pb2 as pb

from crossfade.serving.tensors.raw import encode_bytes
from tests.e2e.hostile import Target, assert_clean, target, tensor
from tests.serving.processing.models import texts
from tests.serving.processing.pictures import encoded, file_of, icon, png_that_says, scene

GOOD = file_of(scene(8, 8))
SCENE = encoded(Image.fromarray(scene()), "JPEG", quality=90)


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    root = tmp_path_factory.mktemp("hostile")
    folder = root / "repository" / "photo"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "fake.yaml").write_text(
        "inputs: [{name: pixels, dtype: UINT8, shape: [-1, 8, 8, 3]}]"
    )
    (folder / "model.yaml").write_text("preprocess: {name: image_bytes, key: key}")
    with target(root) as found:
        yield found


def ask(*files: bytes, name: str = "image_bytes", dtype: str = "BYTES") -> Any:
    request = pb.ModelInferRequest(model_name="photo", inputs=[tensor(name, dtype, [len(files)])])
    request.raw_input_contents.append(encode_bytes(texts(*files)))
    return request


def assert_good(attacked: Target) -> None:
    (pixels,) = attacked.infer(ask(GOOD))
    np.testing.assert_array_equal(np.frombuffer(pixels, np.uint8).reshape(8, 8, 3), scene(8, 8))


def animation(frames: int) -> bytes:
    pictures = [Image.new("P", (64, 64), n % 256) for n in range(frames)]
    return encoded(pictures[0], "GIF", save_all=True, append_images=pictures[1:])


def text_bomb() -> bytes:
    text = zlib.compress(b"a" * 200_000_000, 9)
    whole = b"zTXta\0\0" + text
    chunk = struct.pack(">I", len(text) + 3) + whole + struct.pack(">I", zlib.crc32(whole))
    file = png_that_says(8, 8, zlib.compress(bytes(25 * 8)))
    return file[:33] + chunk + file[33:]


def many_scans() -> bytes:
    file = encoded(Image.fromarray(scene(400, 400)), "JPEG", progressive=True)
    at = file.index(b"\xff\xda")
    return file[:at] + file[at:-2] * 200 + file[-2:]


BAD = {
    "empty": (b"", "is empty"),
    "text": (b"hello" * 100, "is no JPEG, PNG, GIF, BMP or ICO file"),
    "wrong magic": (b"\x89PNG\r\n\x1a\n" + SCENE, "is "),
    "a format that is not taken": (b"II*\0\x08\0\0\0" + bytes(100), "is no JPEG"),
    "postscript": (b"%!PS-Adobe-3.0\n(/etc/passwd) (r) file\n", "is no JPEG"),
    "truncated": (SCENE[: len(SCENE) // 2], "is truncated or damaged"),
    "header only": (SCENE[:20], "is "),
    "gigapixels": (png_that_says(60_000, 60_000), "has more than the 50000000 pixels allowed"),
    "just too large": (png_that_says(8000, 8000), "has 8000 x 8000 pixels, which are more than"),
    "a long line": (png_that_says(1, 40_000_000), "has a side of 40000000 pixels"),
    "inflates": (
        png_that_says(9000, 9000, zlib.compress(bytes(200_000_000), 9)),
        "has 9000 x",
    ),
    "text inflates": (text_bomb(), "is truncated or damaged"),
    "scans": (many_scans(), "has more than 100 scans"),
    "an icon that lies": (icon(16, 16, png_that_says(30_000, 30_000)), "has more than"),
    "an icon of nothing": (icon(16, 16, b""), "is truncated or damaged"),
    "icons without end": (b"\0\0\1\0\xff\xff" + bytes(50), "is truncated or damaged"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_by_its_place(attacked: Target, name: str) -> None:
    file, says = BAD[name]
    with attacked.survives():
        attacked.refused(ask(file), says=f"^the image at index 0 of input 'image_bytes' ({says})")
        attacked.refused(ask(GOOD, GOOD, file, GOOD), says=f"at index 2 of .* ({says})")
    assert_good(attacked)


@pytest.mark.parametrize("name", ["truncated", "text", "gigapixels"])
def test_over_http(attacked: Target, name: str) -> None:
    file, _ = BAD[name]
    rows = [{"b64": base64.b64encode(one).decode()} for one in (GOOD, file)]
    with attacked.survives():
        reply = attacked.post(
            "/v1/models/photo:predict", {"instances": [{"image_bytes": row} for row in rows]}
        )
        assert reply.status == 400
        assert "the image at index 1 of input 'image_bytes'" in reply.error
        assert_clean(reply.error)
        raw = {"Inference-Header-Content-Length": "0"}
        reply = attacked.ask("POST", "/v2/models/photo/infer", file, raw)
        assert reply.status == 400
        assert_clean(reply.error)


def test_files_that_are_odd_but_good(attacked: Target) -> None:
    """A long animation costs one frame; EXIF data without sense, nothing."""
    junk = b"Exif\0\0II*\0\x08\0\0\0" + b"\xff" * 60_000
    segment = b"\xff\xe1" + struct.pack(">H", len(junk) + 2) + junk
    for file in (animation(2000), SCENE[:2] + segment * 40 + SCENE[2:]):
        with attacked.survives():
            attacked.infer(ask(file))
    assert not any("Warning" in line for line in attacked.server.raw)


def test_more_pictures_than_fit(attacked: Target) -> None:
    """Files of a few bytes would become more pixels than a request may have."""
    with attacked.survives():
        attacked.refused(ask(*[GOOD] * 5000), says="batch-size must be <= 4096")


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (ask(GOOD, name="pixels"), "expects 'UINT8'"),
        (ask(GOOD, name="image"), "unexpected inference input 'image'"),
        (ask(b"k", name="key"), "missing required input.*image_bytes"),
        (pb.ModelInferRequest(model_name="photo"), "missing required input"),
    ],
)
def test_inputs_that_do_not_fit(attacked: Target, request_: Any, says: str) -> None:
    with attacked.survives():
        attacked.refused(request_, says=says)


def test_both_forms_at_once(attacked: Target) -> None:
    request = ask(GOOD)
    request.inputs.append(tensor("pixels", "UINT8", [1, 8, 8, 3]))
    request.raw_input_contents.append(bytes(8 * 8 * 3))
    with attacked.survives():
        attacked.refused(request, says="'image_bytes' and 'pixels' stand for one another")


def test_values_that_are_no_files(attacked: Target) -> None:
    for value in (1, None, [], {"b64": "%%%"}, {"b64": 1}, {"x": 1}, "text", [[1, 2], [3]]):
        reply = attacked.post("/v1/models/photo:predict", {"instances": [{"image_bytes": value}]})
        assert reply.status == 400, value
        assert_clean(reply.error)
    body = json.dumps({"instances": [{"image_bytes": 1}, {"image_bytes": "a"}]}).encode()
    assert attacked.post("/v1/models/photo:predict", body).status == 400


def test_thousands_of_bent_files(attacked: Target) -> None:
    """Every one is answered, well or with a refusal that is clean."""
    random = np.random.default_rng(20_260_101)
    seeds = [SCENE, GOOD, animation(3), file_of(scene(8, 8), "BMP"), file_of(scene(16, 16), "ICO")]
    with attacked.survives():
        for turn in range(1000):
            file = bytearray(seeds[turn % len(seeds)])
            for at in random.integers(0, len(file), 3):
                file[at] = random.integers(0, 256)
            code, text, _ = attacked.call("ModelInfer", ask(bytes(file)))
            assert code.name in ("OK", "INVALID_ARGUMENT"), text
            if text:
                assert_clean(text)
    assert_good(attacked)
