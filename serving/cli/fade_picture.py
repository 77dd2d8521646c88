"""A picture of a fade, as SVG, of what the database keeps: the share over time, and the bounds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, Final

from crossfade.serving.cli.svg import Scale, document, dot, line, text

_WIDTH, _LEFT, _RIGHT = 860, 190, 30
_SHARE_HEIGHT, _METRIC_HEIGHT, _GAP, _TOP = 170, 72, 22, 98
_GREEN, _RED = "#1a7f37", "#cf222e"
_COLOURS: Final = {
    "start": "#57606a",
    "advance": _GREEN,
    "promote": "#bf3989",
    "roll_back": _RED,
    "pause": "#9a6700",
    "resume": "#9a6700",
    "retire": "#8250df",
}
_VERDICTS: Final = {"good": _GREEN, "open": "#9a6700", "harmful": _RED}
_LIMITS: Final = (
    (
        _GREEN,
        "goes on to the next step once every whole bar is on the good side of its green limit",
    ),
    (_RED, "rolled back once a whole bar is beyond its red limit"),
)
_UNITS: Final = ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))


def draw(history: dict[str, Any]) -> str:
    """Draws a fade.

    Above: the candidate's share of the traffic, and a mark for each decision. Below, for each
    comparison: what was known at each decision, as the range that the number is surely in, and
    the limits beyond which the fade goes on (green) or is rolled back (red).

    Args:
        history: the document that ``History`` answers with.
    """
    decisions = history["decisions"]
    start_s, end_s = decisions[0]["at_s"], decisions[-1]["at_s"]
    margin_s = 0.04 * ((end_s - start_s) or 1.0)
    x = Scale(start_s, end_s + margin_s, _LEFT, _WIDTH - _RIGHT)
    metrics = list(
        dict.fromkeys(found["metric"] for each in decisions for found in each["findings"])
    )
    height = _TOP + _SHARE_HEIGHT + _GAP + len(metrics) * (_METRIC_HEIGHT + _GAP) + 24
    title = f"Fade of {history['name']}: from {history['from']} to {history['to']}"
    parts = [
        text(_LEFT, 24, title, size=15, weight="bold"),
        *_legend(list(dict.fromkeys(map(_what, decisions)))),
        *_share(history, x, end_s + margin_s),
    ]
    top = _TOP + _SHARE_HEIGHT + _GAP
    for metric in metrics:
        parts += _bounds(metric, decisions, x, top)
        top += _METRIC_HEIGHT + _GAP
    parts += _time_axis(start_s, end_s, x, height - 24)
    return document(_WIDTH, height, title, parts)


def _legend(actions: Sequence[str]) -> Iterable[str]:
    for place, action in enumerate(actions):
        at = _LEFT + 100 * place
        yield dot(at + 5, 40, 4, _COLOURS[action])
        yield text(at + 14, 44, action.replace("_", " "))
    for place, (colour, meaning) in enumerate(_LIMITS):
        y = 62 + 18 * place
        yield line(_LEFT, y - 4, _LEFT + 24, y - 4, colour, dash="5 4")
        yield text(_LEFT + 32, y, meaning, colour=colour)


def _what(decision: dict[str, Any]) -> str:
    """The action; the advance from the last step is a promotion."""
    action = decision["action"]
    return "promote" if action == "advance" and decision["status"] == "PROMOTED" else str(action)


def _share(history: dict[str, Any], x: Scale, end_s: float) -> Iterable[str]:
    bottom = _TOP + _SHARE_HEIGHT
    y = Scale(0, 100, bottom, _TOP)
    yield text(12, _TOP + 12, "share of the", weight="bold")
    yield text(12, _TOP + 28, "candidate, %", weight="bold")
    for tick in (0, 25, 50, 75, 100):
        yield line(_LEFT, y(tick), _WIDTH - _RIGHT, y(tick), "#d8dee4")
        yield text(_LEFT - 8, y(tick) + 4, str(tick), anchor="end")
    decisions = history["decisions"]
    shares = [_share_after(each, history["plan"]["steps"]) for each in decisions]
    points = [(x(decisions[0]["at_s"]), y(shares[0]))]
    for each, share in zip(decisions, shares, strict=True):
        points += [(x(each["at_s"]), points[-1][1]), (x(each["at_s"]), y(share))]
    points.append((x(end_s), points[-1][1]))
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    area = f"{points[0][0]:.1f},{bottom} {path} {points[-1][0]:.1f},{bottom}"
    yield f'<polygon points="{area}" fill="#0969da" fill-opacity="0.12"/>'
    yield f'<polyline points="{path}" fill="none" stroke="#0969da" stroke-width="2"/>'
    for each, share in zip(decisions, shares, strict=True):
        about = f"{_what(each).replace('_', ' ')}: {each['reason']}"
        yield dot(x(each["at_s"]), y(share), 4.5, _COLOURS[_what(each)], about)


def _share_after(decision: dict[str, Any], steps: Sequence[dict[str, Any]]) -> float:
    if decision["status"] == "ROLLED_BACK":
        return 0.0
    if decision["status"] in {"PROMOTED", "RETIRED"}:
        return 100.0
    return float(steps[decision["step"] - 1]["traffic_percent"])


def _bounds(metric: str, decisions: Sequence[Any], x: Scale, top: float) -> Iterable[str]:
    seen = [
        (each["at_s"], found)
        for each in decisions
        for found in each["findings"]
        if found["metric"] == metric
    ]
    low, high = _range(metric, [found for _, found in seen])
    bottom = top + _METRIC_HEIGHT
    y = Scale(low, high, bottom, top)
    yield text(12, top + 12, metric.replace("_", " "), weight="bold")
    yield (
        f'<rect x="{_LEFT}" y="{top}" width="{_WIDTH - _RIGHT - _LEFT}" '
        f'height="{_METRIC_HEIGHT}" fill="#f6f8fa"/>'
    )
    limits = seen[-1][1]
    red, green = limits["harmful"], limits["good"]
    red_is_above = red > green or (red == green and metric not in {"quality", "agreement"})
    apart = max(0.0, 13 - abs(y(red) - y(green))) / (2 if red_is_above else -2)
    for value, colour, up in ((red, _RED, apart), (green, _GREEN, -apart)):
        at = y(value) - (math.copysign(1, up) if red == green else 0)  # both are to be seen
        yield line(_LEFT, at, _WIDTH - _RIGHT, at, colour, dash="5 4")
        yield text(_LEFT - 8, y(value) + 4 - up, f"{value:g}", anchor="end", colour=colour)
    for at_s, found in seen:
        colour, bounds = _VERDICTS[found["verdict"]], found["bounds"]
        lower = low if bounds["lower"] is None else bounds["lower"]
        upper = high if bounds["upper"] is None else bounds["upper"]
        what = f"{bounds['count']} seen, surely in {lower:.4g} .. {upper:.4g}"
        yield (
            f'<line x1="{x(at_s):.1f}" y1="{y(lower):.1f}" x2="{x(at_s):.1f}" y2="{y(upper):.1f}" '
            f'stroke="{colour}" stroke-width="5" stroke-opacity="0.55"><title>{escape(what)}'
            "</title></line>"
        )
        if bounds["estimate"] is not None:
            yield dot(x(at_s), y(bounds["estimate"]), 3, "#000000")


def _range(metric: str, found: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """From the limits and estimates, with room for bounds, which are cut off if they are far."""
    points = [
        value
        for each in found
        for value in (each["good"], each["harmful"], each["bounds"]["estimate"])
        if value is not None
    ]
    low, high = min(points), max(points)
    room = max(high - low, 0.02) * 0.6
    if metric in {"quality", "errors"}:  # differences
        return low - room, high + room
    most = 1.0 if metric == "agreement" else high + room
    return max(0.0, low - room), max(high, most)


def _time_axis(start_s: float, end_s: float, x: Scale, top: float) -> Iterable[str]:
    length_s = end_s - start_s
    unit_s, name = next((u for u in _UNITS if length_s >= 2 * u[0]), _UNITS[-1])
    step = max(1, round(length_s / unit_s / 8))
    for tick in range(0, int(length_s / unit_s) + 1, step):
        at = x(start_s + tick * unit_s)
        yield line(at, top - 4, at, top, "#57606a")
        yield text(at, top + 14, str(tick), "middle")
    yield text(12, top + 14, f"{name} since the start")
