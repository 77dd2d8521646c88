"""Writes a trained module as ONNX, and proves that the file answers as the module does."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from crossfade.runtimes.core.errors import FailedPrecondition
from crossfade.runtimes.extras import require
from crossfade.runtimes.reason import one_line

OPSET: Final = 18


def write(
    module: nn.Module,
    example: Mapping[str, torch.Tensor],
    outputs: Sequence[str],
    path: Path,
    *,
    opset: int = OPSET,
    dynamic: Mapping[str, Any] | None = None,
) -> None:
    """Exports with a free first dimension, ``batch``, of every input, or those that are named.

    Args:
        module: takes the inputs by name and returns one tensor, or as many as ``outputs``.
        example: inputs with a batch of at least 2, by the names of ``forward``'s arguments.
        outputs: names.
        path: of the file.
        opset: of ONNX's own operators.
        dynamic: free dimensions by input.

    Raises:
        FailedPrecondition: PyTorch's exporter cannot write the module.
        MissingExtra: what it needs is not installed.
    """
    require("onnxscript", "training", "writing ONNX files")
    batch = torch.export.Dim("batch", min=1)
    trained = module.training
    module.eval()
    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                kwargs=dict(example),
                dynamic_shapes=dict(dynamic or {name: {0: batch} for name in example}),
                dynamo=True,
                opset_version=opset,
                input_names=list(example),
                output_names=list(outputs),
                verbose=False,
            )
        assert program is not None
        for node in program.model.graph.all_nodes():
            node.metadata_props.clear()  # stack traces, with paths of this machine
        program.save(str(path), external_data=False)
    except OSError:
        raise
    except Exception as error:
        raise FailedPrecondition(
            f"PyTorch cannot write the model as ONNX: {one_line(error, path)}"
        ) from error
    finally:
        module.train(trained)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of libraries that no model here uses."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def runner(path: Path, output: str) -> Callable[[Mapping[str, Any]], Any]:
    """Runs the file with ONNX Runtime on one thread: inputs by name to one output."""
    ort = require("onnxruntime", "training", "checking ONNX files")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda inputs: np.asarray(session.run([output], dict(inputs))[0])
