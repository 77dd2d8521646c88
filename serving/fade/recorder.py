"""Keeps what is observed of a step until the controller fetches it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Final

from crossfade.ensemble.observing import Outcome, Pair
from crossfade.runtimes.core.errors import Cancelled, FailedPrecondition, InvalidArgument
from crossfade.runtimes.core.model import InferRequest, InferResult
from crossfade.serving.fade.answers import said
from crossfade.serving.fade.evidence import PRIMARY, StepEvidence
from crossfade.serving.fade.records import MAX_REQUEST_ID, Prediction

_MAX_PREDICTIONS: Final = 20_000  # that wait for the database


class Unfit(FailedPrecondition):
    """The request has a form that only the primary takes; never reaches a client."""


class Recorder:
    """An ``Observer`` of one step. Thread-safe.

    A request that the primary, too, finds wrong, or whose caller went away, counts for nobody.

    Args:
        mirrored: answers are kept of pairs; else, of what one member was asked alone.
    """

    def __init__(self, *, mirrored: bool) -> None:
        self._mirrored = mirrored
        self._lock = threading.Lock()
        self._evidence = StepEvidence()
        self._changed = False
        self._predictions: deque[Prediction] = deque(maxlen=_MAX_PREDICTIONS)

    def observe_pair(self, pair: Pair) -> None:
        """See ``Observer``."""
        primary, candidate = pair.first, pair.second
        if _counts_for_nobody(primary.result) or _is_gone(candidate.result):
            return
        words = (said(primary.result), said(candidate.result))
        agreed = words[0] == words[1] if None not in words else bool(pair.comparison.agreed)
        failed = [primary.failed, candidate.failed]
        with self._lock:
            times = [primary.latency_ms, candidate.latency_ms]
            self._evidence.observe_pairs([agreed], [failed], [times])
            self._changed = True
            if self._mirrored and _is_id(pair.request.id) and any(words):
                self._predictions.append(Prediction(pair.request.id, *words))

    def observe_alone(self, requests: Sequence[InferRequest], outcomes: Sequence[Outcome]) -> None:
        """See ``Observer``."""
        for request, outcome in zip(requests, outcomes, strict=True):
            if not _counts_for_nobody(outcome.result):
                self.count_alone(request, outcome)

    def count_alone(self, request: InferRequest, outcome: Outcome) -> None:
        """Counts a request that one member was asked, whatever became of it."""
        word = said(outcome.result)
        with self._lock:
            self._evidence.observe_alone(outcome.member, [outcome.failed], [outcome.latency_ms])
            self._changed = True
            if word and _is_id(request.id) and not self._mirrored:
                asked = (word, None) if outcome.member == PRIMARY else (None, word)
                self._predictions.append(Prediction(request.id, *asked))

    def changed(self) -> StepEvidence | None:
        """A copy of all that was seen; ``None`` if that is no more than at the last call."""
        with self._lock:
            if not self._changed:
                return None
            self._changed = False
            return StepEvidence.read(self._evidence.plain())

    def unchanged(self) -> None:
        """What ``changed`` returned could not be kept: it is returned again."""
        self._changed = True

    def predictions(self) -> list[Prediction]:
        """Answers that were not fetched yet; the oldest are dropped where nobody fetches them."""
        found: list[Prediction] = []
        while self._predictions:
            found.append(self._predictions.popleft())
        return found

    def put_back(self, predictions: Sequence[Prediction]) -> None:
        """These could not be kept: they are returned again, as far as there is room."""
        room = _MAX_PREDICTIONS - len(self._predictions)
        self._predictions.extendleft(reversed(predictions[:room]))


def _is_id(text: str) -> bool:
    """Whether the database can keep it; others cannot be given feedback for."""
    return 0 < len(text) <= MAX_REQUEST_ID and "\0" not in text


def _counts_for_nobody(result: InferResult) -> bool:
    return isinstance(result, InvalidArgument) or _is_gone(result)


def _is_gone(result: InferResult) -> bool:
    return isinstance(result, Cancelled | Unfit)
