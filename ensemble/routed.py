"""``split`` and ``shadow``: one member answers, as the first one would; others may get copies."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from crossfade.ensemble.alike import Alike
from crossfade.ensemble.asking import timed
from crossfade.ensemble.comparison import Boxes, Comparer
from crossfade.ensemble.fitting import absent, present
from crossfade.ensemble.measures import Measure
from crossfade.ensemble.members import Known, Look
from crossfade.ensemble.observing import Outcome
from crossfade.ensemble.plan import ANSWERED_BY, Answer, Face, Result
from crossfade.ensemble.routing import Router
from crossfade.ensemble.team import Stale, Team
from crossfade.runtimes.core.errors import (
    CrossfadeError,
    FailedPrecondition,
    Unavailable,
)
from crossfade.runtimes.core.model import InferRequest, InferResponse, InferResult

_log = logging.getLogger(__name__)
_DETECTOR: Final = Boxes("detection_boxes", "detection_scores", "detection_classes")


class RoutedKind:
    """A kind of ensemble around a router, which outlives its plans. Thread-safe.

    Args:
        router: chooses who answers.
        all_answer: any member may be chosen, so that all have to be there and fit. Else only the
            first one has to: the copies for another that does not are failures.
        tolerance: by how much real numbers may differ and still be the same; see ``Comparer``.
    """

    def __init__(self, router: Router, *, all_answer: bool, tolerance: float = 1e-3) -> None:
        self._router = router
        self._all_answer = all_answer
        self._tolerance = tolerance

    @property
    def headers(self) -> tuple[str, ...]:
        """See ``ModelMetadata``."""
        return self._router.headers

    def __call__(self, members: Sequence[tuple[str, Look]]) -> _Plan:
        """See ``Kind``."""
        if self._all_answer:
            known = present(members)
            alike = Alike.of(known)
            parts: list[_Part | CrossfadeError] = [_Part(alike, n) for n in range(len(known))]
            face = alike.face
        else:
            (primary,) = present(members[:1])
            alone = Alike.of([primary])
            face = alone.face
            others = [self._beside(primary, name, one) for name, one in members[1:]]
            parts = [_Part(alone, 0), *others]
        if self._router.mirror is not None:
            self._router.mirror.comparer = self._comparer(face)
        return _Plan(face, parts, [name for name, _ in members], self._router)

    def measures(self) -> Iterable[Measure]:
        """See ``Measuring``."""
        return self._router.measures()

    def close(self) -> None:
        """Drops copies that wait."""
        self._router.close()

    def _beside(self, primary: Known, name: str, look: Look) -> _Part | CrossfadeError:
        """A member that only gets copies."""
        try:
            if isinstance(look, CrossfadeError):
                raise absent(name, look)
            pair = Alike.of([primary, look])
            given = {spec.name for spec in primary.signature.inputs}
            lacking = [
                spec.name
                for spec in look.signature.inputs
                if not spec.optional and spec.name not in given
            ]
            if lacking:
                raise FailedPrecondition(
                    f"member '{name}' needs the input '{lacking[0]}', which '{primary.name}' does"
                    " not have"
                )
            return _Part(pair, 1)
        except CrossfadeError as error:
            _log.warning("a mirror cannot run", extra={"member": name, "reason": error.message})
            return error

    def _comparer(self, face: Face) -> Comparer:
        names = {spec.name for spec in face.signature.outputs}
        is_detector = {_DETECTOR.boxes, _DETECTOR.scores} <= names
        return Comparer(tuple(face.labels), _DETECTOR if is_detector else None, self._tolerance)


@dataclasses.dataclass(frozen=True, slots=True)
class _Part:
    """A member in the place of the first one."""

    alike: Alike
    place: int

    def infer(
        self, member: int, requests: Sequence[InferRequest], team: Team
    ) -> Sequence[InferResult]:
        """What it answers, as the first one would; outputs that it lacks are not asked for."""
        common = tuple(spec.name for spec in self.alike.face.signature.outputs)
        if not all(set(request.outputs) <= set(common) for request in requests):
            requests = [
                dataclasses.replace(r, outputs=tuple(n for n in common if n in r.outputs) or common)
                for r in requests
            ]
        return [self._given(result) for result in team.ask(member, requests)]

    def _given(self, result: InferResult) -> InferResult:
        if isinstance(result, CrossfadeError):
            return result
        try:
            outputs = self.alike.outputs(self.place, result.outputs)
        except CrossfadeError as error:
            return error
        if outputs is result.outputs:
            return result
        return dataclasses.replace(result, outputs=outputs)


class _Plan:
    """Once a mirror has changed it is no longer right, and says so at the next request."""

    def __init__(
        self,
        face: Face,
        parts: Sequence[_Part | CrossfadeError],
        names: Sequence[str],
        router: Router,
    ) -> None:
        self.face = face
        self._parts = parts
        self._says: list[Mapping[str, str]] = [{ANSWERED_BY: name} for name in names]
        self._router = router
        self._stale: Stale | None = None

    def infer(self, requests: Sequence[InferRequest], team: Team) -> Sequence[Result]:
        """See ``Plan``."""
        if self._stale is not None:
            raise self._stale

        def ask(member: int, asked: Sequence[InferRequest]) -> list[Outcome]:
            part = self._parts[member]
            if isinstance(part, CrossfadeError):
                return [Outcome(member, part, 0.0)] * len(asked)
            return timed(lambda: part.infer(member, asked, team), member)

        def ask_later(member: int, asked: Sequence[InferRequest]) -> list[Outcome]:
            try:
                return ask(member, asked)
            except Stale as stale:
                self._stale = stale
                gone = Unavailable("the member is being replaced")
                return [Outcome(member, gone, 0.0)] * len(asked)

        return [
            self._answer(outcome.member, outcome.result)
            for outcome in self._router.infer(requests, ask, ask_later)
        ]

    def _answer(self, member: int, result: InferResult) -> Result:
        if not isinstance(result, InferResponse):
            return result
        said = self._says[member]
        given = result.parameters
        return Answer(result.outputs, {**given, **said} if given else said)
