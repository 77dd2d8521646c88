"""The cheap model first; what it is not sure of goes to the next: ``cascade``."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from crossfade.ensemble.asking import ask
from crossfade.ensemble.combine import MemberScores
from crossfade.ensemble.deferral import Expected, RateWatch
from crossfade.ensemble.gate import GateReport, confidence
from crossfade.ensemble.gate import Measure as Confidence
from crossfade.ensemble.labels import LabelAlignment
from crossfade.ensemble.measures import Measure, Tally
from crossfade.ensemble.scores import FLOOR, Floats, log_scores, probabilities
from crossfade.runtimes.core.errors import (
    Code,
    CrossfadeError,
    FailedPrecondition,
    Internal,
)
from crossfade.runtimes.core.model import (
    InferRequest,
    InferResponse,
    InferResult,
    Model,
    ModelMetadata,
    Tensor,
    Timings,
)

_log = logging.getLogger(__name__)
# The parameter of an answer that names the stages whose answers are in it, in their order.
STAGE: Final = "crossfade_stage"
# What a stage may fail with and the others still answer: the request is not to blame.
_SERVERS_FAULT: Final = frozenset(
    {Code.INTERNAL, Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED, Code.DEADLINE_EXCEEDED}
)
Rows = npt.NDArray[np.intp]


@dataclasses.dataclass(frozen=True, slots=True)
class Stage:
    """One model of a cascade.

    Attributes:
        scores: what its output is; of exclusive classes, with labels.
        threshold: it answers where its confidence is at least this; ``None``: never, all goes on.
            Of the last stage it does not count.
        expected: the range of the share of rows that it is to pass on, to be watched.
    """

    name: str
    model: Model
    scores: MemberScores
    threshold: float | None = None
    expected: Expected | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Gate:
    """What decides, and how.

    Attributes:
        measure: what counts as confidence.
        by_row: each row of a request is decided on its own; else one that is unsure takes all
            along.
    """

    measure: Confidence = Confidence.MAXIMUM
    by_row: bool = True


def expected_of(report: GateReport) -> list[Expected]:
    """The range of the share of rows that each stage but the last is to pass on."""
    counts = [round(share * report.rows) for share in report.reach]
    return [
        Expected.of(after, before) if before else Expected(0.0, 1.0)
        for before, after in zip(counts, counts[1:], strict=False)
    ]


@dataclasses.dataclass(slots=True)
class _Answer:
    """A request's answer as far as it is known.

    Attributes:
        outputs: the ensemble's, by name; rows that no stage has answered are undefined.
        stage: [rows] the stage that answered each, -1 is none.
        error: why there is none.
    """

    request: InferRequest
    rows: int
    batched: bool
    stage: npt.NDArray[np.int32]
    outputs: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    error: CrossfadeError | None = None
    infer_ns: int = 0
    failed: bool = False


class Cascade:
    """A Model that asks its stages in turn, the next one only about what is unsure. Thread-safe.

    The answer has the calibrated probabilities of the stage that answered, for the labels of all
    stages in the order of their first appearance; a label that a stage lacks has no probability
    there. Other outputs come from the same stage. Where a later stage fails by the server's fault,
    the answer of the one before it stands, and the answer says which that is; a first stage that
    fails so is passed over.

    Args:
        metadata: of the ensemble; its signature has all ``outputs`` and, if wanted, the stage.
        stages: the cheapest first, two or more.
        output: the name of the scores.
        outputs: of other outputs that all stages have.
        stage_output: INT32 [rows], the place of the stage that answered; ``None`` is no such.
        gate: what decides.

    Raises:
        FailedPrecondition: scores that are not of exclusive classes; labels that do not align.
    """

    def __init__(
        self,
        metadata: ModelMetadata,
        stages: Sequence[Stage],
        output: str,
        outputs: Sequence[str] = (),
        *,
        stage_output: str | None = None,
        gate: Gate = Gate(),
    ) -> None:
        self.metadata = metadata
        self._stages = stages
        self._output = output
        self._outputs = tuple(outputs)
        self._stage_output = stage_output
        self._gate = gate
        if len(stages) < 2 or not all(stage.scores.kind.exclusive for stage in stages):
            raise FailedPrecondition(
                "a cascade has two stages or more, whose scores are probabilities or logits of"
                " classes that exclude each other"
            )
        self._alignment = LabelAlignment.of([stage.scores.labels for stage in stages])
        self._watches = [
            RateWatch(stage.expected) if stage.expected else None for stage in stages[:-1]
        ]
        self._rows, self._alarms = Tally(), Tally()

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the scores, in index order."""
        return self._alignment.labels

    def infer(self, requests: Sequence[InferRequest]) -> Sequence[InferResult]:
        """See ``Model.infer``; what goes on, of all requests, goes on together."""
        answers = [self._begin(request) for request in requests]
        pending: list[tuple[_Answer, Rows]] = [
            (answer, np.arange(answer.rows)) for answer in answers
        ]
        for place in range(len(self._stages)):
            if not pending:
                break
            pending = self._ask(place, pending)
        return [self._finish(answer) for answer in answers]

    def close(self) -> None:
        """See ``Model.close``."""
        for stage in self._stages:
            stage.model.close()

    def measures(self) -> Iterable[Measure]:
        """See ``Measuring``."""
        yield Measure(
            "cascade_rows",
            "counter",
            "Rows that a stage was asked, by what became of them",
            ("stage", "result"),
            self._rows.values(),
        )
        watched = [(s.name, s.expected) for s in self._stages if s.expected]
        if not watched:
            return
        yield Measure(
            "cascade_expected_deferral_rate",
            "gauge",
            "The range of the share of rows that a stage was solved to pass on",
            ("stage", "bound"),
            {
                (name, bound): getattr(expected, bound)
                for name, expected in watched
                for bound in ("low", "high")
            },
        )
        counts = self._alarms.values()
        yield Measure(
            "cascade_deferral_alarms",
            "counter",
            "How often the share of rows that a stage passes on was found outside that range",
            ("stage", "side"),
            {
                (name, side): counts.get((name, side), 0.0)
                for name, _ in watched
                for side in ("above", "below")
            },
        )

    def _begin(self, request: InferRequest) -> _Answer:
        signature = self.metadata.signatures.get(request.signature)
        batched = signature is not None and signature.batched
        rows = request.rows if batched else 1
        return _Answer(request, rows, batched, np.full(rows, -1, np.int32))

    def _ask(
        self, place: int, pending: Sequence[tuple[_Answer, Rows]]
    ) -> list[tuple[_Answer, Rows]]:
        """Asks a stage about rows; returns those that go on."""
        stage = self._stages[place]
        is_last = place == len(self._stages) - 1
        wanted = tuple(dict.fromkeys((self._output, *self._outputs)))
        asked = [_part(answer, rows, wanted) for answer, rows in pending]
        later: list[tuple[_Answer, Rows]] = []
        sure = unsure = lost = 0
        for (answer, rows), outcome in zip(pending, ask(stage.model, place, asked), strict=True):
            try:
                if isinstance(outcome.result, CrossfadeError):
                    raise outcome.result
                scores = self._take(place, answer, rows, outcome.result)
            except CrossfadeError as error:
                lost += len(rows)
                answer.failed = True
                if error.code not in _SERVERS_FAULT:
                    answer.error = error
                elif not is_last:
                    later.append((answer, rows))
                elif (answer.stage < 0).any():
                    answer.error = error
                continue
            if is_last:
                sure += len(rows)
                continue
            goes_on = rows[self._unsure(stage, scores)]
            unsure += len(goes_on)
            sure += len(rows) - len(goes_on)
            if len(goes_on):
                later.append((answer, goes_on))
        self._count(place, sure, unsure, lost)
        return later

    def _take(self, place: int, answer: _Answer, rows: Rows, response: InferResponse) -> Floats:
        """Puts what a stage said into the answer; returns its probabilities [rows, …, C]."""
        scores = self._probabilities(place, response.outputs)
        given: dict[str, Tensor] = {self._output: scores}
        given.update((name, response.outputs[name]) for name in self._outputs)
        if answer.batched and any(a.ndim == 0 or len(a) != len(rows) for a in given.values()):
            raise Internal(f"stage '{self._stages[place].name}' did not answer every row")
        for name, array in given.items():
            if len(rows) == answer.rows:
                answer.outputs[name] = array
                continue
            old = answer.outputs.get(name)
            if old is None or old.shape[1:] != array.shape[1:] or old.dtype != array.dtype:
                raise Internal("the stages' outputs have different shapes")
            merged = old.copy()
            merged[rows] = array
            answer.outputs[name] = merged
        answer.stage[rows] = place
        answer.infer_ns += response.timings.infer_ns
        return scores if answer.batched else scores[None]

    def _probabilities(self, place: int, outputs: Mapping[str, Tensor]) -> Floats:
        scores = self._stages[place].scores
        logs = log_scores(
            outputs[self._output],
            scores.kind,
            quantization=scores.quantization,
            temperature=scores.temperature,
        )
        spread = self._alignment.spread(place, logs, math.log(FLOOR))
        return probabilities(spread, exclusive=True)

    def _unsure(self, stage: Stage, scores: Floats) -> npt.NDArray[np.bool_]:
        """Which rows go on [rows]."""
        if stage.threshold is None:
            return np.ones(len(scores), np.bool_)
        sure = confidence(scores, self._gate.measure) >= np.float32(stage.threshold)
        unsure = ~sure.reshape(len(scores), -1).all(axis=1)
        if self._gate.by_row:
            return np.asarray(unsure)
        return np.full(len(scores), bool(unsure.any()))

    def _count(self, place: int, sure: int, unsure: int, lost: int) -> None:
        name = self._stages[place].name
        for result, count in (("answered", sure), ("deferred", unsure), ("failed", lost)):
            if count:
                self._rows.add(name, result, count=count)
        watch = self._watches[place] if place < len(self._watches) else None
        side = watch.update(unsure, sure + unsure) if watch else None
        if side:
            self._alarms.add(name, side)
            _log.warning(
                "a stage of a cascade passes on another share of its rows than it was solved for",
                extra={"model": self.metadata.name, "stage": name, "side": side},
            )

    def _finish(self, answer: _Answer) -> InferResult:
        if answer.error is not None:
            return answer.error
        outputs = answer.outputs
        if self._stage_output is not None:
            outputs[self._stage_output] = answer.stage if answer.batched else answer.stage[0]
        if answer.request.outputs:
            outputs = {name: outputs[name] for name in answer.request.outputs}
        names = [self._stages[place].name for place in np.unique(answer.stage)]
        return InferResponse(
            outputs,
            self.metadata,
            Timings(infer_ns=answer.infer_ns, batch_rows=answer.rows),
            {STAGE: ",".join(names)},
        )


def _part(answer: _Answer, rows: Rows, wanted: tuple[str, ...]) -> InferRequest:
    """A request for some rows of another, for these outputs."""
    request = answer.request
    if len(rows) == answer.rows:
        return dataclasses.replace(request, outputs=wanted)
    inputs = {name: array[rows] for name, array in request.inputs.items()}
    return dataclasses.replace(request, inputs=inputs, outputs=wanted, rows=len(rows))
