"""How every server of a benchmark opens an ONNX model: the same session settings for all.

Imported in the peers' virtual environments too, so it needs nothing but ONNX Runtime. Crossfade
opens its models itself, with its own defaults.
"""

from __future__ import annotations

from typing import Any

import onnxruntime

from crossfade.benchmarks.session_settings import SPINNING, THREADS_PER_RUN


def open_session(path: str) -> Any:
    """Open a model with one thread per run.

    Runs in parallel come from the server (`PARALLEL_RUNS` of them for a heavy model): on a machine
    with few cores that gives more throughput than one run on several threads, and ONNX Runtime's
    default pools would spin and take the cores from the server beside them.

    Args:
        path: An ONNX file.

    Returns:
        An `onnxruntime.InferenceSession`.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS_PER_RUN
    options.inter_op_num_threads = THREADS_PER_RUN
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    for pool in ("intra_op", "inter_op"):
        options.add_session_config_entry(f"session.{pool}.allow_spinning", str(int(SPINNING)))
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
