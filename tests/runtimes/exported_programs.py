"""Saves tiny PyTorch programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Module = torch.nn.Module


class Affine(Module):
    """y = 2x + 1 and m = 2x."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor([2.0]))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        m = x * self.scale
        return {"y": m + 1, "m": m}


class Halves(Module):
    """y = 2x + shift in BF16, m = 2x in FP32."""

    def forward(self, x: torch.Tensor, shift: torch.Tensor) -> dict[str, torch.Tensor]:
        m = 2 * x.to(torch.float32)
        return {"y": (m + shift).to(torch.bfloat16), "m": m}


class Heavy(Module):
    """A linear layer of so many MB of weights."""

    def __init__(self, megabytes: int) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(256, megabytes << 10, bias=False)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"y": self.layer(x).sum(dim=1, keepdim=True)}


def save(module: Module, inputs: tuple[Any, ...], path: Path, dynamic: bool | Any = True) -> Path:
    """Exports a module; with ``dynamic`` the first dimension of every input is the batch."""
    batch = torch.export.Dim("batch")
    shapes = tuple({0: batch} for _ in inputs) if dynamic is True else dynamic or None
    with torch.no_grad():
        program = torch.export.export(module.eval(), inputs, dynamic_shapes=shapes)
    torch.export.save(program, path)
    return path


def affine(folder: Path) -> None:
    save(Affine(), (torch.zeros(2, 3),), folder / "model.pt2")


def halves(folder: Path) -> None:
    inputs = torch.zeros(2, 3, dtype=torch.bfloat16), torch.zeros(2, 3)
    save(Halves(), inputs, folder / "model.pt2")


def heavy(folder: Path, megabytes: int) -> None:
    save(Heavy(megabytes), (torch.zeros(2, 256),), folder / "model.pt2")


def function(body: Callable[..., Any]) -> Module:
    """A module of one function."""

    class Function(Module):
        def forward(self, x: torch.Tensor) -> Any:
            return body(x)

    return Function()
