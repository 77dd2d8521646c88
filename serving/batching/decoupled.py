"""The Model of a session that answers one request with any number of responses, as they come.

Such a model has no queue and is never stacked: its requests come over streams, each of which runs
one after the other.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence

from crossfade.runtimes.core.errors import Cancelled, CrossfadeError, Internal, Unimplemented
from crossfade.runtimes.core.model import (
    InferRequest,
    InferResponse,
    InferResult,
    ModelMetadata,
    StreamingSession,
    Timings,
)
from crossfade.serving.metrics.statistics import Statistics

_log = logging.getLogger(__name__)


class Decoupled:
    """Answers one request with any number of responses; a ``Model`` like any other to the rest."""

    def __init__(
        self, session: StreamingSession, metadata: ModelMetadata, statistics: Statistics
    ) -> None:
        self._session = session
        self._statistics = statistics
        self.metadata = metadata

    def infer(self, requests: Sequence[InferRequest]) -> Sequence[InferResult]:
        """Refuses: there may be more than one response, or none."""
        refusal = Unimplemented(
            f"model '{self.metadata.name}' answers only streams: ModelInfer does not support models"
            " with decoupled transaction policy"
        )
        return [refusal] * len(requests)

    def stream(self, request: InferRequest) -> Iterator[InferResult]:
        """Yields each response as it comes, none of them final; an error is the last one."""
        began_ns = time.perf_counter_ns()
        error: CrossfadeError | None = None
        try:
            found = self._session.stream(request.inputs, request.signature, request.outputs)
            for outputs in found:
                if request.cancelled is not None and request.cancelled.is_set():
                    raise _gone()
                timings = Timings(batch_rows=request.rows)
                yield InferResponse(outputs, self.metadata, timings, final=False)
        except GeneratorExit:
            self._statistics.record_failure(_gone(), time.perf_counter_ns() - began_ns)
            raise
        except CrossfadeError as failure:
            error = failure
        except Exception as failure:
            error = Internal.hide(failure, _log, f"model {self.metadata.name}")
        duration_ns = time.perf_counter_ns() - began_ns
        if error is None:
            self._statistics.record_run(request.rows, duration_ns, "stream")
            timings = Timings(0, duration_ns, request.rows)
            whole = InferResponse({}, self.metadata, timings)
            self._statistics.record_requests(duration_ns, [(request, whole)])
        else:
            self._statistics.record_failure(error, duration_ns)
            yield error

    def close(self) -> None:
        """See ``Model.close``."""
        self._session.close()


def _gone() -> Cancelled:
    return Cancelled("the caller has gone")
