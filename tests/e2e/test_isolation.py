"""Models in worker processes behind a real server: crashes, memory, metrics, the list of models."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton
import yaml
from tritonclient.utils import InferenceServerException

from tests.conftest import ServerProcess

Serve = Callable[..., ServerProcess]
CRASH = {"behaviour": "crash", "crash": {"how": "segfault", "when": {"input": "x", "value": 13}}}


def fake(models: Path, name: str, config: dict[str, Any] | None = None, **keys: Any) -> None:
    folder = models / name / "1"
    folder.mkdir(parents=True)
    content = {"inputs": [{"name": "x", "dtype": "FP32", "shape": [-1]}], **keys}
    (folder / "fake.yaml").write_text(yaml.safe_dump(content))
    (models / name / "model.yaml").write_text(yaml.safe_dump(config or {}))


@contextlib.contextmanager
def asking(server: ServerProcess) -> Iterator[Callable[..., list[float]]]:
    with triton.InferenceServerClient(server.grpc) as client:

        def ask(name: str, value: float = 1.0, **options: Any) -> list[float]:
            tensor = triton.InferInput("x", [1], "FP32")
            tensor.set_data_from_numpy(np.array([value], np.float32))
            answer = client.infer(name, [tensor], **options).as_numpy("x")
            found: list[float] = answer.tolist()
            return found

        yield ask


def metrics(server: ServerProcess) -> str:
    with urllib.request.urlopen(f"http://{server.metrics}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
        return text


def wait_until(condition: Callable[[], bool], patience_s: float = 60.0) -> None:
    until_s = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < until_s, "it did not come to pass"
        time.sleep(0.02)


def workers(server: ServerProcess) -> list[int]:
    return [child.pid for child in psutil.Process(server.process.pid).children(recursive=True)]


def test_a_crash_is_unavailable_and_only_for_its_model(serve: Serve, tmp_path: Path) -> None:
    fake(tmp_path, "frail", {"isolation": "process", "instances": 2}, **CRASH)
    fake(tmp_path, "steady")
    server = serve("--model-repository", tmp_path)
    with asking(server) as ask:
        assert ask("frail") == [1.0]
        with pytest.raises(InferenceServerException) as told:
            ask("frail", 13.0)
        assert told.value.status() == "StatusCode.UNAVAILABLE"
        assert "worker process ended" in told.value.message()
        assert ask("steady") == [1.0]

        def is_back() -> bool:
            try:
                return ask("frail") == [1.0]
            except InferenceServerException as error:
                if error.status() != "StatusCode.UNAVAILABLE":
                    raise
                return False

        wait_until(is_back)
    text = metrics(server)
    assert 'crossfade_worker_restarts_total{model="frail",version="1"} 1.0' in text
    assert 'crossfade_worker_up{model="frail",version="1"} 1.0' in text
    found = re.search(r'crossfade_worker_resident_bytes\{model="frail".*?\} (\S+)', text)
    assert found
    assert float(found[1]) > 5e6
    assert 'crossfade_worker_up{model="steady"' not in text
    line = server.wait_for("worker process is started again", model="frail")
    assert "SIGSEGV" in line["reason"]


def test_http_says_when_to_try_again(serve: Serve, tmp_path: Path) -> None:
    fake(tmp_path, "frail", {"isolation": "process"}, **CRASH)
    server = serve("--model-repository", tmp_path)
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [13]}]}
    request = urllib.request.Request(
        f"http://{server.http}/v2/models/frail/infer", json.dumps(body).encode()
    )
    with pytest.raises(urllib.error.HTTPError) as told:
        urllib.request.urlopen(request, timeout=30)
    with told.value as error:
        assert error.code == 503
        assert int(error.headers["Retry-After"]) >= 1


def test_a_deadline_is_answered_while_the_worker_goes_on(serve: Serve, tmp_path: Path) -> None:
    config = {"isolation": "process", "instances": 1}
    when = {"input": "x", "value": 13}
    fake(tmp_path, "slow", config, behaviour="sleep", delay_ms=3000, delay_when=when)
    server = serve("--model-repository", tmp_path)
    (pid,) = workers(server)
    with asking(server) as ask:
        with pytest.raises(InferenceServerException) as told:
            ask("slow", 13.0, client_timeout=0.3)
        assert told.value.status() == "StatusCode.DEADLINE_EXCEEDED"
        assert ask("slow", client_timeout=60) == [1.0]
    assert workers(server) == [pid]


def test_a_model_that_crashes_at_load_leaves_the_server_alone(serve: Serve, tmp_path: Path) -> None:
    crash = {"at": "load", "how": "abort"}
    fake(tmp_path, "bad", {"isolation": "process"}, behaviour="crash", crash=crash)
    fake(tmp_path, "hangs", {"isolation": {"load_timeout_s": 3}}, behaviour="crash",
         crash={"at": "load", "how": "hang"})  # fmt: skip
    fake(tmp_path, "steady")
    server = serve("--model-repository", tmp_path)
    with asking(server) as ask:
        assert ask("steady") == [1.0]
    assert "SIGABRT" in server.wait_for("load failed", model="bad")["reason"]
    assert "more than 3 s" in server.wait_for("load failed", model="hangs")["reason"]
    assert workers(server) == []


def test_nothing_stays_when_the_server_is_killed(serve: Serve, tmp_path: Path) -> None:
    for name in "ab":
        fake(tmp_path, name, {"isolation": "process"})
    server = serve("--model-repository", tmp_path)
    found = workers(server)
    assert len(found) == 2
    server.process.kill()
    wait_until(lambda: not any(_runs(pid) for pid in found))


def test_workers_end_with_the_server(serve: Serve, tmp_path: Path) -> None:
    fake(tmp_path, "a", {"isolation": "process"})
    server = serve("--model-repository", tmp_path)
    (pid,) = workers(server)
    assert server.stop() == 0
    wait_until(lambda: not _runs(pid))


def _runs(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _models(server: ServerProcess, *options: str) -> str:
    command = [sys.executable, "-m", "crossfade", "models", "--url", server.grpc, *options]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_models_that_nobody_uses_make_room_and_come_back(serve: Serve, tmp_path: Path) -> None:
    for name in "abc":
        fake(tmp_path, name, memory_bytes=4 << 20)
    server = serve(
        *("--model-repository", tmp_path, "--model-control-mode", "explicit"),
        *("--memory-budget-bytes", "10MiB", "--memory-policy", "evict"),
    )
    with triton.InferenceServerClient(server.grpc) as client, asking(server) as ask:
        for name in "abc":
            client.load_model(name)
        listed = {line["name"]: line for line in json.loads(_models(server, "--json"))}
        assert [listed[name]["state"] for name in "abc"] == ["UNAVAILABLE", "READY", "READY"]
        assert "evicted" in listed["a"]["reason"]
        assert listed["b"]["memory_bytes"] == 4 << 20
        assert listed["b"]["last_use_ms"] is None
        assert client.is_model_ready("a")
        assert ask("a") == [1.0]
        table = _models(server)
        assert re.search(r"^a +1 +READY +4\.0 MiB +\d+ s ago +1", table, re.MULTILINE)
        assert re.search(r"^b +1 +UNAVAILABLE .*evicted: its memory went to 'a'", table, re.M)
    text = metrics(server)
    assert "crossfade_evictions_total 2.0" in text
    assert "crossfade_memory_budget_bytes 1.048576e+07" in text
    assert 'crossfade_model_memory_bytes{model="a",version="1"}' in text


def test_without_the_policy_what_does_not_fit_is_refused(serve: Serve, tmp_path: Path) -> None:
    for name in "ab":
        fake(tmp_path, name, memory_bytes=6 << 20)
    server = serve(
        *("--model-repository", tmp_path, "--model-control-mode", "explicit"),
        *("--memory-budget-bytes", "10MiB"),
    )
    with triton.InferenceServerClient(server.grpc) as client, asking(server) as ask:
        client.load_model("a")
        with pytest.raises(InferenceServerException, match="memory budget"):
            client.load_model("b")
        assert ask("a") == [1.0]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_fifty_killed_workers_cost_nobody_else_anything(serve: Serve, tmp_path: Path) -> None:
    """Under load: workers are killed, abort and segfault; two other models never fail."""
    frail = [f"frail{number}" for number in range(5)]
    for name, how in zip(frail, ["segfault", "abort", "exit", "segfault", "abort"], strict=True):
        crash = {"how": how, "when": {"input": "x", "value": 13}}
        config = {"isolation": "process", "instances": 2, "batching": {"max_size": 1}}
        fake(tmp_path, name, config, behaviour="crash", crash=crash)
    fake(tmp_path, "inside")
    fake(tmp_path, "isolated", {"isolation": "process"})
    server = serve("--model-repository", tmp_path)
    process = psutil.Process(server.process.pid)
    over = threading.Event()
    wrong: list[str] = []
    answered = dict.fromkeys([*frail, "inside", "isolated"], 0)

    def load(name: str) -> None:
        with asking(server) as ask:
            while not over.is_set():
                try:
                    assert ask(name, client_timeout=60) == [1.0]
                    answered[name] += 1
                except InferenceServerException as error:
                    if name not in frail or error.status() != "StatusCode.UNAVAILABLE":
                        wrong.append(f"{name}: {error}")
                    time.sleep(0.05)

    threads = [threading.Thread(target=load, args=(name,)) for name in answered]
    with asking(server) as ask:
        for name in answered:
            ask(name)
        descriptors, count = process.num_fds(), len(workers(server))
        own = set(workers(server))
        for thread in threads:
            thread.start()
        survivor = _worker_of(server, "isolated")
        for turn in range(50):
            name = frail[turn % len(frail)]
            wait_until(lambda n=name: _up(server, n))  # type: ignore[misc]
            if turn % 2:
                os.kill(_worker_of(server, name), signal.SIGKILL)
            else:
                with pytest.raises(InferenceServerException, match=r"UNAVAILABLE|worker"):
                    ask(name, 13.0, client_timeout=60)
            wait_until(lambda n=name, t=turn: _restarts(server, n) == t // len(frail) + 1)  # type: ignore[misc]
        before = {name: answered[name] for name in frail}
        wait_until(lambda: all(answered[name] > before[name] for name in frail), 120)
        over.set()
        for thread in threads:
            thread.join(70)
    assert wrong == []
    assert all(answered.values())
    assert _worker_of(server, "isolated") == survivor
    assert survivor in own
    assert len(workers(server)) == count
    assert not [c for c in process.children() if c.status() == psutil.STATUS_ZOMBIE]
    wait_until(lambda: process.num_fds() <= descriptors + 8)
    assert not [name for name in os.listdir("/dev/shm") if "crossfade" in name]


def _sample(server: ServerProcess, metric: str, name: str) -> float:
    found = re.search(rf'^{metric}\{{model="{name}",version="1"\}} (\S+)$', metrics(server), re.M)
    assert found
    return float(found[1])


def _up(server: ServerProcess, name: str) -> bool:
    return _sample(server, "crossfade_worker_up", name) == 1


def _restarts(server: ServerProcess, name: str) -> int:
    return int(_sample(server, "crossfade_worker_restarts_total", name))


def _worker_of(server: ServerProcess, name: str) -> int:
    line = [
        x for x in server.lines if x["message"] == "worker process is up" and x["model"] == name
    ]
    return int(line[-1]["pid"])
