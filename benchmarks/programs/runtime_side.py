"""One side of ``runtimes.py``, in a process of its own: ``make``, ``bare`` or ``served``.

``bare`` and ``served`` read lines of JSON (``rows``, ``window_s``) and answer each with one.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Pictures = npt.NDArray[np.float32]
Run = Callable[[Pictures], npt.NDArray[np.float32]]
SIZE = 224
CLASSES = 1000
SEED = 20240611


def pictures(rows: int) -> Pictures:
    """Draw pictures: [rows, 224, 224, 3], -1 to 1."""
    return np.random.default_rng(SEED).uniform(-1, 1, (rows, SIZE, SIZE, 3)).astype(np.float32)


def make(repository: Path, rows: Path) -> None:
    """Write the SavedModel, and pictures to calibrate on."""
    import tensorflow as tf

    keras = tf.keras
    keras.utils.set_random_seed(SEED)
    net = keras.applications.MobileNetV2(weights=None, classes=CLASSES)
    spec = tf.TensorSpec([None, SIZE, SIZE, 3], tf.float32, name="image")
    archive = keras.export.ExportArchive()
    archive.track(net)
    archive.add_endpoint(
        "serving_default", lambda image: {"scores": net(image, training=False)}, [spec]
    )
    archive.write_out(str(repository / "savedmodel" / "1"), verbose=False)
    np.savez(rows, image=pictures(16))


def open_bare(folder: Path, name: str) -> Run:
    """Open a model with its own library: one thread, and TensorFlow with its own pools."""
    if name.startswith("onnx"):
        from crossfade.benchmarks.onnx_session import open_session

        session = open_session(str(folder / "model.onnx"))
        return lambda image: np.asarray(session.run(["scores"], {"image": image})[0])
    if name.startswith("tflite"):
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_path=str(folder / "model.tflite"), num_threads=1)
        runner = interpreter.get_signature_runner()
        return lambda image: np.asarray(runner(image=image)["scores"])
    import tensorflow as tf

    loaded = tf.saved_model.load(str(folder))
    function = loaded.signatures["serving_default"]
    return lambda image: np.asarray(function(image=tf.constant(image))["scores"].numpy())


def open_served(address: str, name: str) -> Run:
    """Connect NVIDIA's client to a server, once it is ready."""
    import tritonclient.grpc as triton

    client = triton.InferenceServerClient(address)
    until_s = time.monotonic() + 180
    while True:
        try:
            if client.is_model_ready(name):
                break
        except triton.InferenceServerException:
            if time.monotonic() > until_s:
                raise
        time.sleep(0.1)

    def run(image: Pictures) -> npt.NDArray[np.float32]:
        tensor = triton.InferInput("image", image.shape, "FP32")
        tensor.set_data_from_numpy(image)
        return np.asarray(client.infer(name, [tensor]).as_numpy("scores"))

    return run


def window(run: Run, rows: int, window_s: float) -> dict[str, Any]:
    """Run one request after the other for as long as asked, after a warm-up."""
    image = pictures(rows)
    answer = run(image)
    run(image)
    times_s: list[float] = []
    began_s = time.perf_counter()
    while (now_s := time.perf_counter()) - began_s < window_s or len(times_s) < 5:
        run(image)
        times_s.append(time.perf_counter() - now_s)
    return {
        "runs_per_s": len(times_s) / (time.perf_counter() - began_s),
        "p50_ms": statistics.median(times_s) * 1000,
        "answer": [float(value) for value in answer.ravel()[:8]],
    }


def main() -> None:
    """Do what the command line says."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    kind, *arguments = sys.argv[1:]
    if kind == "make":
        make(Path(arguments[0]), Path(arguments[1]))
        return
    where, name = arguments
    run = open_bare(Path(where), name) if kind == "bare" else open_served(where, name)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(window(run, asked["rows"], asked["window_s"])), flush=True)


if __name__ == "__main__":
    main()
