"""Members of one ensemble that share work, answered by one fused graph where that is right.

The members stay loaded and answer for themselves whenever the fused graph cannot: while it is made,
after a member was replaced, and for good where fusing fails or is not worth it. It is made in the
background, of the versions that are live then, and serves only requests to exactly those.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

from crossfade.ensemble.members import Live, Member
from crossfade.runtimes import registry
from crossfade.runtimes.core.errors import (
    Code,
    CrossfadeError,
    FailedPrecondition,
    Internal,
)
from crossfade.runtimes.core.model import (
    DEFAULT_SIGNATURE,
    Artifact,
    InferRequest,
    InferResponse,
    InferResult,
    Model,
    ModelMetadata,
    ModelRef,
)
from crossfade.runtimes.fusing import Branch
from crossfade.serving.batching.leaf import Leaf
from crossfade.serving.batching.scheduler import Scheduled
from crossfade.serving.lifecycle.fusion_check import Checked, check
from crossfade.serving.lifecycle.fusion_state import FusionState
from crossfade.serving.lifecycle.joint import Joint, Part, check_alike, part_of
from crossfade.serving.lifecycle.memory_budget import MemoryBudget
from crossfade.serving.lifecycle.served import Served
from crossfade.serving.lifecycle.warming import set_batching
from crossfade.serving.metrics.statistics import Statistics

_log = logging.getLogger(__name__)
_one_at_a_time = threading.Lock()  # it takes all members' memory again for a while
AGAIN: Final = "a member was replaced; it is being made again"
# Of the members' arithmetic. A fused graph runs on one thread where members run side by side: on
# idle cores it answers later than they do unless enough is saved.
WORTHWHILE: Final = 0.2
# What every member would have answered alike; after others each is asked by itself.
_EVERYBODYS: Final = frozenset(
    {Code.DEADLINE_EXCEEDED, Code.CANCELLED, Code.RESOURCE_EXHAUSTED, Code.UNAVAILABLE}
)


class Leases(Live, Protocol):
    """Where versions are leased, with what is known of them."""

    def lease(self, ref: ModelRef, deadline_s: float | None = None) -> Served:
        """See ``Resolver.lease``."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class _Made:
    joint: Joint
    served: Served
    state: FusionState

    def is_of(self, models: Sequence[Model]) -> bool:
        return all(a is p.model for a, p in zip(models, self.joint.parts, strict=True))


class Fusion:
    """See ``Together``. Thread-safe.

    Args:
        name: of the ensemble.
        members: of it.
        outputs: that it gives.
        leases: where the members' versions are leased.
        memory: of all models; nothing is unloaded for a fused graph.
    """

    def __init__(
        self,
        name: str,
        members: Sequence[Member],
        leases: Leases,
        memory: MemoryBudget,
    ) -> None:
        self._name = name
        self._members = members
        self._leases = leases
        self._memory = memory
        self._outputs: frozenset[str] = frozenset()
        self._lock = threading.Lock()
        self._made: _Made | None = None
        self._tried: Sequence[Model] = ()
        self._busy = self._closed = False
        self.state = FusionState()

    def start(self, outputs: frozenset[str]) -> None:
        """Begins to fuse, in the background.

        Args:
            outputs: that the ensemble gives.
        """
        self._outputs = outputs
        self._look_again(())

    def infer(
        self, models: Sequence[Model], requests: Sequence[Sequence[InferRequest]]
    ) -> Sequence[Sequence[InferResult]] | None:
        """See ``Together.infer``."""
        made = self._made
        if made is None or not made.is_of(models):
            self._look_again(models)
            return None
        if not made.served.acquire():
            return None
        began_ns = time.perf_counter_ns()
        with made.served as fused:
            try:
                answers = made.joint.answer(fused, requests)
            except Exception as error:
                Internal.hide(error, _log, f"the fused graph of {self._name}")
                return None
        spent_ns = time.perf_counter_ns() - began_ns
        errors = (one for column in answers for one in column if isinstance(one, CrossfadeError))
        if any(error.code not in _EVERYBODYS for error in errors):
            return None
        for part, asked, results in zip(made.joint.parts, requests, answers, strict=True):
            _record(part.statistics, asked, results, spent_ns)
        return answers

    def close(self) -> None:
        """See ``Together.close``."""
        with self._lock:
            self._closed = True
            made, self._made = self._made, None
        self._drop(made)

    def _look_again(self, models: Sequence[Model]) -> None:
        """Fuses what is live now, unless that is being done or has been tried in vain."""
        with self._lock:
            tried = len(models) == len(self._tried) and all(
                a is b for a, b in zip(models, self._tried, strict=True)
            )
            if self._busy or self._closed or (models and tried):
                return
            self._busy = True
            made, self._made = self._made, None
            if made is not None:
                self.state = FusionState(AGAIN)
        threading.Thread(target=self._fuse, args=(made,), name="fuse", daemon=True).start()

    def _drop(self, made: _Made | None) -> None:
        if made is not None:
            made.served.retire()
            made.served.wait_closed()
            self._memory.give_back(made.state.memory_bytes)

    def _fuse(self, before: _Made | None) -> None:
        self._drop(before)
        made = None
        with contextlib.ExitStack() as stack:
            try:
                served = [stack.enter_context(_held(self._leases, m.ref)) for m in self._members]
                self._tried = [one.model for one in served]
                made = self._make(served)
                state = made.state
            except CrossfadeError as error:
                state = FusionState(error.message)
            except Exception as error:
                state = FusionState(Internal.hide(error, _log, f"fusing {self._name}").message)
        with self._lock:
            self._busy = False
            kept = not self._closed
            if kept:
                self._made, self.state = made, state
        if not kept:
            self._drop(made)
        elif made is None:
            _log.info("members not fused", extra={"model": self._name, "reason": state.reason})
        else:
            told = {k: v for k, v in dataclasses.asdict(state).items() if k != "reason"}
            _log.info("members fused", extra={"model": self._name, **told})

    def _make(self, served: Sequence[Served]) -> _Made:
        pairs = zip(self._members, served, strict=True)
        parts = [part_of(member, one, self._outputs) for member, one in pairs]
        check_alike(parts)
        with tempfile.TemporaryDirectory(prefix="crossfade-fused-") as folder:
            return self._made_in(Path(folder), parts)

    def _made_in(self, folder: Path, parts: Sequence[Part]) -> _Made:
        platform = parts[0].origin.platform
        fuse = registry.fuser(platform)
        assert fuse is not None  # else there would be no parts
        branches = [Branch(p.origin.artifact.path, p.inputs, p.wanted) for p in parts]
        with _one_at_a_time:
            fused = fuse(branches, folder)
        if fused.saved < WORTHWHILE:
            raise FailedPrecondition(
                f"the members share {fused.saved:.0%} of their work, less than {WORTHWHILE:.0%}"
            )
        first = parts[0].origin.artifact
        artifact = Artifact(fused.path, self._name, 1, first.instances, first.options)
        runtime = registry.create(platform)
        memory_bytes = runtime.estimate(artifact)
        joint = Joint(parts, fused.outputs)
        signature = joint.signature()
        rows = min(part.origin.leaf.metadata.max_batch_size for part in parts)
        metadata = ModelMetadata(
            self._name, 1, platform, {DEFAULT_SIGNATURE: signature}, max_batch_size=rows
        )
        with self._memory.room(self._name, memory_bytes, evicts=False):
            session = runtime.load(artifact)
            leaf = Leaf(session, metadata)
            try:
                checked: Checked = check(joint, leaf)
                statistics = Statistics()
                config = parts[0].config
                queue = Scheduled(leaf, statistics, instances=first.instances, queue=config.queue)
                set_batching(queue, leaf, config)
            except BaseException:
                session.close()
                raise
        state = FusionState(
            "",
            fused.saved,
            fused.nodes,
            fused.fused_nodes,
            fused.shared_nodes,
            fused.shared_bytes,
            memory_bytes,
            checked.difference,
        )
        return _Made(joint, Served(queue, statistics, config, queue), state)


@contextlib.contextmanager
def _held(leases: Leases, ref: ModelRef) -> Iterator[Served]:
    served = leases.lease(ref)
    with served:
        yield served


def _record(
    statistics: Statistics,
    requests: Sequence[InferRequest],
    results: Sequence[InferResult],
    spent_ns: int,
) -> None:
    answered = []
    for request, result in zip(requests, results, strict=True):
        if isinstance(result, InferResponse):
            answered.append((request, result))
        else:
            statistics.record_failure(result, spent_ns)
    if answered:
        statistics.record_requests(spent_ns, answered)
