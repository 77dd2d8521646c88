"""Random numbers that a second run draws again, and a resumed one goes on with."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch


def derived(seed: int, *names: int | str) -> int:
    """A seed of 63 bits for one purpose (a name, an epoch, an index) of a run's ``seed``.

    Numbers of two purposes have nothing to do with each other, and do not depend on what was
    drawn before: work that is resumed, or spread over processes, draws the same.
    """
    text = "\0".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seed_everything(seed: int, *, deterministic: bool = True) -> None:
    """Seeds Python, numpy and torch (every device) in this process.

    Args:
        seed: any integer from 0.
        deterministic: operations that give the same bits each time; one that has no such form
            raises ``RuntimeError`` when it is used.
    """
    random.seed(seed)
    np.random.seed(derived(seed, "numpy") % 2**32)
    torch.manual_seed(seed)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False


def generator(seed: int, *names: int | str) -> torch.Generator:
    """A generator on the CPU for one purpose."""
    made = torch.Generator()
    made.manual_seed(derived(seed, *names))
    return made


def worker_seeds(seed: int, epoch: int) -> Callable[[int], None]:
    """``worker_init_fn`` of a ``DataLoader``: each worker has its own seed in each epoch."""
    return _Worker(seed, epoch)


class _Worker:
    """A class, since a worker that is spawned gets it pickled."""

    def __init__(self, seed: int, epoch: int) -> None:
        self._seed, self._epoch = seed, epoch

    def __call__(self, worker: int) -> None:
        own = derived(self._seed, "worker", self._epoch, worker)
        random.seed(own)
        np.random.seed(own % 2**32)
        torch.manual_seed(own)


def capture() -> dict[str, Any]:
    """The state of all generators of this process, for a checkpoint."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position),
        "numpy_gauss": (has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "cuda": list(cuda),
    }


def restore(state: Mapping[str, Any]) -> None:
    """Puts all generators back to where ``capture`` found them."""
    random.setstate(state["python"])
    name, keys, position = state["numpy"]
    has_gauss, gauss = state["numpy_gauss"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all(state["cuda"])
