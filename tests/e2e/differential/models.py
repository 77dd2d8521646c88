"""The same models for Crossfade and for Triton: one configuration, two ways to run it.

Triton gets ``python_model.py`` for each of them; here they are fakes and tiny ONNX graphs. Both
servers read the same ``config.pbtxt`` but for its backend.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from onnx import TensorProto

from tests.runtimes.onnx_models import model, node, value

PYTHON_MODEL = Path(__file__).with_name("python_model.py")
DTYPES = {
    "BOOL": "TYPE_BOOL",
    "UINT8": "TYPE_UINT8",
    "UINT16": "TYPE_UINT16",
    "UINT32": "TYPE_UINT32",
    "UINT64": "TYPE_UINT64",
    "INT8": "TYPE_INT8",
    "INT16": "TYPE_INT16",
    "INT32": "TYPE_INT32",
    "INT64": "TYPE_INT64",
    "FP16": "TYPE_FP16",
    "FP32": "TYPE_FP32",
    "FP64": "TYPE_FP64",
    "BF16": "TYPE_BF16",
    "BYTES": "TYPE_STRING",
}
Tensors = tuple[tuple[str, str, list[int]], ...]


@dataclasses.dataclass(frozen=True)
class Twin:
    """One model in both repositories.

    Attributes:
        behaviour: what ``python_model.py`` does; ``addsub`` and ``controls`` are ONNX here.
        dims: without the batch dimension, if ``batch`` is not 0.
        fails: what a failing model raises: Triton's code and ours.
        extra: more of ``config.pbtxt``.
    """

    name: str
    inputs: Tensors
    outputs: Tensors
    behaviour: str = "echo"
    batch: int = 8
    versions: tuple[int, ...] = (1,)
    fails: tuple[str, str] = ("", "")
    labels: tuple[str, ...] = ()
    extra: str = ""

    def config(self, backend: str) -> str:
        """Its ``config.pbtxt``."""
        lines = [f'name: "{self.name}"', f'backend: "{backend}"', f"max_batch_size: {self.batch}"]
        for kind, tensors in (("input", self.inputs), ("output", self.outputs)):
            for name, dtype, dims in tensors:
                label = ' label_filename: "labels.txt"' if kind == "output" and self.labels else ""
                declared = f'name: "{name}" data_type: {DTYPES[dtype]} dims: {dims}{label}'
                lines.append(f"{kind} [ {{ {declared} }} ]")
        lines.append("instance_group [{ kind: KIND_CPU, count: 1 }]")
        if backend == "python":
            for key, text in (("behaviour", self.behaviour), ("fails", self.fails[0])):
                lines.append(f'parameters {{ key: "{key}" value {{ string_value: "{text}" }} }}')
        return "\n".join([*lines, self.extra])

    def write(self, root: Path, backend: str) -> None:
        """Writes the model's folder into a repository; ``python`` is Triton's."""
        folder = root / self.name
        for version in self.versions:
            (folder / str(version)).mkdir(parents=True)
            place = folder / str(version)
            if backend == "python":
                shutil.copy(PYTHON_MODEL, place / "model.py")
            elif self.behaviour == "broken":
                (place / "model.onnx").write_bytes(b"\x08\x07not a model")
            elif self.behaviour in ONNX:
                (place / "model.onnx").write_bytes(ONNX[self.behaviour])
            else:
                (place / "fake.yaml").write_text(self._fake())
        (folder / "config.pbtxt").write_text(self.config(backend))
        if self.labels:
            (folder / "labels.txt").write_text("\n".join(self.labels) + "\n")

    def _fake(self) -> str:
        lines = [f"behaviour: {'fail' if 'fail' in self.behaviour else 'echo'}"]
        if "repeat" in self.behaviour:
            lines.append("repeat: n")
        if "fail" in self.behaviour:
            lines.append(f"fail: {{code: {self.fails[1]}, message: as told}}")
        lines.append("inputs:")
        batch = [-1] if self.batch else []
        for name, dtype, dims in self.inputs:
            lines.append(f"  - {{name: {name}, dtype: {dtype}, shape: {batch + dims}}}")
        lines.append("outputs:")
        for (name, dtype, _), (source, _, _) in zip(self.outputs, self.inputs, strict=False):
            lines.append(f"  - {{name: {name}, dtype: {dtype}, from: {source}}}")
        return "\n".join(lines)


def _addsub() -> bytes:
    names = ("INPUT0", "INPUT1"), ("OUTPUT0", "OUTPUT1")
    inputs, outputs = ([value(n, TensorProto.INT32, ["n", 16]) for n in half] for half in names)
    nodes = [node("Add", "INPUT0 INPUT1", "OUTPUT0"), node("Sub", "INPUT0 INPUT1", "OUTPUT1")]
    return model(nodes, inputs, outputs)


def _controls() -> bytes:
    """y = x + start + end + id, [n, 1]: the answer shows what the model was told."""
    sums = [node("Add", "x s", "a"), node("Add", "a e", "b"), node("Add", "b id", "y")]
    casts = [node("Cast", f"{n}", n[0], to=TensorProto.INT64) for n in ("start", "end")]
    nodes = [*casts, *sums]
    inputs = [value(name, TensorProto.INT64, ["n", 1]) for name in ("x", "id")]
    inputs += [value(name, TensorProto.INT32, ["n", 1]) for name in ("start", "end")]
    return model(nodes, inputs, [value("y", TensorProto.INT64, ["n", 1])])


ONNX = {"addsub": _addsub(), "controls": _controls()}


def _echo(name: str, dtype: str, dims: list[int], **more: object) -> Twin:
    return Twin(name, (("x", dtype, dims),), (("y", dtype, dims),), **more)  # type: ignore[arg-type]


SIMPLE_IN: Tensors = (("INPUT0", "INT32", [16]), ("INPUT1", "INT32", [16]))
SIMPLE_OUT: Tensors = (("OUTPUT0", "INT32", [16]), ("OUTPUT1", "INT32", [16]))
TWINS = (
    *(_echo(f"echo_{dtype}", dtype, [2]) for dtype in DTYPES),
    Twin("simple", SIMPLE_IN, SIMPLE_OUT, "addsub"),
    *(Twin(name, SIMPLE_IN, SIMPLE_OUT, "addsub") for name in ("counted", "spare")),
    Twin("stacked", SIMPLE_IN, SIMPLE_OUT, "addsub", extra="dynamic_batching { }"),
    Twin(
        "pair",
        (("a", "FP32", [2, -1]), ("b", "BYTES", [1])),
        (("c", "FP32", [2, -1]), ("d", "BYTES", [1])),
        batch=0,
    ),
    _echo("flex", "FP32", [-1, -1], batch=4),
    _echo("scores", "FP32", [4], labels=("cat", "dog", "hen")),
    _echo("counts", "INT32", [4], batch=0),
    _echo("versions", "INT32", [2], versions=(1, 3), extra="version_policy { all { } }"),
    _echo(
        "fails_invalid", "FP32", [2], behaviour="fail", fails=("INVALID_ARG", "INVALID_ARGUMENT")
    ),
    _echo("fails_unavailable", "FP32", [2], behaviour="fail", fails=("UNAVAILABLE", "UNAVAILABLE")),
    _echo("fails_internal", "FP32", [2], behaviour="fail", fails=("INTERNAL", "INTERNAL")),
    Twin(
        "sequence",
        (("x", "INT64", [1]),),
        (("y", "INT64", [1]),),
        "controls",
        extra="""
sequence_batching {
  max_sequence_idle_microseconds: 60000000
  control_input [
    { name: "start" control [ { kind: CONTROL_SEQUENCE_START int32_false_true: [0, 100] } ] },
    { name: "end" control [ { kind: CONTROL_SEQUENCE_END int32_false_true: [0, 1000] } ] },
    { name: "id" control [ { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_INT64 } ] }
  ]
}""",
    ),
    *(
        Twin(
            name,
            (("x", "FP32", [2]), ("n", "INT32", [1])),
            (("y", "FP32", [2]),),
            behaviour,
            batch=0,
            fails=("UNAVAILABLE", "UNAVAILABLE"),
            extra="model_transaction_policy { decoupled: true }",
        )
        for name, behaviour in (("repeat", "repeat"), ("repeat_fails", "repeat-fail"))
    ),
    _echo("broken", "FP32", [2], behaviour="broken"),
)


def write(root: Path, backend: str) -> Path:
    """Writes all models; ``backend`` is ``python`` for Triton, ``""`` for what suits each here."""
    for twin in TWINS:
        own = "onnxruntime" if twin.behaviour in (*ONNX, "broken") else "fake"
        twin.write(root, backend or own)
    return root
