"""Rows that are there more than once: with another target, or on both sides of a split."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfade.training.intervals import Interval, wilson
from crossfade.training.transforms.table import Table

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Duplicates:
    """What was found.

    Attributes:
        repeated: rows whose features and target were there before.
        conflicting: rows whose features are there with another target; of a regression ``None``,
            since equal features may well have different values.
        test_in_training: test rows whose features are a training row's; ``None`` without a split.
        rows: of the last, and of conflicting ones, for review.
    """

    repeated: Interval
    conflicting: Interval | None
    test_in_training: Interval | None
    rows: Array


def duplicates(table: Table, target: Array, test: Array | None, *, regression: bool) -> Duplicates:
    """Compares all rows by their cells, but for those of columns that number or name the rows.

    Args:
        table: features, as they were read: a number is what its text is.
        target: float64 or class places [rows].
        test: which rows are the test's, bool [rows]; ``None`` where the data do not say.
        regression: what the target is.
    """
    groups: dict[bytes, list[int]] = defaultdict(list)
    for row, digest in enumerate(_digests(table)):
        groups[digest].append(row)
    repeated = conflicting = crossing = 0
    shown: list[int] = []
    for members in groups.values():
        if len(members) == 1:
            continue
        values = [target[row].item() for row in members]
        repeated += len(values) - len(set(values))
        if not regression and len(set(values)) > 1:
            conflicting += len(members)
            shown += members
        if test is not None:
            inside = [row for row in members if test[row]]
            if len(inside) < len(members):
                crossing += len(inside)
                shown += inside
    rows = len(target)
    return Duplicates(
        wilson(repeated, rows),
        None if regression else wilson(conflicting, rows),
        None if test is None else wilson(crossing, int(test.sum())),
        np.array(sorted(set(shown)), np.int64),
    )


def _digests(table: Table) -> list[bytes]:
    all_columns = [table.texts(name).tolist() for name in table.columns]
    columns = [column for column in all_columns if not _identifies(column)] or all_columns
    return [
        hashlib.blake2b("\x1f".join(row).encode("utf-8", "surrogatepass"), digest_size=16).digest()
        for row in zip(*columns, strict=True)
    ]


def _identifies(column: list[str]) -> bool:
    """Whether all values differ, and are no measurements."""
    return len(set(column)) == len(column) and not any("." in value for value in column)
