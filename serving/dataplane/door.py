"""Resolve, validate, infer: what happens to every request, whichever protocol brought it."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import uuid
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, Protocol

from crossfade.ensemble.keys import HEADER
from crossfade.runtimes.core.errors import (
    Cancelled,
    CrossfadeError,
    Internal,
    InvalidArgument,
    escape,
)
from crossfade.runtimes.core.model import (
    Cancellation,
    InferRequest,
    InferResult,
    Model,
    ModelRef,
)
from crossfade.runtimes.trace import Span
from crossfade.serving.lifecycle.detours import Detour, Detours
from crossfade.serving.lifecycle.manager import Manager
from crossfade.serving.lifecycle.served import Served
from crossfade.serving.tensors import fit
from crossfade.serving.tensors.layout import Layout
from crossfade.serving.tensors.raw import RawTensor
from crossfade.serving.transport.calls import Caller

_log = logging.getLogger(__name__)


@dataclasses.dataclass(slots=True)
class Query:
    """One inference request as a front end understood it, not yet validated.

    Attributes:
        signature: ``None`` is the model's default one.
        outputs: names wanted; none are all.
        id: empty where the caller gave none; ``None`` where the protocol has none.
        deadline_s: ``time.monotonic()`` value; ``None`` is none.
        priority: 1 is served first; 0 is the model's default.
        layout: what ``inputs`` share with those of other requests, if it is known.
        caller: whose headers or metadata a model may look at; see ``ModelMetadata.headers``.
        may_lack_one: inputs are given the last dimension of 1 that they lack.
        lacked_one: whether they were, once the request has been answered.
        trace: what it is a part of, once it is in the door.
    """

    ref: ModelRef
    inputs: Sequence[RawTensor]
    outputs: Sequence[str] = ()
    signature: str | None = None
    id: str | None = None
    deadline_s: float | None = None
    priority: int = 0
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    cancelled: Cancellation | None = None
    layout: Layout | None = None
    caller: Caller | None = None
    may_lack_one: bool = False
    lacked_one: bool = False
    trace: Span | None = None


class Tracer(Protocol):
    """Begins the traces of requests, or goes on with those of their callers. Thread-safe."""

    def begin(self, query: Query, contract: str) -> Span:
        """The span of a request, whether it is recorded or not; raises nothing."""
        ...


class DataPlane:
    """The door. Thread-safe; the thread that calls ``infer`` does the work.

    Args:
        manager: leases the models.
        tracer: is told of each request.
    """

    def __init__(self, manager: Manager, tracer: Tracer | None = None) -> None:
        self.manager = manager
        self._tracer = tracer
        self._detours: Detours = {}  # replaced as a whole, read without a lock
        self._draining = threading.Event()
        self._listeners: list[Callable[[], None]] = []

    @property
    def ready(self) -> bool:
        """Whether new requests are welcome: all models have been tried, and it does not drain."""
        return self.manager.started and not self._draining.is_set()

    def drain(self) -> None:
        """Makes the server not ready at once; what comes all the same is still answered."""
        self._draining.set()
        for listener in self._listeners:
            listener()

    def on_drain(self, listener: Callable[[], None]) -> None:
        """Has ``listener`` called when ``drain`` is."""
        self._listeners.append(listener)

    def detour(self, detours: Detours) -> None:
        """Has these references, exactly as they are written, mean something else from now on."""
        self._detours = detours

    def model_ready(self, ref: ModelRef) -> bool:
        """Whether the model could answer now."""
        to = self._detours.get(ref, ref) if self._detours else ref
        return self.ready and (isinstance(to, Detour) or self.manager.can_answer(to))

    def is_quick(self, name: str) -> bool:
        """Whether requests for a model would now be answered at once, without a wait."""
        if self._detours and isinstance(self._detours.get(ModelRef(name)), Detour):
            return False
        return self.manager.is_quick(name)

    def facts(self, ref: ModelRef) -> Served:
        """The version that is meant, without holding a lease: only its facts may be read.

        Raises:
            NotFound: no such model, version or label.
            Unavailable: not now.
        """
        to = self._detoured(ref) if self._detours else ref
        served = self.manager.lease(to) if isinstance(to, ModelRef) else to.served
        served.__exit__()
        return served

    def infer(self, queries: Sequence[Query], contract: str = "") -> list[InferResult]:
        """Answers each query, in order; those for one model travel together.

        Args:
            queries: what is asked.
            contract: who asks so, for traces.
        """
        if self._tracer is None:
            return self._infer(queries)
        spans = [self._tracer.begin(query, contract) for query in queries]
        for query, span in zip(queries, spans, strict=True):
            query.trace = span
        results = self._infer(queries)
        for span, result in zip(spans, results, strict=True):
            span.end(result)
        return results

    def _infer(self, queries: Sequence[Query]) -> list[InferResult]:
        if len(queries) == 1:
            return [self._one(queries[0])]
        groups: dict[ModelRef, list[int]] = {}
        for index, query in enumerate(queries):
            groups.setdefault(query.ref, []).append(index)
        answers: dict[int, InferResult] = {}
        for ref, members in groups.items():
            results = self._group(ref, [queries[index] for index in members])
            answers.update(zip(members, results, strict=True))
        return [answers[index] for index in range(len(queries))]

    def stream(self, query: Query, contract: str = "") -> Generator[InferResult | None, None, None]:
        """Answers with every response that the model gives, as it comes.

        An error is the last one. The responses of a decoupled model end with ``None``: there may
        be none at all; any other model gives exactly one.
        """
        if self._tracer is None:
            yield from self._stream(query)
            return
        query.trace = span = self._tracer.begin(query, contract)
        last: InferResult | None = Cancelled("the caller has gone")
        try:
            with contextlib.closing(self._stream(query)) as results:
                answered: InferResult | None = None
                for result in results:
                    answered = result or answered
                    yield result
            last = answered
        finally:
            span.end(last)

    def _stream(self, query: Query) -> Generator[InferResult | None, None, None]:
        try:
            served = self._lease((query,), query.deadline_s)
        except CrossfadeError as error:
            yield error
            return
        with served as model:
            if served.streaming is None:
                yield _answer(served, model, query)
                return
            request = _validated(served, query)
            if isinstance(request, CrossfadeError):
                yield request
                return
            yield from served.streaming.stream(request)
            yield None

    def _one(self, query: Query) -> InferResult:
        try:
            served = self._lease((query,), query.deadline_s)
        except CrossfadeError as error:
            return error
        with served as model:
            return _answer(served, model, query)

    def _group(self, ref: ModelRef, queries: Sequence[Query]) -> list[InferResult]:
        try:
            served = self._lease(queries, _last_deadline_s(queries))
        except CrossfadeError as error:
            return [error] * len(queries)
        with served as model:
            requests = [_validated(served, query) for query in queries]
            good = [request for request in requests if isinstance(request, InferRequest)]
            try:
                results = iter(model.infer(good) if good else ())
            except Exception as error:
                results = iter([Internal.hide(error, _log, f"model {ref.name}")] * len(good))
            return [next(results) if isinstance(r, InferRequest) else r for r in requests]

    def _lease(self, queries: Sequence[Query], deadline_s: float | None) -> Served:
        """A lease for queries with one reference; gives them ids where that is asked for."""
        ref = queries[0].ref
        if not self._detours:
            return self.manager.lease(ref, deadline_s)
        detour = self._detoured(ref)
        if isinstance(detour, ModelRef):
            return self.manager.lease(detour, deadline_s)
        if detour.gives_ids:
            for query in queries:
                if query.id == "":
                    query.id = uuid.uuid4().hex
        return detour.served

    def _detoured(self, ref: ModelRef) -> Detour | ModelRef:
        """What a reference means now; a lease has been taken where that is a detour."""
        while True:
            to = self._detours.get(ref, ref)
            if isinstance(to, ModelRef) or to.served.acquire():  # else it was replaced just now
                return to


def _last_deadline_s(queries: Sequence[Query]) -> float | None:
    deadlines = [query.deadline_s for query in queries]
    return None if None in deadlines else max(d for d in deadlines if d is not None)


def _answer(served: Served, model: Model, query: Query) -> InferResult:
    request = _validated(served, query)
    if isinstance(request, CrossfadeError):
        return request
    try:
        return model.infer((request,))[0]
    except CrossfadeError as error:
        return error
    except Exception as error:
        return Internal.hide(error, _log, f"model {query.ref.name}")


def _with_headers(
    parameters: Mapping[str, Any], names: Iterable[str], caller: Caller
) -> Mapping[str, Any]:
    given = caller.metadata
    return {**parameters, **{HEADER + name: given[name] for name in names if name in given}}


def _validated(served: Served, query: Query) -> InferRequest | CrossfadeError:
    name = query.signature or served.default_signature
    try:
        validator = served.validators.get(name)
        if validator is None:
            raise InvalidArgument(
                f"model '{served.metadata.name}' has no signature '{escape(name)}'"
            )
        if query.may_lack_one and validator.ends_in_one:
            query.lacked_one = fit.widen(query.inputs, validator.ends_in_one)
        inputs, rows = validator.inputs(query.inputs, query.layout)
        outputs = validator.outputs(query.outputs) if query.outputs else ()
    except CrossfadeError as error:
        served.statistics.record_failure(error, 0)
        return error
    parameters = query.parameters
    if served.metadata.headers and query.caller is not None:
        parameters = _with_headers(parameters, served.metadata.headers, query.caller)
    return InferRequest(
        inputs,
        name,
        outputs,
        query.deadline_s,
        query.priority,
        query.id or "",
        parameters,
        query.cancelled,
        rows,
        query.trace,
    )
