"""The response cache as Triton's clients see it: answers, statistics, configuration, metrics."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton

from tests.conftest import ServerProcess

FAKE = """
inputs:
  - {name: text, dtype: BYTES, shape: [-1, 1]}
  - {name: x, dtype: FP32, shape: [-1, 2]}
delay_ms: DELAY
outputs:
  - {name: text, from: text}
  - {name: x, from: x}
  - {name: version, dtype: INT64, value: VERSION}
"""
TRITON = """
max_batch_size: 8
response_cache { enable: true }
"""


def write(folder: Path, version: int, delay_ms: int = 1) -> None:
    (folder / str(version)).mkdir(parents=True)
    text = FAKE.replace("DELAY", str(delay_ms)).replace("VERSION", str(version))
    (folder / str(version) / "fake.yaml").write_text(text)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    write(models / "ours", 1)
    (models / "ours" / "model.yaml").write_text("cache: {max_bytes: 1MiB}\n")
    write(models / "slow", 1, 300)
    (models / "slow" / "model.yaml").write_text("cache: {}\nbatching: {max_size: 1}\n")
    write(models / "tritons", 1)
    (models / "tritons" / "config.pbtxt").write_text(TRITON)
    return models


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[ServerProcess]:
    made = ServerProcess(
        *("--model-repository", str(models), "--model-control-mode", "explicit"),
        *("--load-model", "*"),
    )
    yield made
    made.stop()


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Any]:
    with triton.InferenceServerClient(server.grpc) as made:
        yield made


def ask(client: Any, model: str, text: bytes, number: float = 1.0) -> tuple[bytes, float, int]:
    texts, x = triton.InferInput("text", [1, 1], "BYTES"), triton.InferInput("x", [1, 2], "FP32")
    texts.set_data_from_numpy(np.array([[text]], object))
    x.set_data_from_numpy(np.full((1, 2), number, np.float32))
    found = client.infer(model, [texts, x])
    return (
        found.as_numpy("text")[0, 0],
        found.as_numpy("x")[0, 1],
        int(found.as_numpy("version")[0]),
    )


def counts(client: Any, model: str) -> tuple[int, int, int, int]:
    one = client.get_inference_statistics(model).model_stats[0]
    stats = one.inference_stats
    return (
        stats.success.count,
        one.inference_count,
        stats.cache_hit.count,
        stats.cache_miss.count,
    )


@pytest.mark.parametrize("model", ["ours", "tritons"])
def test_answers_and_statistics(client: Any, model: str) -> None:
    before = counts(client, model)
    for text in (b"a", b"b", b"a", b"a"):
        assert ask(client, model, text) == (text, 1.0, 1)
    assert ask(client, model, b"a", 2.0) == (b"a", 2.0, 1)
    gained = np.subtract(counts(client, model), before)
    assert gained.tolist() == [5, 3, 2, 3]
    assert client.get_model_config(model).config.response_cache.enable


def test_the_metrics_have_tritons_names_and_ours(server: ServerProcess, client: Any) -> None:
    ask(client, "ours", b"m")
    ask(client, "ours", b"m")
    _, _, hits, misses = counts(client, "ours")
    text = urllib.request.urlopen(f"http://{server.metrics}/metrics", timeout=10).read().decode()
    for name, value in {
        "nv_cache_num_hits_per_model": hits,
        "nv_cache_num_misses_per_model": misses,
        "crossfade_cache_hits_total": hits,
        "crossfade_cache_misses_total": misses,
        "crossfade_cache_entries": misses,
    }.items():
        assert f'{name}{{model="ours",version="1"}} {value:.1f}' in text


def test_many_who_ask_the_same_at_once_cost_one_run(client: Any) -> None:
    before = counts(client, "slow")
    with ThreadPoolExecutor(12) as pool:
        got = list(pool.map(lambda _: ask(client, "slow", b"same"), range(12)))
    assert got == [(b"same", 1.0, 1)] * 12
    assert np.subtract(counts(client, "slow"), before).tolist() == [12, 1, 11, 1]


def test_a_new_version_has_answers_of_its_own(client: Any, models: Path) -> None:
    assert ask(client, "ours", b"swap") == (b"swap", 1.0, 1)
    write(models / "ours", 2)
    client.load_model("ours")
    assert ask(client, "ours", b"swap") == (b"swap", 1.0, 2)
