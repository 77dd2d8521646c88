"""Weights that follow feedback, in a database that replicas share.

A truth that meets its claims moves the weights in the transaction that joins them, and only if no
other replica moved them since they were read: the version of the row is the lock, and who comes
second does it again. What moved them is a record, from which the weights can be made again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy import exc

from crossfade.ensemble.adapting import LEARNER, Event, Setup, State, begin, replay, resumed, step
from crossfade.ensemble.claims import claims_of
from crossfade.ensemble.labels import canonical
from crossfade.runtimes.core.errors import FailedPrecondition, NotFound, Unavailable, escape
from crossfade.serving.fade.adapting_tables import ADAPTATIONS, CLAIMS, UPDATES
from crossfade.serving.fade.halves import Halves, Rows
from crossfade.serving.fade.records import Outcome, Retention, Superseded
from crossfade.serving.fade.tables import reading, writing

T = TypeVar("T")
_TRIES: Final = 20  # of a call, while other replicas move the same weights


@dataclasses.dataclass(frozen=True, slots=True)
class Adaptation:
    """The weights of one setup, as they were read.

    Attributes:
        version: rises with each record; 0 is the beginning.
    """

    id: int
    setup: Setup
    state: State
    version: int
    started_s: float


@dataclasses.dataclass(frozen=True, slots=True)
class Update:
    """One record.

    Attributes:
        event: what the weights were made of.
        request_id, truth: of an operator's action empty.
    """

    version: int
    event: Event
    actor: str
    request_id: str
    truth: str
    before: tuple[float, ...]
    after: tuple[float, ...]
    learner: int


class AdaptingStore:
    """Reads and writes them; thread-safe. Every method may raise ``Unavailable``."""

    def __init__(self, engine: sa.Engine, retention: Retention) -> None:
        self._engine = engine
        self._halves = Halves(engine, CLAIMS, CLAIMS.c.adaptation_id, retention, _learn)

    def open(self, setup: Setup, now_s: float) -> Adaptation:
        """The weights of a setup: where they are, or at their beginning.

        Raises:
            InvalidArgument: as ``begin``.
        """
        same = sa.and_(ADAPTATIONS.c.name == setup.name, ADAPTATIONS.c.digest == setup.digest)
        query = sa.select(ADAPTATIONS).where(same)
        with reading(self._engine) as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            values = {
                "name": setup.name,
                "digest": setup.digest,
                "setup": setup.to_json(),
                "started_s": now_s,
                "state": begin(setup).to_json(),
                "version": 0,
            }
            try:
                with writing(self._engine) as connection:
                    row = connection.execute(
                        ADAPTATIONS.insert().values(values).returning(*ADAPTATIONS.c)
                    ).one()
            except exc.IntegrityError:  # another replica was first
                return self.open(setup, now_s)
        return _adaptation(row)

    def states(self, ids: Sequence[int]) -> dict[int, tuple[int, State]]:
        """Versions and states, by the adaptations' ids."""
        query = sa.select(ADAPTATIONS.c.id, ADAPTATIONS.c.version, ADAPTATIONS.c.state)
        with reading(self._engine) as connection:
            rows = connection.execute(query.where(ADAPTATIONS.c.id.in_(ids))).all()
        return {row.id: (row.version, State.from_json(row.state)) for row in rows}

    def claimed(self, adaptation: Adaptation, claims: Mapping[str, str], now_s: float) -> None:
        """Keeps what members claimed, by request id; an id that is known changes nothing.

        Raises:
            InvalidArgument: an id is empty, too long or has a NUL; nothing was kept.
        """
        rows = {
            request_id: {"adaptation_id": adaptation.id, "claims": text}
            for request_id, text in claims.items()
        }
        self._again(lambda: self._halves.answered(adaptation.setup.name, rows, now_s))

    def truths(self, name: str, truths: Mapping[str, str], now_s: float) -> dict[str, Outcome]:
        """Takes what would have been right; see ``Halves.truths``.

        The weights move in the order in which requests get complete; of those that one call
        completes, in the order of their ids.
        """
        return self._again(lambda: self._halves.truths(name, truths, now_s))

    @staticmethod
    def _again(write: Callable[[], T]) -> T:
        for _ in range(_TRIES):
            with contextlib.suppress(Superseded):
                return write()
        raise Unavailable("other servers are moving these weights", retry_after_s=1)

    def resume(self, name: str, actor: str, now_s: float) -> list[Adaptation]:
        """Has frozen weights of an ensemble follow again; those that were.

        Raises:
            NotFound: there are none of this name.
            FailedPrecondition: none is frozen.
            Superseded: they were changed at the same time.
        """
        frozen = [one for one in self.adaptations(name) if one.state.frozen]
        if not frozen:
            raise FailedPrecondition(f"the weights of '{escape(name)}' are not frozen")
        found = []
        with writing(self._engine) as connection:
            for one in frozen:
                writes = _Writing(connection, one)
                writes.add(resumed(one.state), Event("resume", (), now_s), actor)
                found.append(writes.finish())
        return found

    def adaptations(self, name: str) -> list[Adaptation]:
        """All that an ensemble of this name ever had, the oldest first; raises NotFound."""
        query = sa.select(ADAPTATIONS).where(ADAPTATIONS.c.name == name).order_by(ADAPTATIONS.c.id)
        with reading(self._engine) as connection:
            rows = connection.execute(query).all()
        if not rows:
            raise NotFound(f"no weights of an ensemble '{escape(name)}' are in this database")
        return [_adaptation(row) for row in rows]

    def updates(self, adaptation: Adaptation) -> list[Update]:
        """All records up to ``adaptation``'s version, in their order."""
        query = (
            sa.select(UPDATES)
            .where(UPDATES.c.adaptation_id == adaptation.id)
            .where(UPDATES.c.version <= adaptation.version)
            .order_by(UPDATES.c.version)
        )
        with reading(self._engine) as connection:
            rows = connection.execute(query).all()
        return [
            Update(
                row.version,
                Event(row.action, tuple(json.loads(row.claims)), row.at_s),
                row.actor,
                row.request_id or "",
                row.truth or "",
                tuple(json.loads(row.weights_before)),
                tuple(json.loads(row.weights_after)),
                row.learner,
            )
            for row in rows
        ]


def fault(adaptation: Adaptation, updates: Sequence[Update]) -> str:
    """Makes the weights again of the records; what differs, in words, or nothing."""
    if adaptation.setup.learner != LEARNER:
        return (
            f"version {adaptation.setup.learner} of the learner wrote this, and this is version"
            f" {LEARNER}: replay it with the crossfade that wrote it"
        )
    if [one.version for one in updates] != list(range(1, adaptation.version + 1)):
        return "records are missing"
    states = replay(adaptation.setup, (one.event for one in updates))
    state = next(iter(states))
    for one, after in zip(updates, states, strict=True):
        if one.before != state.weights or one.after != after.weights:
            return f"the weights of record {one.version} are others than those made again"
        state = after
    return "" if state == adaptation.state else "the state is another one than that made again"


def _learn(connection: sa.Connection, rows: Rows) -> None:
    """Moves weights by rows that are complete now; raises Superseded."""
    by_id: dict[int, list[sa.Row[Any]]] = {}
    for row in rows:
        by_id.setdefault(row.adaptation_id, []).append(row)
    for adaptation_id, of_one in sorted(by_id.items()):
        query = sa.select(ADAPTATIONS).where(ADAPTATIONS.c.id == adaptation_id)
        writes = _Writing(connection, _adaptation(connection.execute(query).one()))
        setup = writes.adaptation.setup
        if setup.learner != LEARNER:
            continue  # claims from before an upgrade
        places = {canonical(label): place for place, label in enumerate(setup.labels)}
        for row in sorted(of_one, key=lambda row: row.request_id):
            place = places.get(canonical(row.truth))
            if place is None or writes.state.frozen:
                continue
            claims = claims_of(row.claims, place)
            after = step(setup.settings, writes.state, claims, row.seen_s)
            event = Event("freeze" if after.frozen else "update", claims, row.seen_s)
            writes.add(after, event, "feedback", row)
        writes.finish()


class _Writing:
    """Records on their way into the table, and the state that they lead to."""

    def __init__(self, connection: sa.Connection, adaptation: Adaptation) -> None:
        self.adaptation = adaptation
        self.state = adaptation.state
        self._connection = connection
        self._values: list[dict[str, Any]] = []

    def add(self, after: State, event: Event, actor: str, row: sa.Row[Any] | None = None) -> None:
        """One more record; ``row`` is of the request, where there was one."""
        before, self.state = self.state, after
        self._values.append(
            {
                "adaptation_id": self.adaptation.id,
                "version": self.adaptation.version + len(self._values) + 1,
                "at_s": event.at_s,
                "action": event.action,
                "actor": actor,
                "request_id": None if row is None else row.request_id,
                "truth": None if row is None else row.truth,
                "claims": json.dumps(event.claims),
                "weights_before": json.dumps(before.weights),
                "weights_after": json.dumps(after.weights),
                "learner": LEARNER,
            }
        )

    def finish(self) -> Adaptation:
        """Writes them; raises Superseded."""
        before = self.adaptation
        if not self._values:
            return before
        after = dataclasses.replace(
            before, state=self.state, version=before.version + len(self._values)
        )
        unchanged = sa.and_(ADAPTATIONS.c.id == before.id, ADAPTATIONS.c.version == before.version)
        values = {"state": after.state.to_json(), "version": after.version}
        done = self._connection.execute(ADAPTATIONS.update().where(unchanged).values(values))
        if not done.rowcount:
            raise Superseded("the weights have changed meanwhile: look at them again")
        self._connection.execute(UPDATES.insert(), self._values)
        return after


def _adaptation(row: sa.Row[Any]) -> Adaptation:
    return Adaptation(
        row.id,
        Setup.from_json(row.setup),
        State.from_json(row.state),
        row.version,
        row.started_s,
    )
