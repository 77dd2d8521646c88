"""Checkpoints: exact, whole or absent, and the one before survives."""

from __future__ import annotations

import errno
import math
import os
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfade.runtimes.core.errors import FailedPrecondition, ResourceExhausted
from crossfade.training.core import checkpoint, seeds, tree

_LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.builds(
        lambda values, dtype: torch.tensor(values, dtype=dtype),
        st.lists(st.integers(0, 100), max_size=3),
        st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool]),
    ),
)
_KEYS = st.one_of(st.text(), st.integers(), st.sampled_from(["$tensor", "$tuple", "$items"]))
_TREES = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(_KEYS, inner, max_size=3),
    ),
    max_leaves=8,
)


def same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and math.isnan(a):
        return math.isnan(b)
    return bool(a == b)


@settings(max_examples=150, deadline=None)
@given(_TREES)
def test_any_state_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, state: Any
) -> None:
    path = checkpoint.write(tmp_path_factory.mktemp("run"), 1, {"state": state})
    step, found = checkpoint.read(path)
    assert step == 1
    assert same(found["state"], state)


def test_what_would_need_pickling_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="/here: a checkpoint cannot hold a set"):
        checkpoint.write(tmp_path, 1, {"here": {1, 2}})
    assert list(tmp_path.iterdir()) == []


def test_names_of_tensors_do_not_collide() -> None:
    tensors: dict[str, torch.Tensor] = {}
    state = {"a": {"b": torch.tensor(1)}, "a/b": torch.tensor(2)}
    plain = tree.split(state, "", tensors)
    assert same(tree.join(plain, tensors), state)


def test_the_generators_go_on_where_they_were(tmp_path: Path) -> None:
    import random

    import numpy as np

    seeds.seed_everything(3, deterministic=False)
    np.random.normal()  # leaves a second number for the next call
    checkpoint.write(tmp_path, 5, {"random": seeds.capture()})

    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.normal()), float(torch.rand(()))

    expected = draw()
    draw()
    found = checkpoint.latest(tmp_path)
    assert found is not None
    seeds.restore(found[1]["random"])
    assert draw() == expected


@pytest.mark.parametrize("call", ["write", "rename", "fsync"])
def test_a_full_disk_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    checkpoint.write(tmp_path, 1, {"weights": torch.ones(4)})

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if call == "write":
        monkeypatch.setattr(checkpoint, "_write", full)
    else:
        monkeypatch.setattr(os, call, full)
    with pytest.raises(ResourceExhausted, match="the disk is full: the checkpoint of step 2"):
        checkpoint.write(tmp_path, 2, {"weights": torch.zeros(4)})
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["step-000000001"]
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert torch.equal(found[1]["weights"], torch.ones(4))


def test_a_limit_of_the_system_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    checkpoint.write(tmp_path, 1, {"weights": torch.ones(4)})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(ResourceExhausted):
            checkpoint.write(tmp_path, 2, {"weights": torch.zeros(4096)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [p.name for p in tmp_path.iterdir()] == ["step-000000001"]


@pytest.mark.parametrize("file", ["tensors.safetensors", "state.json"])
def test_a_damaged_one_is_passed_over(tmp_path: Path, file: str) -> None:
    checkpoint.write(tmp_path, 1, {"weights": torch.ones(4)})
    newer = checkpoint.write(tmp_path, 2, {"weights": torch.zeros(4)}) / file
    newer.write_bytes(newer.read_bytes()[:-3])
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert found[0] == 1
    older = tmp_path / "step-000000001" / file
    older.unlink()
    with pytest.raises(FailedPrecondition, match="none of the 2 checkpoints can be read"):
        checkpoint.latest(tmp_path)


def test_what_a_kill_left_is_no_checkpoint_and_goes_away(tmp_path: Path) -> None:
    left = tmp_path / ".writing-000000007"
    left.mkdir()
    (left / "tensors.safetensors").write_bytes(b"half")
    assert checkpoint.latest(tmp_path) is None
    for step in (8, 9, 10):
        checkpoint.write(tmp_path, step, {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000000009", "step-000000010"]
