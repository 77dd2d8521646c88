"""What a child process is told to do; travels as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, Self

from crossfade.runtimes.core.model import DEFAULT_SIGNATURE, TensorSpec

SEED: Final = 20_260_301


@dataclasses.dataclass(frozen=True, slots=True)
class Made:
    """What the converters made.

    Attributes:
        signature: which of the source's signatures it is.
        cut: the input that now takes what the graph's own decoding gave, and nothing was cut off
            where it is ``None``; its dtype and shape.
        calibration: the data that an 8-bit model was calibrated on, in words.
        versions: of the packages that did it.
    """

    signature: str = DEFAULT_SIGNATURE
    cut: TensorSpec | None = None
    calibration: str = ""
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """One conversion.

    Attributes:
        step: convert, or prove what was converted.
        name: the model's.
        source: the file or folder that its runtime opens.
        options: of the source's runtime.
        target: a name of ``targets.TARGETS``.
        stage: the folder to work in; the result goes to its folder ``version``.
        signature: the one to convert; ``None`` is ``serving_default`` or the only one.
        after_decode: cut off the graph's own decoding of files.
        data, labels: a folder of images or an ``.npz``; a CSV of right answers.
        others: a JSON file with rows of the inputs beside the images.
        value_range: of the values of floating-point inputs; ``None`` is not known.
        warmups: declared warm-up requests (signature, inputs).
        class_names: in index order; empty where they are not known.
        tolerance: largest difference that a conversion without quantisation may make.
        agreement: least share of equal first choices that a quantised one must reach.
        max_rows: rows of the largest batch that is tried.
        activation_bits: 8 or 16, of what flows between a quantised model's layers.
    """

    step: Literal["convert", "prove"]
    name: str
    source: str
    platform: str
    options: Mapping[str, Any]
    target: str
    stage: str
    signature: str | None = None
    after_decode: bool = False
    data: str | None = None
    labels: str | None = None
    others: str | None = None
    value_range: tuple[float, float] | None = None
    warmups: Sequence[tuple[str, Mapping[str, Any]]] = ()
    class_names: Sequence[str] = ()
    tolerance: float = 1e-4
    agreement: float = 0.99
    max_rows: int = 8
    activation_bits: int = 8
    made: Made = dataclasses.field(default_factory=Made)

    @property
    def version_folder(self) -> Path:
        """Where the files go that are served."""
        return Path(self.stage, "version")

    @property
    def scratch(self) -> Path:
        """Where anything else goes."""
        return Path(self.stage, "scratch")

    def to_json(self) -> str:
        """All of it, as text."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The reverse of ``to_json``."""
        values = json.loads(text)
        values["made"] = made(values["made"])
        if values["value_range"] is not None:
            values["value_range"] = tuple(values["value_range"])
        return cls(**values)


def made(values: Mapping[str, Any]) -> Made:
    """Builds ``Made`` of plain values."""
    cut = values["cut"]
    if cut is not None:
        cut = TensorSpec(**{**cut, "shape": tuple(cut["shape"])})
    return Made(**{**values, "cut": cut})
