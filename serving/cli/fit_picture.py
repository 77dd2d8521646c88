"""A picture of learned weights, as SVG: how far members can be believed, and the candidates."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from crossfade.ensemble.calibration import Bins, reliability
from crossfade.ensemble.scores import log_softmax, softmax
from crossfade.serving.cli import svg
from crossfade.serving.fitting.weights import LearnedWeights

_SIZE, _GAP, _LEFT, _TOP, _COLUMNS = 210, 50, 60, 92, 4
_NAMES, _ROW, _CANDIDATES = 120, 30, 560
_BEFORE, _AFTER, _GREY, _CHOSEN = "#cf222e", "#0969da", "#d8dee4", "#1a7f37"
_ERRORS: Final = 2  # standard errors that a bar shows to either side


def draw(name: str, found: LearnedWeights, truth: npt.NDArray[np.intp]) -> str:
    """Draws learned weights.

    Above, for each member, accuracy by confidence as it answers (red) and calibrated (blue): on
    the diagonal it can be believed; a larger dot is more rows. Below, the candidates' log-loss
    above the best one's, with two standard errors to either side.

    Args:
        name: of the ensemble.
        found: what was learned.
        truth: [N] the true classes.
    """
    report = found.report
    columns = min(_COLUMNS, len(report.members))
    lines = math.ceil(len(report.members) / columns)
    width = max(_LEFT + columns * (_SIZE + _GAP), _LEFT + _NAMES + _CANDIDATES + 80)
    below = _TOP + lines * (_SIZE + _GAP + 22) + 10
    height = below + 62 + _ROW * len(report.candidates)
    title = f"Weights of {name}: {report.rows:,} rows, {report.chosen} was chosen"
    parts = [svg.text(_LEFT, 28, title, size=15, weight="bold")]
    parts += _legend()
    for at, member in enumerate(report.members):
        left = _LEFT + (at % columns) * (_SIZE + _GAP)
        top = _TOP + (at // columns) * (_SIZE + _GAP + 22)
        cold = found.logs[at].astype(np.float64)
        cooled = softmax(log_softmax(cold) / member.temperature)
        parts.append(svg.text(left, top - 8, member.name, weight="bold"))
        parts += _axes(left, top)
        parts += _curve(reliability(np.exp(log_softmax(cold)), truth), left, top, _BEFORE)
        parts += _curve(reliability(cooled, truth), left, top, _AFTER)
    parts += _candidates(found, below)
    return svg.document(width, height, title, parts)


def _legend() -> Iterable[str]:
    for at, (colour, what) in enumerate(
        ((_BEFORE, "as the member answers"), (_AFTER, "calibrated"))
    ):
        yield svg.dot(_LEFT + 5 + 170 * at, 48, 4, colour)
        yield svg.text(_LEFT + 14 + 170 * at, 52, what)


def _axes(left: float, top: float) -> Iterable[str]:
    bottom, right = top + _SIZE, left + _SIZE
    for share in (0.0, 0.5, 1.0):
        y, x = bottom - share * _SIZE, left + share * _SIZE
        yield svg.line(left, y, right, y, _GREY)
        yield svg.line(x, top, x, bottom, _GREY)
        yield svg.text(left - 6, y + 4, f"{share:g}", "end")
        yield svg.text(x, bottom + 16, f"{share:g}", "middle")
    yield svg.line(left, bottom, right, top, "#57606a", dash="5 4")
    yield svg.text(left + _SIZE / 2, bottom + 32, "confidence; up: accuracy", "middle")


def _curve(bins: Bins, left: float, top: float, colour: str) -> Iterable[str]:
    most = bins.rows.max()
    before: tuple[float, float] | None = None
    for rows, confidence, accuracy in zip(bins.rows, bins.confidence, bins.accuracy, strict=True):
        if not rows:
            continue
        x, y = left + confidence * _SIZE, top + (1 - accuracy) * _SIZE
        if before is not None:
            yield svg.line(*before, x, y, colour)
        about = f"{rows:,} rows: {confidence:.3f} sure, {accuracy:.3f} right"
        yield svg.dot(x, y, 1.5 + 4.5 * math.sqrt(rows / most), colour, about)
        before = (x, y)


def _candidates(found: LearnedWeights, top: float) -> Iterable[str]:
    report = found.report
    spans = [
        one.excess + side * _ERRORS * one.excess_standard_error
        for one in report.candidates
        for side in (-1, 1)
    ]
    # A hopeless candidate must not squeeze the others together.
    limit = max(sorted(spans)[len(spans) * 3 // 4], 1e-6)
    low, high = min(spans), max(limit, max(spans) if max(spans) < 4 * limit else limit)
    left = _LEFT + _NAMES
    x = svg.Scale(low, high, left, left + _CANDIDATES)
    yield svg.text(_LEFT, top + 12, "log-loss above the best candidate's, nats", weight="bold")
    yield svg.text(_LEFT + 290, top + 12, f"bars: {_ERRORS} standard errors to either side")
    bottom = top + 30 + _ROW * len(report.candidates)
    yield svg.line(x(0), top + 24, x(0), bottom, "#57606a", dash="5 4")
    for at, one in enumerate(report.candidates):
        y = top + 42 + _ROW * at
        colour = _CHOSEN if one.name == report.chosen else "#57606a"
        error = _ERRORS * one.excess_standard_error
        weight = "bold" if one.name == report.chosen else "normal"
        yield svg.text(left - 12, y + 4, one.name, "end", weight=weight, colour=colour)
        yield svg.line(x(one.excess - error), y, x(one.excess + error), y, colour, width=3)
        about = f"log-loss {one.log_loss:.4f}, standard error {one.excess_standard_error:.4f}"
        yield svg.dot(x(one.excess), y, 5, colour, about)
        yield svg.text(left + _CANDIDATES + 10, y + 4, f"{one.excess:.4f}", colour=colour)
    for value in (low, 0.0, high):
        yield svg.text(x(value), bottom + 16, f"{value:.3g}", "middle")
