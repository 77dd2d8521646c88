"""What every runtime must do, whatever it wraps."""

from __future__ import annotations

import concurrent.futures
import gc
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from crossfade.runtimes.core.dtypes import NUMPY
from crossfade.runtimes.core.errors import CrossfadeError, LoadFailed
from crossfade.runtimes.core.model import Artifact, Session, Tensors
from tests.runtimes.contract import PARAMETERS, Case


@pytest.fixture(scope="module", params=PARAMETERS)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    if importlib.util.find_spec(found.needs) is None:
        pytest.skip(f"{found.needs} is not installed")
    return found


@pytest.fixture(scope="module")
def folder(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("secret place")
    case.build(made)
    return made


@pytest.fixture(scope="module")
def session(case: Case, folder: Path) -> Iterator[Session]:
    loaded = case.load(folder, instances=2)
    yield loaded
    loaded.close()


def same(got: Tensors, expected: Tensors) -> None:
    assert list(got) == list(expected)
    for name, array in expected.items():
        assert isinstance(got[name], np.ndarray)
        assert got[name].dtype == array.dtype
        assert got[name].shape == array.shape
        if array.dtype == object:
            assert got[name].tolist() == array.tolist()
        else:
            np.testing.assert_allclose(got[name], array, rtol=1e-6)


def expected(case: Case, session: Session, inputs: Tensors) -> dict[str, np.ndarray]:
    answer = case.answer(inputs)
    return {spec.name: answer[spec.name] for spec in session.signatures[case.signature].outputs}


def test_describes_itself(case: Case, session: Session) -> None:
    assert isinstance(session, Session)
    assert case.signature in session.signatures
    for signature in session.signatures.values():
        assert signature.inputs
        assert signature.outputs
        for spec in (*signature.inputs, *signature.outputs):
            assert spec.dtype in NUMPY
            assert spec.shape is None or all(size >= -1 for size in spec.shape)
    signature = session.signatures[case.signature]
    for spec in signature.inputs:
        array = case.inputs(np.random.default_rng(0), 1)[spec.name]
        assert array.dtype == NUMPY[spec.dtype]


def test_answers_what_was_asked_for_in_that_order(case: Case, session: Session) -> None:
    inputs = case.inputs(np.random.default_rng(1), 2)
    whole = expected(case, session, inputs)
    same(session.run(inputs, case.signature, ()), whole)
    for names in (list(whole), list(reversed(whole)), *([name] for name in whole)):
        got = session.run(inputs, case.signature, tuple(names))
        same(got, {name: whole[name] for name in names})


def test_many_threads_get_their_own_answers(case: Case, session: Session) -> None:
    def client(number: int) -> None:
        random = np.random.default_rng(number)
        for _ in range(15):
            inputs = case.inputs(random, int(random.integers(1, 4)))
            same(session.run(inputs, case.signature, ()), expected(case, session, inputs))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(client, number) for number in range(8)]:
            done.result()


def test_leaves_inputs_alone_and_gives_results_away(case: Case, session: Session) -> None:
    inputs = case.inputs(np.random.default_rng(2), 2)
    before = {name: array.copy() for name, array in inputs.items()}
    for array in inputs.values():
        array.flags.writeable = False
    first = session.run(inputs, case.signature, ())
    kept = {name: array.copy() for name, array in first.items()}
    second = session.run(case.inputs(np.random.default_rng(3), 2), case.signature, ())
    for array in second.values():
        array[...] = array.reshape(-1)[0]
    same(first, kept)
    same(inputs, before)
    for array in inputs.values():
        assert not any(np.shares_memory(array, result) for result in first.values())


def test_takes_arrays_that_are_views(case: Case, session: Session) -> None:
    inputs = case.inputs(np.random.default_rng(4), 4)
    views = {name: array[::2, ::-1] for name, array in inputs.items()}
    copies = {name: np.ascontiguousarray(view) for name, view in views.items()}
    same(session.run(views, case.signature, ()), expected(case, session, copies))


def test_stacked_rows_answer_as_rows_alone(case: Case, session: Session) -> None:
    if not session.signatures[case.signature].batched:
        pytest.skip("this signature is not batched")
    inputs = case.inputs(np.random.default_rng(5), 5)
    stacked = session.run(inputs, case.signature, ())
    for row in range(5):
        alone = session.run(
            {name: array[row : row + 1] for name, array in inputs.items()}, case.signature, ()
        )
        same({name: array[row : row + 1] for name, array in stacked.items()}, alone)


def _slips(case: Case) -> dict[str, tuple[dict[str, np.ndarray], str, tuple[str, ...]]]:
    good = case.inputs(np.random.default_rng(6), 2)
    name, array = next(iter(good.items()))

    def with_first(changed: np.ndarray) -> dict[str, np.ndarray]:
        return {**good, name: changed}

    return {
        "wider rows": (with_first(np.concatenate([array, array], axis=1)), case.signature, ()),
        "rank": (with_first(array[0]), case.signature, ()),
        "higher rank": (with_first(array[None]), case.signature, ()),
        "scalar": (with_first(array[0, 0:1].reshape(())), case.signature, ()),
        "missing": ({}, case.signature, ()),
        "unknown input": ({**good, "nobody": array}, case.signature, ()),
        "unknown output": (good, case.signature, ("nobody",)),
        "unknown signature": (good, "nobody", ()),
        "complex": (with_first(np.ones((2, array.shape[1]), np.complex64)), case.signature, ()),
    }


def test_what_slips_through_is_one_of_our_errors(
    case: Case,
    session: Session,
    folder: Path,
    assert_clean: Callable[[CrossfadeError, Path], None],
) -> None:
    noticed = {}
    for what, (inputs, signature, outputs) in _slips(case).items():
        try:
            session.run(inputs, signature, outputs)
        except CrossfadeError as error:
            noticed[what] = error
            assert_clean(error, folder)
        good = case.inputs(np.random.default_rng(7), 1)
        same(session.run(good, case.signature, ()), expected(case, session, good))
    assert {"missing", "unknown output", "unknown signature"} <= noticed.keys()
    if case.checks_shapes:
        assert {"wider rows", "rank", "higher rank", "scalar"} <= noticed.keys()


@pytest.mark.parametrize("damage", ["empty", "garbage", "half", "gone"])
def test_a_damaged_file_fails_to_load_with_a_reason(
    case: Case,
    folder: Path,
    tmp_path: Path,
    damage: str,
    assert_clean: Callable[[CrossfadeError, Path], None],
) -> None:
    broken = tmp_path / "another secret"
    shutil.copytree(folder, broken)
    file = broken / case.damages
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        damaged = {
            "empty": b"",
            "garbage": b"\xff\x00[}" * 99,
            "half": content[: len(content) // 2],
        }
        file.write_bytes(damaged[damage])
    with pytest.raises(LoadFailed) as failed:
        case.load(broken)
    assert_clean(failed.value, broken)
    assert "secret" not in failed.value.message


def test_weights_fit_the_estimate_and_go_with_the_session(
    case: Case, folder: Path, tmp_path: Path
) -> None:
    if case.heavy is None:
        pytest.skip("this runtime holds no weights")
    case.heavy(tmp_path)
    process = psutil.Process()
    inputs = {"x": np.ones((4, 256), np.float32)}
    case.load(folder).close()  # the library itself
    gc.collect()
    closed = []
    for _ in range(8):
        before = process.memory_info().rss
        session = case.load(tmp_path)
        session.run(inputs, "serving_default", ())
        used = process.memory_info().rss - before
        runtime_estimate = _estimate(case, tmp_path)
        session.close()
        del session
        closed.append(process.memory_info().rss)
        assert used <= runtime_estimate
    # An allocator holds on to a copy or two of the 16 MB for a while, a leak to all of them.
    grown = min(closed[-3:]) - min(closed[:3])
    assert grown < 24 << 20, "closing does not give the weights back"


def _estimate(case: Case, folder: Path) -> int:
    from crossfade.runtimes import registry

    return registry.create(case.platform).estimate(Artifact(folder / case.opens, "model", 1))


def test_no_library_is_imported_before_a_model_needs_it() -> None:
    code = """
import importlib, sys
from crossfade.runtimes import registry
for platform, entry in registry.BUILT_IN.items():
    registry.create(platform)
heavy = {"onnxruntime", "onnx", "tensorflow", "ai_edge_litert", "keras", "torch"} & set(sys.modules)
sys.exit(f"imported: {heavy}" if heavy else 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False
    )
    assert done.returncode == 0, done.stderr
