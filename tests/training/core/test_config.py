"""Configurations: files with a head, changes of the command line, faults named."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossfade.runtimes.core.errors import InvalidArgument, NotFound
from crossfade.training.core.config import head
from crossfade.training.image_classifier.config import ImageClassifierConfig

HERE = Path(__file__).parents[3] / "training"


def test_a_file_and_changes(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("epochs: 3\noptimisation: {learning_rate: 0.5}\n")
    changes = ["optimisation.schedule.kind=wsd", "epochs=4", "network.widths=[8, 16]"]
    config = ImageClassifierConfig.load(path, changes)
    assert config.epochs == 4
    assert config.optimisation.learning_rate == 0.5
    assert config.optimisation.schedule.kind == "wsd"
    assert config.network.widths == (8, 16)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epocs: 3", "run.yaml: key 'epocs' is unknown; did you mean 'epochs'"),
        ("optimisation: {schedule: {kid: wsd}}", "'optimisation.schedule.kid' is unknown"),
        ("epochs: 0", "run.yaml: key 'epochs': input should be greater than or equal to 1"),
        ("epochs: .nan", "key 'epochs'"),
        ("[1]", "must hold keys and values"),
        ("a: [", "not YAML at line 1"),
    ],
)
def test_faults(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(InvalidArgument) as caught:
        ImageClassifierConfig.load(path)
    assert said in caught.value.message


@pytest.mark.parametrize("change", ["epochs", "=3", "epochs.x=3", "epochs=[", "nothing=1"])
def test_changes_that_are_wrong(change: str, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("epochs: 3")
    with pytest.raises(InvalidArgument):
        ImageClassifierConfig.load(path, [change])


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no configuration"):
        ImageClassifierConfig.load(tmp_path / "absent.yaml")


@pytest.mark.parametrize("path", sorted(HERE.rglob("configs/*.yaml")), ids=lambda p: p.name)
def test_those_that_come_along_say_what_to_expect(path: Path) -> None:
    assert head(path)["Command"].startswith("crossfade train")
    if path.parent.parent.name == "image_classifier":
        ImageClassifierConfig.load(path)


def test_a_head_that_says_too_little(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("# Command: x\n# Expected time:\n# Expected result: y\nepochs: 1\n")
    with pytest.raises(InvalidArgument, match="'Expected time: …'"):
        head(path)
