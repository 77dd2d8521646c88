"""Splits, shadows and cascades of their sections: what is taken, and what is refused and why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from crossfade.ensemble.gate import CascadeSample, Measure, within_harm
from crossfade.runtimes.core.errors import LoadFailed
from crossfade.runtimes.core.model import InferRequest, InferResponse, ModelRef
from crossfade.serving.config import ensemble_config, model_config
from crossfade.serving.lifecycle import routing
from crossfade.serving.lifecycle.manager import Manager, Mode
from crossfade.serving.repository.source import LocalSource

SPLIT = """
ensemble:
  kind: split
  members: [{{model: a, basis_points: {0}}}, {{model: b, basis_points: {1}}}]
  {2}
"""
SHADOW = "ensemble: {{kind: shadow, primary: {{model: a}}, mirrors: [{{model: {0}}}]{1}}}"
CASCADE = """
ensemble:
  kind: cascade
  stages: [{{model: a{0}}}, {{model: b{1}}}]
  {2}
"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (SPLIT.format(9000, 900, ""), "basis_points of all members are 9,900 together"),
        (SPLIT.format(9000, 1000.5, ""), "basis_points"),
        (SPLIT.format(9000, 1000, "key: {}"), "give one of header, parameter, input"),
        (SPLIT.format(9000, 1000, "key: {header: x, input: y}"), "give one of header"),
        (SPLIT.format(9000, 1000, "key: {header: 'x y'}"), "header"),
        (SPLIT.format(9000, 1000, "key: {haeder: x}"), "did you mean 'header'"),
        (SHADOW.format("a", ""), "two members are called 'a'"),
        (SHADOW.format("b", ", sample_percent: 0.001"), "steps of 0.01"),
        (SHADOW.format("b", ", queue: {max_bytes: many}"), "not an amount of memory"),
        (CASCADE.format("", "", "scores: logits"), "give every stage but the last a threshold"),
        (CASCADE.format(", threshold: 0.9", "", ""), "say what the outputs of a, b are"),
        (
            CASCADE.format(", threshold: 0.9", ", threshold: 0.9", "scores: logits"),
            "the last stage has no threshold",
        ),
        (
            CASCADE.format(", threshold: 0.9", "", "scores: logits\n  gate: gate.json"),
            "give either gate or thresholds",
        ),
        (CASCADE.format("", "", "scores: logits\n  gate: ../gate.json"), "gate"),
        (CASCADE.format("", "", "scores: values"), "scores"),
    ],
)
def test_a_section_that_makes_no_sense_is_refused(text: str, reason: str) -> None:
    with pytest.raises(LoadFailed, match=reason):
        model_config.parse(text, "model.yaml")


def test_defaults_of_a_shadow() -> None:
    section = model_config.parse(
        SHADOW.format("b", ", queue: {max_bytes: 1MiB}"), "model.yaml"
    ).ensemble

    assert isinstance(section, ensemble_config.Shadow)
    assert (section.queue.max_size, section.queue.max_bytes) == (64, 1 << 20)
    assert [member.model for member in section.members] == ["a", "b"]
    assert section.sample_percent == 100


def gate(stages: int, measure: Measure = Measure.MARGIN) -> str:
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 1, 1000)
    labels = (rng.uniform(size=1000) > p).astype(np.intp)
    answers = [np.stack([p, 1 - p], axis=1)] * (stages - 1) + [np.eye(2)[labels]]
    return within_harm(CascadeSample.of(answers, labels, [1] * stages, measure), 0.2).to_json()


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        (None, "there is no 'gate.json' in the ensemble's folder: crossfade ensemble fit e"),
        ("{}", "'gate.json': this is not a report of a gate"),
        ("\xff", "cannot be read"),
        (gate(3), "is for 3 stages; the cascade has 2"),
    ],
)
def test_a_gate_that_cannot_be_used_is_refused(
    tmp_path: Path, report: str | None, reason: str
) -> None:
    if report is not None:
        (tmp_path / "gate.json").write_bytes(report.encode("latin-1"))
    section = model_config.parse(
        CASCADE.format("", "", "scores: logits\n  gate: gate.json"), "model.yaml"
    ).ensemble
    assert isinstance(section, ensemble_config.Cascade)

    with pytest.raises(LoadFailed, match=reason) as refused:
        routing.cascade(section, "e", tmp_path)
    assert str(tmp_path) not in refused.value.message


def test_a_cascade_decides_by_its_gate_and_members_are_swapped_under_it(tmp_path: Path) -> None:
    """A gate that measures the margin; then the last stage becomes a version that fails."""

    def write(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    fake = "inputs: [{name: x, shape: [-1, 2]}]\noutputs: [{name: y, from: x}]\n"
    constant = fake.replace("from: x", "shape: [-1, 2], value: 0.5")
    write("a/1/fake.yaml", fake)
    write("b/1/fake.yaml", constant)
    for name in "ab":
        write(f"{name}/labels.txt", "rose\ntulip\n")
    write("e/gate.json", gate(2))
    write("e/model.yaml", CASCADE.format("", "", "scores: probabilities\n  gate: gate.json"))
    manager = Manager([LocalSource(tmp_path)], Mode.EXPLICIT, startup=["*"])
    manager.start()

    def ask(first: float) -> tuple[list[float], str]:
        row = np.float32([[first, 1 - first]])
        with manager.lease(ModelRef("e")) as model:
            (found,) = model.infer([InferRequest({"x": row})])
        assert isinstance(found, InferResponse), found
        return found.outputs["y"][0].tolist(), found.parameters["ensemble_member"]

    try:
        assert ask(0.99) == (pytest.approx([0.99, 0.01]), "a")
        assert ask(0.51) == (pytest.approx([0.5, 0.5]), "b")
        write("b/2/fake.yaml", "behaviour: fail\n" + constant)
        manager.load("b")
        assert ask(0.51) == (pytest.approx([0.51, 0.49]), "a")
    finally:
        manager.close()
