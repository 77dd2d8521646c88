"""Resolve, validate, infer: what happens to every request, whichever protocol brought it."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from crossfade.ensemble.keys import HEADER
from crossfade.runtimes.core.errors import (
    CrossfadeError,
    Internal,
    InvalidArgument,
    escape,
)
from crossfade.runtimes.core.model import Cancellation, InferRequest, InferResult, Model, ModelRef
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
        deadline_s: ``time.monotonic()`` value; ``None`` is none.
        priority: 1 is served first; 0 is the model's default.
        layout: what ``inputs`` share with those of other requests, if it is known.
        caller: whose headers or metadata a model may look at; see ``ModelMetadata.headers``.
        may_lack_one: inputs are given the last dimension of 1 that they lack.
        lacked_one: whether they were, once the request has been answered.
    """

    ref: ModelRef
    inputs: Sequence[RawTensor]
    outputs: Sequence[str] = ()
    signature: str | None = None
    id: str = ""
    deadline_s: float | None = None
    priority: int = 0
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    cancelled: Cancellation | None = None
    layout: Layout | None = None
    caller: Caller | None = None
    may_lack_one: bool = False
    lacked_one: bool = False


class DataPlane:
    """The door. Thread-safe; the thread that calls ``infer`` does the work."""

    def __init__(self, manager: Manager) -> None:
        self.manager = manager
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

    def model_ready(self, ref: ModelRef) -> bool:
        """Whether the model could answer now."""
        return self.ready and self.manager.can_answer(ref)

    def facts(self, ref: ModelRef) -> Served:
        """The version that is meant, without holding a lease: only its facts may be read.

        Raises:
            NotFound: no such model, version or label.
            Unavailable: not now.
        """
        served = self.manager.lease(ref)
        served.__exit__()
        return served

    def infer(self, queries: Sequence[Query]) -> list[InferResult]:
        """Answers each query, in order; those for one model travel together."""
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

    def stream(self, query: Query) -> Iterator[InferResult | None]:
        """Answers with every response that the model gives, as it comes.

        An error is the last one. The responses of a decoupled model end with ``None``: there may
        be none at all; any other model gives exactly one.
        """
        try:
            served = self.manager.lease(query.ref, query.deadline_s)
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
            served = self.manager.lease(query.ref, query.deadline_s)
        except CrossfadeError as error:
            return error
        with served as model:
            return _answer(served, model, query)

    def _group(self, ref: ModelRef, queries: Sequence[Query]) -> list[InferResult]:
        try:
            served = self.manager.lease(ref, _last_deadline_s(queries))
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
        query.id,
        parameters,
        query.cancelled,
        rows,
    )
