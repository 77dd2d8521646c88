"""Models that are Python code: who may have it run, and what becomes of what it does."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from crossfade.runtimes import trust
from crossfade.runtimes.core.errors import CrossfadeError, Internal, InvalidArgument, LoadFailed
from crossfade.runtimes.core.model import Session, StreamingSession

Load = Callable[..., Session]
CODE = """
import dataclasses
import numpy as np
from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.runtimes.core.model import Signature, TensorSpec

@dataclasses.dataclass
class Settings:
    factor: int = 2

class Model:
    def __init__(self, artifact):
        self.settings = Settings(**artifact.options)
        x, y = (TensorSpec(n, "FP32", (-1, 3)) for n in "xy")
        self.signatures = {"serving_default": Signature.derive([x], [y])}

    def run(self, inputs, signature, outputs):
        x = inputs["x"]
        return {"y": RETURN}
"""
X = {"x": np.float32([[1, 2, 3]])}


@pytest.fixture
def trusted(tmp_path: Path) -> Iterator[Path]:
    """A folder whose code may be run; nothing may afterwards."""
    folder = tmp_path / "trusted"
    folder.mkdir(mode=0o755)
    trust.allow([folder])
    yield folder
    trust.allow([])


def write(folder: Path, code: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.py"
    path.write_text(code)
    path.chmod(0o644)
    return path


def returning(expression: str) -> str:
    return CODE.replace("RETURN", expression)


GOOD = returning("x * np.float32(self.settings.factor)")


def refused(load: Load, path: Path) -> str:
    with pytest.raises(LoadFailed) as failed:
        load("python", path)
    assert str(path.parent) not in failed.value.message
    return failed.value.message


def test_it_runs(trusted: Path, load: Load) -> None:
    session = load("python", write(trusted / "m" / "1", GOOD), factor=5)
    assert session.run(X, "serving_default", ())["y"].tolist() == [[5, 10, 15]]
    assert not isinstance(session, StreamingSession)
    before = [name for name in sys.modules if name.startswith("crossfade_model_")]
    session.close()
    after = [name for name in sys.modules if name.startswith("crossfade_model_")]
    assert len(after) == len(before) - 1


def test_nothing_runs_unless_allowed(tmp_path: Path, load: Load) -> None:
    trust.allow([])
    path = write(tmp_path / "m", f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert "runs no Python models: start the server with --allow-python" in refused(load, path)
    assert not (tmp_path / "ran").exists()


def test_only_in_the_folder_that_was_named(trusted: Path, load: Load) -> None:
    path = write(trusted.parent / "trusted_not" / "m", GOOD)
    assert "lies in no folder whose code" in refused(load, path)
    assert "lies in no folder" in refused(load, trusted / ".." / "trusted_not" / "m" / "model.py")


@pytest.mark.parametrize("linked", ["file", "folder"])
def test_a_link_out_of_it_is_followed_to_where_it_leads(
    trusted: Path, load: Load, linked: str
) -> None:
    outside = write(trusted.parent / "outside", GOOD)
    inside = trusted / "m" / "model.py"
    if linked == "file":
        inside.parent.mkdir()
        inside.symlink_to(outside)
    else:
        inside.parent.symlink_to(outside.parent)
    assert "lies in no folder" in refused(load, inside)


@pytest.mark.parametrize("what", ["file", "version", "root"])
@pytest.mark.parametrize("mode", [0o020, 0o002])
def test_nobody_else_may_be_able_to_change_it(
    trusted: Path, load: Load, what: str, mode: int
) -> None:
    path = write(trusted / "m" / "1", GOOD)
    changed = {"file": path, "version": path.parent, "root": trusted}[what]
    changed.chmod(changed.stat().st_mode | mode)
    assert "others may change" in refused(load, path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_it_must_be_our_own(trusted: Path, load: Load) -> None:
    path = write(trusted / "m", GOOD)
    os.chown(path, 65534, 65534)
    # Root may read it all the same; the file is not root's.
    assert "is another user's" in refused(load, path)


def test_what_was_copied_from_a_url_is_not_run(trusted: Path, load: Load) -> None:
    path = write(trusted / "m", GOOD)
    (path.parent / trust.COPIED_MARK).write_text("{}")
    assert "was copied from a URL" in refused(load, path)


def test_a_folder_that_is_none_cannot_be_allowed(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match="is not a folder"):
        trust.allow([tmp_path / "none"])


FAULTS = {
    "def": "cannot be run: SyntaxError, line 1",
    "1 / 0": "cannot be run: ZeroDivisionError",
    "import nowhere_at_all": "cannot be run: ModuleNotFoundError",
    "raise SystemExit(3)": "cannot be run: SystemExit",
    "": "has no class Model",
    "Model = 3": "has no class Model",
    "class TritonPythonModel: pass": "is for Triton's Python backend",
    "class Model: pass": "cannot make its Model: TypeError",
    "class Model:\n def __init__(self, a): 1 / 0": "cannot make its Model: ZeroDivisionError",
    "class Model:\n def __init__(self, a): pass": "has no method run",
    "class Model:\n def __init__(self, a): pass\n def run(self, *a): pass": "has no signatures",
    GOOD.replace("Signature.derive([x], [y])", "3"): "'serving_default' is no Signature",
    GOOD.replace('"FP32"', '"FLOAT"'): "no TensorSpec of a known dtype",
    "\0": "cannot be run: ",
}


@pytest.mark.parametrize("code", FAULTS, ids=range(len(FAULTS)))
def test_faults_of_the_file_are_told(trusted: Path, load: Load, code: str) -> None:
    assert FAULTS[code] in refused(load, write(trusted / "m", code))


ANSWERS = {
    "x.astype(np.float64)": "as float64; its signature says FP32",
    "x[:, :2]": "with shape [1, 2]; its signature says [-1, 3]",
    "x[0]": "with shape [3]; its signature says",
    "np.concatenate([x, x])": "returned 2 rows of 'y' for 1 rows",
    "x.tolist()": "as list, not numpy.ndarray",
}


@pytest.mark.parametrize("expression", ANSWERS)
def test_wrong_answers_are_told(trusted: Path, load: Load, expression: str) -> None:
    session = load("python", write(trusted / "m", returning(expression)))
    with pytest.raises(Internal) as failed:
        session.run(X, "serving_default", ())
    assert ANSWERS[expression] in failed.value.message


@pytest.mark.parametrize(
    ("returned", "reason"), [("{}", "did not return the output 'y'"), ("3", "returned int, not")]
)
def test_no_answer_is_told(trusted: Path, load: Load, returned: str, reason: str) -> None:
    code = GOOD.replace('{"y": x * np.float32(self.settings.factor)}', returned)
    session = load("python", write(trusted / "m", code))
    with pytest.raises(Internal, match=reason):
        session.run(X, "serving_default", ())


def test_strings_must_be_bytes(trusted: Path, load: Load) -> None:
    code = returning("np.array([['a', 'b', 'c']], object)").replace('"FP32"', '"BYTES"')
    session = load("python", write(trusted / "m", code))
    with pytest.raises(Internal, match="elements of 'y' that are not bytes"):
        session.run({"x": np.array([[b"a"] * 3], object)}, "serving_default", ())


@pytest.mark.parametrize("raised", ["KeyError('secret')", "SystemExit(3)", "exit('secret')"])
def test_what_it_raises_is_logged_and_not_told(
    trusted: Path, load: Load, raised: str, caplog: pytest.LogCaptureFixture
) -> None:
    code = GOOD.replace('x = inputs["x"]', f"raise {raised}")
    session = load("python", write(trusted / "m", code))
    with caplog.at_level(logging.ERROR), pytest.raises(Internal) as failed:
        session.run(X, "serving_default", ())
    assert "secret" not in failed.value.message
    (line,) = caplog.records
    error_id = line.message.rpartition(" ")[2]
    assert f"quote the id {error_id}" in failed.value.message
    assert line.exc_info


def test_our_own_errors_pass(trusted: Path, load: Load) -> None:
    code = GOOD.replace('x = inputs["x"]', 'raise InvalidArgument("x is too bright")')
    session = load("python", write(trusted / "m", code))
    with pytest.raises(InvalidArgument, match="x is too bright"):
        session.run(X, "serving_default", ())


def test_a_stream(trusted: Path, load: Load) -> None:
    code = GOOD + (
        "\n    def stream(self, inputs, signature, outputs):"
        "\n        for n in range(1, 4):"
        "\n            yield {'y': inputs['x'] * np.float32(n)}"
        "\n        raise ValueError"
    )
    session = load("python", write(trusted / "m", code))
    assert isinstance(session, StreamingSession)
    stream = session.stream(X, "serving_default", ())
    found = [float(next(stream)["y"][0, 0]) for _ in range(3)]
    assert found == [1, 2, 3]
    with pytest.raises(CrossfadeError, match="quote the id"):
        next(stream)


def test_close_is_called(trusted: Path, load: Load) -> None:
    ended = trusted / "ended"
    code = f"{GOOD}\n    def close(self):\n        open({str(ended)!r}, 'w').close()"
    load("python", write(trusted / "m", code)).close()
    assert ended.exists()
    shutil.rmtree(trusted)
