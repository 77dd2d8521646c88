"""The cases that every runtime's contract is tested with: a model, its inputs, its answers."""

from __future__ import annotations

import atexit
import dataclasses
import functools
import importlib.util
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crossfade.runtimes import registry, trust
from crossfade.runtimes.core.dtypes import NUMPY
from crossfade.runtimes.core.model import Artifact, Runtime, Session, Tensors
from crossfade.runtimes.isolated import runtime as isolated
from crossfade.runtimes.python_model.runtime import PythonRuntime
from crossfade.runtimes.trt.libraries import Libraries
from crossfade.runtimes.trt.runtime import TensorRtRuntime
from tests.conftest import ServerProcess
from tests.runtimes import fake_tensorrt
from tests.runtimes.fake_cuda import FakeCuda

Rows = Callable[[np.random.Generator, int], dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Case:
    """One model of one runtime.

    Attributes:
        needs: the library that must be importable.
        build: writes the model into a version's folder.
        opens: what the runtime opens in it; ``.`` is the folder itself.
        damages: the file that is damaged to see what loading says.
        inputs: makes inputs of so many rows.
        answer: what the model must say to them.
        heavy: writes a model of 16 MB of weights; it takes x FP32 [n, 256].
        checks_shapes: whether a wrong shape is noticed at all.
        options: the runtime's.
        isolated: in a worker process.
    """

    name: str
    platform: str
    needs: str
    build: Callable[[Path], object]
    opens: str
    damages: str
    inputs: Rows
    answer: Callable[[Tensors], dict[str, np.ndarray]]
    heavy: Callable[[Path], object] | None = None
    signature: str = "serving_default"
    checks_shapes: bool = True
    runtime: Callable[[], Runtime] | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    isolated: bool = False

    def load(self, folder: Path, instances: int = 1) -> Session:
        artifact = Artifact(folder / self.opens, "model", 1, instances, self.options)
        if self.isolated:
            return isolated.load(self.platform, artifact, isolated.Limits())
        runtime = self.runtime() if self.runtime else registry.create(self.platform)
        return runtime.load(artifact)


def floats(random: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    return {"x": random.normal(size=(rows, 3)).astype(np.float32)}


def affine(inputs: Tensors) -> dict[str, np.ndarray]:
    return {"y": 2 * inputs["x"] + 1, "m": 2 * inputs["x"]}


def words(random: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    texts = np.empty((rows, 2), dtype=object)
    texts.reshape(-1)[:] = [f"é{n}".encode() for n in random.integers(0, 1000, rows * 2)]
    return {"x": texts}


def _same(inputs: Tensors) -> dict[str, np.ndarray]:
    return {"y": inputs["x"]}


def _upper(inputs: Tensors) -> dict[str, np.ndarray]:
    texts = inputs["x"]
    upper = np.array([[t.upper() for t in row] for row in texts], dtype=object)
    return {"y": upper.reshape(texts.shape), "m": np.vectorize(len)(texts).astype(np.int32)}


def _halves(random: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    x = random.integers(-50, 50, (rows, 3)).astype(NUMPY["BF16"])
    return {"x": x, "shift": np.ones((rows, 3), np.float32)}


def _affine_halves(inputs: Tensors) -> dict[str, np.ndarray]:
    doubled = 2 * inputs["x"].astype(np.float32)
    return {"y": (doubled + inputs["shift"]).astype(NUMPY["BF16"]), "m": doubled}


def _write(name: str, builder: str, *arguments: object) -> Callable[[Path], object]:
    """Puts off importing onnx or flatbuffers until the case runs."""

    def build(folder: Path) -> None:
        if name.endswith(".onnx"):
            from tests.runtimes import onnx_models

            content = getattr(onnx_models, builder)(*arguments)
        else:
            from tests.runtimes import tflite_models

            content = tflite_models.build(getattr(tflite_models, builder)(*arguments))
        (folder / name).write_bytes(content)

    return build


def _save(builder: str, *arguments: object) -> Callable[[Path], object]:
    def build(folder: Path) -> None:
        from tests.runtimes import saved_models

        getattr(saved_models, builder)(folder, *arguments)

    return build


def _export(builder: str, *arguments: object) -> Callable[[Path], object]:
    def build(folder: Path) -> None:
        from tests.runtimes import exported_programs

        getattr(exported_programs, builder)(folder, *arguments)

    return build


_FAKE = """
behaviour: echo
inputs: [{name: x, dtype: FP32, shape: [-1, 3]}]
outputs: [{name: y, from: x}, {name: v, dtype: INT64, shape: [-1], value: 7}]
"""


def _fake(inputs: Tensors) -> dict[str, np.ndarray]:
    return {"y": inputs["x"], "v": np.full(len(inputs["x"]), 7)}


def _example() -> Runtime:
    """The example's runtime without installing it; test_custom_runtime.py installs it."""
    file = Path(__file__).parents[2] / "examples/custom_runtime/crossfade_linear.py"
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    runtime: Runtime = module.LinearRuntime()
    return runtime


def _tensorrt() -> Runtime:
    """The runtime on a TensorRT and a CUDA that are made here; test_trt.py has a real engine."""
    cuda = FakeCuda()
    return TensorRtRuntime(lambda: Libraries(fake_tensorrt.FakeTensorRt(cuda), cuda))


_PYTHON = """
import numpy as np
from crossfade.runtimes.core.model import Signature, TensorSpec

class Model:
    def __init__(self, artifact):
        x, y, m = (TensorSpec(name, "FP32", (-1, 3)) for name in "xym")
        self.signatures = {"serving_default": Signature.derive([x], [y, m])}

    def run(self, inputs, signature, outputs):
        m = 2 * inputs["x"]
        return {"y": m + 1, "m": m}
"""


class _Trusting(PythonRuntime):
    """Trusts the folder that it is to load from."""

    def load(self, artifact: Artifact) -> Session:
        trust.allow([artifact.path.parent])
        try:
            return super().load(artifact)
        finally:
            trust.allow([])


@functools.cache
def _far() -> ServerProcess:
    """One server for all tests, ended with them."""
    root = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, root)
    (root / "affine" / "1").mkdir(parents=True)
    _write("model.onnx", "affine")(root / "affine" / "1")
    server = ServerProcess("--model-repository", str(root))
    atexit.register(server.stop)
    return server


def far_model() -> str:
    """``remote.yaml`` of a model in another process."""
    url = f"127.0.0.1:{_far().ports['grpc_port']}"
    return f"{{protocol: open_inference_grpc, url: '{url}', model: affine}}"


_onnx = functools.partial(
    Case,
    platform="onnxruntime_onnx",
    needs="onnxruntime",
    opens="model.onnx",
    damages="model.onnx",
)
_tflite = functools.partial(
    Case,
    platform="tflite",
    needs="ai_edge_litert",
    opens="model.tflite",
    damages="model.tflite",
)
_saved = functools.partial(
    Case,
    platform="tensorflow_savedmodel",
    needs="tensorflow",
    opens=".",
    damages="saved_model.pb",
)
_torch = functools.partial(
    Case, platform="torch", needs="torch", opens="model.pt2", damages="model.pt2"
)
_T = "model.tflite"

CASES = [
    Case(
        name="tensorrt",
        platform="tensorrt_plan",
        needs="numpy",
        build=lambda folder: (folder / "model.plan").write_bytes(fake_tensorrt.plan()),
        opens="model.plan",
        damages="model.plan",
        inputs=floats,
        answer=affine,
        runtime=_tensorrt,
    ),
    _onnx(
        name="onnx",
        build=_write("model.onnx", "affine"),
        inputs=floats,
        answer=affine,
        heavy=_write("model.onnx", "heavy", 16),
    ),
    _onnx(name="onnx-bytes", build=_write("model.onnx", "same", 8), inputs=words, answer=_same),
    _onnx(
        name="onnx-bf16",
        build=_write("model.onnx", "bfloat16"),
        inputs=_halves,
        answer=_affine_halves,
    ),
    _tflite(
        name="tflite",
        build=_write(_T, "affine", 2.0, 1.0),
        inputs=floats,
        answer=affine,
        heavy=_write(_T, "heavy", 16),
    ),
    _tflite(
        name="tflite-signature",
        build=_write(_T, "affine", 2.0, 1.0, "predict", True),
        inputs=floats,
        answer=affine,
        signature="predict",
    ),
    _saved(
        name="savedmodel",
        build=_save("affine"),
        inputs=floats,
        answer=affine,
        heavy=_save("heavy", 16),
    ),
    _saved(name="savedmodel-bytes", build=_save("strings"), inputs=words, answer=_upper),
    _torch(
        name="torch",
        build=_export("affine"),
        inputs=floats,
        answer=affine,
        heavy=_export("heavy", 16),
    ),
    _torch(name="torch-bf16", build=_export("halves"), inputs=_halves, answer=_affine_halves),
    Case(
        name="python",
        platform="python",
        needs="numpy",
        build=lambda folder: (folder / "model.py").write_text(_PYTHON),
        opens="model.py",
        damages="model.py",
        inputs=floats,
        answer=affine,
        checks_shapes=False,
        runtime=_Trusting,
    ),
    Case(
        name="remote",
        platform="remote",
        needs="grpc",
        build=lambda folder: (folder / "remote.yaml").write_text(far_model()),
        opens="remote.yaml",
        damages="remote.yaml",
        inputs=floats,
        answer=affine,
    ),
    Case(
        name="custom-runtime",
        platform="linear_npz",
        needs="numpy",
        build=lambda folder: np.savez(folder / "model.npz", W=2 * np.eye(3), b=np.ones(3)),
        opens="model.npz",
        damages="model.npz",
        inputs=floats,
        answer=affine,
        checks_shapes=False,
        runtime=_example,
    ),
    Case(
        name="fake",
        platform="fake",
        needs="yaml",
        build=lambda folder: (folder / "fake.yaml").write_text(_FAKE),
        opens="fake.yaml",
        damages="fake.yaml",
        inputs=floats,
        answer=_fake,
        checks_shapes=False,
    ),
]

# The host's memory says nothing of weights that lie on the GPU: test_ort_gpu.py looks there.
ON_GPU = [
    dataclasses.replace(
        case, name=f"{case.name}-cuda", options={"execution_providers": ["cuda"]}, heavy=None
    )
    for case in CASES
    if case.needs == "onnxruntime"
]
# A worker that imports TensorFlow takes seconds, and has the same border.
ISOLATED = [
    dataclasses.replace(case, name=f"{case.name}-isolated", isolated=True, heavy=None)
    for case in CASES
    if case.needs in {"onnxruntime", "ai_edge_litert", "yaml"}
]
PARAMETERS = [
    *(pytest.param(case, id=case.name) for case in (*CASES, *ISOLATED)),
    *(pytest.param(case, id=case.name, marks=pytest.mark.gpu) for case in ON_GPU),
]
