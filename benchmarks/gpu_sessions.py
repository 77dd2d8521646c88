"""One process, one model, one GPU: what a run costs by each way of calling ONNX Runtime."""

from __future__ import annotations

import ctypes
import functools
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfade.benchmarks.gpu_memory import used_mib
from crossfade.benchmarks.models import cnn_inputs
from crossfade.runtimes import registry
from crossfade.runtimes.core.model import DEFAULT_SIGNATURE, Artifact, Session

Floats = npt.NDArray[np.float32]
Call = Callable[[], Any]
INPUT, OUTPUT = "pixels", "scores"
CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
SEARCHES = ("EXHAUSTIVE", "HEURISTIC", "DEFAULT")
ROWS = (1, 8, 32)
_locked: list[Floats] = []  # freed memory must not stay registered
SIZES = (1, 2, 3, 4, 8, 16, 32)
THREADS = (1, 2, 4, 8, 16)


def pixels(rows: int, seed: int = 1) -> Floats:
    """Pictures, FP32 [rows, 3, 224, 224]."""
    rng = np.random.default_rng(seed)
    return np.concatenate([cnn_inputs(rng)[INPUT].astype(np.float32) for _ in range(rows)])


def open_crossfade(path: Path, providers: Sequence[Any], threads: int = 1) -> Session:
    """The session that a server opens."""
    options = {"execution_providers": list(providers), "intra_op_threads": threads}
    artifact = Artifact(path, "cnn", 1, options=options)
    return registry.create("onnxruntime_onnx").load(artifact)


def open_bare(path: Path, provider: str, threads: int = 1, options: Mapping[str, str] = {}) -> Any:
    """ONNX Runtime without crossfade; the CPU's threads do not spin."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if provider == CUDA:
        onnxruntime.preload_dlls()
    session = onnxruntime.InferenceSession(
        str(path), settings, providers=[(provider, dict(options))]
    )
    if provider not in session.get_providers():
        raise RuntimeError(f"{provider} did not start")
    return session


def time_calls(call: Call, budget_s: float) -> float:
    """Median seconds of a call, of three calls at least."""
    times: list[float] = []
    end_s = time.perf_counter() + budget_s
    while len(times) < 3 or time.perf_counter() < end_s:
        times.append(_seconds(call))
    return statistics.median(times)


def ways(bare: Any, ours: Session, batch: Floats, device: str) -> dict[str, Call]:
    """Callables that run the batch on the device and return the scores, by name.

    ``run`` is the plain call; ``bound`` uses IO binding from the array as a message leaves it;
    ``pinned`` is that with the array in page-locked memory; ``resident`` has input and output on
    the GPU already, and so is the time without copies.
    """
    named: dict[str, Call] = {
        "run": lambda: _run(bare, batch),
        "session": lambda: ours.run({INPUT: batch}, DEFAULT_SIGNATURE, ())[OUTPUT],
        "bound": lambda: _bound(bare, batch),
    }
    if device == "cpu":
        return named
    locked = _page_locked(batch)
    return named | {"pinned": lambda: _bound(bare, locked), "resident": _resident(bare, batch)}


def _run(session: Any, batch: Floats) -> Floats:
    answer: Floats = session.run([OUTPUT], {INPUT: batch})[0]
    return answer


def _bound(session: Any, batch: Floats) -> Any:
    binding = session.io_binding()
    binding.bind_cpu_input(INPUT, batch)
    binding.bind_output(OUTPUT)
    session.run_with_iobinding(binding)
    return binding.copy_outputs_to_cpu()[0]


def _resident(session: Any, batch: Floats) -> Call:
    import onnxruntime

    value = onnxruntime.OrtValue.ortvalue_from_numpy(batch, "cuda", 0)
    binding = session.io_binding()
    binding.bind_ortvalue_input(INPUT, value)
    binding.bind_output(OUTPUT, "cuda", 0)

    def call() -> Any:
        session.run_with_iobinding(binding)
        return binding

    return call


def _page_locked(batch: Floats) -> Floats:
    """A copy that the GPU can fetch by itself; for the life of the process."""
    copy = batch.copy()
    runtime = ctypes.CDLL("libcudart.so.13")  # ONNX Runtime's libraries have loaded it
    status = runtime.cudaHostRegister(
        ctypes.c_void_p(copy.ctypes.data), ctypes.c_size_t(copy.nbytes), 0
    )
    if status:
        raise RuntimeError(f"cudaHostRegister: error {status}")
    _locked.append(copy)
    return copy


def scores(answer: Any) -> Floats:
    """The scores in the host's memory, whatever a way returned."""
    return np.asarray(answer if isinstance(answer, np.ndarray) else answer.copy_outputs_to_cpu()[0])


def relative_error(found: Floats, expected: Floats) -> float:
    """The largest difference, relative to the largest score."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def measure_ways(
    path: Path, device: str, sizes: Sequence[int], *, repetitions: int, budget_s: float
) -> dict[str, Any]:
    """Milliseconds by rows and way, and how far the answers lie from the CPU's.

    The ways take turns in every repetition; each figure is ``[median, least, most]`` of the
    repetitions' medians.
    """
    result: dict[str, Any] = {}
    cores = len(os.sched_getaffinity(0))
    cpu_one, cpu_all = open_bare(path, CPU), open_bare(path, CPU, cores)
    provider = CPU if device == "cpu" else CUDA
    bare, ours = open_bare(path, provider), open_crossfade(path, [device])
    exact = open_bare(path, provider, options={} if device == "cpu" else {"use_tf32": "0"})
    for count in sizes:
        batch = pixels(count)
        calls = ways(bare, ours, batch, device) | {
            "cpu_1_thread": functools.partial(_run, cpu_one, batch),
            "cpu_all_threads": functools.partial(_run, cpu_all, batch),
        }
        expected = _run(cpu_one, batch)
        errors = {name: relative_error(scores(call()), expected) for name, call in calls.items()}
        errors["without_tf32"] = relative_error(_run(exact, batch), expected)
        times: dict[str, list[float]] = {name: [] for name in calls}
        for repetition in range(repetitions):
            turn = repetition % len(calls)
            for name in (*list(calls)[turn:], *list(calls)[:turn]):
                for _ in range(0 if name.startswith("cpu") else 3):
                    calls[name]()  # clocks and caches are another way's
                times[name].append(1000 * time_calls(calls[name], budget_s))
        result[str(count)] = {
            "ms": {n: [statistics.median(t), min(t), max(t)] for n, t in times.items()},
            "relative_error": errors,
        }
    return result


def measure_sizes(path: Path, budget_s: float) -> dict[str, Any]:
    """What a change of the batch size costs, by cuDNN's way of choosing its algorithms.

    ``first_ms`` is the first run of each size, ``again_ms`` the first of a second round over the
    same sizes, ``steady_ms`` the median while the size stays.
    """
    result: dict[str, Any] = {}
    for search in SEARCHES:
        session = open_bare(path, CUDA, options={"cudnn_conv_algo_search": search})
        batches = {rows: pixels(rows) for rows in SIZES}
        first, again = (
            {
                str(rows): 1000 * _seconds(functools.partial(_run, session, batch))
                for rows, batch in turn
            }
            for turn in (batches.items(), batches.items())
        )
        steady = {
            str(rows): 1000 * time_calls(functools.partial(_run, session, batches[rows]), budget_s)
            for rows in ROWS
        }
        result[search] = {"first_ms": first, "again_ms": again, "steady_ms": steady}
        del session
    return result


def _seconds(call: Call) -> float:
    start_s = time.perf_counter()
    call()
    return time.perf_counter() - start_s


def measure_threads(path: Path, device: str, repetitions: int, window_s: float) -> dict[str, Any]:
    """Runs/s of one row on one session by threads, ``[median, least, most]`` of the repetitions."""
    session = open_crossfade(path, [device])
    batch = pixels(1)
    session.run({INPUT: batch}, DEFAULT_SIGNATURE, ())

    def client(end_s: float) -> int:
        count = 0
        while time.perf_counter() < end_s:
            session.run({INPUT: batch}, DEFAULT_SIGNATURE, ())
            count += 1
        return count

    found: dict[int, list[float]] = {count: [] for count in THREADS}
    with ThreadPoolExecutor(max(THREADS)) as pool:
        for _ in range(repetitions):
            for count in THREADS:
                ends_s = [time.perf_counter() + window_s] * count
                found[count].append(sum(pool.map(client, ends_s)) / window_s)
    return {str(n): [statistics.median(v), min(v), max(v)] for n, v in found.items()}


def measure_memory(path: Path, repetitions: int) -> Mapping[str, Any]:
    """MiB in use on the GPU: loaded, after a run of 32 rows, closed, time and again."""
    rounds = []
    batch = pixels(32)
    before = used_mib()
    for _ in range(repetitions):
        session = open_crossfade(path, ["cuda"])
        loaded = used_mib()
        session.run({INPUT: batch}, DEFAULT_SIGNATURE, ())
        ran = used_mib()
        session.close()
        del session
        rounds.append({"loaded": loaded, "ran": ran, "closed": used_mib()})
    return {"before": before, "rounds": rounds}
