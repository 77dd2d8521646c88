"""What a kind of ensemble writes: how its members' models, as they are now, answer as one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from crossfade.ensemble.members import Look
from crossfade.ensemble.team import Team
from crossfade.runtimes.core.errors import Code, CrossfadeError
from crossfade.runtimes.core.model import InferRequest, InferResponse, Signature, Tensors

LEFT_OUT: Final = "ensemble_left_out"  # parameter: names of the members that did not answer
ANSWERED_BY: Final = "ensemble_member"  # parameter: name of the one that did
# Errors that another member could not mend.
_CALLERS: Final = frozenset(
    {Code.INVALID_ARGUMENT, Code.CANCELLED, Code.PERMISSION_DENIED, Code.UNAUTHENTICATED}
)


@dataclasses.dataclass(frozen=True, slots=True)
class Face:
    """An ensemble as clients see it.

    Attributes:
        labels: class names by output, in index order.
        max_batch_size: rows that a request may have; 0 where the signature is not batched.
    """

    signature: Signature
    labels: Mapping[str, tuple[str, ...]]
    max_batch_size: int


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What a plan makes of one request."""

    outputs: Tensors
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def passed(cls, response: InferResponse, **parameters: Any) -> Answer:
        """One member's answer, with what it says and these parameters."""
        return cls(response.outputs, {**response.parameters, **parameters})


Result = Answer | CrossfadeError


class Plan(Protocol):
    """How members answer as one, for models of certain contracts. Immutable, thread-safe."""

    @property
    def face(self) -> Face:
        """As clients see it."""
        ...

    def infer(self, requests: Sequence[InferRequest], team: Team) -> Sequence[Result]:
        """Answers each request, in order, with members of ``team``.

        ``request.outputs`` has at least one name. Outputs beyond those do no harm.

        Raises:
            Stale: as ``Team.ask``; the plan is then made again.
        """
        ...


class Kind(Protocol):
    """A kind of ensemble with its settings.

    It may have ``headers``, see ``ModelMetadata``; ``measures()``, see ``measures.Measuring``; and
    ``close()``, for what it does on its own.
    """

    def __call__(self, members: Sequence[tuple[str, Look]]) -> Plan:
        """Makes a plan for the members as they are now, each with its name.

        Raises:
            FailedPrecondition: they do not fit together, and why.
            Unavailable: one that is needed is not there.
        """
        ...


def is_server_side(error: CrossfadeError) -> bool:
    """Whether another member might answer what this one could not."""
    return error.code not in _CALLERS
