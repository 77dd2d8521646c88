"""``weighted``: all members answer, and their outputs are combined."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from crossfade.ensemble.adaptive import Adapt, Adapted
from crossfade.ensemble.combine import Combination, MemberScores, Rule
from crossfade.ensemble.fitting import agree, intersection, joined_inputs, present, rows_at_most
from crossfade.ensemble.learned import Learned
from crossfade.ensemble.members import Known, Look
from crossfade.ensemble.plan import Answer, Face, Plan, Result
from crossfade.ensemble.scores import ScoreKind
from crossfade.ensemble.team import Team
from crossfade.ensemble.turnout import Turnout
from crossfade.runtimes.core.errors import CrossfadeError, FailedPrecondition
from crossfade.runtimes.core.model import InferRequest, InferResponse, Signature, Tensor, TensorSpec


@dataclasses.dataclass(frozen=True, slots=True)
class Voice:
    """What is declared of one member's outputs.

    Attributes:
        labels: counts instead of the model's own.
    """

    kind: ScoreKind
    weight: float = 1.0
    temperature: float = 1.0
    labels: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Weighted:
    """The kind: see ``Combination``.

    Attributes:
        voices: one for each member.
        learned: weights that count instead of those of ``voices``.
        adapt: has the weights follow ground truth.
    """

    voices: tuple[Voice, ...]
    turnout: Turnout
    rule: Rule = Rule.PROBABILITY
    learned: Learned | None = None
    adapt: Adapt | None = None

    def __call__(self, members: Sequence[tuple[str, Look]]) -> Plan:
        """See ``Kind``."""
        known = present(members)
        pools = self.pools(known)
        outputs = [_spec(known, name, len(pool.labels)) for name, pool in pools.items()]
        batched = all(member.signature.batched for member in known)
        face = Face(
            Signature(joined_inputs(known), tuple(outputs), batched),
            {name: pool.labels for name, pool in pools.items() if pool.labels},
            rows_at_most(known) if batched else 0,
        )
        adapted = self.adapt.follow([m.name for m in known], pools) if self.adapt else None
        return _Plan(face, known, pools, self.turnout, adapted)

    def pools(self, known: Sequence[Known]) -> dict[str, Combination]:
        """How each output is combined, of those that all members have and that can be.

        Raises:
            FailedPrecondition: there is none, or the members do not fit together.
        """
        pools: dict[str, Combination] = {}
        lacking: dict[str, str] = {}
        for name in _common(known):
            missing = next(
                (
                    m.name
                    for m, v in zip(known, self.voices, strict=True)
                    if v.kind is not ScoreKind.VALUES and not _labels(m, v, name)
                ),
                None,
            )
            if missing is not None:
                lacking[name] = missing
                continue
            pools[name] = self._pool(known, name)
        if not pools:
            reasons = [f"'{m}' has no labels for '{name}'" for name, m in lacking.items()]
            raise FailedPrecondition(
                f"class scores are aligned by label, but {'; '.join(reasons)}: add labels.txt to"
                " the model, or labels to the member"
            )
        return pools

    def _pool(self, known: Sequence[Known], name: str) -> Combination:
        voices = self.voices
        learned = self.learned
        temperatures = [voice.temperature for voice in voices]
        total = sum(voice.weight for voice in voices)
        weights = tuple(voice.weight / total for voice in voices)
        rule = self.rule
        if learned is not None:
            temperatures = [learned.temperatures[member.name] for member in known]
            weights, rule = tuple(learned.weights[m.name] for m in known), learned.rule
        scores = tuple(
            MemberScores(
                voice.kind, _labels(member, voice, name), member.quantization.get(name), temperature
            )
            for member, voice, temperature in zip(known, voices, temperatures, strict=True)
        )
        pool = Combination(scores, weights, rule, doubt=learned.doubt if learned else 0.0)
        if learned is not None and learned.bias:
            pool = dataclasses.replace(pool, bias=learned.bias_for(pool.labels))
        return pool


@dataclasses.dataclass(frozen=True, slots=True)
class _Plan:
    face: Face
    members: Sequence[Known]
    pools: Mapping[str, Combination]
    turnout: Turnout
    adapted: Adapted | None = None

    def infer(self, requests: Sequence[InferRequest], team: Team) -> Sequence[Result]:
        """See ``Plan``."""
        turns = self.turnout.ask(requests, team, self.members)
        weights = self.adapted.weights if self.adapted else None
        results: Sequence[Result] | None = None
        if len(requests) > 1:
            results = self._together(requests, turns, weights)
        if results is None:
            results = [
                turn if isinstance(turn, CrossfadeError) else self._combined(request, turn, weights)
                for request, turn in zip(requests, turns, strict=True)
            ]
        if self.adapted is not None:
            for request, turn, result in zip(requests, turns, results, strict=True):
                if not isinstance(turn, CrossfadeError) and isinstance(result, Answer):
                    self.adapted.observe(request, turn[0])
        return results

    def _together(
        self,
        requests: Sequence[InferRequest],
        turns: Sequence[tuple[Sequence[InferResponse | None], Answer] | CrossfadeError],
        weights: Sequence[float] | None,
    ) -> list[Result] | None:
        """Combines the rows of all requests at once, where all of them are of one form.

        ``None`` where they are not, or where one of them cannot be combined.
        """
        names = requests[0].outputs
        given = [turn[0] for turn in turns if not isinstance(turn, CrossfadeError)]
        if (
            not self.face.signature.batched
            or len(given) < len(turns)
            or any(request.outputs != names for request in requests)
            or any(one is None for column in given for one in column)
        ):
            return None
        cuts = np.cumsum([request.rows for request in requests])[:-1]
        found: list[dict[str, Tensor]] = [{} for _ in requests]
        for name in names:
            members = [
                [one.outputs[name] for one in member if one is not None]
                for member in zip(*given, strict=True)
            ]
            if any(len({a.shape[1:] for a in arrays}) > 1 for arrays in members):
                return None
            try:
                joined = [np.concatenate(arrays) for arrays in members]
                whole = self.pools[name](joined, weights)
            except CrossfadeError:
                return None
            if len(whole) != sum(request.rows for request in requests):
                return None
            for outputs, rows in zip(found, np.split(whole, cuts), strict=True):
                outputs[name] = rows
        return [Answer(outputs) for outputs in found]

    def _combined(
        self,
        request: InferRequest,
        turn: tuple[Sequence[InferResponse | None], Answer],
        weights: Sequence[float] | None,
    ) -> Result:
        given, answer = turn
        outputs = {}
        for name in request.outputs:
            try:
                outputs[name] = self.pools[name](
                    [None if one is None else one.outputs[name] for one in given], weights
                )
            except CrossfadeError as error:
                return error
        return dataclasses.replace(answer, outputs=outputs)


def _common(known: Sequence[Known]) -> list[str]:
    """Numeric outputs that all members have under one name."""
    names = [
        spec.name
        for spec in known[0].signature.outputs
        if all(
            (found := member.output(spec.name)) is not None and found.dtype != "BYTES"
            for member in known
        )
    ]
    if not names:
        had = "; ".join(
            f"'{m.name}' has {sorted(spec.name for spec in m.signature.outputs)}" for m in known
        )
        raise FailedPrecondition(
            f"the members have no output of one name to combine: {had}; map them with outputs"
        )
    return names


def _labels(member: Known, voice: Voice, name: str) -> tuple[str, ...]:
    if voice.kind is ScoreKind.VALUES:
        return ()
    return voice.labels or member.labels.get(name, ())


def _spec(known: Sequence[Known], name: str, classes: int) -> TensorSpec:
    """The combined output: shapes but for the classes must fit."""
    found = [spec for member in known if (spec := member.output(name)) is not None]
    shape = _leading(found[0], classes)
    for member, spec in zip(known, found, strict=True):
        other = _leading(spec, classes)
        if not agree(shape, other):
            raise FailedPrecondition(
                f"output '{name}' of '{known[0].name}' has shape {list(shape or ())}, that of"
                f" '{member.name}' {list(other or ())} (but for the classes)"
            )
        shape = intersection(shape, other)
    double = not classes and any(spec.dtype == "FP64" for spec in found)
    return TensorSpec(name, "FP64" if double else "FP32", shape)


def _leading(spec: TensorSpec, classes: int) -> tuple[int, ...] | None:
    if spec.shape is None or not classes:
        return spec.shape
    return (*spec.shape[:-1], classes)
