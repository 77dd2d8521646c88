"""A loaded version and its leases."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from crossfade.ensemble.measures import Measure
from crossfade.runtimes.core.model import Model, ModelMetadata
from crossfade.runtimes.isolated.session import IsolatedSession
from crossfade.serving.batching.decoupled import Decoupled
from crossfade.serving.config.model_config import ModelConfig
from crossfade.serving.metrics.statistics import Statistics
from crossfade.serving.tensors.validator import Validator

_log = logging.getLogger(__name__)


class Line(Protocol):
    """A queue in front of a model, as far as others look at it."""

    @property
    def waiting(self) -> int:
        """Requests in the queue now."""
        ...

    @property
    def instances(self) -> int:
        """Runs that may go on at the same time."""
        ...

    @property
    def max_rows(self) -> int:
        """Rows that requests may be stacked to."""
        ...

    @property
    def max_delay_s(self) -> float:
        """How long the first request may wait for others to join it."""
        ...

    @property
    def is_quick(self) -> bool:
        """Whether a request would now be run at once, and be over in a moment."""
        ...


class Served:
    """A version that takes traffic; a context manager that gives back one lease.

    It is closed when it has been retired and the last lease is back, by whichever thread comes
    last. Thread-safe.
    """

    def __init__(
        self,
        model: Model,
        statistics: Statistics,
        config: ModelConfig,
        queue: Line,
        *,
        streaming: Decoupled | None = None,
        worker: IsolatedSession | None = None,
        processes: bool = False,
        measures: Callable[[], Iterable[Measure]] = tuple,
    ) -> None:
        self.model = model
        self.metadata: ModelMetadata = model.metadata
        self.statistics = statistics
        self.config = config
        self.queue = queue
        self.streaming = streaming  # of a decoupled model
        self._processes = processes  # a picture takes longer to decode than many models to run
        self.worker = worker  # of an isolated one
        self.measures = measures  # of an ensemble
        self.memory_bytes = 0  # at most, as its runtime estimates
        self.loaded_ns = time.time_ns()
        self.default_signature = self.metadata.default_signature
        self.validators = {
            name: Validator(self.metadata, name) for name in self.metadata.signatures
        }
        self._lock = threading.Lock()
        self._leases = 1  # the lifecycle's own, given back by retire
        self._retired = False
        self._closed = threading.Event()

    def acquire(self) -> bool:
        """Takes a lease; False if the version no longer gives any."""
        with self._lock:
            if self._retired:
                return False
            self._leases += 1
            return True

    @property
    def is_quick(self) -> bool:
        """Whether a request would now be run at once, and be over in a moment."""
        return self.queue.is_quick and not self._processes and self.worker is None

    @property
    def idle(self) -> bool:
        """Whether nobody but the lifecycle holds a lease."""
        return self._leases == 1

    @property
    def last_used_ns(self) -> int:
        """Wall-clock time of the last request, or of the load, in ns since the epoch."""
        return max(self.loaded_ns, self.statistics.last_ns)

    def __enter__(self) -> Model:
        """Enters a lease that ``acquire`` has taken."""
        return self.model

    def __exit__(self, *exc: object) -> None:
        """Gives the lease back."""
        with self._lock:
            self._leases -= 1
            last = self._leases == 0
        if last:
            try:
                self.model.close()
            except Exception:  # nobody who waits for the end, or gave a lease back, can help it
                _log.exception("closing failed", extra={"model": self.metadata.name})
            finally:
                self._closed.set()

    def retire_idle(self) -> bool:
        """As ``retire``, unless somebody holds a lease; whether it did."""
        with self._lock:
            if self._retired or self._leases > 1:
                return False
            self._retired = True
        self.__exit__()
        return True

    def retire(self) -> None:
        """Gives no more leases, and closes the model when the last one is back. Once."""
        with self._lock:
            if self._retired:
                return
            self._retired = True
        self.__exit__()

    def wait_closed(self, timeout_s: float | None = None) -> bool:
        """Waits until the model is closed; False if it is not within ``timeout_s``."""
        return self._closed.wait(timeout_s)
