"""An ensemble whose weights follow ground truth: what it answers with, and what it remembers."""

from __future__ import annotations

import contextlib
import dataclasses
import zlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from crossfade.ensemble.adapting import Settings, Setup, State, Weights, begin
from crossfade.ensemble.claims import pack
from crossfade.ensemble.combine import Combination, Rule
from crossfade.runtimes.core.errors import CrossfadeError, FailedPrecondition
from crossfade.runtimes.core.model import InferRequest, InferResponse

_MAX_WAITING: Final = 5_000  # claims, of at most 6 kB each
_SAMPLED: Final = 10_000


class Following:
    """One setup as this process follows it. Thread-safe: ``state`` is replaced as a whole.

    Attributes:
        setup: what the weights begin from.
        state: where they are; the fitted ones until somebody knows more.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.state: State = begin(setup)
        self._claims: deque[tuple[str, str]] = deque(maxlen=_MAX_WAITING)

    def add(self, request_id: str, claims: str) -> None:
        """Remembers what was claimed; where nobody fetches it, the oldest is dropped."""
        self._claims.append((request_id, claims))

    def take(self) -> dict[str, str]:
        """Claims by request id that were not taken yet; of an id that came twice the first."""
        found: dict[str, str] = {}
        with contextlib.suppress(IndexError):
            while True:
                found.setdefault(*self._claims.popleft())
        return found

    def put_back(self, claims: Mapping[str, str]) -> None:
        """These could not be kept: they are taken again, as far as there is room."""
        room = max(0, _MAX_WAITING - len(self._claims))
        self._claims.extendleft(reversed(list(claims.items())[:room]))


Open = Callable[[Setup], Following]


@dataclasses.dataclass(frozen=True, slots=True)
class Adapt:
    """Has the weights of one ensemble follow.

    Attributes:
        name, version: of the ensemble.
        reference: see ``Setup``.
        sample_percent: of the requests whose claims are remembered; which ones, their ids say.
        open: gives the ``Following`` of a setup, the same one while somebody has it.
    """

    name: str
    version: int
    settings: Settings
    reference: float | None
    sample_percent: float
    open: Open

    def follow(self, members: Sequence[str], pools: Mapping[str, Combination]) -> Adapted:
        """For members as they are now.

        Raises:
            FailedPrecondition: there is nothing to learn by a label, or no mean to weigh.
        """
        if len(members) < 2:
            raise FailedPrecondition("adapt: one member's weight is 1, there is nothing to learn")
        if len(pools) > 1:
            raise FailedPrecondition(
                f"adapt needs one output with class scores, and there are {sorted(pools)}: leave"
                " the others out of the members, or map them to other names"
            )
        ((output, pool),) = pools.items()
        if pool.rule is not Rule.PROBABILITY or not pool.members[0].kind.exclusive:
            raise FailedPrecondition(
                f"adapt is for exclusive classes under the rule probability, not {pool.rule.value}"
            )
        order = np.array(sorted(range(len(pool.labels)), key=pool.labels.__getitem__), np.intp)
        setup = Setup(
            *(self.name, self.version, tuple(members)),
            tuple(pool.labels[place] for place in order),
            pool.weights,
            self.reference,
            self.settings,
        )
        return Adapted(output, pool, order, round(self.sample_percent * 100), self.open(setup))


@dataclasses.dataclass(frozen=True, slots=True)
class Adapted:
    """Weights that follow, for one plan. Thread-safe.

    Attributes:
        order: the setup's labels in those of ``pool``.
        sampled: requests of 10,000 that are remembered.
    """

    output: str
    pool: Combination
    order: npt.NDArray[np.intp]
    sampled: int
    following: Following

    @property
    def weights(self) -> Weights:
        """That answer now."""
        return self.following.state.weights

    def observe(self, request: InferRequest, given: Sequence[InferResponse | None]) -> None:
        """Remembers what all members claimed of a request of one row that has an id."""
        if not request.id or request.rows != 1 or self.output not in request.outputs:
            return
        if zlib.crc32(request.id.encode("utf-8", "replace")) % _SAMPLED >= self.sampled:
            return
        outputs = [one.outputs[self.output] for one in given if one is not None]
        if len(outputs) < len(given):
            return
        with contextlib.suppress(CrossfadeError):  # what cannot be claimed was no answer either
            claims = self.pool.claims(outputs, self.weights)
            if claims[0].size == len(self.order):
                flat = claims.reshape(len(given), -1)
                self.following.add(request.id, pack(flat[:, self.order]))
