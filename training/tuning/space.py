"""What is searched: named parameters, and the unit cube that surrogates see."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt

from crossfade.runtimes.core.errors import InvalidArgument

Value = float | int | str
Values = Mapping[str, Value]
Vector = npt.NDArray[np.float64]
Source = Literal["given", "clipped", "missing", "unknown"]


@dataclasses.dataclass(frozen=True, slots=True)
class Number:
    """A number from ``low`` to ``high``, both included; on a logarithmic scale where ``log``."""

    low: float
    high: float
    log: bool = False
    integer: bool = False

    def __post_init__(self) -> None:
        """Raises InvalidArgument for bounds that hold nothing."""
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise InvalidArgument(f"a parameter from {self.low:g} to {self.high:g} has no values")
        if self.log and self.low <= 0:
            raise InvalidArgument("a logarithmic scale begins above 0")

    def to_unit(self, value: Value) -> float:
        """0 at ``low``, 1 at ``high``; values outside are moved to the nearest bound."""
        low, high, inside = self._scaled(self.low), self._scaled(self.high), self.clip(value)
        return (self._scaled(float(inside)) - low) / (high - low)

    def from_unit(self, at: float) -> float | int:
        """The opposite of ``to_unit``."""
        low, high = self._scaled(self.low), self._scaled(self.high)
        scaled = low + (high - low) * min(max(at, 0.0), 1.0)
        return self.clip(math.exp(scaled) if self.log else scaled)

    def clip(self, value: Value) -> float | int:
        """The nearest value that the parameter may have.

        Raises:
            InvalidArgument: it is no number.
        """
        if isinstance(value, str) or not math.isfinite(value):
            raise InvalidArgument(f"'{value}' is no number")
        inside = min(max(float(value), self.low), self.high)
        if not self.integer:
            return inside
        return min(max(round(inside), math.ceil(self.low)), math.floor(self.high))

    def _scaled(self, value: float) -> float:
        return math.log(value) if self.log else value


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """One of several names, in no order."""

    options: tuple[str, ...]

    def __post_init__(self) -> None:
        """Raises InvalidArgument for a choice of nothing."""
        if len(self.options) < 2 or len(set(self.options)) < len(self.options):
            raise InvalidArgument("a choice needs at least two options, each once")


Parameter = Number | Choice


@dataclasses.dataclass(frozen=True, slots=True)
class Adopted:
    """Values of another run, made to fit a space.

    Attributes:
        values: only those that the other run had.
        provenance: for each parameter of the space ``given``, ``clipped`` (it lay outside) or
            ``missing``; for each value that the space does not have, ``unknown``.
    """

    values: Values
    provenance: Mapping[str, Source]

    @property
    def complete(self) -> bool:
        """Whether every parameter has a value that the other run really had."""
        return "missing" not in self.provenance.values()


@dataclasses.dataclass(frozen=True, slots=True)
class Space:
    """All parameters, by name."""

    parameters: Mapping[str, Parameter]

    def __post_init__(self) -> None:
        """Raises InvalidArgument for a space of nothing."""
        if not self.parameters:
            raise InvalidArgument("a space needs at least one parameter")

    @property
    def width(self) -> int:
        """Coordinates of the unit cube: one for a number, one for each option of a choice."""
        return sum(_width(parameter) for parameter in self.parameters.values())

    def to_unit(self, values: Values) -> Vector:
        """Coordinates [width] of complete values.

        Raises:
            InvalidArgument: a value is missing, or is not one of a choice's.
        """
        parts: list[float] = []
        for name, parameter in self.parameters.items():
            if name not in values:
                raise InvalidArgument(f"the parameter '{name}' has no value")
            value = values[name]
            if isinstance(parameter, Number):
                parts.append(parameter.to_unit(value))
            elif value in parameter.options:
                # Two different options are as far apart as the two ends of a number.
                parts += [math.sqrt(0.5) * (value == option) for option in parameter.options]
            else:
                raise InvalidArgument(f"'{value}' is no option of '{name}'")
        return np.array(parts)

    def from_unit(self, at: Vector) -> dict[str, Value]:
        """The values at coordinates; of a choice, the option with the largest."""
        values: dict[str, Value] = {}
        start = 0
        for name, parameter in self.parameters.items():
            part = at[start : start + _width(parameter)]
            start += len(part)
            if isinstance(parameter, Number):
                values[name] = parameter.from_unit(float(part[0]))
            else:
                values[name] = parameter.options[int(np.argmax(part))]
        return values

    def snap(self, points: Vector) -> Vector:
        """The nearest points [n, width] that values have: whole numbers, one option."""
        return np.array([self.to_unit(self.from_unit(point)) for point in points])

    def adopt(
        self, values: Mapping[str, object], rename: Mapping[str, str] | None = None
    ) -> Adopted:
        """Takes what can be taken of another run's values, and says of each what it is.

        Nothing is made up: a parameter that the other run does not have stays without a value.

        Args:
            values: of the other run.
            rename: its names to the space's, where they differ.
        """
        found: dict[str, Value] = {}
        provenance: dict[str, Source] = dict.fromkeys(self.parameters, "missing")
        for theirs, value in values.items():
            name = (rename or {}).get(theirs, theirs)
            parameter = self.parameters.get(name)
            fits = _fitting(parameter, value)
            if fits is None:
                provenance[theirs if parameter is None else name] = (
                    "unknown" if parameter is None else "missing"
                )
                continue
            found[name], provenance[name] = fits
        return Adopted(found, provenance)


def _fitting(parameter: Parameter | None, value: object) -> tuple[Value, Source] | None:
    if isinstance(parameter, Choice):
        return (str(value), "given") if str(value) in parameter.options else None
    if not isinstance(parameter, Number) or isinstance(value, bool):
        return None
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    inside = parameter.clip(value)
    return inside, "given" if inside == value else "clipped"


def _width(parameter: Parameter) -> int:
    return 1 if isinstance(parameter, Number) else len(parameter.options)
