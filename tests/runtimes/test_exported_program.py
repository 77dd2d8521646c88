"""PyTorch programs: signatures, values, threads, and archives that would run code."""

from __future__ import annotations

import concurrent.futures
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from crossfade.runtimes.core.dtypes import NUMPY  # noqa: E402
from crossfade.runtimes.core.errors import (  # noqa: E402
    CrossfadeError,
    InvalidArgument,
    LoadFailed,
)
from crossfade.runtimes.core.model import Session  # noqa: E402
from tests.runtimes import exported_programs as programs  # noqa: E402

Load = Callable[..., Session]
DTYPES = [name for name in NUMPY if name != "BYTES"]
BOOM = "boom.txt"


def opened(load: Load, path: Path, **options: Any) -> Session:
    return load("torch", path, **options)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_comes_back_as_it_went(tmp_path: Path, load: Load, dtype: str) -> None:
    kinds = {"FP16": "float16", "FP32": "float32", "FP64": "float64", "BF16": "bfloat16"}
    kind = getattr(torch, kinds.get(dtype, dtype.lower()))
    module = programs.function(lambda x: {"y": x.clone()})
    path = programs.save(module, (torch.zeros(2, 3, dtype=kind),), tmp_path / "model.pt2")
    session = opened(load, path)
    signature = session.signatures["serving_default"]
    assert [(s.name, s.dtype, s.shape) for s in (*signature.inputs, *signature.outputs)] == [
        ("x", dtype, (-1, 3)),
        ("y", dtype, (-1, 3)),
    ]
    x = np.random.default_rng(1).integers(0, 2, (4, 3)).astype(NUMPY[dtype])
    y = session.run({"x": x}, "serving_default", ())["y"]
    assert y.dtype == x.dtype
    assert y.tobytes() == x.tobytes()
    session.close()


def test_names_of_outputs(tmp_path: Path, load: Load) -> None:
    pair = programs.function(lambda x: (x + 1, x - 1))
    path = programs.save(pair, (torch.zeros(2, 3),), tmp_path / "model.pt2")
    own = opened(load, path).signatures["serving_default"].outputs
    assert [spec.name for spec in own] == ["add", "sub"]
    named = opened(load, path, output_names=["up", "down"])
    found = named.run({"x": np.zeros((1, 3), np.float32)}, "serving_default", ("down", "up"))
    assert {name: array[0, 0] for name, array in found.items()} == {"down": -1, "up": 1}
    with pytest.raises(LoadFailed, match="has 1 names for 2 outputs"):
        opened(load, path, output_names=["up"])
    with pytest.raises(LoadFailed, match="two outputs have the same name"):
        opened(load, path, output_names=["up", "up"])


def test_nested_arguments_and_a_single_output(tmp_path: Path, load: Load) -> None:
    class Nested(torch.nn.Module):  # type: ignore[misc]
        def forward(self, pair: Any, named: Any, factor: int = 3) -> Any:
            return pair[0] + pair[1] * named["z"] * factor

    x, y, z = (torch.full((2, 2), float(n)) for n in range(3))
    path = programs.save(Nested(), ((x, y), {"z": z}), tmp_path / "model.pt2", dynamic=False)
    session = opened(load, path)
    signature = session.signatures["serving_default"]
    names = [spec.name for spec in signature.inputs]
    assert len(names) == 3
    assert not signature.batched
    inputs = dict(zip(names, [np.full((2, 2), n, np.float32) for n in (1, 2, 4)], strict=True))
    (only,) = session.run(inputs, "serving_default", ()).values()
    np.testing.assert_array_equal(only, np.full((2, 2), 25))


def test_first_dimensions_of_their_own_are_no_batch(tmp_path: Path, load: Load) -> None:
    class Outer(torch.nn.Module):  # type: ignore[misc]
        def forward(self, a: Any, b: Any) -> Any:
            return {"y": a.sum(dim=1, keepdim=True) + b.sum()}

    first, second = torch.export.Dim("first"), torch.export.Dim("second")
    inputs = torch.zeros(2, 3), torch.zeros(4, 3)
    shapes = ({0: first}, {0: second})
    path = programs.save(Outer(), inputs, tmp_path / "model.pt2", shapes)
    assert not opened(load, path).signatures["serving_default"].batched


def test_limits_of_a_dimension_are_told(tmp_path: Path, load: Load) -> None:
    batch = torch.export.Dim("batch", max=8)
    module = programs.function(lambda x: {"y": x + 1})
    path = programs.save(module, (torch.zeros(2, 3),), tmp_path / "model.pt2", ({0: batch},))
    session = opened(load, path)
    assert session.run({"x": np.zeros((8, 3), np.float32)}, "serving_default", ())["y"].all()
    with pytest.raises(InvalidArgument, match="<= 8"):
        session.run({"x": np.zeros((9, 3), np.float32)}, "serving_default", ())


def test_a_bad_index_is_the_requests_fault(tmp_path: Path, load: Load) -> None:
    class Look(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Embedding(4, 2)

        def forward(self, x: Any) -> Any:
            return {"y": self.table(x)}

    path = programs.save(Look(), (torch.zeros(2, dtype=torch.int64),), tmp_path / "model.pt2")
    session = opened(load, path)
    with pytest.raises(InvalidArgument, match="index out of range"):
        session.run({"x": np.array([9])}, "serving_default", ())


def test_a_weight_that_is_given_away_stays_what_it_is(tmp_path: Path, load: Load) -> None:
    class Gives(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(3))

        def forward(self, x: Any) -> Any:
            return {"y": x + self.weight, "w": self.weight}

    path = programs.save(Gives(), (torch.zeros(2, 3),), tmp_path / "model.pt2")
    session = opened(load, path)
    x = {"x": np.zeros((1, 3), np.float32)}
    session.run(x, "serving_default", ())["w"][...] = 7
    np.testing.assert_array_equal(session.run(x, "serving_default", ())["y"], [[1, 1, 1]])


def test_each_run_has_its_own_threads(tmp_path: Path, load: Load) -> None:
    programs.affine(tmp_path)
    path = tmp_path / "model.pt2"
    sessions = {n: opened(load, path, intra_op_threads=n) for n in (1, 2)}
    x = {"x": np.zeros((1, 3), np.float32)}

    def run(threads: int) -> int:
        sessions[threads].run(x, "serving_default", ())
        found: int = torch.get_num_threads()
        return found

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert [pool.submit(run, n).result() for n in (1, 2, 1)] == [1, 2, 1]


@pytest.mark.parametrize(
    "change", [lambda count: count.add_(1), lambda count: count[:1].view(1).mul_(2)]
)
def test_a_program_with_a_state_is_refused(
    tmp_path: Path, load: Load, change: Callable[[Any], Any]
) -> None:
    class Counts(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(1))

        def forward(self, x: Any) -> Any:
            change(self.count)
            return {"y": x + self.count}

    path = programs.save(Counts(), (torch.zeros(2, 3),), tmp_path / "model.pt2")
    with pytest.raises(LoadFailed, match="changes its own buffer 'count'"):
        opened(load, path)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("name", ["model.pt", "model.pt2"])
def test_torchscript_is_refused_and_told_what_to_do(tmp_path: Path, load: Load, name: str) -> None:
    scripted = torch.jit.trace(programs.function(lambda x: x + 1), torch.zeros(2))
    scripted.save(str(tmp_path / name))
    with pytest.raises(LoadFailed, match=r"torch\.export\.save") as failed:
        opened(load, tmp_path / name)
    assert "TorchScript" in failed.value.message


def test_a_pickled_module_is_refused(tmp_path: Path, load: Load) -> None:
    torch.save({"w": torch.zeros(2)}, tmp_path / "model.pt2")
    with pytest.raises(LoadFailed, match="TorchScript or a pickled model"):
        opened(load, tmp_path / "model.pt2")


# Archives that PyTorch itself would run code from. Each writes a file if it does.


class Boom:
    """Unpickling one creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def pickled(path: Path) -> bytes:
    """What ``torch.save`` writes, with code in it."""
    buffer = io.BytesIO()
    torch.save(Boom(path), buffer, pickle_module=pickle)
    return buffer.getvalue()


def rewritten(source: Path, target: Path, changes: dict[str, Callable[[bytes], bytes]]) -> Path:
    """Copies an archive; entries that are not there are added."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        root = old.namelist()[0].partition("/")[0]
        names = [name.removeprefix(f"{root}/") for name in old.namelist()]
        for name in [*names, *(name for name in changes if name not in names)]:
            data = old.read(f"{root}/{name}") if name in names else b""
            new.writestr(f"{root}/{name}", changes.get(name, bytes)(data))
    return target


GRAPH = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"


def replaced(old: str, new: str) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        assert old.encode() in data
        return data.replace(old.encode(), new.encode())

    return change


def symbol(text: str) -> dict[str, Callable[[bytes], bytes]]:
    def change(data: bytes) -> bytes:
        document = json.loads(data)
        sizes = document["graph_module"]["graph"]["tensor_values"]["x"]["sizes"]
        sizes[0]["as_expr"]["expr_str"] = text
        return json.dumps(document).encode()

    return {GRAPH: change}


def hostile(path: Path) -> dict[str, dict[str, Callable[[bytes], bytes]]]:
    code = f"__import__('pathlib').Path({str(path)!r}).touch()"
    return {
        "a pickled weight": {
            WEIGHTS: replaced('"use_pickle": false', '"use_pickle": true'),
            "data/weights/weight_0": lambda _: pickled(path),
        },
        "pickled sample inputs": {"data/sample_inputs/model.pt": lambda _: pickled(path)},
        "a pickled constant": {"data/constants/opaque_obj_0": lambda _: pickle.dumps(Boom(path))},
        "a custom object": {"data/constants/custom_obj_0": lambda _: pickled(path)},
        "compiled code": {"data/aotinductor/model/a.so": lambda _: b"\x7fELF"},
        "a second model": {"models/other.json": lambda _: b"{}"},
        "a path": {"../../evil": lambda _: b""},
        "a size that is code": symbol(code),
        "a size that hides code": symbol(f"Max(1, {code})"),
        "a size that is a tower": symbol("Pow(9, Pow(9, Pow(9, 9)))"),
        "an attribute of a size": symbol("Symbol('s0').__class__"),
        "another operator": {GRAPH: replaced("torch.ops.aten.mul.Tensor", "torch.os.system")},
        "a library": {GRAPH: replaced("torch.ops.aten.mul.Tensor", "torch.ops.load_library")},
        "a file": {GRAPH: replaced("torch.ops.aten.mul.Tensor", "torch.ops.aten.from_file.out")},
        "a name that is code": {GRAPH: replaced('"name": "x"', '"name": "x; import os"')},
        "a type of tree": {GRAPH: replaced("builtins.dict", "collections.defaultdict")},
        "no graph": {GRAPH: lambda _: b"null"},
        "a deep graph": {GRAPH: lambda _: b"[" * 200_000},
        "no weights": {WEIGHTS: lambda _: b"{}"},
    }


@pytest.mark.parametrize("what", hostile(Path()))
def test_what_would_run_code_is_refused(
    tmp_path: Path,
    load: Load,
    what: str,
    assert_clean: Callable[[CrossfadeError, Path], None],
) -> None:
    programs.affine(tmp_path)
    path = rewritten(tmp_path / "model.pt2", tmp_path / "bad.pt2", hostile(tmp_path / BOOM)[what])
    with pytest.raises(LoadFailed) as failed:
        opened(load, path)
    assert not (tmp_path / BOOM).exists()
    assert_clean(failed.value, tmp_path)


def test_the_same_archives_without_their_changes_load(tmp_path: Path, load: Load) -> None:
    """So that what is refused above is refused for what was changed."""
    programs.affine(tmp_path)
    path = rewritten(tmp_path / "model.pt2", tmp_path / "same.pt2", {})
    x = {"x": np.ones((1, 3), np.float32)}
    np.testing.assert_array_equal(opened(load, path).run(x, "serving_default", ("m",))["m"], 2)


def test_a_compressed_archive_is_refused(tmp_path: Path, load: Load) -> None:
    programs.affine(tmp_path)
    with (
        zipfile.ZipFile(tmp_path / "model.pt2") as old,
        zipfile.ZipFile(tmp_path / "bomb.pt2", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(LoadFailed, match="is compressed"):
        opened(load, tmp_path / "bomb.pt2")
