"""A worker may crash, hang, or eat memory: its callers are told, and it is started again."""

from __future__ import annotations

import concurrent.futures
import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from crossfade.runtimes import deadline
from crossfade.runtimes.core.errors import (
    CrossfadeError,
    DeadlineExceeded,
    InvalidArgument,
    LoadFailed,
    MissingExtra,
    ResourceExhausted,
    Unavailable,
)
from crossfade.runtimes.core.model import Artifact
from crossfade.runtimes.isolated import runtime
from crossfade.runtimes.isolated.session import IsolatedSession
from tests.runtimes import onnx_models
from tests.runtimes.isolated.conftest import Fake, children, open_descriptors, wait_until

NAME = "serving_default"
BAD = {"x": np.array([13], np.float32)}
GOOD = {"x": np.array([1, 2], np.float32)}


def answers(session: IsolatedSession) -> bool:
    try:
        return session.run(GOOD, NAME, ())["x"].tolist() == [1, 2]
    except Unavailable as error:
        if not error.retry_after_s:
            raise AssertionError("it does not say when to try again") from error
        return False


@pytest.mark.parametrize("how", ["exit", "abort", "segfault"])
def test_a_crash_costs_the_request_and_the_worker_comes_back(fake: Fake, how: str) -> None:
    session = fake(behaviour="crash", crash={"how": how, "when": {"input": "x", "value": 13}})
    assert answers(session)
    pid = session.pid
    with pytest.raises(Unavailable) as told:
        session.run(BAD, NAME, ())
    assert told.value.retry_after_s is not None
    assert "worker process ended" in told.value.message
    wait_until(lambda: answers(session))
    assert session.restarts == 1
    assert session.pid != pid


def test_all_requests_in_flight_are_told(fake: Fake) -> None:
    session = fake(instances=4, behaviour="sleep", delay_ms=60_000)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(session.run, GOOD, NAME, ()) for _ in range(4)]
        wait_until(lambda: not any(run.done() for run in runs))
        time.sleep(0.1)
        assert session.pid is not None
        os.kill(session.pid, signal.SIGKILL)
        for run in runs:
            assert isinstance(run.exception(20), Unavailable)


def test_one_run_does_not_wait_for_another(fake: Fake) -> None:
    session = fake(
        instances=2, behaviour="sleep", delay_ms=60_000, delay_when={"input": "x", "value": 13}
    )
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        long = pool.submit(session.run, BAD, NAME, ())
        for _ in range(20):
            assert answers(session)
        assert not long.done()
        assert session.pid is not None
        os.kill(session.pid, signal.SIGKILL)
        assert isinstance(long.exception(20), Unavailable)


def test_a_deadline_is_kept_and_the_worker_goes_on(fake: Fake) -> None:
    session = fake(
        behaviour="sleep", delay_ms=500, delay_when={"input": "x", "value": 13}, instances=1
    )
    pid = session.pid

    def late() -> None:
        deadline.of_run.set(time.monotonic() + 0.1)
        session.run(BAD, NAME, ())

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert isinstance(pool.submit(late).exception(20), DeadlineExceeded)
    # The late answer is nobody's: the next request gets its own.
    assert session.run(GOOD, NAME, ())["x"].tolist() == [1, 2]
    assert session.pid == pid
    assert session.restarts == 0


def test_a_run_that_hangs_ends_the_worker_where_that_is_wanted(fake: Fake) -> None:
    session = fake(
        limits={"run_timeout_s": 0.3},
        behaviour="sleep",
        delay_ms=60_000,
        delay_when={"input": "x", "value": 13},
    )
    with pytest.raises(Unavailable, match=r"more than 0\.3 s"):
        session.run(BAD, NAME, ())
    wait_until(lambda: answers(session))


def test_a_load_that_hangs_fails(fake: Fake) -> None:
    before = len(children())
    with pytest.raises(LoadFailed, match=r"more than 1\.5 s"):
        fake(limits={"load_timeout_s": 1.5}, behaviour="crash", crash={"at": "load", "how": "hang"})
    wait_until(lambda: len(children()) == before)


@pytest.mark.parametrize(
    ("how", "said"), [("exit", "code 70"), ("abort", "SIGABRT"), ("segfault", "SIGSEGV")]
)
def test_a_crash_while_loading_is_a_failed_load(fake: Fake, how: str, said: str) -> None:
    with pytest.raises(LoadFailed, match=said):
        fake(behaviour="crash", crash={"at": "load", "how": how})


def test_errors_of_the_model_keep_their_kind(fake: Fake) -> None:
    when = {"input": "x", "value": 13}
    session = fake(
        behaviour="fail", fail={"code": "INVALID_ARGUMENT", "message": "no", "when": when}
    )
    with pytest.raises(InvalidArgument, match="no"):
        session.run(BAD, NAME, ())
    assert answers(session)


def test_what_loading_says_is_kept(fake: Fake) -> None:
    with pytest.raises(LoadFailed, match="gone bad"):
        fake(behaviour="fail", fail={"at": "load", "message": "gone bad"})


def test_memory_above_the_limit_is_refused_and_the_worker_stays(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(onnx_models.expand())
    limits = runtime.Limits(memory_bytes=1 << 30)
    session = runtime.load("onnxruntime_onnx", Artifact(file, "model", 1), limits)
    try:
        for _ in range(3):
            with pytest.raises(ResourceExhausted):
                session.run({"n": np.array([1 << 15, 1 << 15])}, NAME, ())
            assert session.run({"n": np.array([2, 3])}, NAME, ())["y"].shape == (2, 3)
        assert session.restarts == 0
    finally:
        session.close()


def test_a_failing_extra_is_still_told_as_one(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(onnx_models.affine())
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    site = next(bare.glob("lib/*/site-packages"))
    for package in ("numpy", "ml_dtypes"):
        where = Path(sys.modules[package].__file__ or "").parent
        (site / package).symlink_to(where)
        for beside in where.parent.glob(f"{package}.libs"):
            (site / beside.name).symlink_to(beside)
    artifact = Artifact(tmp_path / "model.onnx", "model", 1)
    with pytest.raises(MissingExtra) as told:
        runtime.load("onnxruntime_onnx", artifact, runtime.Limits(), bare / "bin" / "python")
    assert told.value.extra == "onnx"
    assert "crossfade[onnx]" in told.value.message


def test_an_interpreter_that_is_not_there_fails_the_load(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(onnx_models.affine())
    artifact = Artifact(tmp_path / "model.onnx", "model", 1)
    with pytest.raises(LoadFailed, match="did not start"):
        runtime.load("onnxruntime_onnx", artifact, runtime.Limits(), tmp_path / "python")


def test_a_wrong_option_is_said_by_the_server(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(onnx_models.affine())
    artifact = Artifact(tmp_path / "model.onnx", "model", 1, 1, {"intra_op_thread": 2})
    with pytest.raises(LoadFailed, match="intra_op_threads"):
        runtime.load("onnxruntime_onnx", artifact, runtime.Limits())


def test_a_model_that_changed_under_it_is_not_served_as_the_old_one(fake: Fake) -> None:
    session = fake()
    other = {"inputs": [{"name": "z", "dtype": "INT64", "shape": [-1]}]}
    assert session.pid is not None
    fake_file = Path(session._task.artifact.path)
    fake_file.write_text(str(other))
    os.kill(session.pid, signal.SIGKILL)
    wait_until(lambda: session.restarts >= 2)
    assert not session.up
    with pytest.raises(Unavailable):
        session.run(GOOD, NAME, ())


def test_what_a_worker_prints_is_logged(fake: Fake, caplog: pytest.LogCaptureFixture) -> None:
    session = fake(behaviour="crash", crash={"how": "abort", "when": {"input": "x", "value": 13}})
    with caplog.at_level(logging.INFO):
        with pytest.raises(Unavailable):
            session.run(BAD, NAME, ())
        wait_until(lambda: "Aborted" in caplog.text)
    assert all("\n" not in record.getMessage() for record in caplog.records)


def test_nothing_is_left_of_workers_that_crashed_or_were_closed(fake: Fake) -> None:
    others = set(children())  # of tests before this one
    kill = {"how": "abort", "when": {"input": "x", "value": 13}}
    fake(behaviour="crash", crash=kill).close()
    gc.collect()
    wait_until(lambda: set(children()) <= others)
    before, threads = open_descriptors(), threading.active_count()
    for _ in range(3):
        session = fake(instances=2, behaviour="crash", crash=kill)
        with pytest.raises(Unavailable):
            session.run(BAD, NAME, ())
        wait_until(lambda s=session: answers(s))  # type: ignore[misc]
        session.close()
    wait_until(lambda: set(children()) <= others)
    wait_until(lambda: threading.active_count() <= threads)
    assert open_descriptors() <= before
    assert not list(Path("/dev/shm").glob("*crossfade*"))


PARENT = """
import sys, time
from pathlib import Path
from crossfade.runtimes.core.model import Artifact
from crossfade.runtimes.isolated import runtime
session = runtime.load("fake", Artifact(Path(sys.argv[1]), "m", 1, 2), runtime.Limits())
print(session.pid, flush=True)
time.sleep(600)
"""


def test_a_worker_dies_with_its_server(tmp_path: Path) -> None:
    file = tmp_path / "fake.yaml"
    file.write_text("inputs: [{name: x}]")
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(file)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert psutil.pid_exists(pid)
        parent.kill()
        wait_until(lambda: _is_over(pid))
    finally:
        parent.kill()
        parent.wait()
        assert parent.stdout is not None
        parent.stdout.close()


def _is_over(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE  # its new parent's to reap
    except psutil.NoSuchProcess:
        return True


def test_closing_while_it_hangs_ends_it(fake: Fake) -> None:
    session = fake(behaviour="sleep", delay_ms=60_000)
    failures: list[CrossfadeError] = []

    def run() -> None:
        try:
            session.run(GOOD, NAME, ())
        except CrossfadeError as error:
            failures.append(error)

    caller = threading.Thread(target=run)
    caller.start()
    time.sleep(0.2)
    session.close()
    caller.join(20)
    assert [type(error) for error in failures] == [Unavailable]
