"""Facts of a run: parity that is proved, revisions that are git's."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from crossfade.runtimes.core.errors import FailedPrecondition
from crossfade.training.lineage import facts


def test_parity_is_of_all_inputs() -> None:
    batches = [np.zeros((2, 3)), np.ones((5, 3))]
    found = facts.parity(lambda x: x, lambda x: x + 1e-5, batches)
    assert found.max_abs == pytest.approx(1e-5)
    assert found.inputs == 7


@pytest.mark.parametrize("off", [1e-3, float("nan"), float("inf")])
def test_what_answers_otherwise_is_refused(off: float) -> None:
    def wrong(x: facts.Arrays) -> facts.Arrays:
        return np.where(x > 0, x + off, x)

    with pytest.raises(FailedPrecondition, match="answers otherwise than the trained module"):
        facts.parity(lambda x: x, wrong, [np.zeros(3), np.ones(3)])


def test_a_revision_is_gits(tmp_path: Path) -> None:
    assert facts.revision(tmp_path) is None or (Path.cwd() / ".git").exists()

    def git(*arguments: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        done = subprocess.run(
            ("git", "-C", str(tmp_path), *who, *arguments),
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    git("init", "-q")
    assert facts.revision(tmp_path) is None
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-qm", "one")
    head = git("rev-parse", "HEAD")
    assert facts.revision(tmp_path) == head
    (tmp_path / "a").write_text("2")
    assert facts.revision(tmp_path) == f"{head}-dirty"


def test_the_environment_has_what_took_part() -> None:
    found = facts.environment(torch.device("cpu"), 2)
    assert found["torch"].startswith("2.")
    assert found["processes"] == "2"
    assert {"crossfade", "python", "numpy", "system", "device"} <= found.keys()
