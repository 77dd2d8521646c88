"""Fades, their decisions and their evidence, in a database that replicas share.

A decision is written together with the position it leads to, in one transaction, and only if no
other replica decided since the position was read: the version of the position is the lock. Each
replica keeps its evidence in a row of its own, as counts that are written over as they grow.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from crossfade.ensemble.sequential import Mean
from crossfade.runtimes.core.errors import (
    AlreadyExists,
    InvalidArgument,
    NotFound,
)
from crossfade.serving.fade.evidence import StepEvidence
from crossfade.serving.fade.plan import Plan
from crossfade.serving.fade.policy import Action, Decision, Position, Status, decide, follow
from crossfade.serving.fade.records import Fade, Record, Superseded, finite
from crossfade.serving.fade.tables import (
    DECISIONS,
    EVIDENCE,
    FADES,
    LABEL_COUNTS,
    LABELS,
    MAX_NAME,
    reading,
    writing,
)


class FadeStore:
    """Reads and writes fades; thread-safe. Every method may raise ``Unavailable``."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def start(
        self, name: str, primary: str, candidate: str, plan: Plan, *, now_s: float, actor: str
    ) -> Fade:
        """Begins a fade at the plan's first step.

        Raises:
            AlreadyExists: one of this name is running or paused.
            InvalidArgument: a name is empty or too long.
        """
        for given in (name, primary, candidate, actor):
            if not 0 < len(given) <= MAX_NAME:
                raise InvalidArgument(f"names have 1 to {MAX_NAME} characters")
        values = {
            "name": name,
            "primary_model": primary,
            "candidate_model": candidate,
            "plan": plan.model_dump_json(exclude_none=True),
            **_columns(Position(Status.RUNNING, 0, now_s)),
            "version": 0,
        }
        try:
            with writing(self._engine) as connection:
                row = connection.execute(FADES.insert().values(values).returning(*FADES.c)).one()
                rows = [{"fade_id": row.id, "step": step} for step in range(len(plan.steps))]
                connection.execute(LABELS.insert(), rows)
                fade = _fade(row)
                decision = Decision("start", f"from {primary} to {candidate}")
                record = _Writing(decision, StepEvidence(), actor, now_s)
                record.append(connection, fade)
        except exc.IntegrityError:
            raise AlreadyExists(f"a fade of '{name}' is going on already") from None
        return fade

    def get(self, name: str) -> Fade:
        """The newest fade of a name.

        Raises:
            NotFound: there was none.
        """
        query = sa.select(FADES).where(FADES.c.name == name).order_by(FADES.c.id.desc()).limit(1)
        with reading(self._engine) as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFound("no fade of this name")
        return _fade(row)

    def newest(self) -> list[Fade]:
        """The newest fade of each name, by name."""
        ids = sa.select(sa.func.max(FADES.c.id)).group_by(FADES.c.name)
        query = sa.select(FADES).where(FADES.c.id.in_(ids)).order_by(FADES.c.name)
        with reading(self._engine) as connection:
            return [_fade(row) for row in connection.execute(query)]

    def act(self, fade: Fade, action: Action, reason: str, *, now_s: float, actor: str) -> Fade:
        """Does what an operator asks.

        Raises:
            Superseded: somebody decided since ``fade`` was read.
            FailedPrecondition: the fade's status does not allow it.
        """
        evidence = self.evidence(fade)
        findings = decide(fade.plan, fade.position, evidence, now_s).findings
        decision = Decision(action, reason, findings)
        return self._write(fade, _Writing(decision, evidence, actor, now_s))

    def decide(self, fade: Fade, now_s: float) -> tuple[Fade, Decision]:
        """Lets the policy decide; what it decides is written, unless it is to stay.

        ``now_s`` is in seconds since 1970.

        Raises:
            Superseded: somebody decided since ``fade`` was read.
        """
        evidence = self.evidence(fade)
        decision = decide(fade.plan, fade.position, evidence, now_s)
        if decision.action == "stay":
            return fade, decision
        return self._write(fade, _Writing(decision, evidence, "policy", now_s)), decision

    def publish(self, fade: Fade, replica: str, evidence: StepEvidence) -> None:
        """Writes all that one replica has seen of ``fade``'s step, over what it wrote before.

        Args:
            fade: as it was when the evidence was seen; its position says which step that is.
            replica: a name that no other process uses, and not the same one after a restart.
            evidence: without labels: those are counted by ``Feedback``.
        """
        key = {"fade_id": fade.id, "step": fade.position.step, "replica": replica}
        same = sa.and_(*(EVIDENCE.c[name] == value for name, value in key.items()))
        text = json.dumps(evidence.plain())
        with writing(self._engine) as connection:
            written = connection.execute(EVIDENCE.update().where(same).values(evidence=text))
            if not written.rowcount:
                connection.execute(EVIDENCE.insert().values(**key, evidence=text))

    def evidence(self, fade: Fade) -> StepEvidence:
        """What all replicas and all labels say of ``fade``'s step."""
        step = fade.position.step
        rows = sa.select(EVIDENCE.c.evidence).where(
            EVIDENCE.c.fade_id == fade.id, EVIDENCE.c.step == step
        )
        labels = sa.select(*(LABELS.c[name] for name in LABEL_COUNTS)).where(
            LABELS.c.fade_id == fade.id, LABELS.c.step == step
        )
        with reading(self._engine) as connection:
            texts = connection.execute(rows).scalars().all()
            counts = connection.execute(labels).one()
        found = StepEvidence()
        for text in texts:
            found.add(StepEvidence.read(json.loads(text)))
        found.quality_pairs.add(Mean((-1, 0, 1), counts[:3]))
        found.quality_alone.add(Mean((-1, 0, 1), counts[3:]))
        return found

    def records(self, fade: Fade) -> list[Record]:
        """All decisions of a fade in their order; the first one is its start."""
        query = (
            sa.select(DECISIONS).where(DECISIONS.c.fade_id == fade.id).order_by(DECISIONS.c.version)
        )
        with reading(self._engine) as connection:
            rows = connection.execute(query).all()
        return [
            Record(
                row.version,
                row.at_s,
                row.actor,
                row.action,
                Status(row.status),
                row.step,
                row.reason,
                json.loads(row.findings),
                json.loads(row.evidence),
            )
            for row in rows
        ]

    def _write(self, fade: Fade, what: _Writing) -> Fade:
        position = follow(fade.plan, fade.position, what.decision.action, what.now_s)
        after = dataclasses.replace(fade, position=position, version=fade.version + 1)
        unchanged = sa.and_(FADES.c.id == fade.id, FADES.c.version == fade.version)
        values = {**_columns(position), "version": after.version}
        with writing(self._engine) as connection:
            done = connection.execute(FADES.update().where(unchanged).values(values))
            if not done.rowcount:
                raise Superseded("the fade has changed meanwhile: look at it again")
            what.append(connection, after)
        return after


@dataclasses.dataclass(frozen=True, slots=True)
class _Writing:
    """A decision on its way into the table."""

    decision: Decision
    evidence: StepEvidence
    actor: str
    now_s: float

    def append(self, connection: sa.Connection, after: Fade) -> None:
        findings = [finite(dataclasses.asdict(each)) for each in self.decision.findings]
        connection.execute(
            DECISIONS.insert().values(
                fade_id=after.id,
                version=after.version,
                at_s=self.now_s,
                actor=self.actor,
                action=self.decision.action,
                status=after.position.status.value,
                step=after.position.step,
                reason=self.decision.reason,
                findings=json.dumps(findings, allow_nan=False),
                evidence=json.dumps(self.evidence.plain(), allow_nan=False),
            )
        )


def _columns(position: Position) -> dict[str, Any]:
    return {
        "status": position.status.value,
        "step": position.step,
        "step_started_s": position.step_started_s,
    }


def _fade(row: sa.Row[Any]) -> Fade:
    return Fade(
        row.id,
        row.name,
        row.primary_model,
        row.candidate_model,
        Plan.model_validate_json(row.plan),
        Position(Status(row.status), row.step, row.step_started_s),
        row.version,
    )
