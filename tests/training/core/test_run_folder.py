"""A run's folder: one process at a time, and only the run that it was begun with."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossfade.runtimes.core.errors import FailedPrecondition
from crossfade.training.core import run_folder

TOLD = {"config": {"epochs": 3, "network": {"widths": (8, 16)}}, "data": "abc", "processes": 1}


def test_the_same_run_goes_on_and_another_does_not(tmp_path: Path) -> None:
    run_folder.begin(tmp_path, TOLD)
    run_folder.begin(tmp_path, TOLD)
    other = {**TOLD, "config": {"epochs": 4, "network": {"widths": (8,)}}, "data": "abd"}
    with pytest.raises(FailedPrecondition) as caught:
        run_folder.begin(tmp_path, other)
    assert "another config.epochs, config.network.widths, data:" in caught.value.message
    run_folder.finish(tmp_path, "shapes version 1", {"accuracy": 1.0})
    with pytest.raises(FailedPrecondition, match="is complete: it made shapes version 1"):
        run_folder.begin(tmp_path, TOLD)


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    second = run_folder.held(tmp_path)
    said = "another process is at work"
    with run_folder.held(tmp_path), pytest.raises(FailedPrecondition, match=said):
        second.__enter__()
    with run_folder.held(tmp_path):
        pass


def test_a_run_that_wrote_nothing_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "shapes"
    with pytest.raises(FailedPrecondition, match="no data"), run_folder.held(folder):
        raise FailedPrecondition("no data")
    assert not list(tmp_path.iterdir())
    folder.mkdir(parents=True)
    with pytest.raises(FailedPrecondition, match="no data"), run_folder.held(folder):
        raise FailedPrecondition("no data")
    assert folder.is_dir(), "it was there before"
    run_folder.begin(folder, TOLD)
    with pytest.raises(FailedPrecondition, match="later"), run_folder.held(folder):
        raise FailedPrecondition("later")
    assert (folder / "run.json").exists()
