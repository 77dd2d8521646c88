"""The answer of several members as one: probabilities, logits or votes, for outputs of any rank."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from crossfade.ensemble.labels import LabelAlignment
from crossfade.ensemble.scores import (
    FLOOR,
    Floats,
    Quantization,
    ScoreKind,
    dequantize,
    doubted,
    is_normalised,
    log_scores,
    normalised,
    probabilities,
)
from crossfade.runtimes.core.errors import FailedPrecondition, Internal, Unavailable
from crossfade.runtimes.core.model import Tensor

# Votes closer than this are a tie, which the mean probability decides.
TIE: Final = 1 / 1024


class Rule(enum.Enum):
    """How members' scores become one."""

    PROBABILITY = "probability"  # arithmetic mean of the probabilities, or of the values
    LOGIT = "logit"  # mean of the log-probabilities or log-odds: the geometric mean, normalised
    VOTE = "vote"  # the share of the members, by weight, that put a class first


@dataclasses.dataclass(frozen=True, slots=True)
class MemberScores:
    """What one member's output is.

    Attributes:
        labels: of the last dimension, in index order; none for ``VALUES``.
        quantization: of integer outputs.
        temperature: divides the log-scores; see ``calibration.fit_temperature``.
    """

    kind: ScoreKind
    labels: tuple[str, ...] = ()
    quantization: Quantization | None = None
    temperature: float = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class Combination:
    """Combines the members' outputs; checked when it is made, immutable, thread-safe.

    A member that lacks a label has no opinion on it: it takes that of the members that know the
    label (their weighted mean). Exclusive scores of its own labels then share the rest of the
    probability, in unchanged proportions. A member without an output is left out, and the others'
    weights grow in proportion.

    Attributes:
        members: what each output is; all exclusive, all multi-label, or all values.
        weights: one for each member. Not negative, with sum 1; under ``LOGIT`` any finite numbers,
            not all 0, as learned by stacking.
        bias: added to each class's log-score under ``LOGIT``, in the order of ``labels``.
        doubt: what each member with exclusive classes leaves to all of its classes, 0 to 1.
        labels: of the answer's last dimension; none for values.
    """

    members: tuple[MemberScores, ...]
    weights: tuple[float, ...]
    rule: Rule = Rule.PROBABILITY
    bias: tuple[float, ...] = ()
    doubt: float = 0.0
    _alignment: LabelAlignment | None = dataclasses.field(init=False, repr=False, compare=False)
    # Of a plain mean of probabilities: where each member's classes go, None where they stay.
    _orders: tuple[npt.NDArray[np.intp] | None, ...] | None = dataclasses.field(
        init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        _check_weights(self.weights, len(self.members), self.rule)
        kinds = {member.kind for member in self.members}
        values = kinds == {ScoreKind.VALUES}
        if not values and (ScoreKind.VALUES in kinds or len({k.exclusive for k in kinds}) > 1):
            raise FailedPrecondition(
                "members with exclusive classes, with independent labels and with plain values "
                f"cannot be combined: {', '.join(sorted(kind.value for kind in kinds))}"
            )
        if values and self.rule is not Rule.PROBABILITY:
            raise FailedPrecondition(f"plain values cannot be combined by {self.rule.value}")
        if any(not 0 < member.temperature < math.inf for member in self.members):
            raise FailedPrecondition("a temperature is a positive number")
        if not 0 <= self.doubt < 1:
            raise FailedPrecondition("a doubt is a number from 0 to 1")
        alignment = None if values else LabelAlignment.of([m.labels for m in self.members])
        classes = len(alignment.labels) if alignment else 0
        if self.bias and (self.rule is not Rule.LOGIT or len(self.bias) != classes):
            raise FailedPrecondition("a bias is one number for each label, under the rule logit")
        object.__setattr__(self, "_alignment", alignment)
        orders = None
        if (
            self.rule is Rule.PROBABILITY
            and alignment is not None
            and kinds == {ScoreKind.PROBABILITIES}
            and not self.doubt
            and all(member.temperature == 1 for member in self.members)
            and all(alignment.is_complete(number) for number in range(len(self.members)))
        ):
            same = np.arange(classes)
            orders = tuple(None if np.array_equal(p, same) else p for p in alignment.positions)
        object.__setattr__(self, "_orders", orders)

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels of the members, in the order of their first appearance."""
        return self._alignment.labels if self._alignment else ()

    def __call__(
        self, outputs: Sequence[Tensor | None], weights: Sequence[float] | None = None
    ) -> Tensor:
        """The combined output.

        Args:
            outputs: one for each member, [..., C_m] of any rank and of one leading shape; ``None``
                where a member is left out.
            weights: count instead of those that it was made with; of the same form.

        Returns:
            [..., C] float32 probabilities, or shares of the votes, for ``labels``; of values an
            array of their shape, float32, or float64 where a member gives that.

        Raises:
            Unavailable: no member with a weight has answered.
            Internal: an output is not what its member declares.
        """
        present = [number for number, output in enumerate(outputs) if output is not None]
        whole = self.weights if weights is None else weights
        shares = np.array([whole[number] for number in present])
        total, reached = sum(whole), float(shares.sum())
        if not shares.any() or reached <= 0 < total:
            raise Unavailable("too few members of the ensemble have answered")
        if total > 0:
            shares *= total / reached
        given = [output for output in outputs if output is not None]
        if self._alignment is None:
            return self._mean_of_values([self.members[n] for n in present], given, shares)
        if self._orders is not None:
            return self._mean_of_probabilities(self._orders, present, given, shares)
        logs = self._aligned(present, given, shares)
        return self._pool(logs, shares, exclusive=self.members[0].kind.exclusive)

    def log_scores(self, outputs: Sequence[Tensor]) -> Floats:
        """What is pooled: log-scores [M, ..., C] of all members, by label, with nothing lacking.

        Raises:
            Internal: an output is not what its member declares.
        """
        return self._aligned(range(len(self.members)), outputs, np.array(self.weights))

    def claims(self, outputs: Sequence[Tensor], weights: Sequence[float]) -> Floats:
        """What is averaged of members with exclusive classes: each one's probabilities.

        Args:
            outputs: one for each member.
            weights: of the opinion on labels that a member lacks.

        Returns:
            [M, ..., C] float32, for ``labels``.

        Raises:
            Internal: an output is not what its member declares.
        """
        logs = self._aligned(range(len(self.members)), outputs, np.array(weights))
        return probabilities(logs, exclusive=True)

    def _aligned(
        self,
        present: Sequence[int],
        given: Sequence[Tensor],
        weights: npt.NDArray[np.float64],
    ) -> Floats:
        assert self._alignment is not None
        stack = _stack([self._log_scores(n, one) for n, one in zip(present, given, strict=True)])
        if all(self._alignment.is_complete(number) for number in present):
            return stack
        known = np.zeros((len(present), len(self.labels)), bool)
        for row, number in enumerate(present):
            known[row, self._alignment.positions[number]] = True
        exclusive = self.members[0].kind.exclusive
        return fill_in(stack, known, np.maximum(weights, 0), exclusive=exclusive)

    def _mean_of_probabilities(
        self,
        orders: Sequence[npt.NDArray[np.intp] | None],
        present: Sequence[int],
        outputs: Sequence[Tensor],
        weights: npt.NDArray[np.float64],
    ) -> Tensor:
        assert self._alignment is not None
        alike = all(
            orders[number] is None
            and self.members[number].quantization is None
            and output.dtype == np.float32
            and output.shape == outputs[0].shape
            and output.shape[-1:] == (len(self.labels),)
            for number, output in zip(present, outputs, strict=True)
        )
        if alike:
            stack = np.stack(outputs)
            if is_normalised(stack):
                np.maximum(stack, np.float32(FLOOR), out=stack)
                shares = weights.reshape(-1, *[1] * (stack.ndim - 2)) / stack.sum(axis=-1)
                stack *= shares.astype(np.float32)[..., None]
                return np.asarray(stack.sum(axis=0))
        each = []
        for number, output in zip(present, outputs, strict=True):
            member = self.members[number]
            try:
                scores = normalised(output, member.kind, member.quantization)
            except Internal as error:
                raise Internal(f"member {number}: {error.message}") from error
            kept = orders[number] is None and scores.shape[-1] == len(self.labels)
            each.append(scores if kept else self._alignment.spread(number, scores, 0.0))
        _check_shapes(each)
        mean: Floats = each[0] * np.float32(weights[0])
        for scores, weight in zip(each[1:], weights[1:], strict=True):
            mean += scores * np.float32(weight)
        return mean

    def _log_scores(self, number: int, output: Tensor) -> Floats:
        member = self.members[number]
        assert self._alignment is not None
        try:
            logs = log_scores(
                output,
                member.kind,
                quantization=member.quantization,
                temperature=member.temperature,
            )
        except Internal as error:
            raise Internal(f"member {number}: {error.message}") from error
        if member.kind.exclusive:
            logs = doubted(logs, self.doubt).astype(np.float32)
        return self._alignment.spread(number, logs, math.log(FLOOR))

    def _pool(self, logs: Floats, weights: npt.NDArray[np.float64], *, exclusive: bool) -> Tensor:
        w = weights.astype(np.float32)
        if self.rule is Rule.LOGIT:
            pooled = np.tensordot(w, logs, 1)
            if self.bias:
                pooled = pooled + np.array(self.bias, np.float32)
            return probabilities(pooled, exclusive=exclusive)
        each = probabilities(logs, exclusive=exclusive)
        mean: Floats = np.tensordot(w, each, 1)
        if self.rule is Rule.PROBABILITY:
            return mean
        shares: Floats = np.tensordot(w, ballots(each, exclusive=exclusive), 1)
        return np.float32(1 - TIE) * shares + np.float32(TIE) * mean

    @staticmethod
    def _mean_of_values(
        members: Sequence[MemberScores],
        outputs: Sequence[Tensor],
        weights: npt.NDArray[np.float64],
    ) -> Tensor:
        real = [
            dequantize(output, member.quantization)
            for member, output in zip(members, outputs, strict=True)
        ]
        stack = _stack(real)
        if not np.all(np.isfinite(stack)):
            raise Internal("a member's values are not finite")
        mean = np.tensordot(weights, stack.astype(np.float64), 1)
        # Rounding must not carry the mean past its members, nor the largest float to infinity.
        return np.clip(mean, stack.min(axis=0), stack.max(axis=0)).astype(stack.dtype)


def ballots(each: Floats, *, exclusive: bool) -> Floats:
    """Each member's vote [..., C] from probabilities [..., C].

    Exclusive: one vote for the likeliest class, in equal parts where several are. Multi-label: for
    each label 1 above one half, half a vote at it.
    """
    if not exclusive:
        return np.asarray((np.sign(each - np.float32(0.5)) + 1) / 2, np.float32)
    first = (each == each.max(axis=-1, keepdims=True)).astype(np.float32)
    result: Floats = first / first.sum(axis=-1, keepdims=True)
    return result


def fill_in(
    logs: Floats,
    known: npt.NDArray[np.bool_],
    weights: npt.NDArray[np.float64],
    *,
    exclusive: bool,
) -> Floats:
    """Gives members the others' opinion on the labels that they lack.

    Args:
        logs: [M, ..., C] log-scores; what stands at unknown labels does not count.
        known: [M, C].
        weights: [M], not negative.
        exclusive: whether exactly one class is right.

    Returns:
        [M, ..., C] log-scores as if every member knew every label.
    """
    across = (len(known), *[1] * (logs.ndim - 2), known.shape[1])
    mask = known.reshape(across)
    # Unknown labels take no part in the member's own softmax.
    own = np.where(mask, logs, -np.inf) if exclusive else logs
    each = np.where(mask, probabilities(own, exclusive=exclusive), 0).astype(np.float64)
    heard = known * weights[:, None]  # [M, C]
    voices = heard.sum(axis=0)
    share = np.divide(heard, voices, out=np.zeros_like(heard), where=voices > 0)
    opinion = np.sum(each * share.reshape(across), axis=0)  # [..., C]
    foreign = np.where(mask, 0, opinion)
    if exclusive:
        mass = foreign.sum(axis=-1, keepdims=True)
        foreign = foreign / np.maximum(mass, 1)
        each = each * np.maximum(1 - mass, 0)
    p = np.clip(each + foreign, FLOOR, 1 - FLOOR)
    return (np.log(p) if exclusive else np.log(p) - np.log1p(-p)).astype(np.float32)


def _check_shapes(outputs: Sequence[Tensor]) -> None:
    shapes = {output.shape for output in outputs}
    if len(shapes) > 1:
        listed = " and ".join(str(list(shape)) for shape in sorted(shapes))
        raise Internal(f"the members' outputs have different shapes: {listed}")


def _stack(outputs: Sequence[Tensor]) -> Tensor:
    _check_shapes(outputs)
    return np.stack(outputs)


def _check_weights(weights: Sequence[float], members: int, rule: Rule) -> None:
    if not members or len(weights) != members:
        raise FailedPrecondition(f"{members} members need as many weights, not {len(weights)}")
    total = math.fsum(weights)
    if not math.isfinite(total) or not any(weights):
        raise FailedPrecondition("the weights must be finite numbers, not all of them 0")
    if rule is not Rule.LOGIT and (min(weights) < 0 or abs(total - 1) > 1e-6):
        raise FailedPrecondition(f"the weights must not be negative and sum to 1, not {total:g}")
