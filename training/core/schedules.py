"""Learning rates over the steps of a run, each as a factor of the base rate.

All but ``Plateau`` are functions of the step alone, so a resumed run needs no state of them.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import pydantic

Fraction = Annotated[float, pydantic.Field(ge=0, le=1, allow_inf_nan=False)]
Kind = Literal["constant", "cosine", "linear", "step", "one_cycle", "wsd", "plateau"]


class Schedule(pydantic.BaseModel):
    """How the rate goes: a linear warm-up from 0, then one of these.

    ``cosine`` and ``linear`` fall to ``final``. ``step`` multiplies by ``gamma`` every
    ``every_steps``. ``one_cycle`` (Smith and Topin 2018, arXiv:1708.07120) rises from 1/25 along
    a cosine for ``rise`` of the steps, then falls to ``final``; it has no other warm-up. ``wsd``
    (warm-up, stable, decay; Hu et al. 2024, arXiv:2404.06395) stays at 1 and falls in a line to
    ``final`` over the last ``decay`` of the steps. ``plateau`` multiplies by ``gamma`` when the
    watched value has not got better for ``patience`` looks.

    Attributes:
        warmup_steps: until the base rate is reached.
        final: the factor at the end.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    kind: Kind = "cosine"
    warmup_steps: Annotated[int, pydantic.Field(ge=0)] = 0
    final: Fraction = 0.0
    gamma: Annotated[float, pydantic.Field(gt=0, lt=1)] = 0.1
    every_steps: Annotated[int, pydantic.Field(ge=1)] = 1000
    rise: Annotated[float, pydantic.Field(gt=0, lt=1)] = 0.3
    decay: Annotated[float, pydantic.Field(gt=0, le=1)] = 0.2
    patience: Annotated[int, pydantic.Field(ge=0)] = 5

    @pydantic.model_validator(mode="after")
    def _one_rise(self) -> Schedule:
        if self.kind == "one_cycle" and self.warmup_steps:
            raise ValueError("one_cycle rises by itself: leave warmup_steps out")
        return self

    def factor(self, step: int, total_steps: int) -> float:
        """The factor for update number ``step``, from 0; ``plateau``'s own comes on top.

        The rate of the last update (``total_steps - 1``) is ``final``, and stays so after it.
        """
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        left = max(total_steps - 1 - self.warmup_steps, 1)
        done = min((step - self.warmup_steps) / left, 1.0)
        return self._after(done, step - self.warmup_steps)

    def warmed(self, steps: int, total_steps: int) -> Schedule:
        """The same with a warm-up of ``steps``, of half of the run at most, if it has none."""
        if self.warmup_steps or self.kind == "one_cycle":
            return self
        return self.model_copy(update={"warmup_steps": min(steps, total_steps // 2)})

    def _after(self, done: float, steps: int) -> float:
        """After the warm-up, at the share ``done`` of what is left."""
        fallen, high = 0.0, 1.0
        match self.kind:
            case "cosine":
                fallen = 1 - _half_cosine(done)
            case "linear":
                fallen = done
            case "step":
                high = self.gamma ** (steps // self.every_steps)
            case "one_cycle" if done < self.rise:
                high = 1 - (1 - 1 / 25) * _half_cosine(done / self.rise)
            case "one_cycle":
                fallen = 1 - _half_cosine((done - self.rise) / (1 - self.rise))
            case "wsd":
                fallen = max(0.0, (done - (1 - self.decay)) / self.decay)
        return high + (self.final - high) * fallen


def _half_cosine(done: float) -> float:
    """From 1 at 0 to 0 at 1."""
    return (1 + math.cos(math.pi * done)) / 2


class Plateau:
    """Lowers the rate when a value (a loss: lower is better) stops getting better.

    Not thread-safe.
    """

    def __init__(self, gamma: float, patience: int, *, threshold: float = 1e-4) -> None:
        """``threshold``: by which share the best value must be beaten to count."""
        self._gamma, self._patience, self._threshold = gamma, patience, threshold
        self.factor = 1.0
        self._best = math.inf
        self._waited = 0

    def look(self, value: float) -> float:
        """Takes one value, after each evaluation; returns the factor from now on."""
        if value < self._best - abs(self._best) * self._threshold or math.isinf(self._best):
            self._best, self._waited = value, 0
        else:
            self._waited += 1
        if self._waited > self._patience:
            self.factor *= self._gamma
            self._waited = 0
        return self.factor

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"factor": self.factor, "best": self._best, "waited": self._waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self.factor, self._best = state["factor"], state["best"]
        self._waited = state["waited"]
