"""A client that knows one name: sends pictures, and tells what each shows, until Ctrl-C.

python examples/graduate/client.py work/
"""

from __future__ import annotations

import contextlib
import csv
import json
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

GRPC, FEEDBACK = "127.0.0.1:8001", "http://127.0.0.1:8000/v2/models/digits/feedback"
PAUSE_S = 0.005


def main(folder: Path) -> None:
    """Asks and tells, and counts."""
    with (folder / "held_out.csv").open(encoding="utf-8", newline="") as file:
        known = [(folder / "held_out" / row["file"], row["label"]) for row in csv.DictReader(file)]
    rng = np.random.default_rng()
    counts = {"answered": 0, "right": 0, "failed": 0}
    truths: list[dict[str, str]] = []
    with contextlib.suppress(KeyboardInterrupt), triton.InferenceServerClient(GRPC) as client:
        while True:
            path, label = known[rng.integers(len(known))]
            picture = triton.InferInput("image", [1], "BYTES")
            picture.set_data_from_numpy(np.array([path.read_bytes()], np.object_))
            try:
                answer = client.infer("digits", [picture])
            except InferenceServerException as error:
                counts["failed"] += 1
                print(error)
                continue
            counts["answered"] += 1
            counts["right"] += str(answer.as_numpy("scores")[0].argmax()) == label
            if request_id := answer.get_response().id:  # there is one while a fade wants it
                truths.append({"id": request_id, "truth": label})
            if len(truths) == 20:
                body = json.dumps({"truths": truths}).encode()
                with urllib.request.urlopen(urllib.request.Request(FEEDBACK, body)):
                    truths = []
            time.sleep(PAUSE_S)
    print(", ".join(f"{number:,} {name}" for name, number in counts.items()))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
