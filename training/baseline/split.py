"""Which rows are learned from and which are only measured on."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from crossfade.runtimes.core.errors import InvalidArgument, escape
from crossfade.training.transforms.table import Table

Array = npt.NDArray[Any]
# Vertex AI's words for the splits; TRAINING and VALIDATION are those of older files.
_WORDS: Final = {
    "TRAIN": False,
    "TRAINING": False,
    "VALIDATE": False,
    "VALIDATION": False,
    "TEST": True,
}


def test_rows(
    table: Table,
    fractions: tuple[float, float, float],
    column: str | None,
    classes: Array | None,
    seed: int,
) -> Array:
    """A mask of the rows for the test, bool [rows].

    Args:
        table: all rows.
        fractions: for training, validation and test; they add up to 1.
        column: a column that says it, in place of fractions.
        classes: class places [rows]; each class then has its share in the test.
        seed: of the drawing.

    Raises:
        InvalidArgument: the fractions or the column make no split.
    """
    if column is not None:
        words = [text.upper() for text in table.texts(column).tolist()]
        wrong = {word for word in words if word not in _WORDS}
        if wrong:
            raise InvalidArgument(
                f"column '{escape(column)}' has '{escape(min(wrong))}'; a split is TRAIN, VALIDATE"
                " or TEST"
            )
        held = np.array([_WORDS[word] for word in words], bool)
    else:
        if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
            raise InvalidArgument("the fractions for training, validation and test add up to 1")
        held = _drawn(len(table), fractions[2], classes, np.random.default_rng(seed))
    if not held.any() or held.all():
        raise InvalidArgument("the split leaves no rows for the test, or none to learn from")
    return held


def _drawn(rows: int, share: float, classes: Array | None, rng: np.random.Generator) -> Array:
    held = np.zeros(rows, bool)
    groups = np.zeros(rows, np.int64) if classes is None else classes
    for group in np.unique(groups):
        members = rng.permutation(np.flatnonzero(groups == group))
        held[members[: round(share * len(members))]] = True
    return held
