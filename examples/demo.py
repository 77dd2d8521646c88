"""The main job, to look at: serve two models, send them pictures, print what comes back.

    make demo        # keeps serving until Ctrl-C
    make demo-once   # ends by itself

The server is ``crossfade serve`` in a process of its own; the client is NVIDIA's, unmodified.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from PIL import Image
from tritonclient.utils import InferenceServerException

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE / "digits" / "models"
IMAGES = HERE / "digits" / "images"
PORTS = {"grpc": 8001, "http": 8000, "metrics": 8002}
REPEAT = 20  # requests behind each latency


def automl_tensor(image: Image.Image) -> np.ndarray[Any, Any]:
    """What the AutoML export takes: UINT8 [1, 32, 32, 3], the picture as it is."""
    picture = image.convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)
    return np.asarray(picture)[None]


def custom_tensor(image: Image.Image) -> np.ndarray[Any, Any]:
    """What the custom model takes: FP32 [1, 1, 8, 8], grey from 0 to 1."""
    picture = image.convert("L").resize((8, 8), Image.Resampling.BILINEAR)
    return np.asarray(picture, dtype=np.float32)[None, None] / 255


# model: (input, output, how a picture becomes the input)
MODELS: dict[str, tuple[str, str, Callable[[Image.Image], np.ndarray[Any, Any]]]] = {
    "digits_automl": ("image", "scores", automl_tensor),
    "digits_custom": ("image", "probabilities", custom_tensor),
}


@contextlib.contextmanager
def server(ports: dict[str, int]) -> Iterator[subprocess.Popen[bytes]]:
    """Runs ``crossfade serve`` over the sample repository."""
    command = [sys.executable, "-m", "crossfade", "serve", "--log-level", "warning"]
    command += ["--model-repository", str(REPOSITORY)]
    for name, port in ports.items():
        command += [f"--{name}-port", str(port)]
    process = subprocess.Popen(command)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def free_ports() -> dict[str, int]:
    """The usual ports, or free ones where another server has them."""
    chosen: dict[str, int] = {}
    for name, port in PORTS.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                probe.bind(("127.0.0.1", 0))
            chosen[name] = probe.getsockname()[1]
    return chosen


def wait_ready(client: Any, process: subprocess.Popen[bytes]) -> float:
    """Waits until the server says that it is ready; returns the seconds."""
    began_s = time.monotonic()
    while time.monotonic() < began_s + 60:
        if process.poll() is not None:
            sys.exit("the server ended; its message is above")
        with contextlib.suppress(InferenceServerException):
            if client.is_server_ready():
                return time.monotonic() - began_s
        time.sleep(0.02)
    sys.exit("the server is not ready after 60 s")


def classify(client: Any, model: str, image: Image.Image) -> tuple[str, float, float]:
    """Sends one picture; returns label, score and the median latency in ms."""
    input_name, output_name, to_tensor = MODELS[model]
    array = to_tensor(image)
    tensor = triton.InferInput(input_name, array.shape, triton_dtype(array))
    tensor.set_data_from_numpy(array)
    best = [triton.InferRequestedOutput(output_name, class_count=1)]
    times_ms: list[float] = []
    for _ in range(REPEAT):
        began_s = time.perf_counter()
        result = client.infer(model, [tensor], outputs=best)
        times_ms.append((time.perf_counter() - began_s) * 1000)
    score, _, label = result.as_numpy(output_name).ravel()[0].decode().split(":")
    scale = 256 if array.dtype == np.uint8 else 1  # the export's scores are quantised: q / 256
    return label, float(score) / scale, statistics.median(times_ms)


def triton_dtype(array: np.ndarray[Any, Any]) -> str:
    """The protocol's name of the two dtypes that are sent here."""
    return "UINT8" if array.dtype == np.uint8 else "FP32"


def main() -> int:
    """Runs the demo; returns 1 if any picture is told wrongly."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--once", action="store_true", help="end after the table")
    once = parser.parse_args().once
    ports = free_ports()
    url = f"127.0.0.1:{ports['grpc']}"
    with server(ports) as process, triton.InferenceServerClient(url) as client:
        seconds = wait_ready(client, process)
        print(f"\ncrossfade serves {', '.join(MODELS)} on {url}, ready in {seconds:.1f} s\n")
        print(f"{'picture':10}" + "".join(f"{model:>32}" for model in MODELS))
        wrong = 0
        for path in sorted(IMAGES.glob("*.png")):
            cells = []
            for model in MODELS:
                label, score, latency_ms = classify(client, model, Image.open(path))
                right = label == path.stem.rpartition("_")[0]
                wrong += not right
                mark = " " if right else "!"
                cells.append(f"{mark}{label:>13} {score:6.3f} {latency_ms:6.2f} ms")
            print(f"{path.stem:10}" + "".join(f"{cell:>32}" for cell in cells))
        print(f"\n{'all right' if not wrong else f'{wrong} WRONG'}; label, score, median latency")
        if not once:
            http, metrics = ports["http"], ports["metrics"]
            print(f"""
still serving; in another terminal:
  .venv/bin/crossfade infer digits_automl examples/digits/images/three_0.png --top 3 --url {url}
  curl http://127.0.0.1:{http}/v2/models/digits_custom
  curl http://127.0.0.1:{metrics}/metrics
next: README.md, docs/architecture.md. Ctrl-C ends it.""")
            with contextlib.suppress(KeyboardInterrupt):
                process.wait()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
