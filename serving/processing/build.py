"""Reads off a model and its configuration what is to be done around it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from crossfade.runtimes.core.errors import LoadFailed
from crossfade.runtimes.core.model import Model, ModelMetadata, Signature, TensorSpec
from crossfade.serving.config.model_config import ModelConfig
from crossfade.serving.config.processing_config import Postprocess, Task
from crossfade.serving.processing.answer import Answer, Outputs, Quantized
from crossfade.serving.processing.classification import Classification
from crossfade.serving.processing.detection import Detection
from crossfade.serving.processing.images import ImageInput, find, image_input
from crossfade.serving.processing.processed import Processed, Processing
from crossfade.serving.processing.regression import Regression
from crossfade.serving.processing.segmentation import Segmentation
from crossfade.serving.processing.table import prediction, table_input

# Bytes of pixels that one request may become: files of a few bytes can be large pictures.
_MAX_REQUEST_BYTES = 256 << 20


def around(
    metadata: ModelMetadata,
    config: ModelConfig,
    quantized: Quantized,
    names: Sequence[str],
    folder: Path,
) -> Callable[[Model], Processed] | None:
    """Returns what puts around a model what the configuration asks for, if that is anything.

    Args:
        metadata: of the model that it is done around.
        config: the model's configuration.
        quantized: scale and zero point of the model's inputs and outputs by name.
        names: class names of the label file, in index order; empty without one.
        folder: of the version's files.

    Raises:
        LoadFailed: the configuration and the model contradict each other.
    """
    pre, post = config.preprocess, config.postprocess
    if pre is None and config.table is None and (post is None or config.task == "text"):
        return None
    signature = metadata.signatures[metadata.default_signature]
    image = None
    if pre is not None:
        stored = quantized.get(find(pre, signature.inputs).name)
        image = image_input(pre, signature.inputs, stored)
    key = pre.key if pre is not None else None
    one_by_one = (
        not signature.batched
        and config.sequence is None
        and config.max_batch_size != 0
        and all(spec.shape is not None and spec.shape[:1] == (1,) for spec in signature.inputs)
    )
    answer: Answer | None = None
    table = None
    if config.table is not None:
        table = table_input(config.table, signature.inputs, folder)
        answer = prediction(config.table, signature.outputs, folder)
    if post is not None and config.task is not None:
        # What is declared of the one output counts more than a file that lies beside the model.
        declared = next(iter(metadata.labels.values())) if len(metadata.labels) == 1 else names
        labels = declared if post.labels is None else post.labels
        outputs = Outputs(post, signature.outputs, quantized)
        answer = _answer(config.task, post, outputs, labels, image)
    visible = _visible(signature, image, key, answer, one_by_one)
    if table is not None:
        visible = table.seen(visible)
    name = metadata.default_signature
    seen = dataclasses.replace(
        metadata,
        signatures={**metadata.signatures, name: visible},
        labels=metadata.labels if answer is None else answer.labels,
        quantization=metadata.quantization if answer is None else {},
        max_batch_size=_max_rows(metadata, config, image, one_by_one),
    )
    does = Processing(seen, name, image, key, answer, one_by_one, table)
    return lambda inner: Processed(inner, does)


def _answer(
    task: Task,
    config: Postprocess,
    outputs: Outputs,
    labels: Sequence[str],
    image: ImageInput | None,
) -> Answer | None:
    if task == "segmentation":
        return Segmentation(config, outputs)
    if task == "regression":
        return Regression(config, outputs)
    if task in ("detection", "tracking"):
        return Detection(config, outputs, labels, image.size if image is not None else None)
    return Classification(config, outputs, labels) if task != "text" else None


def _visible(
    signature: Signature,
    image: ImageInput | None,
    key: str | None,
    answer: Answer | None,
    one_by_one: bool,
) -> Signature:
    """The signature as clients see it."""

    def rows(spec: TensorSpec) -> TensorSpec:
        shape = spec.shape
        return dataclasses.replace(spec, shape=(-1, *shape[1:])) if one_by_one and shape else spec

    lead = -1 if one_by_one or signature.batched else (signature.inputs[0].shape or (-1,))[0]
    inputs = [rows(spec) for spec in signature.inputs]
    if image is not None:
        at = signature.inputs.index(image.spec)
        plain = inputs[at]
        if image.name in {spec.name for spec in signature.inputs if spec is not image.spec}:
            raise LoadFailed(f"preprocess.name: the model has another input '{image.name}'")
        inputs[at] = TensorSpec(image.name, "BYTES", (lead,), plain.optional, plain)
    outputs = [rows(spec) for spec in signature.outputs]
    if answer is not None:
        outputs = [
            dataclasses.replace(spec, shape=(lead, *spec.shape[1:])) if spec.shape else spec
            for spec in answer.outputs
        ]
    if key is not None:
        if key in {spec.name for spec in (*inputs, *signature.inputs, *outputs)}:
            raise LoadFailed(f"preprocess.key: the model has an input or output '{key}' already")
        inputs.append(TensorSpec(key, "BYTES", (lead,), optional=True))
        outputs.append(TensorSpec(key, "BYTES", (lead,)))
    batched = signature.batched or one_by_one
    return dataclasses.replace(
        signature, inputs=tuple(inputs), outputs=tuple(outputs), batched=batched
    )


def _max_rows(
    metadata: ModelMetadata, config: ModelConfig, image: ImageInput | None, one_by_one: bool
) -> int:
    limit = config.max_batch_size if one_by_one else metadata.max_batch_size
    if image is None or limit == 0 or config.max_batch_size:
        return 1024 if limit is None else limit
    most = max(1, _MAX_REQUEST_BYTES // image.row_bytes)
    return most if limit is None else min(limit, most)
