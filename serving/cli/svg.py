"""The few shapes that pictures of reports are made of."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape


class Scale:
    """Maps values to pixels, and keeps them inside."""

    def __init__(self, low: float, high: float, begin: float, end: float) -> None:
        self._low, self._span = low, (high - low) or 1.0
        self._begin, self._end = begin, end

    def __call__(self, value: float) -> float:
        """Where the value is."""
        share = min(1.0, max(0.0, (value - self._low) / self._span))
        return self._begin + share * (self._end - self._begin)


def document(width: int, height: int, title: str, parts: Iterable[str]) -> str:
    """A picture on white."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="sans-serif" font-size="12">'
    )
    ground = f'<title>{escape(title)}</title><rect width="100%" height="100%" fill="#ffffff"/>'
    return "\n".join([head, ground, *parts, "</svg>\n"])


def line(
    x1: float, y1: float, x2: float, y2: float, colour: str, *, width: float = 1, dash: str = ""
) -> str:
    """A straight line."""
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"'
        f' stroke-width="{width:g}"{dashed}/>'
    )


def text(
    x: float,
    y: float,
    what: str,
    anchor: str = "start",
    *,
    size: int = 12,
    weight: str = "normal",
    colour: str = "#24292f",
) -> str:
    """A line of text."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'font-weight="{weight}" fill="{colour}">{escape(what)}</text>'
    )


def dot(x: float, y: float, radius: float, colour: str, about: str = "") -> str:
    """A filled circle, with a text that is shown when it is pointed at."""
    told = f"<title>{escape(about)}</title>" if about else ""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{colour}">{told}</circle>'
