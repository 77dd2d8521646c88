"""The export itself, run by its own library, with a look at the tensors inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from crossfade.runtimes.core.model import Artifact
from crossfade.runtimes.extras import require
from crossfade.runtimes.savedmodel.library import tensorflow
from crossfade.runtimes.savedmodel.runtime import SavedModelRuntime
from crossfade.training.weights import savedmodel_file
from crossfade.training.weights.graph import Array, Graph


class Reference(Protocol):
    """Runs an export."""

    def run(self, inputs: Mapping[str, Array], keep: Sequence[str]) -> dict[str, Array]:
        """Answers with the outputs by their names, and with the tensors to keep by theirs."""


class SavedModelReference:
    """Outputs as the server gives them; the tensors inside from the flat graph.

    The two ways are independent of each other: where they disagree about the outputs, reading the
    graph went wrong, and ``run`` says so in the tensor ``flat:NAME``.
    """

    def __init__(self, path: Path, graph: Graph, signature: str) -> None:
        """Loads it; raises as the runtime."""
        self._session = SavedModelRuntime().load(Artifact(path, "reference", 1, 1, {}))
        names = self._session.signatures
        self._signature = signature or (
            "serving_default" if "serving_default" in names else next(iter(names))
        )
        tf = tensorflow()
        self._graph, self._tf = graph, tf
        definition = savedmodel_file.flat_definition(path, signature)
        self._flat = tf.Graph()
        with self._flat.as_default():
            tf.graph_util.import_graph_def(definition, name="")
        self._runner = tf.compat.v1.Session(graph=self._flat)

    def run(self, inputs: Mapping[str, Array], keep: Sequence[str]) -> dict[str, Array]:
        """See ``Reference``."""
        answers = self._session.run(dict(inputs), self._signature, list(self._graph.outputs))
        fed = {self._graph.inputs[name].tensor: value for name, value in inputs.items()}
        wanted = dict.fromkeys([*keep, *self._graph.outputs.values()])
        values = dict(zip(wanted, self._runner.run(list(wanted), fed), strict=True))
        flat = {f"flat:{n}": values[tensor] for n, tensor in self._graph.outputs.items()}
        return {**values, **flat, **dict(answers)}


class OnnxReference:
    """ONNX Runtime without its optimisations, which would do away with the tensors inside."""

    def __init__(self, path: Path, graph: Graph) -> None:
        """Reads the file; nothing is loaded before it is known what is to be seen."""
        self._onnx = require("onnx", "convert", "comparing ONNX models")
        self._ort = require("onnxruntime", "onnx", "an ONNX model")
        self._path, self._graph = path, graph
        self._sessions: dict[tuple[str, ...], Any] = {}

    def run(self, inputs: Mapping[str, Array], keep: Sequence[str]) -> dict[str, Array]:
        """See ``Reference``."""
        key = tuple(keep)
        if key not in self._sessions:
            model = self._onnx.load(str(self._path))
            there = {value.name for value in model.graph.output}
            for name in keep:
                if name not in there:
                    model.graph.output.append(self._onnx.ValueInfoProto(name=name))
            options = self._ort.SessionOptions()
            options.graph_optimization_level = self._ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            self._sessions[key] = self._ort.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        session = self._sessions[key]
        names = [value.name for value in session.get_outputs()]
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))


class TfliteReference:
    """LiteRT with all tensors kept; those in 8 bits are dequantised."""

    def __init__(self, path: Path, graph: Graph) -> None:
        """Loads it; raises MissingExtra without LiteRT."""
        library = require("ai_edge_litert.interpreter", "tflite", "a TFLite model")
        self._interpreter = library.Interpreter(
            str(path),
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=library.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        self._graph = graph

    def run(self, inputs: Mapping[str, Array], keep: Sequence[str]) -> dict[str, Array]:
        """See ``Reference``; inputs and outputs are real numbers, whatever the file takes."""
        interpreter = self._interpreter
        for name, value in inputs.items():
            index = int(self._graph.inputs[name].tensor.removeprefix("t"))
            interpreter.resize_tensor_input(index, list(value.shape))
        interpreter.allocate_tensors()
        details = {d["index"]: d for d in interpreter.get_tensor_details()}
        for name, value in inputs.items():
            index = int(self._graph.inputs[name].tensor.removeprefix("t"))
            interpreter.set_tensor(index, _quantized(value, details[index]))
        interpreter.invoke()
        found = {name: self._value(name, details) for name in keep}
        outputs = self._graph.outputs.items()
        return found | {name: self._value(tensor, details) for name, tensor in outputs}

    def _value(self, tensor: str, details: Mapping[int, Any]) -> Array:
        index = int(tensor.removeprefix("t"))
        value = self._interpreter.get_tensor(index)
        scale, zero = details[index]["quantization"]
        if value.dtype.kind == "f" or not scale:
            return np.asarray(value)
        return np.asarray((value.astype(np.float32) - zero) * np.float32(scale))


def _quantized(value: Array, detail: Mapping[str, Any]) -> Array:
    scale, zero = detail["quantization"]
    if not scale:
        return value.astype(detail["dtype"])
    limits = np.iinfo(detail["dtype"])
    whole = np.round(value / scale) + zero
    return np.asarray(np.clip(whole, limits.min, limits.max), detail["dtype"])
