"""Environments are made whole or not at all, from packages that are pinned by hash."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from crossfade.runtimes.core.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    LoadFailed,
    NotFound,
    Unavailable,
)
from crossfade.runtimes.core.model import Artifact
from crossfade.runtimes.isolated import environments, runtime
from crossfade.serving.cli.main import main

NAME = "automl-tabular"
LISTS = Path(environments.__file__).parent


def script(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for uv that writes down its arguments and makes an interpreter."""
    tools = tmp_path / "tools"
    script(
        tools,
        "uv",
        f'echo "$@" >> {tmp_path}/said\n'
        "for folder; do :; done\n"
        f'[ "$1" = venv ] && mkdir -p "$folder/bin" && cp {tools}/python "$folder/bin/python"\n'
        "true",
    )
    # A link would lose the packages of the environment that it points into.
    script(tools, "python", f'exec {sys.executable} "$@"')
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    return tools


def test_every_package_is_pinned_by_hash() -> None:
    for known in environments.KNOWN.values():
        text = (LISTS / known.requirements).read_text()
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        assert len(lines) > 2
        for pin, digest in zip(lines[::2], lines[1::2], strict=True):
            assert re.fullmatch(r"[a-z0-9-]+==[0-9a-z.]+ \\", pin)
            assert re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}", digest)
        names = {line.partition("==")[0] for line in lines[::2]}
        assert {"numpy", "ml-dtypes"} <= names


@pytest.mark.usefixtures("uv")
def test_it_is_made_listed_and_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = ("--environments-dir", str(tmp_path / "envs"))
    assert main(["env", "create", NAME, *at]) == 0
    made = capsys.readouterr()
    assert Path(made.out.strip()) == tmp_path / "envs" / NAME / "bin" / "python"
    assert "installing the packages" in made.err
    said = (tmp_path / "said").read_text()
    assert "--require-hashes" in said
    assert "--no-deps" in said
    assert "--only-binary :all:" in said
    assert environments.interpreter(NAME, tmp_path / "envs").exists()
    assert main(["env", "list", *at]) == 0
    assert re.search(rf"{NAME} +there", capsys.readouterr().out)
    assert main(["env", "create", NAME, *at]) == 1
    assert "there already" in capsys.readouterr().err
    assert main(["env", "remove", NAME, *at]) == 0
    assert main(["env", "list", *at]) == 0
    assert re.search(rf"{NAME} +can be made", capsys.readouterr().out)
    assert list((tmp_path / "envs").iterdir()) == []
    assert main(["env", "remove", NAME, *at]) == 1


def test_one_that_fails_half_way_leaves_nothing(uv: Path, tmp_path: Path) -> None:
    script(uv, "uv", 'for folder; do :; done; [ "$1" = venv ] && mkdir -p "$folder/bin"')
    with pytest.raises(Unavailable):
        environments.create(NAME, tmp_path / "envs", lambda _: None)
    assert list((tmp_path / "envs").iterdir()) == []
    with pytest.raises(LoadFailed, match=r"crossfade env create automl-tabular"):
        environments.interpreter(NAME, tmp_path / "envs")


@pytest.mark.usefixtures("uv")
def test_one_that_does_not_work_is_not_kept(tmp_path: Path) -> None:
    script(
        tmp_path / "tools",
        "uv",
        'for f; do :; done; mkdir -p "$f/bin" 2>/dev/null\n'
        'ln -s /bin/false "$f/bin/python" 2>/dev/null; true',
    )
    with pytest.raises(Unavailable, match="does not work"):
        environments.create(NAME, tmp_path / "envs", lambda _: None)
    assert list((tmp_path / "envs").iterdir()) == []


def test_what_is_not_known_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=NAME):
        environments.create("nobody", tmp_path, lambda _: None)


def test_another_machine_cannot_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(FailedPrecondition, match="x86_64"):
        environments.create(NAME, tmp_path, lambda _: None)


@pytest.mark.usefixtures("uv")
def test_two_that_make_the_same_one_do_not_mix(tmp_path: Path) -> None:
    folder = tmp_path / "envs"

    def say(text: str) -> None:
        if text.startswith("installing"):
            (folder / NAME / "bin").mkdir(parents=True)  # somebody else was faster

    with pytest.raises(AlreadyExists):
        environments.create(NAME, folder, say)
    assert [p.name for p in folder.iterdir()] == [NAME]


@pytest.mark.parametrize("name", ["../x", "", "a/b", ".", "a\nb", "-x"])
def test_a_name_never_leaves_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(LoadFailed):
        environments.interpreter(name, tmp_path)
    with pytest.raises(InvalidArgument):
        environments.remove(name, tmp_path)
    assert tmp_path.exists()


def test_without_uv_or_the_right_python_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = dataclasses.replace(environments.KNOWN[NAME], python="3.99")
    monkeypatch.setattr(environments, "KNOWN", {NAME: known})
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FailedPrecondition, match=r"uv, or Python 3\.99"):
        environments.create(NAME, tmp_path / "envs", lambda _: None)


MAKE_MODEL = """
import importlib.util, sys
from pathlib import Path
import tensorflow as tf
(place,) = importlib.util.find_spec("struct2tensor").submodule_search_locations
ops = tf.load_op_library(str(Path(place) / "ops" / "_run_length_before_op.so"))
class Counts(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, name="x")])
    def __call__(self, x):
        return {"y": ops.run_length_before(x)}
module = Counts()
tf.saved_model.save(module, sys.argv[1], signatures=module.__call__)
"""


@pytest.mark.slow
def test_a_model_with_struct2tensors_ops_runs_in_its_environment(tmp_path: Path) -> None:
    """Of a graph that this TensorFlow cannot even load, with numpy 1.26 on the other side."""
    try:
        python = environments.interpreter(NAME)
    except LoadFailed as missing:
        pytest.skip(missing.message)
    subprocess.run([python, "-c", MAKE_MODEL, tmp_path / "model"], check=True, timeout=100)
    artifact = Artifact(tmp_path / "model", "model", 1)
    limits = runtime.Limits(memory_bytes=2 << 30)
    session = runtime.load("tensorflow_savedmodel", artifact, limits, python)
    try:
        counted = session.run({"x": np.array([7, 7, 8, 9, 9, 9])}, "serving_default", ())
        assert counted["y"].tolist() == [0, 1, 0, 0, 1, 2]
    finally:
        session.close()
    with pytest.raises(LoadFailed, match=NAME):
        runtime.load("tensorflow_savedmodel", artifact, runtime.Limits())
