"""Runs the source and what was made of it on the same inputs, and says whether they agree."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from crossfade.runtimes import registry
from crossfade.runtimes.core.errors import CrossfadeError, InvalidArgument, LoadFailed
from crossfade.runtimes.core.model import (
    DEFAULT_SIGNATURE,
    Artifact,
    Session,
    Signature,
    Tensor,
    Tensors,
)
from crossfade.serving.conversion import calibration, data, latency, warmup
from crossfade.serving.conversion.comparison import Difference, compare, top1
from crossfade.serving.conversion.data import Rows
from crossfade.serving.conversion.job import SEED, Job
from crossfade.serving.conversion.probes import Probe, Range, probes
from crossfade.serving.conversion.savedmodel_source import BEHIND
from crossfade.serving.conversion.targets import TARGETS

Say = Callable[[str], None]
# One thread on either side, so that the latencies are of the same amount of processor.
ONE_THREAD: Final[Mapping[str, Mapping[str, Any]]] = {
    "onnxruntime_onnx": {"intra_op_threads": 1},
    "tensorflow_savedmodel": {"intra_op_threads": 1, "inter_op_threads": 1},
    "tflite": {"threads": 1},
}
_MAX_METRIC_DROP: Final = 0.01
_ASSUMED: Final[Range] = (0.0, 1.0)


@dataclasses.dataclass
class Worst:
    """The largest differences of one output over a group of inputs; ``overlap`` is the mean."""

    inputs: int = 0
    max_abs: float = 0.0
    relative: float = 0.0
    cosine: float = 1.0
    finite: bool = True
    at: str = ""
    overlap: float | None = None

    def add(self, found: Difference, name: str) -> None:
        """Takes one comparison into account."""
        self.inputs += 1
        if found.max_abs >= self.max_abs or not found.finite:
            self.at = name
        self.max_abs = max(self.max_abs, found.max_abs)
        self.relative = max(self.relative, found.relative)
        self.cosine = min(self.cosine, found.cosine)
        self.finite = self.finite and found.finite
        if found.overlap is not None:
            before = found.overlap if self.overlap is None else self.overlap
            self.overlap = before + (found.overlap - before) / self.inputs


class Proof:
    """The two sides, and what comparing them has shown so far."""

    def __init__(self, job: Job, source: Session, reference: Session, made: Session) -> None:
        self.job = job
        self.source, self.reference, self.made = source, reference, made
        cut = job.made.cut is not None
        self.name = job.made.signature
        self.reference_name = DEFAULT_SIGNATURE if cut else self.name
        self.wanted = reference.signatures[self.reference_name]
        self.made_name = next(iter(made.signatures))
        self.groups: dict[str, dict[str, Worst]] = {}
        self.reasons: list[str] = []
        self.notes: list[str] = []
        self.refused: list[str] = []

    @property
    def outputs(self) -> tuple[str, ...]:
        """What both sides answer, by name."""
        return tuple(spec.name for spec in self.wanted.outputs)

    def check_signature(self) -> None:
        """Whether a client would notice: names and dtypes must be the same."""
        made = self.made.signatures[self.made_name]
        for side in ("inputs", "outputs"):
            was = {spec.name: spec.dtype for spec in getattr(self.wanted, side)}
            now = {spec.name: spec.dtype for spec in getattr(made, side)}
            if was != now:
                self.reasons.append(f"the {side} changed from {_list(was)} to {_list(now)}")
        required = {spec.name for spec in made.inputs if not spec.optional}
        for spec in self.wanted.inputs:
            if spec.optional and spec.name in required:
                self.notes.append(f"a request may no longer leave out input '{spec.name}'")

    def run(self, group: str, probe: Probe, given: Tensors | None = None) -> Answers | None:
        """Runs both sides on one input, and compares.

        Args:
            group: what kind of input it is.
            probe: the input.
            given: what the source takes instead, where its decoding was cut off.

        Returns:
            Both answers; ``None`` where the source refuses the input.
        """
        try:
            if given is None:
                was = self.reference.run(probe.inputs, self.reference_name, self.outputs)
            else:
                was = self.source.run(given, self.name, self.outputs)
        except CrossfadeError as error:
            self.refused.append(f"{probe.name}: {error.message}")
            return None
        try:
            now = self.made.run(probe.inputs, self.made_name, self.outputs)
        except CrossfadeError as error:
            if probe.expected:
                self.reasons.append(f"it refuses the input '{probe.name}': {error.message}")
            else:
                self.refused.append(f"{probe.name}: {error.message}")
            return None
        for name in self.outputs:
            found = compare(was[name], now[name])
            self.groups.setdefault(group, {}).setdefault(name, Worst()).add(found, probe.name)
            alike = (was[name].shape, was[name].dtype.kind) == (
                now[name].shape,
                now[name].dtype.kind,
            )
            self._judge(name, probe, found, alike)
        return Answers(was, now)

    def _judge(self, name: str, probe: Probe, found: Difference, alike: bool) -> None:
        where = f"output '{name}' for '{probe.name}'"
        quantised = TARGETS[self.job.target].quantised
        if not alike:
            self.reasons.append(f"{where} has another shape or dtype than the source's")
        elif not found.finite:
            self.reasons.append(f"{where} holds NaN or infinity where the source's does not")
        elif probe.expected and not quantised and not found.within(self.job.tolerance):
            self.reasons.append(
                f"{where} is off by {found.max_abs:.3g} (largest value {found.scale:.3g})"
            )


@dataclasses.dataclass(frozen=True, slots=True)
class Answers:
    """What both sides said to one input."""

    was: Tensors
    now: Tensors


def prove(job: Job, say: Say) -> dict[str, Any]:
    """Compares both sides and returns the report, as plain values.

    Raises:
        InvalidArgument: the data do not fit.
        LoadFailed: a side cannot be loaded.
    """
    target = TARGETS[job.target]
    if target.quantised and job.data is None:
        raise InvalidArgument(f"{job.target} is proved on real data only (--data)")
    say("loading both sides")
    source = _load(job, job.platform, Path(job.source), job.options)
    behind = job.scratch / BEHIND
    reference = (
        _load(job, "tensorflow_savedmodel", behind, {}) if job.made.cut is not None else source
    )
    try:
        made = _load(job, target.platform, job.version_folder / target.file, {})
    except LoadFailed as error:
        raise LoadFailed(f"what was made cannot be loaded: {error.message}") from error
    proof = Proof(job, source, reference, made)
    proof.check_signature()
    report: dict[str, Any] = {"accepted": False, "reasons": proof.reasons}
    if proof.reasons:
        return report
    if target.quantised:
        proof.notes.append("it was calibrated on the rows that it is judged by")
    rows, given = _real(job, proof)
    names = list(job.class_names) or _class_names(proof, given)
    right = _right(proof, rows, names)
    value_range, source_of_range = _range(job, rows)
    pairs = _run_real(proof, rows, given, say) if rows is not None else []
    say("trying adversarial inputs")
    _run_probes(proof, rows, value_range, say)
    compared = sum(worst.inputs for group in proof.groups.values() for worst in group.values())
    if not compared:
        proof.reasons.append("the source refused every made-up input: give data (--data)")
    report |= {
        "notes": proof.notes,
        "inputs": {
            "real": rows.origin if rows is not None and rows.real else None,
            "made_up": rows.origin if rows is not None and not rows.real else f"seed {SEED}",
            "range": [*value_range],
            "range_is": source_of_range,
            "refused_by_the_source": proof.refused,
        },
        "differences": {
            group: {name: dataclasses.asdict(worst) for name, worst in found.items()}
            for group, found in proof.groups.items()
        },
        "first_choices": _first_choices(proof, pairs, rows),
        "metric": _metric(proof, pairs, right),
    }
    say("measuring latency")
    report["latency_ms"] = latency.measure(
        (proof.reference, proof.reference_name),
        (proof.made, proof.made_name),
        _timed(proof, rows, value_range),
    )
    if any(pair is not None for pair in pairs):
        report["class_names"] = names
    report["reasons"] = list(dict.fromkeys(proof.reasons))
    report["accepted"] = not proof.reasons
    return report


def _load(job: Job, platform: str, path: Path, options: Mapping[str, Any]) -> Session:
    settings = {**options, **ONE_THREAD.get(platform, {})}
    return registry.create(platform).load(Artifact(path, job.name, 1, 1, settings))


def _real(job: Job, proof: Proof) -> tuple[Rows | None, Rows | None]:
    """Real inputs of the converted signature, and the source's own where decoding was cut off."""
    if job.data is not None:
        if job.made.cut is None:
            return calibration.given(job, proof.wanted), None
        signature = proof.source.signatures[proof.name]
        return calibration.decoded(job), calibration.given(job, signature)
    return (warmup.rows(job, proof.wanted) if job.made.cut is None else None), None


def _range(job: Job, rows: Rows | None) -> tuple[Range, str]:
    if job.value_range is not None:
        return job.value_range, "given"
    floats = [a for a in rows.inputs.values() if a.dtype.kind == "f"] if rows is not None else []
    if floats:
        low, high = min(float(a.min()) for a in floats), max(float(a.max()) for a in floats)
        if low < high:
            return (low, high), "seen in the data"
    return _ASSUMED, "assumed"


def _run_real(proof: Proof, rows: Rows, given: Rows | None, say: Say) -> list[Answers | None]:
    say(f"running both sides on {rows.origin}")
    group = "real" if rows.real else "warm-up"
    pairs = []
    for index in range(rows.count):
        name = rows.names[index] if rows.names else f"row {index}"
        own = given.batch(index, index + 1) if given is not None else None
        pairs.append(proof.run(group, Probe(name, rows.batch(index, index + 1)), own))
    together = min(rows.count, proof.job.max_rows)
    if proof.wanted.batched and rows.stacked and together > 1:
        own = given.batch(0, together) if given is not None else None
        proof.run(group, Probe(f"{together} rows at once", rows.batch(0, together)), own)
    if not any(pair is not None for pair in pairs):
        proof.reasons.append(f"no row could be compared; {'; '.join(proof.refused[:1])}")
    return pairs


def _run_probes(proof: Proof, rows: Rows | None, value_range: Range, say: Say) -> None:
    sizes = rows.sizes if rows is not None else None
    for probe in probes(proof.wanted, value_range, proof.job.max_rows, SEED, sizes):
        say(f"trying adversarial inputs: {probe.name}")
        proof.run("adversarial" if probe.expected else "out of range", probe)


def scores_of(signature: Signature) -> str | None:
    """The output that says which class it is: the one of numbers, [rows, two or more]."""
    found = [
        spec.name
        for spec in signature.outputs
        if spec.dtype in ("FP32", "FP16", "BF16", "FP64", "UINT8", "INT8")
        and spec.shape is not None
        and len(spec.shape) == 2
        and (spec.shape[1] > 1 or spec.shape[1] == -1)
    ]
    return found[0] if len(found) == 1 else None


def _first_choices(
    proof: Proof, pairs: Sequence[Answers | None], rows: Rows | None
) -> dict[str, Any] | None:
    """How often both sides name the same class first; judges a quantised model."""
    quantised = TARGETS[proof.job.target].quantised
    output = scores_of(proof.wanted)
    found = [pair for pair in pairs if pair is not None]
    if rows is None or not rows.real or not found:
        return None
    if output is None:
        if quantised:
            for name, worst in proof.groups["real"].items():
                if worst.overlap is not None:
                    if worst.overlap < proof.job.agreement:
                        proof.reasons.append(
                            f"of the whole numbers of output '{name}' only {worst.overlap:.2%} are"
                            " in common"
                        )
                elif worst.cosine < proof.job.agreement:
                    proof.reasons.append(f"output '{name}' has a cosine of {worst.cosine:.4f}")
        return None
    same = [bool((top1(p.was[output]) == top1(p.now[output])).all()) for p in found]
    agreement = sum(same) / len(same)
    if quantised and agreement < proof.job.agreement:
        proof.reasons.append(
            f"only {sum(same)} of {len(same)} first choices are the same ({agreement:.1%}; wanted"
            f" {proof.job.agreement:.1%})"
        )
    return {"output": output, "rows": len(same), "same": sum(same), "agreement": agreement}


def _right(proof: Proof, rows: Rows | None, names: Sequence[str]) -> Tensor | None:
    """The right class of each row, where labels are given: read before the work begins."""
    if proof.job.labels is None:
        return None
    if rows is None or not rows.real or scores_of(proof.wanted) is None:
        raise InvalidArgument("labels need data (--data) and a model with one output of scores")
    return data.read_labels(Path(proof.job.labels), rows, names)


def _metric(
    proof: Proof, pairs: Sequence[Answers | None], right: Tensor | None
) -> dict[str, Any] | None:
    """Accuracy on both sides, where labels are given; it may fall by one point in a hundred."""
    output = scores_of(proof.wanted)
    if right is None or output is None:
        return None
    known = [
        (pair, label)
        for pair, label in zip(pairs, right, strict=True)
        if pair is not None and label >= 0
    ]
    before = _accuracy([(pair.was[output], label) for pair, label in known])
    after = _accuracy([(pair.now[output], label) for pair, label in known])
    drop = before - after
    if drop > _MAX_METRIC_DROP:
        proof.reasons.append(f"the accuracy falls from {before:.1%} to {after:.1%}")
    return {"name": "accuracy", "rows": len(known), "before": before, "after": after, "drop": drop}


def _accuracy(scored: Sequence[tuple[Tensor, int]]) -> float:
    right = [int(top1(scores)[0]) == label for scores, label in scored]
    return sum(right) / len(right) if right else math.nan


def _timed(proof: Proof, rows: Rows | None, value_range: Range) -> dict[int, Tensors]:
    """Inputs to time, by their rows."""
    first = next(iter(probes(proof.wanted, value_range, 1, SEED, rows.sizes if rows else None)))
    one = rows.batch(0, 1) if rows is not None else first.inputs
    if not proof.wanted.batched:
        return {1: one}
    more = proof.job.max_rows
    return {1: one, more: {n: np.repeat(array, more, axis=0) for n, array in one.items()}}


def _class_names(proof: Proof, given: Rows | None) -> list[str]:
    """Names that the source itself answers as text, the same for every row."""
    output = scores_of(proof.wanted)
    if given is None or output is None:
        return []
    answer = proof.source.run(given.batch(0, 1), proof.name, ())
    count = answer[output].shape[-1]
    for name, values in answer.items():
        if name not in proof.outputs and values.dtype == object and values.shape == (1, count):
            names = [bytes(text).decode("utf-8", "replace") for text in values[0]]
            again = proof.source.run(given.batch(given.count - 1, given.count), proof.name, [name])
            if np.array_equal(again[name], values) and len(set(names)) == count:
                return names
    return []


def _list(dtypes: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {dtype}" for name, dtype in sorted(dtypes.items())) or "none"
