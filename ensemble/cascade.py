"""The cheap model first; what it is not sure of goes to the next: ``cascade``."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from crossfade.ensemble.combine import MemberScores
from crossfade.ensemble.deferral import Expected, RateWatch
from crossfade.ensemble.gate import GateReport, confidence
from crossfade.ensemble.gate import Measure as Confidence
from crossfade.ensemble.labels import LabelAlignment
from crossfade.ensemble.measures import Measure, Tally
from crossfade.ensemble.plan import ANSWERED_BY, Answer, Result, is_server_side
from crossfade.ensemble.scores import Floats, calibrated
from crossfade.runtimes.core.errors import CrossfadeError, FailedPrecondition, Internal
from crossfade.runtimes.core.model import InferRequest, InferResponse, InferResult, Tensor

_log = logging.getLogger(__name__)
# Has the stage at a place answer requests, together.
Ask = Callable[[int, Sequence[InferRequest]], Sequence[InferResult]]
Rows = npt.NDArray[np.intp]


@dataclasses.dataclass(frozen=True, slots=True)
class Stage:
    """One model of a cascade.

    Attributes:
        threshold: it answers where its confidence is at least this; ``None``: never, all goes on.
            Of the last stage it does not count.
        expected: the range of the share of rows that it is to pass on, to be watched.
    """

    name: str
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
        for before, after in itertools.pairwise(counts)
    ]


@dataclasses.dataclass(slots=True)
class _Partial:
    """A request's answer as far as it is known.

    Attributes:
        stage: [rows] the stage that answered each, -1 is none.
        outputs: the ensemble's, by name; rows that no stage has answered are undefined.
        error: why there is none.
    """

    request: InferRequest
    rows: int
    stage: npt.NDArray[np.int32]
    outputs: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    error: CrossfadeError | None = None


class Deferrals:
    """Counts the rows of each stage, and watches the shares that go on. Thread-safe."""

    def __init__(self, name: str, stages: Sequence[Stage]) -> None:
        self._name = name
        self._stages = stages
        self._watches = [
            RateWatch(stage.expected) if stage.expected else None for stage in stages[:-1]
        ]
        self._rows, self._alarms = Tally(), Tally()

    def add(self, place: int, *, answered: int, deferred: int, failed: int) -> None:
        """Counts rows that a stage was asked, by what became of them."""
        name = self._stages[place].name
        counts = {"answered": answered, "deferred": deferred, "failed": failed}
        for result, count in counts.items():
            if count:
                self._rows.add(name, result, count=count)
        watch = self._watches[place] if place < len(self._watches) else None
        side = watch.update(deferred, answered + deferred) if watch else None
        if side:
            self._alarms.add(name, side)
            _log.warning(
                "a stage of a cascade passes on another share of its rows than it was solved for",
                extra={"model": self._name, "stage": name, "side": side},
            )

    def measures(self) -> Iterable[Measure]:
        """See ``Measuring``."""
        yield Measure(
            "cascade_rows",
            "counter",
            "Rows that a stage was asked, by what became of them",
            ("stage", "result"),
            self._rows.values(),
        )
        watched = [(s.name, s.expected) for s in self._stages[:-1] if s.expected]
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


class Cascade:
    """Asks stages in turn, the next one only about what is unsure. Immutable, thread-safe.

    The answer has the calibrated probabilities of the stage that answered, for the labels of all
    stages in the order of their first appearance; a label that a stage lacks has no probability
    there. Other outputs come from the same stage. Where a later stage fails by the server's fault,
    the answer of the one before it stands, and the answer says which that is; a first stage that
    fails so is passed over.

    Args:
        stages: the cheapest first, two or more.
        scores: what the output of each is; of exclusive classes, with labels.
        output: the name of the scores.
        outputs: of other outputs that all stages have.
        stage_output: INT32 [rows], the place of the stage that answered; ``None`` is no such.
        batched: whether the first dimension is the rows.
        gate: what decides.
        deferrals: count.

    Raises:
        FailedPrecondition: scores that are not of exclusive classes; labels that do not align.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        scores: Sequence[MemberScores],
        output: str,
        outputs: Sequence[str] = (),
        *,
        stage_output: str | None = None,
        batched: bool = True,
        gate: Gate,
        deferrals: Deferrals,
    ) -> None:
        self._stages = stages
        self._scores = scores
        self._output = output
        self._outputs = tuple(outputs)
        self._stage_output = stage_output
        self._batched = batched
        self._gate = gate
        self._deferrals = deferrals
        if len(stages) < 2 or not all(each.kind.exclusive for each in scores):
            raise FailedPrecondition(
                "a cascade has two stages or more, whose scores are probabilities or logits of"
                " classes that exclude each other"
            )
        self._alignment = LabelAlignment.of([each.labels for each in scores])

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the scores, in index order."""
        return self._alignment.labels

    @property
    def output(self) -> str:
        """The name of the scores."""
        return self._output

    @property
    def scores(self) -> Sequence[MemberScores]:
        """What the output of each stage is."""
        return self._scores

    def infer(self, requests: Sequence[InferRequest], ask: Ask) -> list[Result]:
        """Answers each request, in order; what goes on, of all of them, goes on together."""
        partials = [
            _Partial(request, rows, np.full(rows, -1, np.int32))
            for request in requests
            for rows in [len(next(iter(request.inputs.values()))) if self._batched else 1]
        ]
        pending: list[_Asked] = [(partial, np.arange(partial.rows)) for partial in partials]
        for place in range(len(self._stages)):
            if not pending:
                break
            pending = self._ask(place, pending, ask)
        return [self._finish(partial) for partial in partials]

    def _ask(self, place: int, pending: Sequence[_Asked], ask: Ask) -> list[_Asked]:
        """Asks a stage about rows; returns those that go on."""
        is_last = place == len(self._stages) - 1
        asked = [self._part(partial, rows) for partial, rows in pending]
        later: list[_Asked] = []
        answered = deferred = failed = 0
        for (partial, rows), result in zip(pending, ask(place, asked), strict=True):
            try:
                if isinstance(result, CrossfadeError):
                    raise result
                scores = self._take(place, partial, rows, result)
            except CrossfadeError as error:
                failed += len(rows)
                if not is_server_side(error):
                    partial.error = error
                elif not is_last:
                    later.append((partial, rows))
                elif (partial.stage < 0).any():
                    partial.error = error
                continue
            goes_on = rows[:0] if is_last else rows[self._unsure(place, scores)]
            deferred += len(goes_on)
            answered += len(rows) - len(goes_on)
            if len(goes_on):
                later.append((partial, goes_on))
        self._deferrals.add(place, answered=answered, deferred=deferred, failed=failed)
        return later

    def _part(self, partial: _Partial, rows: Rows) -> InferRequest:
        """A request for these rows."""
        request = partial.request
        outputs = (self._output, *self._outputs)
        if len(rows) == partial.rows:
            return dataclasses.replace(request, outputs=outputs)
        inputs = {name: array[rows] for name, array in request.inputs.items()}
        return dataclasses.replace(request, inputs=inputs, outputs=outputs, rows=len(rows))

    def _take(self, place: int, partial: _Partial, rows: Rows, response: InferResponse) -> Floats:
        """Puts what a stage said into the answer; returns its probabilities [rows, …, C]."""
        scores = self.probabilities(place, response.outputs[self._output])
        given: dict[str, Tensor] = {self._output: scores}
        given.update((name, response.outputs[name]) for name in self._outputs)
        if self._batched and any(not a.ndim or len(a) != len(rows) for a in given.values()):
            raise Internal(f"stage '{self._stages[place].name}' did not answer every row")
        for name, array in given.items():
            if len(rows) == partial.rows:
                partial.outputs[name] = array
                continue
            merged = partial.outputs[name].copy()
            if merged.shape[1:] != array.shape[1:]:
                raise Internal(f"the stages' outputs '{name}' have different shapes")
            merged[rows] = array
            partial.outputs[name] = merged
        partial.stage[rows] = place
        return scores if self._batched else scores[None]

    def probabilities(self, place: int, output: Tensor) -> Floats:
        """Of a stage's scores, for all labels [..., C]; raises Internal if they cannot be such."""
        scores = self._scores[place]
        own = calibrated(
            output, scores.kind, quantization=scores.quantization, temperature=scores.temperature
        )
        return np.asarray(self._alignment.spread(place, own, 0.0))

    def _unsure(self, place: int, scores: Floats) -> npt.NDArray[np.bool_]:
        """Which rows go on [rows]."""
        threshold = self._stages[place].threshold
        if threshold is None:
            return np.ones(len(scores), np.bool_)
        sure = confidence(scores, self._gate.measure) >= np.float32(threshold)
        unsure = ~sure.reshape(len(scores), -1).all(axis=1)
        return np.asarray(unsure if self._gate.by_row else np.full(len(scores), unsure.any()))

    def _finish(self, partial: _Partial) -> Result:
        if partial.error is not None:
            return partial.error
        if self._stage_output is not None:
            partial.outputs[self._stage_output] = partial.stage
        names = [self._stages[place].name for place in np.unique(partial.stage)]
        return Answer(partial.outputs, {ANSWERED_BY: ",".join(names)})


_Asked = tuple[_Partial, Rows]
