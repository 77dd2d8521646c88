"""``crossfade train``: tasks load when they are asked for, and a missing extra is one error."""

from __future__ import annotations

import subprocess
import sys

import pytest

from crossfade.serving.cli import train
from crossfade.serving.cli.main import main


def test_help_needs_nothing_of_any_task(capsys: pytest.CaptureFixture[str]) -> None:
    program = (
        "import sys\n"
        "from crossfade.serving.cli.main import main\n"
        "try: main(['train', '--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'sklearn', 'optuna'} & set(sys.modules), sorted(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    for name in train.TASKS:
        assert name in done.stdout


def test_a_missing_extra_is_one_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task = train.Task("no_such_library.command", "nothing", "training")
    monkeypatch.setattr(train, "TASKS", {"nothing": task})
    assert main(["train", "nothing"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "pip install 'crossfade[training]'" in said


def test_a_tasks_own_options_are_in_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "image-classifier", "--help"])
    shown = capsys.readouterr().out
    for option in ("--data", "--name", "--repository", "--config", "--set", "--run-dir"):
        assert option in shown
