"""Ensembles as models of the repository: built of their configuration, their members leased."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from crossfade.ensemble.adapting import Settings
from crossfade.ensemble.adaptive import Adapt, Open
from crossfade.ensemble.combine import Rule
from crossfade.ensemble.crew import Crew
from crossfade.ensemble.detectors import Detectors
from crossfade.ensemble.fallback import Fallback
from crossfade.ensemble.learned import FILE, Learned
from crossfade.ensemble.members import Contract, Known, Member, look
from crossfade.ensemble.model import Around, Ensemble
from crossfade.ensemble.pipeline import Pipeline
from crossfade.ensemble.plan import Face, Kind
from crossfade.ensemble.scores import ScoreKind
from crossfade.ensemble.turnout import Turnout
from crossfade.ensemble.weighted import Voice, Weighted
from crossfade.runtimes.core.errors import CrossfadeError, FailedPrecondition, LoadFailed
from crossfade.runtimes.core.model import InferRequest, InferResponse, InferResult, ModelRef
from crossfade.serving.config import ensemble_config as config
from crossfade.serving.lifecycle import labels, routing
from crossfade.serving.lifecycle.declared import declared
from crossfade.serving.lifecycle.fusion import Fusion, Leases
from crossfade.serving.lifecycle.memory_budget import MemoryBudget
from crossfade.serving.lifecycle.served import Served
from crossfade.serving.lifecycle.warming import warm_up
from crossfade.serving.metrics.statistics import Measured, Statistics
from crossfade.serving.repository.layout import ModelFiles, VersionFiles

# Threads that run members beside those that brought the requests, over all ensembles.
_CREW: Final = 64


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """What a kind may look at beside its section.

    Attributes:
        name: of the ensemble.
        version: of it.
        folder: of the version's files on the local disk.
        adapt: has weights follow feedback; ``None`` where nothing keeps that.
    """

    name: str
    version: int
    folder: Path
    adapt: Open | None


def _weighted(section: config.Weighted, setting: Setting) -> Kind:
    if (boxes := section.boxes) is not None:
        fuses = boxes.rule == "fuse"
        most, least_iou = boxes.max_detections, boxes.iou_threshold
        return Detectors(_weights(section), _turnout(section), fuses, least_iou, most)
    learned = None
    with contextlib.suppress(FileNotFoundError):
        text = (setting.folder / FILE).read_text("utf-8", "replace")
        learned = Learned.read(text, [member.name for member in members_of(section)])
    made = weighted(section, learned)
    if section.adapt is None:
        return made
    return dataclasses.replace(made, adapt=_adapt(section.adapt, setting, learned))


def weighted(section: config.Weighted, learned: Learned | None = None) -> Weighted:
    """The kind of a section whose members are no detectors, with weights that stay.

    Raises:
        FailedPrecondition: what was learned cannot adapt, and is to.
    """
    if section.adapt is not None and learned and learned.rule is not Rule.PROBABILITY:
        raise FailedPrecondition(
            f"{FILE}: a fit that chose the rule {learned.rule.value} (stacking) cannot adapt; fit"
            " with --candidate convex, or leave adapt out of model.yaml"
        )
    voices = tuple(
        Voice(
            ScoreKind(member.scores or section.scores),
            weight,
            member.temperature,
            member.labels or (),
        )
        for member, weight in zip(section.members, _weights(section), strict=True)
    )
    return Weighted(voices, _turnout(section), Rule(section.rule), learned)


def _weights(section: config.Weighted) -> tuple[float, ...]:
    return tuple(1.0 if member.weight is None else member.weight for member in section.members)


def _turnout(section: config.Weighted) -> Turnout:
    timeout_s = _seconds(section.member_timeout_ms)
    return Turnout(section.quorum or (len(section.members) if timeout_s is None else 1), timeout_s)


def _adapt(section: config.Adapt, setting: Setting, learned: Learned | None) -> Adapt:
    if setting.adapt is None:
        raise FailedPrecondition(
            "adapt needs a database for feedback: start the server with --fade-database"
            " sqlite:///fades.db"
        )
    settings = Settings(
        *(section.rate, section.window, section.max_step, section.min_weight),
        *(section.tolerance, section.alpha),
    )
    expected = learned.log_loss if learned is not None else None
    where = setting.name, setting.version
    return Adapt(*where, settings, expected, section.sample_percent, setting.adapt)


def _fallback(section: config.Fallback, _: Setting) -> Kind:
    return Fallback(_seconds(section.member_timeout_ms))


def _pipeline(section: config.Pipeline, _: Setting) -> Kind:
    return Pipeline(section.outputs)


# A kind is one section of the configuration and one line here.
_KINDS: Final[Mapping[type[config.Section], Callable[[Any, Setting], Kind]]] = {
    config.Weighted: _weighted,
    config.Fallback: _fallback,
    config.Split: lambda section, setting: routing.split(section, setting.name),
    config.Shadow: lambda section, setting: routing.shadow(section, setting.name),
    config.Cascade: lambda section, setting: routing.cascade(section, setting.name, setting.folder),
    config.Pipeline: _pipeline,
}


def members_of(section: config.Ensemble) -> list[Member]:
    """The members that a configuration names."""
    return [
        Member(
            one.name or one.model,
            ModelRef(one.model, one.version, one.label),
            one.signature,
            one.inputs,
            one.outputs,
        )
        for one in section.members
    ]


class _Counted(Measured):
    """Counts each request that is answered as a run, as Triton does for its ensembles."""

    def infer(self, requests: Sequence[InferRequest]) -> Sequence[InferResult]:
        """See ``Model.infer``."""
        results = super().infer(requests)
        for result in results:
            if isinstance(result, InferResponse):
                timings = result.timings
                self.statistics.record_run(timings.batch_rows, timings.infer_ns, "ensemble")
        return results


class Unqueued:
    """In place of a queue: an ensemble has none, as its members have their own."""

    waiting = 0
    max_rows = 1
    max_delay_s = 0.0
    instances = 1
    is_quick = False


class Ensembles:
    """Builds ensembles. Thread-safe.

    Args:
        live: where members are leased.
        memory: of all models, for fused graphs.
        adapt: has weights follow feedback.
    """

    def __init__(
        self, live: Leases, memory: Callable[[], MemoryBudget], adapt: Open | None = None
    ) -> None:
        self._live = live
        self._memory = memory
        self._adapt = adapt
        self._crew = Crew(_CREW)

    def load(self, model: ModelFiles, version: VersionFiles, folder: Path) -> Served:
        """Builds one version of an ensemble.

        Raises:
            FailedPrecondition: its members do not fit together.
            Unavailable: one that it needs is not there.
            LoadFailed: a declared warm-up request fails.
        """
        section = model.config.ensemble
        assert section is not None
        members = members_of(section)
        kind = _KINDS[type(section)](
            section, Setting(model.name, version.version, folder, self._adapt)
        )
        statistics = Statistics()
        statistics.name_members([member.name for member in members])
        fusion = self._fusion(model.name, section, members)
        built = Ensemble(
            model.name,
            version.version,
            members,
            kind,
            live=self._live,
            crew=self._crew,
            seen=lambda face: _declared(face, model),
            record=statistics.record_member,
            around=self._sharing(members),
            together=fusion,
        )
        if model.config.warmup:
            warm_up(built, model.config.warmup, folder)
        if fusion is not None:
            signature = built.metadata.signatures[built.metadata.default_signature]
            fusion.start(frozenset(spec.name for spec in signature.outputs))
        return Served(
            *(_Counted(built, statistics), statistics, model.config, Unqueued()),
            fusion=fusion,
            measures=built.measures,
        )

    def mark(self, section: config.Ensemble) -> str:
        """Changes when a member comes, goes, or becomes another one to the ensemble."""
        told = [self._told(member.ref) for member in members_of(section)]
        return hashlib.sha256("\0".join(told).encode()).hexdigest()

    def _told(self, ref: ModelRef) -> str:
        try:
            return repr(Contract.of(self._live.metadata(ref)))
        except CrossfadeError as error:
            return error.message

    def close(self) -> None:
        """Lets the threads end."""
        self._crew.close()

    def _fusion(
        self, name: str, section: config.Ensemble, members: Sequence[Member]
    ) -> Fusion | None:
        """What answers for all members at once, for a kind that asks all of them and waits."""
        if not isinstance(section, config.Weighted) or len(members) < 2 or not section.fuse:
            return None
        if section.member_timeout_ms is not None:
            return None  # one graph cannot leave out a member that is late
        return Fusion(name, members, self._live, self._memory())

    def _sharing(self, members: Sequence[Member]) -> Around:
        """What members share in a call: each picture is decoded once."""
        looks = [look(member, self._live) for member in members]
        texts = sum(
            isinstance(one, Known) and any(s.dtype == "BYTES" for s in one.signature.inputs)
            for one in looks
        )
        if texts < 2:
            return contextlib.nullcontext
        from crossfade.serving.processing.decoding import decode_once  # imports Pillow

        return decode_once


def _declared(face: Face, model: ModelFiles) -> Face:
    """An ensemble as its configuration declares it: fewer outputs, rows, other labels.

    Raises:
        LoadFailed: the configuration and the members contradict each other.
    """
    config_ = model.config
    if any(tensor.reshape is not None for tensor in (*config_.inputs, *config_.outputs)):
        raise LoadFailed("reshape is for the members of an ensemble: it has no tensors of its own")
    signature = declared(face.signature, config_)
    names = {spec.name for spec in signature.outputs}
    found = {**face.labels, **{n: tuple(one) for n, one in labels.configured(model).items()}}
    limit = config_.max_batch_size
    rows = 0
    if signature.batched:
        rows = face.max_batch_size if limit is None else min(limit, face.max_batch_size)
    return Face(signature, {n: one for n, one in found.items() if n in names}, rows)


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
