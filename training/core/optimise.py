"""One update of the weights: precision, accumulation, clipping, schedule, and NaN told at once."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Annotated, Any, Literal

import pydantic
import torch
from torch import nn

from crossfade.runtimes.core.errors import FailedPrecondition, InvalidArgument
from crossfade.training.core.config import Config
from crossfade.training.core.schedules import Plateau, Schedule

Precision = Literal["fp32", "bf16", "fp16"]
Positive = Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, pydantic.Field(ge=1)]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class NotFinite(FailedPrecondition):
    """A loss or a gradient is NaN or infinite; the weights are as before that step."""


class Optimisation(Config):
    """How weights are updated.

    Attributes:
        optimizer: AdamW (Loshchilov and Hutter 2019), or SGD with Nesterov momentum.
        weight_decay: not of biases and of normalisations' weights.
        clip_norm: gradients whose norm, of all together, is larger are scaled down to it.
        precision: of activations; ``fp16`` scales the loss.
        accumulate: batches to one update.
    """

    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: Positive = 1e-3
    weight_decay: Annotated[float, pydantic.Field(ge=0, allow_inf_nan=False)] = 1e-2
    momentum: Annotated[float, pydantic.Field(ge=0, lt=1)] = 0.9
    clip_norm: Positive | None = 1.0
    precision: Precision = "fp32"
    accumulate: Count = 1
    schedule: Schedule = Schedule()


def groups(module: nn.Module, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups of trainable parameters: with weight decay, and (vectors, scalars) without."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    found = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [{**group, "lr": learning_rate} for group in found if group["params"]]


class Updates:
    """Updates a module's weights from losses. Not thread-safe.

    Attributes:
        step: updates so far, with those that ``fp16`` skipped.
        factor: of the next update; each group's base rate times it is its rate.
    """

    def __init__(
        self,
        module: nn.Module,
        config: Optimisation,
        total_steps: int,
        device: torch.device,
        *,
        parameter_groups: list[dict[str, Any]] | None = None,
    ) -> None:
        """Makes the optimiser.

        Args:
            module: as ``Place.wrap`` gave it.
            config: how to update.
            total_steps: updates of the whole run, for the schedule.
            device: where the module is.
            parameter_groups: with a rate each; by default ``groups`` of the whole module.

        Raises:
            InvalidArgument: there is nothing to train.
        """
        made = parameter_groups or groups(module, config.learning_rate, config.weight_decay)
        if not made:
            raise InvalidArgument("there is nothing to train: all weights are frozen")
        self.step = 0
        self._config, self._total, self._device = config, total_steps, device
        self._module = module
        self._parameters = [p for group in made for p in group["params"]]
        self._optimizer: torch.optim.Optimizer
        if config.optimizer == "adamw":
            self._optimizer = torch.optim.AdamW(made, lr=config.learning_rate)
        else:
            momentum = config.momentum
            self._optimizer = torch.optim.SGD(
                made, lr=config.learning_rate, momentum=momentum, nesterov=momentum > 0
            )
        self._base_rates = [group["lr"] for group in self._optimizer.param_groups]
        self._plateau = Plateau(config.schedule.gamma, config.schedule.patience)
        self._scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self._gathered = 0

    @property
    def factor(self) -> float:
        """What the base rates are multiplied by at the next update."""
        return self._config.schedule.factor(self.step, self._total) * self._plateau.factor

    @property
    def between(self) -> bool:
        """Whether no gradients wait for more batches: the moment for a checkpoint."""
        return self._gathered == 0

    def autocast(self) -> AbstractContextManager[Any]:
        """The context in which the module is called and the loss computed."""
        dtype = _DTYPES.get(self._config.precision)
        if dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, dtype=dtype)

    def take(self, loss_of_batch: Callable[[], torch.Tensor]) -> float:
        """Computes one batch's loss and its gradients; updates once enough have gathered.

        Returns:
            The loss.

        Raises:
            NotFinite: the loss, or the gradient of an update, is NaN or infinite; with ``fp16``
                such an update is skipped and halves the scale, until it is down to 1.
        """
        last = self._gathered + 1 == self._config.accumulate
        no_sync = getattr(self._module, "no_sync", contextlib.nullcontext)
        with contextlib.nullcontext() if last else no_sync():
            with self.autocast():
                loss = loss_of_batch()
            value = float(loss.detach())
            if not math.isfinite(value):
                self._drop()
                raise NotFinite(
                    f"the loss is {value} at step {self.step}: lower the learning rate"
                    f" ({self._config.learning_rate:g}), or look for broken rows in the data"
                )
            scaled: Any = self._scaler.scale(loss / self._config.accumulate)
            scaled.backward()
        self._gathered += 1
        if last:
            self._update()
        return value

    def look(self, value: float) -> None:
        """Tells the schedule ``plateau`` the loss of an evaluation."""
        if self._config.schedule.kind == "plateau":
            self._plateau.look(value)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint; only ``between`` updates."""
        if not self.between:
            raise RuntimeError("a checkpoint in the middle of an update would lose gradients")
        return {
            "step": self.step,
            "optimizer": self._optimizer.state_dict(),
            "plateau": self._plateau.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self.step = state["step"]
        self._optimizer.load_state_dict(state["optimizer"])
        self._plateau.load_state_dict(state["plateau"])
        self._scaler.load_state_dict(state["scaler"])

    def _update(self) -> None:
        factor = self.factor
        for group, base in zip(self._optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = base * factor
        self._scaler.unscale_(self._optimizer)
        norm = float(
            torch.nn.utils.clip_grad_norm_(self._parameters, self._config.clip_norm or math.inf)
        )
        if not math.isfinite(norm) and self._scaler.get_scale() <= 1:  # it is 1 without fp16
            self._drop()
            raise NotFinite(
                f"the gradient is {norm} at step {self.step} though the loss is finite: lower the"
                f" learning rate ({self._config.learning_rate:g}), or say precision: fp32"
            )
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._drop()
        self.step += 1

    def _drop(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        self._gathered = 0
