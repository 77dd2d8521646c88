"""What may be said of an ensemble, and what is wrong with what may not."""

from __future__ import annotations

import pytest
import yaml

from crossfade.runtimes.core.errors import LoadFailed
from crossfade.serving.config.ensemble_config import Adapt, Boxes, Fallback, Pipeline, Weighted
from crossfade.serving.config.model_config import ModelConfig, build, parse

WEIGHTED = """
ensemble:
  kind: weighted
  rule: logit
  scores: probabilities
  member_timeout_ms: 50
  quorum: 1
  members:
    - {model: flowers, version: 2, weight: 3, outputs: {probabilities: scores}}
    - {model: flowers, label: canary, name: new, weight: 1, scores: logits, temperature: 1.5,
       labels: [rose, tulip], inputs: {image_bytes: image}, signature: other}
"""


def read(text: str) -> ModelConfig:
    return parse(text, "model.yaml")


def fault(section: str) -> str:
    with pytest.raises(LoadFailed) as caught:
        build({"ensemble": yaml.safe_load(section)}, "model.yaml")
    return caught.value.message


def test_weighted() -> None:
    section = read(WEIGHTED).ensemble
    assert isinstance(section, Weighted)
    assert (section.rule, section.member_timeout_ms, section.quorum) == ("logit", 50, 1)
    first, second = section.members
    assert (first.model, first.version, first.weight) == ("flowers", 2, 3)
    assert first.outputs == {"probabilities": "scores"}
    assert (second.label, second.name, second.scores) == ("canary", "new", "logits")
    assert (second.temperature, second.labels) == (1.5, ("rose", "tulip"))
    assert (second.inputs, second.signature) == ({"image_bytes": "image"}, "other")


def test_boxes_fallback_and_pipeline() -> None:
    boxes = read("ensemble: {kind: weighted, boxes: {rule: suppress}, members: [{model: a}]}")
    assert isinstance(boxes.ensemble, Weighted)
    assert boxes.ensemble.boxes == Boxes(rule="suppress")
    fallback = read("ensemble: {kind: fallback, members: [{model: a}, {model: b}]}").ensemble
    assert isinstance(fallback, Fallback)
    pipeline = read("ensemble: {kind: pipeline, outputs: [y], steps: [{model: a}]}").ensemble
    assert isinstance(pipeline, Pipeline)
    assert pipeline.members == pipeline.steps


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ("{}", "key 'ensemble.kind' is missing; known are weighted, fallback, pipeline"),
        (
            "{kind: wieghted}",
            "key 'ensemble.kind': 'wieghted' is unknown; did you mean 'weighted'?",
        ),
        ("{kind: new}", "key 'ensemble.kind': 'new' is unknown; known are weighted, fallback"),
        (
            "{kind: cascade, threshold: 0.9, stages: []}",
            "key 'ensemble.threshold' is unknown; it is a key in 'stages'",
        ),
        (
            "{kind: fallback, membrs: []}",
            "'ensemble.membrs' is unknown; did you mean 'members'?",
        ),
        (
            "{kind: pipeline, steps: [{modell: a}]}",
            "'ensemble.steps.0.modell' is unknown; did you mean 'model'?",
        ),
        (
            "{kind: weighted, scores: values, members: [{model: a, wieght: 1}]}",
            "'ensemble.members.0.wieght' is unknown; did you mean 'weight'?",
        ),
        ("{kind: weighted, members: [{model: a}]}", "key 'ensemble': say what the outputs of a"),
        ("{kind: weighted, scores: odds, members: [{model: a}]}", "'ensemble.scores'"),
        (
            "{kind: weighted, scores: values, members: [{model: a}, {model: a}]}",
            "two members are called 'a'; give them a name",
        ),
        (
            "{kind: weighted, scores: values, members: [{model: a, weight: 1}, {model: b}]}",
            "every member a weight, or none",
        ),
        (
            "{kind: weighted, scores: values, members: [{model: a, weight: 0}]}",
            "the weights are all 0",
        ),
        (
            "{kind: weighted, scores: values, quorum: 2, members: [{model: a}]}",
            "quorum is 2, but there are 1 members",
        ),
        (
            "{kind: weighted, scores: values, boxes: {}, members: [{model: a}]}",
            "boxes has a rule of its own, and no scores",
        ),
        ("{kind: fallback, members: [{model: a}]}", "'ensemble.members'"),
        (
            "{kind: fallback, members: [{model: a, version: 1, label: b}, {model: b}]}",
            "give one of version, label",
        ),
    ],
)
def test_what_is_wrong(section: str, says: str) -> None:
    assert says in fault(section)


def test_a_member_that_is_wrong_is_no_member_too_few() -> None:
    wrong = fault("{kind: fallback, members: [{model: a, wait: 1}, {model: b}]}")
    assert "'ensemble.members.0.wait' is unknown" in wrong
    assert ";" not in wrong.replace("unknown;", "")


def test_what_is_wrong_of_all_keys_together_names_none() -> None:
    with pytest.raises(LoadFailed) as refused:
        read("cache: {}\nensemble: {kind: pipeline, steps: [{model: a}]}")
    assert str(refused.value) == "model.yaml: ensemble does not go together with cache"


@pytest.mark.parametrize(
    "other",
    ["platform: python", "batching: auto", "instances: 2", "isolation: process", "decoupled: true"],
)
def test_what_only_a_model_with_files_has(other: str) -> None:
    with pytest.raises(LoadFailed, match="ensemble does not go together with"):
        read(f"{other}\nensemble: {{kind: pipeline, steps: [{{model: a}}]}}")


def test_weights_follow_feedback_where_there_is_a_mean_to_weigh() -> None:
    members = "members: [{model: a}, {model: b}]"
    section = read(f"ensemble: {{kind: weighted, scores: logits, adapt: {{}}, {members}}}").ensemble
    assert isinstance(section, Weighted)
    assert section.adapt == Adapt()
    for keys, reason in (
        ("scores: logits, rule: vote, adapt: {}", "under the rule probability"),
        ("boxes: {}, adapt: {}", "under the rule probability"),
        ("scores: logits, adapt: {min_weight: 0.5}, quorum: 1", None),
        ("scores: logits, adapt: {rate: 0}", "adapt.rate"),
        ("scores: logits, adapt: {maxstep: 1}", "did you mean 'max_step'"),
    ):
        text = f"ensemble: {{kind: weighted, {keys}, {members}}}"
        if reason is None:
            read(text)
            continue
        with pytest.raises(LoadFailed, match=reason):
            read(text)
