"""Small classifiers to fade between, and a client that notices everything."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tritonclient.grpc as triton
from onnx import TensorProto, helper

LABELS = ("rose", "tulip", "daisy")
CUSTOM_ORDER = ("daisy", "rose", "tulip")
PLAN = """\
steps:
  - {traffic_percent: shadow, min_time_s: 0.5, min_samples: 50}
  - {traffic_percent: 30, mirror_percent: 50, min_time_s: %(second_s)s, min_samples: 50}
  - {traffic_percent: 100, mirror_percent: 50, min_time_s: 0.5, min_samples: 50}
guardrails:
  quality: {margin: 0.3, tolerance: 0.1, min_labels: 5000, min_agreement: 0.7}
  errors: {margin: 0.3, tolerance: 0.05}
  latency: [{quantile: 0.5, max_ratio: 1000}]
"""


def write_version(
    model: Path,
    version: int,
    labels: tuple[str, ...] = LABELS,
    *,
    wrong: bool = False,
    fails: bool = False,
) -> None:
    """A version whose surest class is the largest of the three inputs, put in place in one step.

    Args:
        model: the model's folder.
        version: its number.
        labels: the order of its classes; the inputs have that of ``LABELS``.
        wrong: it takes each class for the next one.
        fails: it answers only inputs of zeros, as in the warm-up.
    """
    known = [LABELS.index(label) if label in LABELS else 0 for label in labels]
    order = [(place - wrong) % len(LABELS) for place in known]
    nodes = [
        helper.make_node("Gather", ["x", "order"], ["logits"], axis=1),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
    ]
    if fails:  # by an index that is too large
        nodes[:1] = [
            helper.make_node("Ceil", ["x"], ["ceil"]),
            helper.make_node("ReduceSumSquare", ["ceil"], ["size"], keepdims=0),
            helper.make_node("Cast", ["size"], ["whole"], to=TensorProto.INT64),
            helper.make_node("Mul", ["whole", "seven"], ["shift"]),
            helper.make_node("Add", ["order", "shift"], ["index"]),
            helper.make_node("Gather", ["x", "index"], ["logits"], axis=1),
        ]
    graph = helper.make_graph(
        nodes,
        "flowers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 3])],
        [
            helper.make_tensor("order", TensorProto.INT64, [3], order),
            helper.make_tensor("seven", TensorProto.INT64, [], [7]),
        ],
    )
    built = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)])
    scratch = model.parent / f".{model.name}.{version}"
    scratch.mkdir(parents=True)
    onnx.save(built, str(scratch / "model.onnx"))
    (scratch / "labels.txt").write_text("\n".join(labels))
    model.mkdir(exist_ok=True)
    os.replace(scratch, model / str(version))


def write_pair(folder: Path, name: str, **settings: bool) -> None:
    """A model of that name, and ``<name>_custom`` with its labels in another order."""
    folder.mkdir(exist_ok=True)
    write_version(folder / name, 1)
    write_version(folder / f"{name}_custom", 1, CUSTOM_ORDER, **settings)


def free_port() -> int:
    """A port that was free a moment ago, to be given to a server and to the one after it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Client:
    """Threads that classify until they are told to stop, and check each answer.

    While nothing listens they try again; everything else that goes wrong is kept.

    Attributes:
        answered: how many requests had the right answer.
        faults: what went wrong, in words.
        ids: of the requests that were answered, with the truth of each.
    """

    def __init__(
        self, address: str, name: str = "flowers", threads: int = 2, pause_s: float = 0.002
    ) -> None:
        self.answered = 0
        self.faults: list[str] = []
        self.ids: list[tuple[str, str]] = []
        self.may_be_wrong = False
        self._address, self._name, self._pause_s = address, name, pause_s
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, args=(seed,), daemon=True) for seed in range(threads)
        ]

    def __enter__(self) -> Client:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def wait_more(self, count: int, timeout_s: float = 30) -> None:
        """Waits for so many further answers."""
        until, wanted = time.monotonic() + timeout_s, self.answered + count
        while self.answered < wanted and not self.faults:
            assert time.monotonic() < until, f"{self.answered} of {wanted} answers"
            time.sleep(0.01)

    def take_ids(self) -> list[tuple[str, str]]:
        """Ids and truths of what was answered since the last call."""
        with self._lock:
            taken, self.ids = self.ids, []
        return taken

    def _run(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(triton.InferenceServerClient(self._address))
            while not self._stop.is_set():
                x = rng.standard_normal((1, 3)).astype(np.float32)
                try:
                    self._check(x, client.infer(self._name, [tensor(x)], client_timeout=20))
                except Exception as error:
                    if not _nobody_listens(error):
                        self.faults.append(f"{type(error).__name__}: {error}")
                        return
                    client = stack.enter_context(triton.InferenceServerClient(self._address))
                    time.sleep(0.05)
                time.sleep(self._pause_s)

    def _check(self, x: Any, result: Any) -> None:
        scores = result.as_numpy("scores")
        raised = np.exp(x - x.max())
        right = np.allclose(scores, raised / raised.sum(), atol=1e-5)
        if not right and not self.may_be_wrong:
            self.faults.append(f"{x} gave {scores}")
        response = result.get_response()
        if response.model_name != self._name:
            self.faults.append(f"the answer is of {response.model_name}")
        with self._lock:
            self.answered += 1
            if response.id:
                self.ids.append((response.id, LABELS[int(x.argmax())]))


def tensor(x: Any) -> Any:
    """The one input."""
    made = triton.InferInput("x", x.shape, "FP32")
    made.set_data_from_numpy(x)
    return made


def _nobody_listens(error: Exception) -> bool:
    """Whether the server was not there: nobody had promised an answer."""
    text = str(error)
    return "UNAVAILABLE" in text and any(
        word in text for word in ("connect", "Connection re", "Socket closed", "recvmsg")
    )
