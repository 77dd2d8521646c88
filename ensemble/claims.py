"""What the members claimed of one request, in few characters, until its truth is known."""

from __future__ import annotations

import json
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_MOST_LABELS: Final = 32
_MOST_NUMBERS: Final = 512


def pack(claims: npt.NDArray[np.floating[Any]]) -> str:
    """Probabilities [M, C] as text of at most about 6,000 characters.

    The labels that some member finds likeliest are kept, the others share what is left of each
    member: up to 32 labels, for more than 16 members 512 numbers.
    """
    members, classes = claims.shape
    most = max(1, min(_MOST_LABELS, _MOST_NUMBERS // members))
    kept = np.sort(np.argsort(-claims.max(axis=0), kind="stable")[:most])
    named = claims[:, kept].astype(np.float64)
    others = classes - len(kept)
    left = np.maximum(1 - named.sum(axis=1), 0) / max(others, 1)
    return json.dumps(
        {
            "labels": kept.tolist(),
            "claims": [[_short(p) for p in column] for column in named.T],
            "others": [_short(p) for p in left] if others else [],
        },
        separators=(",", ":"),
    )


def claims_of(text: str, place: int) -> tuple[float, ...]:
    """What each member claimed of the label at ``place``, [M]; ``text`` is what ``pack`` wrote."""
    read = json.loads(text)
    known = dict(zip(read["labels"], read["claims"], strict=True))
    return tuple(float(p) for p in known.get(place, read["others"]))


def _short(probability: float) -> float:
    return float(f"{probability:.6g}")
