"""The fake platform does what its file says, and says what is wrong with the file."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from crossfade.runtimes import registry
from crossfade.runtimes.core import errors
from crossfade.runtimes.core.model import Artifact, Session, StreamingSession, TensorSpec

Loads = Callable[[str], Session]
INPUT = "inputs: [{name: x, dtype: FP32, shape: [-1, 2]}]\n"


@pytest.fixture
def loads(tmp_path: Path, load: Callable[..., Session]) -> Loads:
    def do(text: str) -> Session:
        (tmp_path / "fake.yaml").write_text(text)
        return load("fake", tmp_path / "fake.yaml")

    return do


def run(session: Session, *rows: list[float]) -> dict[str, np.ndarray]:
    return dict(session.run({"x": np.float32(rows)}, "serving_default", ()))


def test_echo_gives_inputs_back_under_their_own_names(loads: Loads) -> None:
    session = loads(INPUT)
    signature = session.signatures["serving_default"]
    assert signature.inputs == signature.outputs == (TensorSpec("x", "FP32", (-1, 2)),)
    assert signature.batched
    assert run(session, [1, 2])["x"].tolist() == [[1, 2]]


def test_a_value_tells_which_version_answered(loads: Loads) -> None:
    session = loads(
        "behaviour: constant\n"
        + INPUT
        + "outputs: [{name: version, dtype: INT64, value: 3}, {name: y, from: x},"
        " {name: label, dtype: BYTES, value: rose, shape: [-1, 1]}]"
    )
    assert session.signatures["serving_default"].batched
    answer = run(session, [1, 2], [3, 4])
    assert list(answer) == ["version", "y", "label"]
    assert answer["version"].tolist() == [3, 3]
    assert answer["version"].dtype == np.int64
    assert answer["label"].tolist() == [[b"rose"]] * 2


def test_sleep(loads: Loads) -> None:
    session = loads("behaviour: sleep\ndelay_ms: 30\n" + INPUT)
    began = time.perf_counter()
    assert run(session, [1, 2])["x"].tolist() == [[1, 2]]
    assert time.perf_counter() - began >= 0.03


@pytest.mark.parametrize("code", [code.value for code in errors.Code])
def test_fails_with_any_code(loads: Loads, code: str) -> None:
    session = loads(f"behaviour: fail\n{INPUT}fail: {{code: {code}, message: no luck}}")
    with pytest.raises(errors.CrossfadeError, match="no luck") as failed:
        run(session, [1, 2])
    assert failed.value.code.value == code


def test_one_bad_row_fails_the_stack_and_good_rows_alone_pass(loads: Loads) -> None:
    session = loads(f"behaviour: fail\n{INPUT}fail: {{when: {{input: x, value: 13}}}}")
    assert run(session, [1, 2])["x"].tolist() == [[1, 2]]
    for rows in ([[13, 0]], [[1, 2], [13, 0]]):
        with pytest.raises(errors.Internal, match="the fake fails, as it was told to"):
            run(session, *rows)


def test_a_trigger_in_bytes(loads: Loads) -> None:
    session = loads(
        "behaviour: fail\ninputs: [{name: x, dtype: BYTES, shape: [-1]}]\n"
        "fail: {when: {input: x, value: bad}}"
    )
    x = np.array([b"good"], dtype=object)
    assert session.run({"x": x}, "serving_default", ())["x"].tolist() == [b"good"]
    with pytest.raises(errors.Internal):
        session.run({"x": np.array([b"good", b"bad"], dtype=object)}, "serving_default", ())


def test_fails_to_load(loads: Loads) -> None:
    with pytest.raises(errors.LoadFailed, match="no luck"):
        loads(f"behaviour: fail\n{INPUT}fail: {{at: load, message: no luck}}")


CRASH = """
import sys
from pathlib import Path
import numpy as np
from crossfade.runtimes import registry
from crossfade.runtimes.core.model import Artifact
session = registry.create("fake").load(Artifact(Path(sys.argv[1]), "model", 1))
print("loaded", flush=True)
session.run({"x": np.ones((1, 2), np.float32)}, "serving_default", ())
"""


@pytest.mark.parametrize(
    ("at", "how", "status"), [("load", "exit", 70), ("run", "exit", 70), ("run", "abort", -6)]
)
def test_crashes_end_the_process(tmp_path: Path, at: str, how: str, status: int) -> None:
    path = tmp_path / "fake.yaml"
    path.write_text(f"behaviour: crash\n{INPUT}crash: {{at: {at}, how: {how}}}")
    done = subprocess.run(
        [sys.executable, "-c", CRASH, path], capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr
    assert done.stdout == ("" if at == "load" else "loaded\n")


def test_estimate_is_what_the_file_says(tmp_path: Path) -> None:
    (tmp_path / "fake.yaml").write_text(INPUT + "memory_bytes: 12345")
    artifact = Artifact(tmp_path / "fake.yaml", "model", 1)
    assert registry.create("fake").estimate(artifact) == 12345


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("behavior: echo\n" + INPUT, "'behavior' is unknown; did you mean 'behaviour'?"),
        ("inputs: [{name: x, dtyp: FP32}]", "'inputs.0.dtyp' is unknown; did you mean 'dtype'?"),
        ("inputs: [{name: x, dtype: FLOAT}]", "'inputs.0.dtype': unknown dtype; one of BOOL"),
        ("behaviour: echo", "'inputs': field required"),
        (INPUT + "outputs: [{name: y}]", "'outputs.0': give either from or value"),
        (INPUT + "outputs: [{name: y, from: z}]", "fake.yaml: no input is called z"),
        (INPUT + "fail: {code: OOPS}", "'fail.code': unknown code; one of INVALID_ARGUMENT"),
        ("behaviour: constant\n" + INPUT, "constant needs an output with a value"),
        ("behaviour: sleep\n" + INPUT, "sleep needs delay_ms"),
        ("- a list", "must be a mapping"),
        ("a: [", "fake.yaml is not YAML"),
    ],
)
def test_says_what_is_wrong_with_the_file(loads: Loads, text: str, says: str) -> None:
    with pytest.raises(errors.LoadFailed) as failed:
        loads(text)
    assert says in failed.value.message


def test_a_delay_may_be_for_some_inputs_only(loads: Loads) -> None:
    session = loads(f"delay_ms: 300\n{INPUT}delay_when: {{input: x, value: 13}}")
    began_s = time.monotonic()
    run(session, [1, 2])
    assert time.monotonic() - began_s < 0.25
    run(session, [1, 2], [13, 2])
    assert time.monotonic() - began_s >= 0.3
    with pytest.raises(errors.LoadFailed, match="no input is called z"):
        loads(f"delay_ms: 300\n{INPUT}delay_when: {{input: z, value: 13}}")


def test_it_repeats_and_then_fails(loads: Loads) -> None:
    session = loads(
        "behaviour: fail\nfail: {code: UNAVAILABLE, message: busy}\nrepeat: n\n"
        "inputs: [{name: x, shape: [2]}, {name: n, dtype: INT32, shape: [1]}]\n"
        "outputs: [{name: y, from: x}]"
    )
    assert isinstance(session, StreamingSession)
    inputs = {"x": np.float32([1, 2]), "n": np.int32([2])}
    answers = session.stream(inputs, "serving_default", ())
    assert [next(answers)["y"].tolist() for _ in range(2)] == [[1, 2]] * 2
    with pytest.raises(errors.Unavailable, match="busy"):
        next(answers)


def test_only_what_repeats_streams(loads: Loads) -> None:
    assert not isinstance(loads(INPUT), StreamingSession)
    with pytest.raises(errors.LoadFailed, match="no input is called z"):
        loads(INPUT + "repeat: z")
