"""A small set of digits, and a configuration that trains on it in seconds."""

from __future__ import annotations

from pathlib import Path

from crossfade.training.arr_coc import digits

SETTINGS = (
    "backbone.epochs=2",
    "backbone.batch_size=8",
    "backbone.validate_every=1",
    "backbone.optimisation.precision=fp32",
    "heads.epochs=2",
    "heads.views=1",
    "heads.batch_size=8",
    "heads.width=16",
    "held_out=[[digit 0, left]]",
)


def compose(folder: Path) -> Path:
    """Writes scenes in which no split lacks a class; returns the import file."""
    return digits.compose(folder, (16, 12, 12), seed=3, classes=(0, 3, 5))
