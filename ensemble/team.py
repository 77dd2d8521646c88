"""The members of an ensemble at work: leased for each call, asked one by one or side by side."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from crossfade.ensemble.crew import Crew
from crossfade.ensemble.members import Contract, Known, Live, Look
from crossfade.ensemble.spreading import Spreading
from crossfade.ensemble.tracing import begun, ended
from crossfade.runtimes.core.errors import CrossfadeError, Internal
from crossfade.runtimes.core.model import InferRequest, InferResult, Model, ModelMetadata

_log = logging.getLogger(__name__)
Record = Callable[[int, Sequence[InferResult]], None]


class Stale(Exception):
    """A member's model is no longer what the plan was made for."""


class Together(Protocol):
    """Answers for all members at once, where that is less work than to ask each. Thread-safe."""

    def infer(
        self, models: Sequence[Model], requests: Sequence[Sequence[InferRequest]]
    ) -> Sequence[Sequence[InferResult]] | None:
        """What each model would answer; ``None`` where they have to be asked.

        Args:
            models: the members', leased.
            requests: for each of them, with its names; the same requests otherwise.
        """
        ...

    def close(self) -> None:
        """Gives all resources back. Called once."""
        ...


class Team:
    """Members as a plan knows them. Thread-safe.

    Args:
        names: of the members, in the ensemble's order.
        members: in the same.
        live: where they are leased.
        crew: runs them side by side.
        record: is told what each of them answered.
        together: is asked first where all members are asked the same and none may be late.
    """

    def __init__(
        self,
        names: Sequence[str],
        members: Sequence[Look],
        live: Live,
        crew: Crew,
        record: Record,
        *,
        together: Together | None = None,
    ) -> None:
        self._names = names
        self._members = members
        self._live = live
        self._crew = crew
        self._record = record
        self._together = together
        self._everybody = list(range(len(members)))
        self._spreading: dict[tuple[int, ...], Spreading] = {}  # by members and size of a call
        # The last model of each that was found to keep the contract, so that it is compared once.
        self._same: list[ModelMetadata | None] = [
            one.metadata if isinstance(one, Known) else None for one in members
        ]

    def ask(self, number: int, requests: Sequence[InferRequest]) -> Sequence[InferResult]:
        """Has one member answer, on this thread.

        Args:
            number: of the member.
            requests: with the ensemble's names, in ``outputs`` too (none are all of the model's).

        Raises:
            Stale: its model has another signature, other labels or the like than it had.
        """
        known = self._members[number]
        asked = begun(requests, self._names[number])
        if isinstance(known, CrossfadeError):
            results: Sequence[InferResult] = [known] * len(requests)
        else:
            results = self._asked(number, known, asked)
            self._record(number, results)
        if asked is not requests:
            ended(asked, results)
        return results

    def ask_all(
        self, jobs: Sequence[tuple[int, Sequence[InferRequest]]], until_s: float | None = None
    ) -> list[Sequence[InferResult] | None]:
        """Has several members answer, side by side where that is faster.

        Args:
            jobs: members and what each is asked.
            until_s: ``time.monotonic()`` value after which nobody waits for them.

        Returns:
            What each answered; ``None`` for those that have not.

        Raises:
            Stale: as ``ask``.
        """
        if jobs and self._together is not None and until_s is None:
            requests = jobs[0][1]
            if [number for number, asked in jobs if asked is requests] == self._everybody:
                found = self._joint(self._together, requests)
                if found is not None:
                    return found
        if len(jobs) < 2 and until_s is None:
            return [self.ask(*job) for job in jobs]
        tasks = [functools.partial(self.ask, *job) for job in jobs]
        if until_s is not None:
            return self._crew.run(tasks, until_s)
        rows = sum(request.rows for request in jobs[0][1])
        with self._crew.counted() as crowded:
            form = (*[number for number, _ in jobs], rows.bit_length())
            spreading = self._spreading.setdefault(form, Spreading())
            spread = spreading.choose(crowded)
            began_s, began_cpu_s = time.perf_counter(), time.thread_time()
            results = self._crew.run(tasks, spread=spread)
            seconds, cpu_s = time.perf_counter() - began_s, time.thread_time() - began_cpu_s
            spreading.took(spread, seconds, cpu_s, crowded)
        return results

    def _joint(
        self, together: Together, requests: Sequence[InferRequest]
    ) -> list[Sequence[InferResult] | None] | None:
        members = [one for one in self._members if isinstance(one, Known)]
        if len(members) < len(self._members):
            return None
        with contextlib.ExitStack() as stack:
            try:
                models = [
                    stack.enter_context(self._leased(number, known, requests))
                    for number, known in enumerate(members)
                ]
            except CrossfadeError:
                return None
            traced = [begun(requests, known.name) for known in members]
            asked = [
                [known.to_member(request) for request in own]
                for known, own in zip(members, traced, strict=True)
            ]
            found = together.infer(models, asked)
        if found is None:
            return None
        answers: list[Sequence[InferResult] | None] = []
        for number, (known, results) in enumerate(zip(members, found, strict=True)):
            named = _named(known, results)
            self._record(number, named)
            if traced[number] is not requests:
                ended(traced[number], named)
            answers.append(named)
        return answers

    def _asked(
        self, number: int, known: Known, requests: Sequence[InferRequest]
    ) -> Sequence[InferResult]:
        try:
            with self._leased(number, known, requests) as model:
                try:
                    results = model.infer([known.to_member(request) for request in requests])
                except Exception as error:
                    hidden = Internal.hide(error, _log, f"member {known.name}")
                    return [hidden] * len(requests)
        except CrossfadeError as error:
            return [error] * len(requests)
        return _named(known, results)

    @contextlib.contextmanager
    def _leased(
        self, number: int, known: Known, requests: Sequence[InferRequest]
    ) -> Iterator[Model]:
        with self._live.lease(known.member.ref, _last_deadline_s(requests)) as model:
            metadata = model.metadata
            if metadata is not self._same[number]:
                if Contract.of(metadata) != known.contract:
                    raise Stale(known.name)
                self._same[number] = metadata
            yield model


def _named(known: Known, results: Sequence[InferResult]) -> list[InferResult]:
    """The answers with the ensemble's names."""
    return [one if isinstance(one, CrossfadeError) else known.from_member(one) for one in results]


def _last_deadline_s(requests: Sequence[InferRequest]) -> float | None:
    deadlines = [request.deadline_s for request in requests]
    return None if None in deadlines else max(d for d in deadlines if d is not None)
