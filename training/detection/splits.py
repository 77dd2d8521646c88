"""Draws the training, validation and test split anew."""

from __future__ import annotations

import dataclasses

import numpy as np

from crossfade.training.detection.records import SPLITS, DetectionSet


def sizes(data: DetectionSet) -> tuple[int, int, int]:
    """Returns how many pictures are in each split; 60/20/20 % where the set says none."""
    n_training, n_validation, n_test = (len(data.of(split)) for split in SPLITS)
    if n_training and n_validation and n_test:
        return n_training, n_validation, n_test
    n = len(data.pictures)
    n_test = n_validation = max(1, n // 5)
    return n - n_test - n_validation, n_validation, n_test


def redraw(data: DetectionSet, seed: int) -> DetectionSet:
    """Splits at random into parts as large as before."""
    return _assign(data, np.random.default_rng(seed).permutation(len(data.pictures)))


def contiguous(data: DetectionSet) -> DetectionSet:
    """Splits into blocks of neighbours by name: what was taken together stays together."""
    names = [picture.path.name for picture in data.pictures]
    return _assign(data, np.argsort(np.array(names), kind="stable"))


def _assign(data: DetectionSet, order: np.ndarray) -> DetectionSet:
    pictures = list(data.pictures)
    places = iter(order.tolist())
    for split, size in zip(SPLITS, sizes(data), strict=True):
        for _ in range(size):
            place = next(places)
            pictures[place] = dataclasses.replace(pictures[place], split=split)
    return dataclasses.replace(data, pictures=tuple(pictures))
