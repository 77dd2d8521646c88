"""``pip install crossfade[tflite]`` in an environment of its own: small, alone, and it serves."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import tritonclient.grpc as triton
from PIL import Image

from tests import wheel
from tests.conftest import SERVE, ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
PINS = wheel.ROOT / "requirements" / "constraints.txt"
LIMIT_MB = 200
FORBIDDEN = ("tensorflow", "torch", "onnxruntime", "onnx", "pandas", "jax", "crossfade_native")


def pip(*arguments: str | Path, python: Path) -> str:
    """Runs the pip of an environment."""
    command = [python, "-I", "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slim")
    try:
        small = (
            "--quiet",
            "--no-deps",
            "--retries=0",
            "-c",
            PINS,
            "--dest",
            folder / "probe",
            "h11",
        )
        pip("download", *small, python=Path(sys.executable))
    except AssertionError:
        pytest.skip("pip reaches no package index")
    built = wheel.build(folder)
    wheel.run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    found = folder / "venv" / "bin" / "python"
    pip("install", "--quiet", "--no-compile", "-c", PINS, f"{built}[tflite]", python=found)
    return found


def test_it_is_small(python: Path) -> None:
    """All that was installed, but for pip itself; bytecode (25 MB) is left to be made as needed."""
    (packages,) = (python.parents[1] / "lib").glob("python*/site-packages")
    ours = [
        p for p in packages.iterdir() if not re.match(r"pip|setuptools|pkg_|_distutils", p.name)
    ]
    found = (f for p in ours for f in (p.rglob("*") if p.is_dir() else [p]))
    files = [f for f in found if f.is_file() and f.suffix != ".pyc"]
    size_mb = sum(f.stat().st_size for f in files) / 1e6
    assert size_mb < LIMIT_MB
    assert (packages / "crossfade" / "serving").is_dir()


def test_nothing_large_can_be_imported(python: Path, tmp_path: Path) -> None:
    program = f"import importlib.util as u; print([n for n in {FORBIDDEN} if u.find_spec(n)])"
    assert wheel.run(python, "-c", program, cwd=tmp_path).strip() == "[]"


@pytest.fixture(scope="module")
def flowers(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    shutil.copytree(shared / "automl-vision-edge" / "flowers", root / "flowers")
    return root


@pytest.fixture(scope="module")
def server(python: Path, flowers: Path) -> Iterator[ServerProcess]:
    command = (str(python), "-I", *SERVE[1:])
    found = ServerProcess("--model-repository", str(flowers), command=command)
    yield found
    assert found.stop() == 0


def pictures(flowers: Path) -> Iterator[tuple[str, np.ndarray]]:
    for path in sorted((flowers / "flowers" / "images").glob("*.jpg")):
        with Image.open(path) as image:
            small = image.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)
        yield path.name.partition("_")[0], np.asarray(small)[None]


def over_grpc(server: ServerProcess, picture: np.ndarray) -> np.ndarray:
    with triton.InferenceServerClient(server.grpc) as client:
        tensor = triton.InferInput("image", picture.shape, "UINT8")
        tensor.set_data_from_numpy(picture)
        scores: np.ndarray = client.infer("flowers", [tensor]).as_numpy("scores")
        return scores


def over_http(server: ServerProcess, picture: np.ndarray) -> np.ndarray:
    body = {
        "inputs": [
            {
                "name": "image",
                "datatype": "UINT8",
                "shape": list(picture.shape),
                "data": picture.ravel().tolist(),
            }
        ]
    }
    url = f"http://{server.http}/v2/models/flowers/infer"
    with urllib.request.urlopen(url, orjson.dumps(body), timeout=30) as answer:
        (output,) = orjson.loads(answer.read())["outputs"]
    return np.array(output["data"]).reshape(output["shape"])


@pytest.mark.parametrize("ask", [over_grpc, over_http])
def test_it_tells_the_flowers(
    server: ServerProcess, flowers: Path, ask: Callable[[ServerProcess, np.ndarray], Any]
) -> None:
    labels = (flowers / "flowers" / "dict.txt").read_text().split()
    found = [(name, labels[int(ask(server, p)[0].argmax())]) for name, p in pictures(flowers)]
    assert len(found) == 6
    assert all(label.startswith(name) for name, label in found), found


def test_the_server_has_nothing_large_in_memory(server: ServerProcess) -> None:
    """What it has mapped says what it has imported; grpcio serves."""
    maps = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "ai_edge_litert" in maps
    assert "grpc/_cython" in maps
    assert not [name for name in FORBIDDEN if f"/site-packages/{name}/" in maps]


def test_every_package_has_a_wheel_for_aarch64(python: Path, tmp_path: Path) -> None:
    """The very versions that were installed, as a system with glibc 2.28 or newer takes them."""
    frozen = pip("freeze", "--exclude", "crossfade", python=python).splitlines()
    assert any(line.startswith("ai-edge-litert==") for line in frozen)
    platforms = [f"manylinux_2_{glibc}_aarch64" for glibc in (28, 27, 26, 17)]
    chosen = [f"--platform={name}" for name in [*platforms, "manylinux2014_aarch64"]]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    pip(
        *("download", "--quiet", "--only-binary=:all:", "--no-deps", f"--python-version={version}"),
        *chosen,
        *("--dest", tmp_path),
        *frozen,
        python=python,
    )
    names = [p.name for p in tmp_path.iterdir()]
    assert len(names) == len(frozen)
    assert all(re.search(r"aarch64|-none-any", name) for name in names)
