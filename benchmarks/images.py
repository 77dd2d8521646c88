"""Which library decodes and resizes pictures fastest, and do they agree?

Run it in an environment that has those to compare; those that are absent are left out:

    pip install pillow numpy opencv-python-headless 'pyvips[binary]' simplejpeg PyTurboJPEG
    python benchmarks/images.py FOLDER [--size 224] [--rounds 5]

Each library decodes every JPEG of the folder to RGB and resizes it with its bilinear filter. The
times are medians of the processor's time. What the pictures are compared with is Pillow's answer.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Load = Callable[[bytes, int], Any]


def pillow(data: bytes, size: int) -> Any:
    """Decode in full, resize with the antialiased filter."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))


def pillow_draft(data: bytes, size: int) -> Any:
    """Let the JPEG decoder leave out what the size does not need."""
    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", (size, size))
        return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))


def opencv() -> Load:
    """The usual call; its bilinear filter is not antialiased."""
    cv2: Any = importlib.import_module("cv2")
    cv2.setNumThreads(1)

    def load(data: bytes, size: int) -> Any:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_LINEAR)[..., ::-1]

    return load


def opencv_area() -> Load:
    """The nearest that it has to an antialiased filter."""
    cv2: Any = importlib.import_module("cv2")
    cv2.setNumThreads(1)

    def load(data: bytes, size: int) -> Any:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)[..., ::-1]

    return load


def vips() -> Load:
    """A pipeline, on one thread."""
    os.environ.setdefault("VIPS_CONCURRENCY", "1")
    pyvips: Any = importlib.import_module("pyvips")

    def load(data: bytes, size: int) -> Any:
        image = pyvips.Image.new_from_buffer(data, "")
        scaled = image.resize(size / image.width, vscale=size / image.height, kernel="linear")
        return scaled.numpy()

    return load


def simplejpeg() -> Load:
    """Its decoder, then Pillow's filter."""
    library: Any = importlib.import_module("simplejpeg")

    def load(data: bytes, size: int) -> Any:
        image = Image.fromarray(library.decode_jpeg(data, "RGB"))
        return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))

    return load


def turbojpeg() -> Load:
    """The same with another binding; it needs the shared library on the machine."""
    library: Any = importlib.import_module("turbojpeg")
    decoder = library.TurboJPEG()

    def load(data: bytes, size: int) -> Any:
        image = Image.fromarray(decoder.decode(data, pixel_format=library.TJPF_RGB))
        return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))

    return load


LIBRARIES: dict[str, Callable[[], Load]] = {
    "Pillow": lambda: pillow,
    "Pillow, draft()": lambda: pillow_draft,
    "OpenCV, linear": opencv,
    "OpenCV, area": opencv_area,
    "pyvips, linear": vips,
    "simplejpeg + Pillow": simplejpeg,
    "PyTurboJPEG + Pillow": turbojpeg,
}


def measure(loads: Mapping[str, Load], files: list[bytes], size: int, rounds: int) -> list[float]:
    """Median processor time of one picture in milliseconds, for each library.

    They take turns, and what counts is the processor's time: others may use the machine, too.
    """
    times: dict[str, list[float]] = {name: [] for name in loads}
    for _ in range(rounds + 1):
        for name, load in loads.items():
            began = time.process_time()
            for data in files:
                load(data, size)
            times[name].append((time.process_time() - began) / len(files))
    return [1000 * statistics.median(found[1:]) for found in times.values()]


def enlarged(data: bytes, side: int) -> bytes:
    """The same picture as a camera would deliver it."""
    with Image.open(io.BytesIO(data)) as image:
        scale = side / max(image.size)
        size = (round(image.width * scale), round(image.height * scale))
        file = io.BytesIO()
        image.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(file, "JPEG", quality=90)
    return file.getvalue()


def main() -> int:
    """Prints one table for the files as they are, and one for large ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    paths = sorted(p for p in options.folder.iterdir() if p.suffix in (".jpg", ".jpeg"))
    if not paths:
        sys.exit(f"no JPEG files in {options.folder}")
    small = [path.read_bytes() for path in paths]
    loads: dict[str, Load] = {}
    for name, make in LIBRARIES.items():
        try:
            loads[name] = make()
        except Exception as error:  # whatever a library that cannot run here raises
            sys.stderr.write(f"{name} cannot run here: {str(error).splitlines()[0]}\n")
    for title, files in (
        ("as they are", small),
        ("3000 pixels wide", [enlarged(data, 3000) for data in small]),
    ):
        sys.stdout.write(
            f"\n{len(files)} pictures, {title}, to {options.size}\n\n"
            "| library | ms a picture | mean difference | largest |\n|---|---|---|---|\n"
        )
        expected = [pillow(data, options.size).astype(np.int16) for data in files]
        times_ms = measure(loads, files, options.size, options.rounds)
        for (name, load), took_ms in zip(loads.items(), times_ms, strict=True):
            off = [
                np.abs(load(data, options.size).astype(np.int16) - wanted)
                for data, wanted in zip(files, expected, strict=True)
            ]
            mean = float(np.mean([one.mean() for one in off]))
            most = max(int(one.max()) for one in off)
            sys.stdout.write(f"| {name} | {took_ms:.2f} | {mean:.2f} | {most} |\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
