"""Ground truth by request id: late, early, twice; joined with what the members had answered.

Prediction and truth of a request share one row, whichever comes first. What completes the row
counts the comparison, in the same transaction and therefore once, towards the step that the fade
is in by then: a step is judged by what was learned while it lasted. What one member answered
alone only counts in the step that it was answered in, with whose split it is weighed. Nothing is
kept in memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from crossfade.serving.fade.halves import Halves, Rows, check
from crossfade.serving.fade.policy import Status
from crossfade.serving.fade.records import MAX_ANSWER, Fade, Outcome, Prediction, Retention
from crossfade.serving.fade.tables import FADES, FEEDBACK, LABELS


class Feedback:
    """Takes predictions and truths; thread-safe. Every method may raise ``Unavailable``."""

    def __init__(self, engine: sa.Engine, retention: Retention) -> None:
        self._halves = Halves(engine, FEEDBACK, FEEDBACK.c.fade_id, retention, _count)

    def predicted(self, fade: Fade, predictions: Sequence[Prediction], now_s: float) -> None:
        """Keeps what was answered; a request id that is known changes nothing.

        Args:
            fade: as it was when the requests were answered.
            predictions: what the members answered.
            now_s: seconds since 1970.

        Raises:
            InvalidArgument: an id or an answer is empty, too long or has a NUL; nothing was kept.
        """
        rows: dict[str, dict[str, Any]] = {}
        during = {"fade_id": fade.id, "step": fade.position.step}
        for each in predictions:
            answers = {
                "primary_answer": each.primary_answer,
                "candidate_answer": each.candidate_answer,
            }
            for answer in answers.values():
                if answer is not None:
                    check("an answer", answer, MAX_ANSWER)
            rows.setdefault(each.request_id, {**during, **answers})
        self._halves.answered(fade.name, rows, now_s)

    def truths(self, name: str, truths: Mapping[str, str], now_s: float) -> dict[str, Outcome]:
        """See ``Halves.truths``."""
        return self._halves.truths(name, truths, now_s)


def _count(connection: sa.Connection, rows: Rows) -> None:
    """Adds comparisons to the current step of the fade that they belong to."""
    by_fade: dict[int, list[sa.Row[Any]]] = {}
    for row in rows:
        by_fade.setdefault(row.fade_id, []).append(row)
    for fade_id, of_fade in sorted(by_fade.items()):
        live = FADES.c.status.in_([Status.RUNNING.value, Status.PAUSED.value])
        query = sa.select(FADES.c.step).where(FADES.c.id == fade_id, live)
        step = connection.execute(query).scalar_one_or_none()
        counts = Counter(column for row in of_fade for column in _compared(row, step))
        if step is not None and counts:
            connection.execute(
                LABELS.update()
                .where(LABELS.c.fade_id == fade_id, LABELS.c.step == step)
                .values({name: LABELS.c[name] + count for name, count in counts.items()})
            )


def _compared(row: sa.Row[Any], step: int | None) -> list[str]:
    """The columns of the table of labels that a complete row counts in."""
    primary, candidate, truth = row.primary_answer, row.candidate_answer, row.truth
    if primary is not None and candidate is not None:
        better = (candidate == truth) - (primary == truth)
        return [("pair_worse", "pair_same", "pair_better")[better + 1]]
    if row.step != step or primary is candidate:
        return []
    better = (primary is not None and primary != truth) - (
        candidate is not None and candidate != truth
    )
    return [("alone_worse", "alone_same", "alone_better")[better + 1]]
