"""The wheel: everything that is needed is inside, nothing else, and it runs from anywhere."""

from __future__ import annotations

import itertools
import os
import re
import sys
import zipfile
from pathlib import Path

import pytest

import crossfade
from crossfade.runtimes import registry
from crossfade.runtimes.core.errors import MissingExtra
from tests.wheel import FOLDERS, ROOT, build
from tests.wheel import run as run_program

DATA = (".binpb", ".pyi", ".typed")


def sources() -> set[str]:
    """What of the tree belongs in the wheel, by its path there."""
    found = {f"crossfade/{path.name}" for path in (ROOT / "crossfade").glob("*.py")}
    found.add("crossfade/py.typed")
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", *DATA) and "__pycache__" not in path.parts:
                found.add(f"crossfade/{path.relative_to(ROOT).as_posix()}")
    isolated, training = ROOT / "runtimes" / "isolated", ROOT / "training"
    data = (isolated.glob("*.txt"), training.glob("*/configs/*"), training.glob("gate/*.yaml"))
    for path in itertools.chain(*data):
        found.add(f"crossfade/{path.relative_to(ROOT).as_posix()}")
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as opened:
        return [name for name in opened.namelist() if not name.endswith("/")]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    quiet = ("--quiet", "--no-deps", "--no-index", "--disable-pip-version-check")
    run("-m", "pip", "install", *quiet, "--target", str(target), str(wheel), cwd=target)
    return target


def run(*arguments: str, cwd: Path, path: Path | None = None) -> str:
    return run_program(sys.executable, *arguments, cwd=cwd, path=path)


def test_every_module_and_every_data_file_is_inside(names: list[str]) -> None:
    assert sources() - set(names) == set()


def test_nothing_else_is_inside(names: list[str]) -> None:
    inside = {name for name in names if not re.match(r"crossfade-[^/]+\.dist-info/", name)}
    assert inside - sources() == set()
    assert len(names) == len(set(names)), "a linked folder must not be packed twice"


def test_nothing_generic_lands_at_the_top_level(names: list[str]) -> None:
    version = crossfade.__version__
    assert {name.partition("/")[0] for name in names} == {
        "crossfade",
        f"crossfade-{version}.dist-info",
    }


def test_what_is_known_to_be_needed_at_run_time(names: list[str]) -> None:
    assert {
        "crossfade/py.typed",
        "crossfade/serving/wire/wire.binpb",
        "crossfade/serving/wire/open_inference.pyi",
        "crossfade/serving/cli/main.py",
        "crossfade/runtimes/fake.py",
        "crossfade/runtimes/isolated/automl-tabular.txt",
    } <= set(names)


def test_every_extra_that_an_error_names_can_be_installed(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        (name,) = [n for n in opened.namelist() if n.endswith(".dist-info/METADATA")]
        metadata = opened.read(name).decode()
    offered = set(re.findall(r"^Provides-Extra: (.+)$", metadata, re.MULTILINE))
    named = {entry.extra for entry in registry.BUILT_IN.values() if entry.extra} | {"gs", "s3"}
    named |= {"fade", "postgresql", "training", "mlflow"}
    assert named
    assert named <= offered, MissingExtra(min(named - offered), "somebody").message


def test_the_command_is_declared(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        (name,) = [n for n in opened.namelist() if n.endswith(".dist-info/entry_points.txt")]
        text = opened.read(name).decode()
    assert "crossfade = crossfade.serving.cli.main:main" in text


def test_it_runs_from_another_folder(installed: Path, tmp_path: Path) -> None:
    shown = run("-m", "crossfade", "--version", cwd=tmp_path, path=installed)
    assert crossfade.__version__ in shown


def test_it_is_the_installed_copy_that_runs(installed: Path, tmp_path: Path) -> None:
    program = (
        "import crossfade, crossfade.serving.app.server\n"
        "from crossfade.serving.wire import open_inference\n"
        "print(crossfade.__file__, open_inference.ModelInferRequest.DESCRIPTOR.file.name)"
    )
    place, proto = run("-c", program, cwd=tmp_path, path=installed).split()
    assert Path(place).is_relative_to(installed)
    assert proto == "open_inference.proto"


def test_the_folders_of_the_import_package_are_links_to_those_of_the_tree() -> None:
    for folder in FOLDERS:
        link = ROOT / "crossfade" / folder
        assert link.is_symlink()
        assert os.readlink(link) == f"../{folder}", "relative, so that a clone works"
        assert (ROOT / folder / "__init__.py").exists()
