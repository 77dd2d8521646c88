"""The Model of an ensemble: its members are leased for each call, and may change under it."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from crossfade.ensemble.crew import Crew
from crossfade.ensemble.labels import order_of
from crossfade.ensemble.measures import Measure
from crossfade.ensemble.members import Known, Live, Member, look
from crossfade.ensemble.plan import Face, Kind, Plan
from crossfade.ensemble.team import Record, Stale, Team, Together
from crossfade.runtimes.core.errors import CrossfadeError, FailedPrecondition, Unavailable
from crossfade.runtimes.core.model import (
    DEFAULT_SIGNATURE,
    InferRequest,
    InferResponse,
    InferResult,
    ModelMetadata,
    Tensor,
    Timings,
)

_log = logging.getLogger(__name__)
PLATFORM = "ensemble"
Around = Callable[[], contextlib.AbstractContextManager[None]]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Now:
    """How the members answer now.

    Attributes:
        orders: for outputs whose labels stand in another order than clients were told: for each
            label that they were, its place.
    """

    plan: Plan
    team: Team
    orders: Mapping[str, npt.NDArray[np.intp]]

    def output(self, name: str, array: Tensor) -> Tensor:
        """An output as clients were told that it is."""
        return array[..., self.orders[name]] if name in self.orders else array


class Ensemble:
    """Models that answer together; see ``Model``. Thread-safe.

    A member that is replaced by one of the same contract (signatures, labels) is taken as it
    comes. For another contract the plan is made again, and labels keep their order; if the
    ensemble then looks different from outside, requests are refused until it is loaded again.

    Args:
        name, version: of the ensemble.
        members: in order.
        kind: how they answer as one.
        live: where they are leased.
        crew: runs them side by side.
        seen: what of a plan's face clients see.
        record: is told what each member answered.
        around: entered for each call, as for work that members share.
        together: see ``Team``; it is the ensemble's own.

    Raises:
        CrossfadeError: as ``Kind`` and ``seen``.
    """

    def __init__(
        self,
        name: str,
        version: int,
        members: Sequence[Member],
        kind: Kind,
        *,
        live: Live,
        crew: Crew,
        seen: Callable[[Face], Face],
        record: Record,
        around: Around = contextlib.nullcontext,
        together: Together | None = None,
    ) -> None:
        self._members = members
        self._kind = kind
        self._live = live
        self._crew = crew
        self._record = record
        self._seen = seen
        self._around = around
        self._together = together
        self._lock = threading.Lock()
        plan, team = self._planned()
        self._face = seen(plan.face)
        self._now = _Now(plan, team, {})
        self._outputs = tuple(spec.name for spec in self._face.signature.outputs)
        self.metadata = ModelMetadata(
            name,
            version,
            PLATFORM,
            {DEFAULT_SIGNATURE: self._face.signature},
            self._face.labels,
            self._face.max_batch_size,
            headers=self._headers(kind),
        )

    def infer(self, requests: Sequence[InferRequest]) -> Sequence[InferResult]:
        """See ``Model.infer``."""
        began_ns = time.perf_counter_ns()
        asked = [request if request.outputs else self._all(request) for request in requests]
        now = self._now
        with self._around():
            try:
                try:
                    results = now.plan.infer(asked, now.team)
                except Stale:
                    now = self._renewed(now)
                    results = now.plan.infer(asked, now.team)
            except Stale:
                results = [_changing()] * len(asked)
            except CrossfadeError as error:
                results = [error] * len(asked)
        spent_ns = time.perf_counter_ns() - began_ns
        return [
            result
            if isinstance(result, CrossfadeError)
            else InferResponse(
                {name: now.output(name, result.outputs[name]) for name in request.outputs},
                self.metadata,
                Timings(0, spent_ns, request.rows),
                result.parameters,
            )
            for request, result in zip(asked, results, strict=True)
        ]

    def close(self) -> None:
        """See ``Model.close``; the members stay."""
        if self._together is not None:
            self._together.close()
        if close := getattr(self._kind, "close", None):
            close()

    def measures(self) -> Iterable[Measure]:
        """See ``Measuring``; nothing where the kind counts nothing of its own."""
        measures: Callable[[], Iterable[Measure]] = getattr(self._kind, "measures", tuple)
        return measures()

    def _headers(self, kind: Kind) -> tuple[str, ...]:
        """What the kind and, since it passes requests on, the members look at."""
        own: tuple[str, ...] = getattr(kind, "headers", ())
        looks = [look(member, self._live) for member in self._members]
        theirs = (one.contract.headers for one in looks if isinstance(one, Known))
        return tuple(sorted({*own, *itertools.chain(*theirs)}))

    def _all(self, request: InferRequest) -> InferRequest:
        return InferRequest(
            request.inputs,
            request.signature,
            self._outputs,
            request.deadline_s,
            request.priority,
            request.id,
            request.parameters,
            request.cancelled,
            request.rows,
            request.trace,
        )

    def _planned(self) -> tuple[Plan, Team]:
        looks = [look(member, self._live) for member in self._members]
        plan = self._kind([(m.name, one) for m, one in zip(self._members, looks, strict=True)])
        names = [member.name for member in self._members]
        together = self._together
        return plan, Team(names, looks, self._live, self._crew, self._record, together=together)

    def _renewed(self, old: _Now) -> _Now:
        with self._lock:
            if self._now is old:
                plan, team = self._planned()
                face, before = self._seen(plan.face), self._face
                try:
                    orders = {
                        name: order_of(labels, face.labels.get(name, ()))
                        for name, labels in before.labels.items()
                    }
                except FailedPrecondition:
                    raise _changing() from None
                if dataclasses.replace(face, labels=before.labels) != before:
                    raise _changing()
                self._now = _Now(plan, team, {n: o for n, o in orders.items() if o is not None})
                _log.info("members changed", extra={"model": self.metadata.name})
            return self._now


def _changing() -> Unavailable:
    return Unavailable("a member of the ensemble is being replaced", retry_after_s=0.1)
