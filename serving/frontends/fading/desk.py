"""What both sides of the contract ask of the fades, and what they are told without any."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from crossfade.runtimes.core.errors import FailedPrecondition, InvalidArgument, escape
from crossfade.serving.fade.controller import FadeController
from crossfade.serving.transport.calls import Caller

# The longest plan, in characters; one with every key has a thousand.
MAX_PLAN: Final = 64 * 1024


def needed(fades: FadeController | None) -> FadeController:
    """The fades; raises FailedPrecondition where the server has no database for them."""
    if fades is None:
        raise FailedPrecondition(
            "this server keeps no fades: start it with --fade-database sqlite:///fades.db"
        )
    return fades


def actor(caller: Caller) -> str:
    """Who asks, as the record names it."""
    return f"operator at {caller.peer}"[:128]


def plan(text: str) -> str:
    """The text of a plan; raises InvalidArgument if it is too long to be one."""
    if len(text) > MAX_PLAN:
        raise InvalidArgument(f"a plan has at most {MAX_PLAN} characters")
    return text


def truths(given: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Truths by request id; raises InvalidArgument for one id with two truths."""
    found: dict[str, str] = {}
    for request_id, truth in given:
        if found.setdefault(request_id, truth) != truth:
            raise InvalidArgument(f"request id '{escape(request_id)}' has two truths")
    return found
