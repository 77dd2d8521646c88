"""``task``, ``preprocess`` and ``postprocess`` of ``model.yaml``: pictures in, answers out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal, Self

import pydantic

Task = Literal[
    "classification",
    "multi_label",
    "detection",
    "segmentation",
    "regression",
    "text",
    "tracking",
]
Filter = Literal["nearest", "bilinear", "bicubic", "lanczos", "area"]
Role = Literal["scores", "boxes", "classes", "count", "mask", "value"]
Number = Annotated[float, pydantic.Field(allow_inf_nan=False)]
PositiveNumber = Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, pydantic.Field(ge=0, le=1, allow_inf_nan=False)]
Side = Annotated[int, pydantic.Field(ge=1, le=8192)]
Name = Annotated[str, pydantic.Field(min_length=1, max_length=256)]

# Which keys of ``postprocess`` mean something for which task.
_SCORED: Final = frozenset({"labels", "activation", "top_k", "threshold", "outputs"})
_BOXED: Final = frozenset(
    {
        *("labels", "label_offset", "activation", "threshold", "outputs", "box_format"),
        *("box_units", "iou_threshold", "class_agnostic", "max_detections"),
    }
)
_KEYS: Final[Mapping[str, frozenset[str]]] = {
    "classification": _SCORED,
    "multi_label": _SCORED,
    "detection": _BOXED,
    "tracking": _BOXED,
    "segmentation": frozenset({"outputs", "class_axis", "threshold", "png"}),
    "regression": frozenset({"outputs", "scale", "offset", "minimum", "maximum"}),
    "text": frozenset(),
}
_EVERY_TASK: Final = frozenset({"quantization"})


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


class Resize(_Section):
    """How a picture gets the model's height and width; ``docs/preprocessing.md`` says it exactly.

    Attributes:
        filter: how a new pixel is made of old ones.
        antialias: a filter that makes a picture smaller looks at all old pixels under a new one.
        fit: ``stretch`` changes the proportions, ``crop`` cuts off, ``letterbox`` adds a border.
        crop_fraction: of the part that ``crop`` takes, its middle in each direction.
        fill: of the border of ``letterbox``, 0 to 255.
        height, width: where the model's own shape does not say.
    """

    filter: Filter = "bilinear"
    antialias: bool = True
    fit: Literal["stretch", "crop", "letterbox"] = "stretch"
    crop_fraction: Annotated[float, pydantic.Field(gt=0, le=1)] = 1.0
    fill: Annotated[int, pydantic.Field(ge=0, le=255)] = 0
    height: Side | None = None
    width: Side | None = None

    @pydantic.model_validator(mode="after")
    def _crops(self) -> Self:
        if self.crop_fraction != 1 and self.fit != "crop":
            raise ValueError("crop_fraction is for fit: crop")
        return self


class Quantization(_Section):
    """real = scale * (stored - zero_point)."""

    scale: PositiveNumber
    zero_point: int = 0


class Preprocess(_Section):
    """How an image file becomes the model's input.

    Attributes:
        input: the model's input; needed only if it has several that could be a picture.
        name: what clients call it; as the model does, by default.
        key: an input of strings that comes back as the output of that name.
        color: order of the channels; derived from their number, RGB before BGR.
        layout: derived from the shape.
        scale, mean, std: the model is given ``(pixel * scale - mean) / std``, for one channel or
            each; a pixel is 0 to 255.
        quantization: of an integer input that wants such values; the model's own, by default.
        exif_orientation: whether a picture is turned as its file says.
        max_pixels: larger pictures are refused before they are decoded.
    """

    input: Name | None = None
    name: Name | None = None
    key: Name | None = None
    color: Literal["rgb", "bgr", "gray"] | None = None
    layout: Literal["nhwc", "nchw"] | None = None
    resize: Resize = Resize()
    scale: PositiveNumber | None = None
    mean: tuple[Number, ...] | None = None
    std: tuple[PositiveNumber, ...] | None = None
    quantization: Quantization | None = None
    exif_orientation: bool = True
    max_pixels: Annotated[int, pydantic.Field(ge=1, le=150_000_000)] = 50_000_000

    @pydantic.field_validator("mean", "std", mode="before")
    @classmethod
    def _one_for_all(cls, value: object) -> object:
        return (value,) if isinstance(value, int | float) else value

    @property
    def normalizes(self) -> bool:
        """Whether the model wants other numbers than pixels."""
        return (self.scale, self.mean, self.std) != (None, None, None)


class Postprocess(_Section):
    """How the model's outputs become an answer; which keys there are depends on the task.

    Attributes:
        outputs: the model's outputs by what they are: ``scores``, ``boxes``, ``classes``,
            ``count``, ``mask``, ``value``; needed where their names do not say.
        quantization: of integer outputs by name; the model's own, by default.
        labels: class names in index order; those of the label file, by default.
        label_offset: added to a class number to find its label.
        activation: makes scores of what the model gives.
        top_k: the best classes only, the best first.
        threshold: what scores less is left out; of a mask of one channel, what is inside.
        box_format, box_units: how the model writes a box.
        iou_threshold: boxes that overlap a better one by more are left out; ``None`` keeps all.
        class_agnostic: boxes of other classes count as overlapping, too.
        max_detections: boxes in an answer; as many as the model gives, at most 100, by default.
        class_axis: the dimension of a mask that counts the classes.
        png: the mask as a PNG file instead of a tensor.
        scale, offset: the answer is ``value * scale + offset``.
        minimum, maximum: limits of the answer.
    """

    outputs: Mapping[Role, Name] = pydantic.Field(default_factory=dict)
    quantization: Mapping[Name, Quantization] = pydantic.Field(default_factory=dict)
    labels: tuple[str, ...] | None = None
    label_offset: int = 0
    activation: Literal["softmax", "sigmoid"] | None = None
    top_k: Annotated[int, pydantic.Field(ge=1, le=100_000)] | None = None
    threshold: Fraction | None = None
    box_format: Literal["yxyx", "xyxy", "cxcywh"] = "yxyx"
    box_units: Literal["fraction", "pixels"] = "fraction"
    iou_threshold: Fraction | None = None
    class_agnostic: bool = False
    max_detections: Annotated[int, pydantic.Field(ge=1, le=10_000)] | None = None
    class_axis: Annotated[int, pydantic.Field(ge=-3, le=3)] = -1
    png: bool = False
    scale: Number = 1.0
    offset: Number = 0.0
    minimum: Number | None = None
    maximum: Number | None = None


def check(
    task: Task | None, preprocess: Preprocess | None, postprocess: Postprocess | None
) -> None:
    """Checks that the sections go together.

    Raises:
        ValueError: a key is for another task, or a section is missing.
    """
    if postprocess is None:
        return
    if task is None:
        raise ValueError(f"postprocess needs a task: one of {', '.join(_KEYS)}")
    fields = Postprocess.model_fields.items()
    given = {
        name
        for name, field in fields
        if getattr(postprocess, name) != field.get_default(call_default_factory=True)
    }
    for key in sorted(given - _KEYS[task] - _EVERY_TASK):
        others = ", ".join(name for name, keys in _KEYS.items() if key in keys)
        raise ValueError(f"postprocess.{key} is not for task {task}, but for {others}")
    if task == "classification" and postprocess.activation == "sigmoid":
        raise ValueError("the classes of a sigmoid do not exclude each other: task multi_label")
    if task == "multi_label" and postprocess.activation == "softmax":
        raise ValueError("the classes of a softmax exclude each other: task classification")
    if postprocess.box_units == "pixels" and preprocess is None:
        raise ValueError("box_units: pixels needs preprocess, which knows how many there are")
    low, high = postprocess.minimum, postprocess.maximum
    if low is not None and high is not None and low > high:
        raise ValueError("minimum is larger than maximum")
