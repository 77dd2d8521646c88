"""Two halves of a row that come in any order, late or twice, and are joined once.

One half is the truth of a request, the other what was answered to it. What completes the row is
told in the same transaction, and therefore once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.serving.fade.records import MAX_ANSWER, MAX_REQUEST_ID, Outcome, Retention
from crossfade.serving.fade.tables import MAX_NAME, reading, writing

Rows = Sequence[sa.Row[Any]]
_CHUNK: Final = 500  # rows of one statement: below every limit on its parameters
_PRUNE_EVERY: Final = 1_000  # rows written by this process
_KEY: Final = ("name", "request_id")


class Halves:
    """A table of such rows; thread-safe. Every method may raise ``Unavailable``.

    Args:
        table: has the columns ``name``, ``request_id`` (its key), ``truth`` and ``seen_s``.
        other: a column that is null while only the truth is known.
        retention: of the rows.
        complete: is told of rows that are complete now, in the transaction that made them so.
    """

    def __init__(
        self,
        engine: sa.Engine,
        table: sa.Table,
        other: sa.Column[Any],
        retention: Retention,
        complete: Callable[[sa.Connection, Rows], None],
    ) -> None:
        self._engine = engine
        self._table = table
        self._other = other
        self._retention = retention
        self._complete = complete
        self._lock = threading.Lock()
        self._unpruned = 0

    def answered(self, name: str, rows: Mapping[str, Mapping[str, Any]], now_s: float) -> None:
        """Keeps one half by request id: columns that all have; a known id changes nothing.

        Raises:
            InvalidArgument: a name or an id is empty, too long or has a NUL; nothing was kept.
        """
        self._fill(name, rows, self._other, now_s)

    def truths(self, name: str, truths: Mapping[str, str], now_s: float) -> dict[str, Outcome]:
        """Takes what would have been right, by request id.

        Returns:
            ``joined`` with an answer; ``waiting`` for one; ``repeated``, which changes nothing;
            ``conflict`` with another truth of the same request: the first one stays.

        Raises:
            InvalidArgument: an id or a truth is empty, too long or has a NUL; nothing was kept.
        """
        for truth in truths.values():
            check("a truth", truth, MAX_ANSWER)
        rows = {request_id: {"truth": truth} for request_id, truth in truths.items()}
        completed, new = self._fill(name, rows, self._table.c.truth, now_s)
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
        table = self._table
        with reading(self._engine) as connection:
            for start in range(0, len(request_ids), _CHUNK):
                some = request_ids[start : start + _CHUNK]
                query = sa.select(table.c.request_id, table.c.truth).where(
                    table.c.name == name, table.c.request_id.in_(some)
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
        check("a name", name, MAX_NAME)
        for request_id in rows:
            check("a request id", request_id, MAX_REQUEST_ID)
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
                    if row.truth is not None and row._mapping[self._other.name] is not None:
                        completed.append(row)
            self._complete(connection, completed)
        self._prune(len(values), now_s)
        return {row.request_id for row in completed}, new

    def _upsert(self, values: list[dict[str, Any]], empty: sa.Column[Any]) -> Any:
        postgres = self._engine.dialect.name == "postgresql"
        # Both dialects write the same statement; what builds it has no common type.
        insert: Any = postgresql.insert if postgres else sqlite.insert
        statement = insert(self._table).values(values)
        given = {name: statement.excluded[name] for name in values[0] if name not in _KEY}
        return statement.on_conflict_do_update(
            index_elements=_KEY, set_=given, where=empty.is_(None)
        ).returning(*self._table.c)

    def _prune(self, written: int, now_s: float) -> None:
        with self._lock:
            self._unpruned += written
            if self._unpruned < _PRUNE_EVERY:
                return
            self._unpruned = 0
        seen = self._table.c.seen_s
        newest = sa.select(seen).order_by(seen.desc()).offset(self._retention.max_rows).limit(1)
        with writing(self._engine) as connection:
            oldest_s = now_s - self._retention.max_age_s
            connection.execute(self._table.delete().where(seen < oldest_s))
            connection.execute(self._table.delete().where(seen < newest.scalar_subquery()))


def check(what: str, text: str, longest: int) -> None:
    """Raises InvalidArgument for a text that the database cannot keep."""
    if not 0 < len(text) <= longest or "\0" in text:
        raise InvalidArgument(f"{what} has 1 to {longest} characters, none of them NUL")
