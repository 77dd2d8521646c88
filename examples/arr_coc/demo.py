"""From an export to tokens of patches: everything that ``docs/arr-coc.md`` describes, once.

    make demo-arrcoc DATA=BCCD/
    make demo-arrcoc DATA=BCCD/ EXPORT=model.tflite

Five commands, as a user types them: a detector that stands for AutoML's export (left out where
``EXPORT`` names one), ARR-COC on its frozen layers, its evaluation, its version in a repository,
and a server that is asked over gRPC with a picture file and texts. A run that is stopped goes on
where it was. The answer is drawn in the terminal, and the time of each stage is told at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton

OUT = Path("build", "arr-coc")
MODELS = OUT / "models"
TEXTS = ("white blood cells", "platelets", "red blood cells on the left")
BUDGET = 18_816  # half of 196 tokens for each of 192 patches
SHADES = " .:*#"  # 64, 100, 196, 256, 400 tokens
LEVELS = np.array([64, 100, 196, 256, 400])


def crossfade(*words: str) -> list[str]:
    """A command of the product."""
    return [sys.executable, "-m", "crossfade", *words]


def step(title: str, *words: str) -> float:
    """Runs a command and shows what it says; returns its seconds."""
    print(f"\n== {title}\n$ crossfade {' '.join(words)}", flush=True)
    began_s = time.monotonic()
    if code := subprocess.run(crossfade(*words), check=False).returncode:
        sys.exit(code)
    return time.monotonic() - began_s


def newest(name: str) -> Path:
    """The folder of a model's newest version."""
    versions = [p for p in (MODELS / name).iterdir() if p.name.isdigit()]
    return max(versions, key=lambda p: int(p.name))


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextlib.contextmanager
def serving(model: str):
    """A server, and a client of it once the model is ready."""
    port = free_port()
    line = crossfade("serve", "--model-repository", str(MODELS), "--grpc-port", str(port))
    line += ["--http-port", "0", "--metrics-port", "0", "--log-level", "error"]
    process = subprocess.Popen(line)
    try:
        with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
            until_s = time.monotonic() + 60
            ready = False
            while not ready:
                if process.poll() is not None or time.monotonic() > until_s:
                    sys.exit("the server is not ready; its message is above")
                with contextlib.suppress(triton.InferenceServerException):
                    ready = client.is_model_ready(model)
                time.sleep(0.1)
            yield client
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def ask(client: triton.InferenceServerClient, picture: bytes) -> np.ndarray:
    """Tokens of each patch for each text, ``[texts, 12, 16]``."""
    values = {
        "image_bytes": ("BYTES", np.array([picture], dtype=object)),
        "query": ("BYTES", np.array([TEXTS], dtype=object)),
        "token_budget": ("INT32", np.full((1, len(TEXTS)), BUDGET, dtype=np.int32)),
    }
    inputs = []
    for name, (dtype, array) in values.items():
        tensor = triton.InferInput(name, array.shape, dtype)
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    return client.infer("cells", inputs).as_numpy("patch_tokens")[0]


def drawn(tokens: np.ndarray) -> list[str]:
    """A line for each row of patches; two characters a patch."""
    return ["".join(2 * SHADES[np.abs(LEVELS - t).argmin()] for t in row) for row in tokens]


def main() -> None:
    """Runs the chain."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data", required=True, type=Path, help="the folder of BCCD")
    parser.add_argument("--export", help="an export of pictures, instead of a detector")
    parser.add_argument("--set", action="append", default=[], help="of both trainings")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    told = ["--data", str(options.data), "--config", "bccd", "--repository", str(MODELS)]
    told += [word for setting in options.set for word in ("--set", setting)]
    took_s: dict[str, float] = {}
    export = options.export
    if export is None:
        took_s["export"] = step(
            "a detector, as AutoML would export one",
            *("train", "detector", *told, "--name", "cells-detector"),
            *("--run-dir", str(OUT / "detector")),
        )
        export = str(newest("cells-detector") / "model.onnx")
    took_s["ARR-COC and its evaluation"] = step(
        "ARR-COC on the export's frozen layers",
        *("train", "arr-coc", "--export", export, *told, "--name", "cells"),
        *("--run-dir", str(OUT / "cells")),
    )
    groups = json.loads((OUT / "cells" / "evaluation.json").read_text())["groups"]
    print("\n== average precision on the test split (detector by label, ARR-COC)")
    for group, found in groups.items():
        label, ours = (found[m]["average_precision"] for m in ("label", "arr_coc"))
        print(f"   {group:8} {label:.3f}  {ours:.3f}")

    print(f"\n== served and asked over gRPC, {BUDGET} tokens each", flush=True)
    began_s = time.monotonic()
    picture = next(newest("cells").glob("warm.*"))
    with serving("cells") as client:
        took_s["server"] = time.monotonic() - began_s
        tokens = ask(client, picture.read_bytes())
        times_ms = []
        for _ in range(100):
            began_s = time.perf_counter()
            ask(client, picture.read_bytes())
            times_ms.append((time.perf_counter() - began_s) * 1000)
    if (tokens.sum(axis=(1, 2)) != BUDGET).any():
        sys.exit("a budget was not met")
    print("   ".join(f"{text:32}" for text in TEXTS))
    for rows in zip(*map(drawn, tokens), strict=True):
        print("   ".join(rows))
    legend = ", ".join(f"'{s}' {t}" for s, t in zip(SHADES, LEVELS, strict=True))
    print(f"tokens of a patch: {legend}")
    print(f"three texts and a picture file: {np.median(times_ms):.1f} ms (median of 100)")
    print("\n".join(f"{name:28} {seconds:6.0f} s" for name, seconds in took_s.items()))
    print(f"{'all':28} {sum(took_s.values()):6.0f} s")


if __name__ == "__main__":
    main()
