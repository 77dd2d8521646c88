"""The Model at the bottom: one session, run once a request."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from crossfade.runtimes import deadline, trace
from crossfade.runtimes.core.errors import CrossfadeError, Internal
from crossfade.runtimes.core.model import (
    InferRequest,
    InferResponse,
    InferResult,
    ModelMetadata,
    Session,
    Timings,
)

_log = logging.getLogger(__name__)


class Leaf:
    """A session as a Model. Each request is a run of its own; foreign errors end here."""

    def __init__(self, session: Session, metadata: ModelMetadata) -> None:
        self._session = session
        self.metadata = metadata

    def infer(self, requests: Sequence[InferRequest]) -> Sequence[InferResult]:
        """See ``Model.infer``."""
        return [
            self._one(request) if request.trace is None else self._traced(request, request.trace)
            for request in requests
        ]

    def _traced(self, request: InferRequest, span: trace.Span) -> InferResult:
        outer = trace.of_run.set(span)
        try:
            return self._one(request)
        finally:
            trace.of_run.reset(outer)

    def _one(self, request: InferRequest) -> InferResult:
        deadline.of_run.set(request.deadline_s)
        began_ns = time.perf_counter_ns()
        try:
            outputs = self._session.run(request.inputs, request.signature, request.outputs)
        except CrossfadeError as error:
            return error
        except Exception as error:
            return Internal.hide(error, _log, f"model {self.metadata.name}")
        infer_ns = time.perf_counter_ns() - began_ns
        return InferResponse(outputs, self.metadata, Timings(0, infer_ns, request.rows))

    def close(self) -> None:
        """See ``Model.close``."""
        self._session.close()
