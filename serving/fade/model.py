"""The Model that clients of a fade call: two members, one form, and a way back for each request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from crossfade.ensemble.asking import ask
from crossfade.ensemble.comparison import Comparer
from crossfade.ensemble.keys import Key
from crossfade.ensemble.measures import Tally
from crossfade.ensemble.mirror import Limits, Mirror
from crossfade.ensemble.observing import Outcome, Pair
from crossfade.ensemble.routing import MEMBER, Routed, Shares
from crossfade.ensemble.split import BASIS_POINTS
from crossfade.runtimes.core.errors import (
    Cancelled,
    CrossfadeError,
    FailedPrecondition,
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
from crossfade.serving.fade.recorder import CandidateFailed, Recorder
from crossfade.serving.lifecycle.manager import Manager

NAMES: Final = ("primary", "candidate")
# Copies run as their originals do: what is compared, latency, would differ by a lower priority.
_LIMITS: Final = Limits(niceness=0)


class Member:
    """A Model that leases what a reference means at each call, in the form of the fade.

    Thread-safe.
    """

    def __init__(self, manager: Manager, ref: ModelRef, form: ModelMetadata) -> None:
        self._manager = manager
        self._ref = ref
        self.metadata = form
        self._adapter: tuple[ModelMetadata, Adapter] | None = None

    def infer(self, requests: Sequence[InferRequest]) -> Sequence[InferResult]:
        """See ``Model.infer``; raises what a lease raises."""
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
        """See ``Model.close``: the leases are back already."""

    def _fitting(self, metadata: ModelMetadata) -> Adapter:
        known = self._adapter
        if known is None or known[0] is not metadata:
            known = self._adapter = (metadata, Adapter(self.metadata, metadata))
        return known[1]


class _Candidate:
    """A Model whose errors are told from the primary's."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self.metadata = member.metadata

    def infer(self, requests: Sequence[InferRequest]) -> Sequence[InferResult]:
        """See ``Model.infer``; errors are ``CandidateFailed``."""
        fitting = [request for request in requests if self._member.takes(request)]
        outcomes = iter(ask(self._member, CANDIDATE, fitting) if fitting else ())
        results: list[InferResult] = []
        for request in requests:
            if not self._member.takes(request):
                unfit = FailedPrecondition("only the primary takes this form of a request")
                results.append(CandidateFailed(unfit, unfit=True))
                continue
            result = next(outcomes).result
            results.append(
                CandidateFailed(result) if isinstance(result, CrossfadeError) else result
            )
        return results

    def close(self) -> None:
        """See ``Model.close``."""


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
        self.metadata = form
        self._primary, self._member = (Member(manager, ref, form) for ref in members)
        self._recorder: Recorder | None = None
        candidate = _Candidate(self._member)
        models = (self._primary, candidate)
        self._mirror = Mirror(models, NAMES, Comparer(tuple(form.labels)), (self,), _LIMITS)
        self._routed = Routed(
            *(form, models, NAMES, Shares((BASIS_POINTS, 0))),
            key=key,
            mirror=self._mirror,
            observers=(self,),
        )
        self.answered = Tally()

    def set(self, traffic_percent: float, mirror_percent: float, recorder: Recorder | None) -> None:
        """Changes the shares, and who keeps what is observed; ``None`` nobody."""
        share, mirrored = round(traffic_percent * 100), round(mirror_percent * 100)
        self._recorder = recorder
        self._routed.route(Shares((BASIS_POINTS - share, share), mirrored))

    def infer(self, requests: Sequence[InferRequest]) -> Sequence[InferResult]:
        """See ``Model.infer``. The candidate's errors reach nobody if the primary can answer."""
        results = list(self._routed.infer(requests))
        for index, result in enumerate(results):
            if isinstance(result, CandidateFailed):
                results[index] = self._instead(requests[index], result)
            elif isinstance(result, CrossfadeError):
                self.answered.add("error")
            else:
                self.answered.add(str(result.parameters[MEMBER]))
        return results

    def observe_pair(self, pair: Pair) -> None:
        """See ``Observer``."""
        if (recorder := self._recorder) is not None:
            recorder.observe_pair(pair)

    def observe_alone(self, requests: Sequence[InferRequest], outcomes: Sequence[Outcome]) -> None:
        """See ``Observer``."""
        if (recorder := self._recorder) is not None:
            recorder.observe_alone(requests, outcomes)

    def close(self) -> None:
        """See ``Model.close``."""
        self._routed.close()

    def _instead(self, request: InferRequest, failed: CandidateFailed) -> InferResult:
        if isinstance(failed.cause, Cancelled):
            return failed.cause
        (outcome,) = ask(self._primary, PRIMARY, (request,))
        self.answered.add("error" if outcome.failed else "unfit" if failed.unfit else "fallback")
        if outcome.failed and not failed.unfit:
            # With the primary gone, the candidate's reason says more; a wrong request is wrong.
            return outcome.result if isinstance(outcome.result, InvalidArgument) else failed.cause
        if isinstance(failed.cause, InvalidArgument) and (recorder := self._recorder) is not None:
            recorder.count_alone(request, Outcome(CANDIDATE, failed, 0.0))
        return outcome.result
