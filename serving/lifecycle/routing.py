"""``split``, ``shadow`` and ``cascade``: kinds of ensembles, of their sections."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from crossfade.ensemble.cascade import Gate, Stage, expected_of
from crossfade.ensemble.cascaded import CascadeKind, StageScores
from crossfade.ensemble.comparison import Comparer
from crossfade.ensemble.deferral import Expected
from crossfade.ensemble.gate import Measure
from crossfade.ensemble.keys import Key, KeySource
from crossfade.ensemble.mirror import Limits, Mirror
from crossfade.ensemble.routed import RoutedKind
from crossfade.ensemble.routing import Router, Shares
from crossfade.ensemble.scores import ScoreKind
from crossfade.ensemble.solved import SolvedGate
from crossfade.ensemble.split import BASIS_POINTS
from crossfade.runtimes.core.errors import CrossfadeError, LoadFailed
from crossfade.serving.config import ensemble_config as config

_MAX_GATE_BYTES: Final = 64 * 1024


def split(section: config.Split, name: str) -> RoutedKind:
    """The kind of a section, for the ensemble of this name."""
    shares = Shares(tuple(member.basis_points for member in section.members))
    router = Router(name, _names(section), shares, key=key_of(section.key))
    return RoutedKind(router, all_answer=True)


def shadow(section: config.Shadow, name: str) -> RoutedKind:
    """The kind of a section, for the ensemble of this name."""
    names = _names(section)
    limits = Limits(
        requests=section.queue.max_size,
        bytes=section.queue.max_bytes,
        workers=section.workers,
        timeout_s=section.timeout_ms / 1000,
        kept=section.keep,
    )
    mirror = Mirror(names, Comparer(tolerance=section.tolerance), limits=limits)
    weights = (BASIS_POINTS, *[0] * len(section.mirrors))
    router = Router(
        name, names, Shares(weights, round(section.sample_percent * 100)), mirror=mirror
    )
    return RoutedKind(router, all_answer=False, tolerance=section.tolerance)


def cascade(section: config.Cascade, name: str, folder: Path) -> CascadeKind:
    """The kind of a section, for the ensemble of this name.

    Args:
        section: of the configuration.
        name: of the ensemble.
        folder: where the gate's report is.

    Raises:
        LoadFailed: there is no such report, or it is for another number of stages.
    """
    stages, names = section.stages, _names(section)
    gate = solved(folder, section.gate, names, name) if section.gate is not None else None
    thresholds = [stage.threshold for stage in stages]
    measure = Measure(section.measure or Measure.MAXIMUM.value)
    expected: list[Expected | None] = [None] * len(stages)
    temperatures = [stage.temperature for stage in stages]
    if gate is not None:
        report = gate.report
        thresholds, measure = [report.threshold] * len(stages), report.measure
        expected = [*expected_of(report), None]
        temperatures = [
            gate.temperatures.get(stage_name, own)
            for stage_name, own in zip(names, temperatures, strict=True)
        ]
    return CascadeKind(
        name,
        [
            Stage(stage_name, threshold, rate)
            for stage_name, threshold, rate in zip(names, thresholds, expected, strict=True)
        ],
        [
            StageScores(ScoreKind(stage.scores or section.scores), temperature, stage.labels or ())
            for stage, temperature in zip(stages, temperatures, strict=True)
        ],
        Gate(measure, section.per == "row"),
        output=section.output,
        stage_output=section.stage_output,
    )


def _names(section: config.Ensemble) -> list[str]:
    return [member.name or member.model for member in section.members]


def key_of(section: config.SplitKey | None) -> Key | None:
    """The key of a section; ``None`` without one."""
    if section is None:
        return None
    ((source, name),) = section.model_dump(exclude_none=True).items()
    return Key(KeySource(source), name)


def solved(folder: Path, file: str, stages: Sequence[str], name: str) -> SolvedGate:
    """The gate that was solved for these stages.

    Args:
        folder: where it is.
        file: its name there.
        stages: their names.
        name: of the ensemble.

    Raises:
        LoadFailed: there is none, or it is no such report, or one of other stages.
    """
    try:
        with (folder / file).open("rb") as opened:
            return SolvedGate.from_json(opened.read(_MAX_GATE_BYTES).decode(), stages)
    except FileNotFoundError:
        raise LoadFailed(
            f"there is no '{file}' in the ensemble's folder: crossfade ensemble fit {name} writes"
            " it; or give each stage but the last a threshold"
        ) from None
    except (OSError, UnicodeDecodeError):
        raise LoadFailed(f"the gate's report '{file}' cannot be read") from None
    except CrossfadeError as error:
        raise LoadFailed(f"'{file}': {error.message}") from None
