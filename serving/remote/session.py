"""A model of another server as a session: one call a run, tried again where that can help."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from crossfade.runtimes import deadline
from crossfade.runtimes.core.dtypes import name_of
from crossfade.runtimes.core.errors import (
    InvalidArgument,
    Unavailable,
    escape,
)
from crossfade.runtimes.core.model import Signature, Tensors
from crossfade.serving.remote.answers import tensors
from crossfade.serving.remote.breaker import Breaker, Phase, Rule, Verdict
from crossfade.serving.remote.contract import Ask, Contract, reading
from crossfade.serving.remote.failures import FarError, told
from crossfade.serving.remote.options import RemoteOptions
from crossfade.serving.remote.retrying import Budget, pause_s

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class RemoteSession:
    """See ``Session``.

    Args:
        model: the name that clients know.
        options: what is said of it.
        contract: the protocol's client.
        signatures: as declared; ``None`` is to be read from the server.

    Raises:
        CrossfadeError: the server does not say what the signatures are.
    """

    def __init__(
        self,
        model: str,
        options: RemoteOptions,
        contract: Contract,
        signatures: Mapping[str, Signature] | None,
    ) -> None:
        self._model = model
        self._options = options
        self._contract = contract
        self._lock = threading.Lock()
        self._budget = Budget()
        breaker = options.breaker
        self._breaker = Breaker(Rule(breaker.failures, breaker.pause_ms / 1000))
        self.signatures: Mapping[str, Signature] = signatures or self._call(contract.describe, None)

    def run(self, inputs: Tensors, signature: str, outputs: Sequence[str]) -> Tensors:
        """See ``Session.run``.

        Raises:
            Unavailable: the server cannot be reached, or is left alone for a while.
            DeadlineExceeded: the caller's time, or ``timeout_ms``, was up first.
        """
        found = self.signatures.get(signature)
        if found is None:
            raise InvalidArgument(f"the model has no signature '{escape(signature)}'")
        wanted = tuple(outputs) or tuple(spec.name for spec in found.outputs)
        known = {spec.name for spec in found.outputs}
        if unknown := [name for name in wanted if name not in known]:
            raise InvalidArgument(f"the model has no output '{escape(unknown[0])}'")
        given = {spec.name for spec in found.inputs}
        needed = {spec.name for spec in found.inputs if not spec.optional}
        if not needed <= inputs.keys() <= given:
            raise InvalidArgument(f"the model's inputs are {', '.join(sorted(given))}")
        try:
            for array in inputs.values():
                name_of(array.dtype)
        except KeyError:
            raise InvalidArgument("an input is of a type that no protocol has") from None

        def once(until_s: float) -> Tensors:
            ask = Ask(inputs, signature, found, wanted, until_s)
            raws = self._contract.infer(ask)
            with reading("the answer"):
                return tensors(ask, raws)

        return self._call(once, deadline.of_run.get())

    def close(self) -> None:
        """See ``Session.close``."""
        self._contract.close()

    def _call(self, once: Callable[[float], _T], deadline_s: float | None) -> _T:
        """Calls until there is an answer, no time, or no hope."""
        limit_s = time.monotonic() + self._options.timeout_ms / 1000
        until_s = limit_s if deadline_s is None else min(deadline_s, limit_s)
        attempt = 0
        while True:
            try:
                return self._attempt(once, until_s, limit_s)
            except FarError as error:
                wait_s = self._wait_s(error, attempt, until_s)
                if wait_s is None:
                    raise told(error, self._model, _log) from error
            time.sleep(wait_s)
            attempt += 1

    def _attempt(self, once: Callable[[float], _T], until_s: float, limit_s: float) -> _T:
        ticket = self._admit()
        verdict = Verdict.UNKNOWN
        try:
            answer = once(until_s)
            verdict = Verdict.WELL
            return answer
        except FarError as error:
            verdict = error.verdict
            if verdict is Verdict.UNKNOWN and time.monotonic() >= limit_s:
                verdict = Verdict.ILL  # it had all the time that there is
            raise
        finally:
            self._report(ticket, verdict)

    def _admit(self) -> int:
        with self._lock:
            now_s = time.monotonic()
            self._breaker, ticket = self._breaker.admit(now_s)
            left_s = max(0.05, self._breaker.opens_s - now_s)
        if ticket is None:
            raise Unavailable(
                f"the server behind '{self._model}' has failed and is left alone for a moment",
                retry_after_s=left_s,
            )
        return ticket

    def _report(self, ticket: int, verdict: Verdict) -> None:
        with self._lock:
            before = self._breaker.phase
            self._breaker = self._breaker.report(ticket, verdict, time.monotonic())
            after = self._breaker.phase
            if verdict is Verdict.WELL:
                self._budget.succeeded()
        if before is not after and Phase.CLOSED in (before, after):
            message = "the server behind a model is " + (
                "left alone for a while" if after is Phase.OPEN else "back"
            )
            _log.warning(message, extra={"model": self._model})

    def _wait_s(self, error: FarError, attempt: int, until_s: float) -> float | None:
        """How long to wait before it is tried again; ``None`` if it is not."""
        if not error.retryable or attempt >= self._options.retries:
            return None
        wait_s = pause_s(attempt, random.random())
        wait_s = max(wait_s, error.retry_after_s or 0.0)
        if time.monotonic() + wait_s >= until_s:
            return None
        with self._lock:
            return wait_s if self._budget.take() else None
