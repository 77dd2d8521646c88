"""``fallback``: the first member answers; where it cannot, the next one does, and so on."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Final

from crossfade.ensemble.alike import Alike
from crossfade.ensemble.fitting import absent
from crossfade.ensemble.members import Known, Look
from crossfade.ensemble.pace import Pace
from crossfade.ensemble.plan import (
    ANSWERED_BY,
    LEFT_OUT,
    Answer,
    Face,
    Plan,
    Result,
    is_server_side,
)
from crossfade.ensemble.team import Team
from crossfade.runtimes.core.errors import CrossfadeError, DeadlineExceeded, Unavailable
from crossfade.runtimes.core.model import InferRequest, InferResult

_LEAST_RESERVE: Final = 0.1  # of the time that is left, for the members that come after
_UNASKED: Final = Unavailable("no member of the ensemble has been asked")


@dataclasses.dataclass(frozen=True, slots=True)
class Fallback:
    """The kind.

    Attributes:
        timeout_s: a member that takes longer has failed; ``None`` waits until the deadline.
    """

    timeout_s: float | None = None

    def __call__(self, members: Sequence[tuple[str, Look]]) -> Plan:
        """See ``Kind``; at least one member has to be there."""
        numbers = [n for n, (_, one) in enumerate(members) if isinstance(one, Known)]
        if not numbers:
            name, why = members[0]
            assert isinstance(why, CrossfadeError)
            raise absent(name, why)
        known = [one for _, one in members if isinstance(one, Known)]
        alike = Alike.of(known)
        names = tuple(name for name, _ in members)
        return _Plan(alike.face, alike, tuple(numbers), names, self.timeout_s, Pace(len(numbers)))


@dataclasses.dataclass(frozen=True, slots=True)
class _Plan:
    face: Face
    alike: Alike
    numbers: tuple[int, ...]  # of the members that are there
    names: tuple[str, ...]  # of all
    timeout_s: float | None
    pace: Pace

    def infer(self, requests: Sequence[InferRequest], team: Team) -> Sequence[Result]:
        """See ``Plan``."""
        results: list[Result] = [_UNASKED] * len(requests)
        missing = [list(self.names[: self.numbers[0]]) for _ in requests]
        for place, number in enumerate(self.numbers):
            left = [
                n
                for n, one in enumerate(results)
                if isinstance(one, CrossfadeError) and is_server_side(one)
            ]
            if not left:
                break
            answers = self._ask(place, [requests[n] for n in left], team)
            name = self.names[number]
            for n, answer in zip(left, answers, strict=True):
                if isinstance(answer, CrossfadeError):
                    results[n] = answer
                    missing[n].append(name)
                    continue
                said = {ANSWERED_BY: name}
                if missing[n]:
                    said[LEFT_OUT] = ",".join(missing[n])
                outputs = self.alike.outputs(place, answer.outputs)
                results[n] = Answer(outputs, {**answer.parameters, **said})
        return results

    def _until_s(self, place: int, requests: Sequence[InferRequest]) -> float | None:
        """When to go on to the next member, if there is one that could still be in time."""
        if place == len(self.numbers) - 1:
            return None
        now_s = time.monotonic()
        limits = [] if self.timeout_s is None else [now_s + self.timeout_s]
        needed_s = self.pace.needed_s(range(place + 1, len(self.numbers)))
        for request in requests:
            if (deadline_s := request.deadline_s) is not None:
                reserve_s = max(needed_s, _LEAST_RESERVE * (deadline_s - now_s))
                limits.append(deadline_s - reserve_s)
        return min(limits, default=None)

    def _ask(
        self, place: int, requests: Sequence[InferRequest], team: Team
    ) -> Sequence[InferResult]:
        number = self.numbers[place]
        late = DeadlineExceeded(f"member '{self.names[number]}' would be too late")
        until_s = self._until_s(place, requests)
        began_s = time.monotonic()
        if until_s is None:
            answers: Sequence[InferResult] | None = team.ask(number, requests)
        elif began_s + self.pace.typical_s(place) > until_s:
            return [late] * len(requests)
        else:
            asked = [dataclasses.replace(request, deadline_s=until_s) for request in requests]
            (answers,) = team.ask_all([(number, asked)], until_s)
        self.pace.took(place, time.monotonic() - began_s)
        return [late] * len(requests) if answers is None else answers
