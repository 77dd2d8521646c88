"""``task``, ``preprocess`` and ``postprocess``: what is said about a mistake."""

from __future__ import annotations

import pytest

from crossfade.runtimes.core.errors import LoadFailed
from crossfade.serving.config.model_config import parse
from crossfade.serving.config.table_config import Table


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("preproces: {}", "key 'preproces' is unknown; did you mean 'preprocess'?"),
        ("preprocess: {resise: {}}", "'preprocess.resise' is unknown; did you mean 'resize'?"),
        (
            "preprocess: {resize: {filtr: area}}",
            "'preprocess.resize.filtr' is unknown; did you mean 'filter'?",
        ),
        (
            "{task: detection, postprocess: {iou_treshold: 1}}",
            "'postprocess.iou_treshold' is unknown; did you mean 'iou_threshold'?",
        ),
        ("preprocess: {resize: {filter: cubic}}", "'bicubic'"),
        ("preprocess: {std: 0}", "greater than 0"),
        ("preprocess: {scale: .nan}", "preprocess.scale"),
        ("preprocess: {max_pixels: 0}", "preprocess.max_pixels"),
        ("preprocess: {resize: {crop_fraction: 0.9}}", "crop_fraction is for fit: crop"),
        ("postprocess: {}", "postprocess needs a task: one of classification,"),
        ("task: clasification", "'classification'"),
        (
            "{task: classification, postprocess: {iou_threshold: 0.5}}",
            "postprocess.iou_threshold is not for task classification, but for detection,",
        ),
        ("{task: text, postprocess: {top_k: 1}}", "postprocess.top_k is not for task text"),
        ("{task: classification, postprocess: {activation: sigmoid}}", "task multi_label"),
        ("{task: multi_label, postprocess: {activation: softmax}}", "task classification"),
        ("{task: detection, postprocess: {box_units: pixels}}", "needs preprocess"),
        ("{task: regression, postprocess: {minimum: 2, maximum: 1}}", "minimum is larger"),
        ("{task: detection, postprocess: {outputs: {box: b}}}", "postprocess.outputs"),
        ("task: tracking", "task tracking needs sequence"),
        ("{decoupled: true, preprocess: {}}", "decoupled does not go together"),
        ("table: {}", "key 'table.instance': field required"),
        ("table: {instanze: a.yaml}", "'table.instanze' is unknown; did you mean 'instance'?"),
        ("table: {instance: ../a.yaml}", "table.instance"),
        ("table: {instance: a/b.yaml}", "table.instance"),
        ("{table: {instance: a.yaml}, preprocess: {}}", "table does not go together"),
        ("{table: {instance: a.yaml}, decoupled: true}", "table does not go together"),
        (
            "{task: classification, postprocess: {},"
            " table: {instance: a.yaml, prediction: b.yaml}}",
            "give one of postprocess, table.prediction",
        ),
    ],
)
def test_mistakes(text: str, says: str) -> None:
    with pytest.raises(LoadFailed) as caught:
        parse(text, "model.yaml")
    assert says in caught.value.message


def test_a_table() -> None:
    says = "table: {instance: instance.yaml, prediction: prediction_schema.yaml, input: inputs}"
    assert parse(says, "model.yaml").table == Table(
        instance="instance.yaml", prediction="prediction_schema.yaml", input="inputs"
    )
