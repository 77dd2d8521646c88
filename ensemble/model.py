"""The Model of an ensemble: its members are leased for each call, and may change under it."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence

from crossfade.ensemble.crew import Crew
from crossfade.ensemble.members import Live, Member, look
from crossfade.ensemble.plan import Face, Kind, Plan, Result
from crossfade.ensemble.team import Record, Stale, Team, Together
from crossfade.runtimes.core.errors import CrossfadeError, Unavailable
from crossfade.runtimes.core.model import (
    DEFAULT_SIGNATURE,
    InferRequest,
    InferResponse,
    InferResult,
    ModelMetadata,
    Timings,
)

_log = logging.getLogger(__name__)
PLATFORM = "ensemble"
Around = Callable[[], contextlib.AbstractContextManager[None]]


class Ensemble:
    """Models that answer together; see ``Model``. Thread-safe.

    A member that is replaced by one of the same contract (signatures, labels) is taken as it
    comes. For another contract the plan is made again; if the ensemble then looks different from
    outside, requests are refused until it is loaded again.

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
        self._now = self._planned()
        self._face = seen(self._now[0].face)
        self._outputs = tuple(spec.name for spec in self._face.signature.outputs)
        self.metadata = ModelMetadata(
            name,
            version,
            PLATFORM,
            {DEFAULT_SIGNATURE: self._face.signature},
            self._face.labels,
            self._face.max_batch_size,
        )

    def infer(self, requests: Sequence[InferRequest]) -> Sequence[InferResult]:
        """See ``Model.infer``."""
        began_ns = time.perf_counter_ns()
        asked = [request if request.outputs else self._all(request) for request in requests]
        with self._around():
            try:
                results = self._infer(asked)
            except CrossfadeError as error:
                return [error] * len(requests)
        spent_ns = time.perf_counter_ns() - began_ns
        return [
            result
            if isinstance(result, CrossfadeError)
            else InferResponse(
                {name: result.outputs[name] for name in request.outputs},
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

    def _infer(self, requests: Sequence[InferRequest]) -> Sequence[Result]:
        plan, team = self._now
        try:
            return plan.infer(requests, team)
        except Stale:
            plan, team = self._renewed(plan)
        try:
            return plan.infer(requests, team)
        except Stale as error:
            raise _changing(error.args[0]) from None

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
        )

    def _planned(self) -> tuple[Plan, Team]:
        looks = [look(member, self._live) for member in self._members]
        plan = self._kind([(m.name, one) for m, one in zip(self._members, looks, strict=True)])
        return plan, Team(looks, self._live, self._crew, self._record, self._together)

    def _renewed(self, old: Plan) -> tuple[Plan, Team]:
        with self._lock:
            if self._now[0] is old:
                new = self._planned()
                if self._seen(new[0].face) != self._face:
                    raise _changing("a member")
                self._now = new
                _log.info("members changed", extra={"model": self.metadata.name})
            return self._now


def _changing(what: str) -> Unavailable:
    return Unavailable(f"{what} of the ensemble is being replaced", retry_after_s=0.1)
