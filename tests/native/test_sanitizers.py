"""The native host's own code under sanitizers: bent bytes, and threads that race."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

NATIVE = Path(__file__).parents[2] / "native"
ADDRESS = "-fsanitize=address,undefined"
THREAD = "-fsanitize=thread"


@pytest.fixture(scope="session")
def seconds(request: pytest.FixtureRequest) -> int:
    """How long each program is to run, about."""
    return int(request.config.getoption("--seconds"))


def build(program: str, sanitizer: str, folder: Path) -> Path:
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("there is no C++ compiler: make native-deps")
    sources = [*(NATIVE / "src" / "core").glob("*.cpp"), NATIVE / "tests" / f"{program}.cpp"]
    built = folder / program
    command = [compiler, "-std=c++17", "-O1", "-g", sanitizer, "-fno-sanitize-recover=all"]
    done = subprocess.run(
        [*command, *map(str, sources), "-lnghttp2", "-lpthread", "-o", str(built)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "nghttp2.h: No such file" in done.stderr:
        pytest.skip("libnghttp2-dev is not installed: make native-deps")
    assert done.returncode == 0, done.stderr
    return built


def run(program: Path, *arguments: object, timeout_s: float) -> None:
    done = subprocess.run(
        [program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_bent_bytes(tmp_path: Path, seconds: int) -> None:
    """Rounds with a seed: what fails once fails again."""
    run(build("abuse", ADDRESS, tmp_path), 1, 100 * seconds, timeout_s=20 * seconds + 60)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("sanitizer", [ADDRESS, THREAD], ids=["memory", "races"])
def test_threads_that_call_vanish_and_stop(tmp_path: Path, seconds: int, sanitizer: str) -> None:
    run(build("races", sanitizer, tmp_path), seconds, timeout_s=20 * seconds + 60)
