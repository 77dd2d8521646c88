"""The example runtime, installed as a stranger would install it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "custom_runtime"
FIND_AND_RUN = """
import sys
from pathlib import Path
import numpy as np
from crossfade.runtimes import registry
from crossfade.runtimes.core.model import Artifact, Session

assert "linear_npz" in registry.entries()
platform, opened = registry.detect(Path(sys.argv[1]))
assert (platform, opened.name) == ("linear_npz", "model.npz")
assert registry.resolve("linear_npz") == platform
artifact = Artifact(opened, "prices", 1)
runtime = registry.create(platform)
session = runtime.load(artifact)
assert isinstance(session, Session)
assert session.signatures["serving_default"].batched
assert runtime.estimate(artifact) > 0
answer = session.run({"x": np.float32([[1, 2, 3]])}, "serving_default", ())
assert answer["y"].tolist() == [[6.5]]
assert answer["y"].dtype == np.float32
session.close()
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source") / "custom_runtime"
    # A copy: building leaves folders beside the sources.
    subprocess.run(["cp", "-r", EXAMPLE, source], check=True)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    install += ["--no-build-isolation", "--no-index", "--target", str(target), str(source)]
    subprocess.run(install, check=True, capture_output=True)
    return target


def test_is_found_by_its_entry_point_and_runs(installed: Path, tmp_path: Path) -> None:
    make = "import numpy as np; np.savez('model.npz', W=np.ones((3, 1)), b=[0.5])"
    subprocess.run([sys.executable, "-c", make], check=True, cwd=tmp_path)
    environment = os.environ | {"PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", FIND_AND_RUN, str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr


BROKEN = """
import sys
from pathlib import Path
import pytest
from crossfade.runtimes import registry
from crossfade.runtimes.core.errors import LoadFailed

Path(sys.argv[1], "model.onnx").touch()
assert registry.detect(Path(sys.argv[1]))[0] == "onnxruntime_onnx", "a built-in's files are its own"
with pytest.raises(LoadFailed, match="'broken' cannot be imported"):
    registry.create("broken")
"""


def test_a_broken_distribution_costs_only_itself(installed: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    information = site / "broken-1.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (information / "entry_points.txt").write_text(
        "[crossfade.runtimes]\nbroken = broken_runtime:Runtime\ngreedy = greedy:Runtime\n"
    )
    (site / "broken_runtime.py").write_text("raise OSError('libnobody.so')")
    (site / "greedy.py").write_text("class Runtime: patterns = ('*',)")
    folder = tmp_path / "1"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", BROKEN, folder],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{installed}{os.pathsep}{site}"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "libnobody.so" in done.stderr
