"""The report of a conversion: kept as ``conversion.json`` beside the version, and shown."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

FILE: Final = "conversion.json"
_LARGEST: Final = 16 << 20


def read(folder: Path) -> dict[str, Any] | None:
    """The report in a version's folder; ``None`` where there is none that can be read."""
    path = folder / FILE
    try:
        if path.stat().st_size > _LARGEST:
            return None
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    is_ours = isinstance(found, dict) and {"accepted", "source", "result"} <= found.keys()
    return found if is_ours else None


def write(report: Mapping[str, Any], path: Path) -> None:
    """Writes the report as JSON."""
    path.write_text(json.dumps(plain(report), indent=1, allow_nan=False) + "\n", "utf-8")


def plain(value: Any) -> Any:
    """The same with infinity and NaN, which JSON lacks, as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def text(report: Mapping[str, Any]) -> str:
    """The report for people, lines without a line end at the last."""
    try:
        return "\n".join(_lines(report))
    except (KeyError, TypeError, ValueError, AttributeError):
        return "a report that cannot be read"  # somebody else's, or edited


def _lines(report: Mapping[str, Any]) -> list[str]:
    source, result = report["source"], report["result"]
    lines = [
        f"{source['name']} version {source['version']} ({source['platform']}, signature"
        f" {report['signature']}) -> {result['target']}",
        f"  {'accepted' if report['accepted'] else 'REJECTED'}, {report['created']}",
    ]
    lines += [f"  because {reason}" for reason in report["reasons"][:10]]
    if len(report["reasons"]) > 10:
        lines.append(f"  and {len(report['reasons']) - 10} reasons more")
    if report.get("preprocessing"):
        lines.append(f"  note     {report['preprocessing']['note']}")
    lines += [f"  note     {note}" for note in report.get("notes", [])]
    inputs = report.get("inputs")
    if inputs:
        made_up = f"made-up inputs ({inputs['made_up']})"
        low, high = inputs["range"]
        lines.append(f"  inputs   {inputs['real'] or 'no real ones'}; {made_up}")
        lines.append(f"           floats from {low:g} to {high:g} ({inputs['range_is']})")
        refused = len(inputs["refused_by_the_source"])
        if refused:
            lines.append(f"           {refused} that a side refused are left out")
    for group, outputs in report.get("differences", {}).items():
        for name, worst in outputs.items():
            lines.append(
                f"  {group:12} {name}: largest difference {float(worst['max_abs']):.3g}"
                f" (relative {float(worst['relative']):.3g}), cosine {float(worst['cosine']):.6f},"
                f" {'finite' if worst['finite'] else 'NOT FINITE'}, {worst['inputs']} inputs"
                + _common(worst.get("overlap"))
            )
    if report.get("thresholds"):
        lines.append(f"  wanted   {report['thresholds']['text']}")
    choices = report.get("first_choices")
    if choices:
        lines.append(f"  top-1    the same in {choices['same']} of {choices['rows']} rows")
    metric = report.get("metric")
    if metric:
        lines.append(
            f"  accuracy {float(metric['before']):.1%} before, {float(metric['after']):.1%} after,"
            f" {metric['rows']} rows"
        )
    for rows, times in report.get("latency_ms", {}).items():
        lines.append(
            f"  latency  {rows} row{'s' * (rows != '1')}: {times['before']:.2f} ms before,"
            f" {times['after']:.2f} ms after (median of {times['runs']}, one thread)"
        )
    if result.get("size_bytes"):
        lines.append(
            f"  size     {source['size_bytes']:,} bytes before, {result['size_bytes']:,} after"
        )
    return lines


def _common(overlap: float | None) -> str:
    return "" if overlap is None else f", {float(overlap):.2%} in common"
