"""A Model whose runs can be held back and looked at, and callers on threads of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Any

import numpy as np

from crossfade.runtimes.core.errors import CrossfadeError
from crossfade.runtimes.core.model import (
    InferRequest,
    InferResponse,
    InferResult,
    ModelMetadata,
    Signature,
    TensorSpec,
    Timings,
)
from crossfade.serving.batching.scheduler import Scheduled
from crossfade.serving.config.model_config import Queue
from crossfade.serving.metrics.statistics import Statistics

SPEC_IN, SPEC_OUT = TensorSpec("x", "FP32", (-1, -1)), TensorSpec("y", "FP32", (-1, -1))
ROWS = Signature((SPEC_IN,), (SPEC_OUT,), batched=True)
ALONE = Signature((SPEC_IN,), (SPEC_OUT,), batched=False)
PATIENCE_S = 20.0


def request(number: int, rows: int = 1, width: int = 2, **fields: Any) -> InferRequest:
    """A request that can be told from all others by its values."""
    x = np.full((rows, width), number, dtype=np.float32)
    return InferRequest({"x": x}, rows=rows, **fields)


def answer(number: int, rows: int = 1, width: int = 2) -> list[list[float]]:
    """What the model makes of it."""
    return [[2.0 * number + 1] * width] * rows


class Runs:
    """The Model inside: y = 2x + 1, and a record of every run."""

    def __init__(self, behaviour: Callable[[InferRequest], InferResult | None] | None = None):
        signatures = {"serving_default": ROWS, "second": ROWS, "alone": ALONE}
        self.metadata = ModelMetadata("m", 1, "fake", signatures, max_batch_size=64)
        self.requests: list[InferRequest] = []
        self.threads: list[int] = []
        self.active = self.most_active = 0
        self.closed = False
        self.behaviour = behaviour
        self._changed = threading.Condition()
        self._held = False
        self._released: set[float] = set()

    @property
    def rows(self) -> list[int]:
        """Rows of each run, in the order in which they began."""
        return [len(request.inputs["x"]) for request in self.requests]

    @property
    def numbers(self) -> list[list[int]]:
        """Which requests rode in each run, by the values of its rows."""
        return [[int(v) for v in request.inputs["x"][:, 0]] for request in self.requests]

    def infer(self, requests: Sequence[InferRequest]) -> Sequence[InferResult]:
        (one,) = requests
        with self._changed:
            self.requests.append(one)
            self.threads.append(threading.get_ident())
            self.active += 1
            self.most_active = max(self.most_active, self.active)
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._may_end(one), PATIENCE_S)
        try:
            found = self.behaviour(one) if self.behaviour else None
            if found is not None:
                return (found,)
            return (self.good(one),)
        finally:
            with self._changed:
                self.active -= 1
                self._changed.notify_all()

    def good(self, one: InferRequest) -> InferResponse:
        outputs = {"y": 2 * one.inputs["x"] + 1}
        return InferResponse(outputs, self.metadata, Timings(0, 1_000_000, one.rows))

    def close(self) -> None:
        self.closed = True

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lets no run end while it is open."""
        self._hold(True)
        try:
            yield
        finally:
            self._hold(False)

    def wait_active(self, count: int) -> None:
        """Waits until that many runs are going on at the same time."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.active >= count, PATIENCE_S)

    def release(self, number: int) -> None:
        """Lets the run end that this request rides in, while the others are held."""
        with self._changed:
            self._released.add(number)
            self._changed.notify_all()

    def _may_end(self, one: InferRequest) -> bool:
        return not self._held or bool(self._released & set(one.inputs["x"].ravel().tolist()))

    def _hold(self, held: bool) -> None:
        with self._changed:
            self._held = held
            self._released.clear()
            self._changed.notify_all()


Answer = Future[Sequence[InferResult]]


class Bench:
    """A scheduler around ``Runs``, and as many callers as are needed."""

    def __init__(
        self,
        runs: Runs | None = None,
        *,
        instances: int = 1,
        max_rows: int = 1,
        max_delay_s: float = 0.0,
        **queue: Any,
    ) -> None:
        self.runs = runs or Runs()
        self.statistics = Statistics()
        self.scheduled = Scheduled(
            self.runs,
            self.statistics,
            instances=instances,
            queue=Queue(**queue),
            max_rows=max_rows,
            max_delay_s=max_delay_s,
        )
        self._sent: list[Answer] = []

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, failure: type[BaseException] | None, *rest: object) -> None:
        if failure is None:
            assert not wait(self._sent, PATIENCE_S).not_done, "somebody still waits"

    def call(self, *requests: InferRequest) -> Answer:
        """Sends requests together, from a thread of their own."""
        sent: Answer = Future()

        def work() -> None:
            try:
                sent.set_result(self.scheduled.infer(requests))
            except BaseException as failure:
                sent.set_exception(failure)

        self._sent.append(sent)
        threading.Thread(target=work, daemon=True).start()  # a hung one must not hang the tests
        return sent

    def queue_up(self, *requests: InferRequest) -> list[Answer]:
        """Sends requests one after the other, each when the one before is in line."""
        sent = []
        for one in requests:
            before = self.scheduled.waiting
            sent.append(self.call(one))
            wait_until(lambda n=before + 1: self.scheduled.waiting == n)  # type: ignore[misc]
        return sent

    def occupy(self, number: int = 0) -> list[Answer]:
        """Fills every instance with a run that goes on while the runs are held."""
        sent = []
        for index in range(self.scheduled.instances):
            sent.append(self.call(request(number)))
            self.runs.wait_active(index + 1)
        return sent

    def assert_all_instances_work(self) -> None:
        """As many runs as there are instances, and no more, go on at the same time."""
        self.runs.behaviour = None
        self.runs.most_active = 0
        with self.runs.held():
            busy = self.occupy()
            late = self.queue_up(request(7))
        for sent in busy:
            assert only(sent) == answer(0)
        assert only(late[0]) == answer(7)
        assert self.runs.most_active == self.scheduled.instances
        assert self.scheduled.waiting == 0


def result(sent: Answer) -> InferResult:
    """The one answer of a call."""
    (found,) = sent.result(PATIENCE_S)
    return found


def only(sent: Answer) -> list[list[float]]:
    """The values of the one answer of a call that must have passed."""
    return values(result(sent))


def values(found: InferResult) -> list[list[float]]:
    assert isinstance(found, InferResponse), found
    rows: list[list[float]] = found.outputs["y"].tolist()
    return rows


def error(sent: Answer) -> CrossfadeError:
    found = result(sent)
    assert isinstance(found, CrossfadeError), found
    return found


def wait_until(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until_s, "it did not come to pass"
        time.sleep(0.0005)
