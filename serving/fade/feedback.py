"""Ground truth by request id: late, early, twice; joined with what the members had answered.

Prediction and truth of a request share one row, whichever comes first. What completes the row
counts the comparison, in the same transaction and therefore once, towards the step that the fade
is in by then: a step is judged by what was learned while it lasted. What one member answered
alone only counts in the step that it was answered in, with whose split it is weighed. Nothing is
kept in memory.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.serving.fade.policy import Status
from crossfade.serving.fade.records import (
    MAX_ANSWER,
    MAX_REQUEST_ID,
    Fade,
    Outcome,
    Prediction,
    Retention,
)
from crossfade.serving.fade.tables import (
    FADES,
    FEEDBACK,
    LABELS,
    MAX_NAME,
    reading,
    writing,
)

_CHUNK: Final = 500  # rows of one statement: below every limit on its parameters
_PRUNE_EVERY: Final = 1_000  # rows written by this process


class Feedback:
    """Takes predictions and truths; thread-safe. Every method may raise ``Unavailable``."""

    def __init__(self, engine: sa.Engine, retention: Retention) -> None:
        self._engine = engine
        self._retention = retention
        self._lock = threading.Lock()
        self._unpruned = 0

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
                    _check("an answer", answer, MAX_ANSWER)
            rows.setdefault(each.request_id, {**during, **answers})
        self._fill(fade.name, rows, FEEDBACK.c.fade_id, now_s)

    def truths(self, name: str, truths: Mapping[str, str], now_s: float) -> dict[str, Outcome]:
        """Takes what would have been right, by request id.

        Returns:
            ``joined`` with a prediction; ``waiting`` for one; ``repeated``, which changes
            nothing; ``conflict`` with another truth of the same request: the first one stays.

        Raises:
            InvalidArgument: an id or a truth is empty, too long or has a NUL; nothing was kept.
        """
        for truth in truths.values():
            _check("a truth", truth, MAX_ANSWER)
        rows = {request_id: {"truth": truth} for request_id, truth in truths.items()}
        completed, new = self._fill(name, rows, FEEDBACK.c.truth, now_s)
        known = self._truths_of(name, sorted(rows.keys() - new))
        outcomes: dict[str, Outcome] = {}
        for request_id, truth in truths.items():
            if request_id in new:
                outcomes[request_id] = "joined" if request_id in completed else "waiting"
            else:
                same = known.get(request_id, truth) == truth
                outcomes[request_id] = "repeated" if same else "conflict"
        return outcomes

    def _truths_of(self, name: str, request_ids: Sequence[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        with reading(self._engine) as connection:
            for start in range(0, len(request_ids), _CHUNK):
                some = request_ids[start : start + _CHUNK]
                query = sa.select(FEEDBACK.c.request_id, FEEDBACK.c.truth).where(
                    FEEDBACK.c.name == name, FEEDBACK.c.request_id.in_(some)
                )
                found.update((row.request_id, row.truth) for row in connection.execute(query))
        return found

    def _fill(
        self, name: str, rows: Mapping[str, Mapping[str, Any]], empty: sa.Column[Any], now_s: float
    ) -> tuple[set[str], set[str]]:
        """Writes one half of each row where it is still missing.

        Returns:
            The request ids of rows that are complete now, and of all that were written.
        """
        _check("a name", name, MAX_NAME)
        for request_id in rows:
            _check("a request id", request_id, MAX_REQUEST_ID)
        completed: list[sa.Row[Any]] = []
        new: set[str] = set()
        values = [  # in one order for all, so that two writers cannot wait for each other
            {"name": name, "request_id": request_id, "seen_s": now_s, **rows[request_id]}
            for request_id in sorted(rows)
        ]
        with writing(self._engine) as connection:
            for start in range(0, len(values), _CHUNK):
                for row in connection.execute(self._upsert(values[start : start + _CHUNK], empty)):
                    new.add(row.request_id)
                    if row.truth is not None and row.fade_id is not None:
                        completed.append(row)
            self._count(connection, completed)
        self._prune(len(values), now_s)
        return {row.request_id for row in completed}, new

    def _upsert(self, values: list[dict[str, Any]], empty: sa.Column[Any]) -> Any:
        postgres = self._engine.dialect.name == "postgresql"
        # Both dialects write the same statement; what builds it has no common type.
        insert: Any = postgresql.insert if postgres else sqlite.insert
        statement = insert(FEEDBACK).values(values)
        given = {name: statement.excluded[name] for name in values[0] if name not in _KEY}
        return statement.on_conflict_do_update(
            index_elements=_KEY, set_=given, where=empty.is_(None)
        ).returning(*FEEDBACK.c)

    def _count(self, connection: sa.Connection, rows: Iterable[sa.Row[Any]]) -> None:
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

    def _prune(self, written: int, now_s: float) -> None:
        with self._lock:
            self._unpruned += written
            if self._unpruned < _PRUNE_EVERY:
                return
            self._unpruned = 0
        seen = FEEDBACK.c.seen_s
        newest = sa.select(seen).order_by(seen.desc()).offset(self._retention.max_rows).limit(1)
        with writing(self._engine) as connection:
            connection.execute(FEEDBACK.delete().where(seen < now_s - self._retention.max_age_s))
            connection.execute(FEEDBACK.delete().where(seen < newest.scalar_subquery()))


_KEY: Final = ("name", "request_id")


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


def _check(what: str, text: str, longest: int) -> None:
    if not 0 < len(text) <= longest or "\0" in text:
        raise InvalidArgument(f"{what} has 1 to {longest} characters, none of them NUL")
