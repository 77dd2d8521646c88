"""Who has to answer of members that are all asked, and what becomes of the others."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

from crossfade.ensemble.members import Known
from crossfade.ensemble.plan import LEFT_OUT, Answer, is_server_side
from crossfade.ensemble.team import Team
from crossfade.runtimes.core.errors import CrossfadeError, DeadlineExceeded
from crossfade.runtimes.core.model import InferRequest, InferResponse


@dataclasses.dataclass(frozen=True, slots=True)
class Turnout:
    """Who has to answer.

    Attributes:
        timeout_s: a member that takes longer is left out; ``None`` waits for all.
        quorum: members that have to answer; with fewer, the request fails.
    """

    quorum: int
    timeout_s: float | None = None

    def ask(
        self, requests: Sequence[InferRequest], team: Team, members: Sequence[Known]
    ) -> list[tuple[list[InferResponse | None], Answer] | CrossfadeError]:
        """Asks all members; for each request their answers, ``None`` for those left out.

        The ``Answer`` beside them has no outputs yet, and says who is missing.
        """
        until_s = None
        if self.timeout_s is not None:
            until_s = time.monotonic() + self.timeout_s
            requests = [_by(request, until_s) for request in requests]
        found = team.ask_all([(n, requests) for n in range(len(members))], until_s)
        late = DeadlineExceeded("the member did not answer in the time that the ensemble gives it")
        turns = [each if each is not None else [late] * len(requests) for each in found]
        return [self._judged(column, members) for column in zip(*turns, strict=True)]

    def _judged(
        self, column: Sequence[InferResponse | CrossfadeError], members: Sequence[Known]
    ) -> tuple[list[InferResponse | None], Answer] | CrossfadeError:
        failures = [one for one in column if isinstance(one, CrossfadeError)]
        if not failures:
            return [one for one in column if isinstance(one, InferResponse)], Answer({})
        for failure in failures:
            if not is_server_side(failure):
                return failure
        if len(column) - len(failures) < self.quorum:
            return failures[0]
        given = [one if isinstance(one, InferResponse) else None for one in column]
        missing = [m.name for m, one in zip(members, given, strict=True) if one is None]
        return given, Answer({}, {LEFT_OUT: ",".join(missing)})


def _by(request: InferRequest, until_s: float) -> InferRequest:
    """The request with a deadline that is not after ``until_s``."""
    deadline_s = request.deadline_s
    if deadline_s is not None and deadline_s <= until_s:
        return request
    return dataclasses.replace(request, deadline_s=until_s)
