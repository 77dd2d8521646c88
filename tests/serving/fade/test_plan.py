"""``fade.yaml``: what it says by itself, and every fault with its place."""

from __future__ import annotations

import pytest

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.serving.fade.plan import Plan, parse


def test_an_empty_file_is_the_usual_fade() -> None:
    plan = parse("", "fade.yaml")
    assert [step.traffic_percent for step in plan.steps] == [0, 1, 5, 25, 50, 100]
    assert [step.mirror_percent for step in plan.steps] == [100, 10, 10, 10, 10, 10]
    assert plan.alpha_each == pytest.approx(0.05 / 6 / 5)


def test_a_plan_says_what_differs() -> None:
    plan = parse(
        """
        alpha: 0.1
        steps:
          - {traffic_percent: shadow, min_time_s: 60, min_samples: 200}
          - {traffic_percent: 0.07, mirror_percent: 0}
          - {traffic_percent: 100, mirror_percent: 1}
        guardrails:
          quality: {margin: 0.03, tolerance: 0.01, min_labels: 50, min_agreement: 0.95}
          errors: {margin: 0.002}
          latency: [{quantile: 0.95, max_ratio: 1.1}]
        """,
        "fade.yaml",
    )
    first, second, third = plan.steps
    assert (first.traffic_percent, first.mirror_percent, first.min_samples) == (0, 100, 200)
    assert (first.mirrored, second.mirrored, third.mirrored) == (True, False, True)
    assert plan.guardrails.errors.tolerance == 0
    assert plan.alpha_each == pytest.approx(0.1 / 3 / 4)


def test_a_plan_survives_being_written_and_read() -> None:
    for text in ("alpha: 0.013", "label: stable", "key: {header: X-User}"):
        plan = parse(text, "fade.yaml")
        assert Plan.model_validate_json(plan.model_dump_json(exclude_none=True)) == plan


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a", "fade.yaml must be a mapping"),
        ("false", "fade.yaml must be a mapping"),
        ("alpha: [", "line 1: not YAML"),
        ("alpha: 0.7", "'alpha'"),
        ("stepps: []", "did you mean 'steps'?"),
        ("steps: []", "the last step must have 100 percent"),
        ("steps: [{traffic_percent: 50}]", "the last step must have 100 percent"),
        ("steps: [{traffic_percent: 50}, {traffic_percent: 50}, {traffic_percent: 100}]", "more"),
        ("steps: [{traffic_percent: 0.001}, {traffic_percent: 100}]", "multiple of 0.01"),
        ("steps: [{traffic_percent: 100, mirror_percent: 0}]", "only be compared with a mirror"),
        ("steps: [{traffic_percent: shadow, mirror_percent: 0}]", "with a mirror"),
        ("steps: [{traffic_percent: shade}]", "valid number"),
        ("steps: [{traffic_percent: 100, min_time: 3}]", "did you mean 'min_time_s'?"),
        ("guardrails: {quality: {margin: 0.01, tolerance: 0.02}}", "not be above margin"),
        ("guardrails: {errors: {margin: 0}}", "guardrails.errors.margin"),
        ("guardrails: {latency: [{quantile: 0.5, max_ratio: 1.01}]}", "1.05"),
        (
            "guardrails: {latency: [{quantile: .5, max_ratio: 2}, {quantile: .5, max_ratio: 3}]}",
            "named once",
        ),
        ("version: 2", "'version'"),
    ],
)
def test_a_faulty_plan_is_refused_with_the_reason(text: str, said: str) -> None:
    with pytest.raises(InvalidArgument) as found:
        parse(text, "fade.yaml")
    assert found.value.message.startswith("fade.yaml")
    assert said in found.value.message
