"""The Model that clients of a fade call: two members, one form, and a way back for each request."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

from crossfade.ensemble.asking import ask
from crossfade.ensemble.comparison import Comparer
from crossfade.ensemble.keys import Key
from crossfade.ensemble.measures import Tally
from crossfade.ensemble.mirror import Limits, Mirror
from crossfade.ensemble.observing import Outcome, Pair
from crossfade.ensemble.routing import Router, Shares
from crossfade.ensemble.split import BASIS_POINTS
from crossfade.ensemble.tracing import begun, ended
from crossfade.runtimes.core.errors import (
    Cancelled,
    CrossfadeError,
    InvalidArgument,
)
from crossfade.runtimes.core.model import (
    InferRequest,
    InferResult,
    ModelMetadata,
    ModelRef,
)
from crossfade.serving.fade.evidence import CANDIDATE, PRIMARY
from crossfade.serving.fade.form import Adapter
from crossfade.serving.fade.recorder import Recorder, Unfit
from crossfade.serving.lifecycle.manager import Manager

NAMES: Final = ("primary", "candidate")
# Copies run as their originals do: what is compared, latency, would differ by a lower priority.
_LIMITS: Final = Limits(niceness=0)


class Member:
    """A Model that leases what a reference means at each call, in the form of the fade.

    Thread-safe.
    """

    def __init__(self, name: str, manager: Manager, ref: ModelRef, form: ModelMetadata) -> None:
        self._name = name
        self._manager = manager
        self._ref = ref
        self.metadata = form
        self._adapter: tuple[ModelMetadata, Adapter] | None = None

    def infer(self, requests: Sequence[InferRequest]) -> Sequence[InferResult]:
        """See ``Model.infer``."""
        asked = begun(requests, self._name)
        try:
            results = self._answers(asked)
        except CrossfadeError as error:
            results = [error] * len(requests)
        if asked is not requests:
            ended(asked, results)
        return results

    def _answers(self, requests: Sequence[InferRequest]) -> Sequence[InferResult]:
        deadlines = [r.deadline_s for r in requests]
        last_s = None if None in deadlines else max(d for d in deadlines if d is not None)
        with self._manager.lease(self._ref, last_s) as model:
            adapter = self._fitting(model.metadata)
            results = model.infer([adapter.request(request) for request in requests])
            return [
                result if isinstance(result, CrossfadeError) else adapter.response(request, result)
                for request, result in zip(requests, results, strict=True)
            ]

    def takes(self, request: InferRequest) -> bool:
        """Whether the member reads this form of a request, as far as is known."""
        return self._adapter is None or self._adapter[1].takes(request)

    def close(self) -> None:
        """See ``Model.close``."""

    def _fitting(self, metadata: ModelMetadata) -> Adapter:
        known = self._adapter
        if known is None or known[0] is not metadata:
            known = self._adapter = (metadata, Adapter(self.metadata, metadata))
        return known[1]


class FadeModel:
    """Gives the candidate its share, mirrors, and asks the primary where the candidate fails.

    Thread-safe.

    Attributes:
        answered: requests by who answered: ``primary``, ``candidate``, ``fallback`` (the primary,
            after the candidate failed), ``unfit`` (the primary, in a form that only it takes), or
            ``error``.

    Args:
        form: what clients see.
        manager: leases the members.
        members: the primary and the candidate.
        key: by which the split is sticky; ``None`` draws for each request.
    """

    def __init__(
        self,
        form: ModelMetadata,
        manager: Manager,
        members: tuple[ModelRef, ModelRef],
        key: Key | None = None,
    ) -> None:
        self._members = [
            Member(name, manager, ref, form) for name, ref in zip(NAMES, members, strict=True)
        ]
        self._recorder: Recorder | None = None
        self.mirror = Mirror(NAMES, Comparer(tuple(form.labels)), (self,), _LIMITS)
        self._router = Router(
            *(form.name, NAMES, Shares((BASIS_POINTS, 0))),
            key=key,
            mirror=self.mirror,
            observers=(self,),
        )
        self.metadata = dataclasses.replace(
            form, headers=tuple(sorted({*form.headers, *self._router.headers}))
        )
        self.answered = Tally()

    def set(self, traffic_percent: float, mirror_percent: float, recorder: Recorder | None) -> None:
        """Changes the shares, and who keeps what is observed; ``None`` nobody."""
        share, mirrored = round(traffic_percent * 100), round(mirror_percent * 100)
        self._recorder = recorder
        self._router.route(Shares((BASIS_POINTS - share, share), mirrored))

    def infer(self, requests: Sequence[InferRequest]) -> Sequence[InferResult]:
        """See ``Model.infer``. The candidate's errors reach nobody if the primary can answer."""
        outcomes = self._router.infer(requests, self._ask)
        return [self._answer(*each) for each in zip(requests, outcomes, strict=True)]

    def observe_pair(self, pair: Pair) -> None:
        """See ``Observer``."""
        if (recorder := self._recorder) is not None:
            recorder.observe_pair(pair)

    def observe_alone(self, requests: Sequence[InferRequest], outcomes: Sequence[Outcome]) -> None:
        """See ``Observer``."""
        if (recorder := self._recorder) is not None:
            recorder.observe_alone(requests, outcomes)

    def close(self) -> None:
        """See ``Model.close``; the members' leases are back already."""
        self._router.close()

    def _ask(self, member: int, requests: Sequence[InferRequest]) -> list[Outcome]:
        model = self._members[member]
        fitting = [request for request in requests if model.takes(request)]
        outcomes = iter(ask(model, member, fitting) if fitting else ())
        unfit = Outcome(member, Unfit("only the primary takes this form of a request"), 0.0)
        return [next(outcomes) if model.takes(request) else unfit for request in requests]

    def _answer(self, request: InferRequest, outcome: Outcome) -> InferResult:
        result, by = outcome.result, NAMES[outcome.member]
        if outcome.member == CANDIDATE and isinstance(result, CrossfadeError):
            if isinstance(result, Cancelled):
                return result
            result, by = self._instead(request, outcome, result)
        self.answered.add("error" if isinstance(result, CrossfadeError) else by)
        return result

    def _instead(
        self, request: InferRequest, failed: Outcome, error: CrossfadeError
    ) -> tuple[InferResult, str]:
        (outcome,) = ask(self._members[PRIMARY], PRIMARY, (request,))
        if isinstance(error, Unfit):
            return outcome.result, "unfit"
        if outcome.failed and not isinstance(outcome.result, InvalidArgument):
            return error, ""  # with the primary gone, the candidate's reason says more
        recorder = self._recorder
        if isinstance(error, InvalidArgument) and not outcome.failed and recorder is not None:
            recorder.count_alone(request, failed)  # a request that was right after all
        return outcome.result, "fallback"
