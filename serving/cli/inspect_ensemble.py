"""What ``crossfade inspect`` says of an ensemble: its kind, its members, and whether they fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossfade.runtimes.core.errors import CrossfadeError
from crossfade.serving.cli import inspect_fusion
from crossfade.serving.config.ensemble_config import Ensemble, Weighted
from crossfade.serving.repository.layout import ModelFiles
from crossfade.serving.repository.source import LocalSource


def report(model: ModelFiles, number: int, place: Path) -> dict[str, Any]:
    """An ensemble as plain values; its members are looked for beside it."""
    section = model.config.ensemble
    assert section is not None
    beside = LocalSource(place.absolute().parent)
    members = [_member(section, at, beside) for at in range(len(section.members))]
    missing = [one["model"] for one in members if not one["found"]]
    return {
        "name": model.name,
        "version": number,
        "kind": f"ensemble ({section.kind})",
        "kind_id": "ensemble",
        "platform": "ensemble",
        "rule": _rule(section),
        "members": members,
        "fusion": None if missing else inspect_fusion.report(section, beside),
        "learned_weights": "weights.json" in model.versions[number].files,
        "error": f"there is no model {', '.join(map(repr, missing))} beside it"
        if missing
        else None,
    }


def text(found: Mapping[str, Any]) -> str:
    """The report for a reader."""
    lines = [f"{found['name']} version {found['version']}: {found['kind']}"]
    if found["rule"]:
        weights = ", weights from weights.json" if found["learned_weights"] else ""
        lines.append(f"  rule       {found['rule']}{weights}")
    for one in found["members"]:
        which = f" version {one['version']}" if one["version"] else ""
        which += f" label {one['label']}" if one["label"] else ""
        named = "" if one["name"] == one["model"] else f" as {one['name']}"
        share = "" if one["weight"] is None else f", weight {one['weight']:g}"
        lines.append(f"  member     {one['model']}{which}{named}{share}")
        for side in ("inputs", "outputs"):
            for own, name in one[side].items():
                lines.append(f"    {side[:-1]:7}  {own} is the ensemble's {name}")
    if found["fusion"] is not None:
        lines.append(f"  fusion     {inspect_fusion.text(found['fusion'])}")
    if found["error"]:
        lines.append(f"  cannot be loaded here: {found['error']}")
    return "\n".join(lines) + "\n"


def _rule(section: Ensemble) -> str:
    if not isinstance(section, Weighted):
        return ""
    return section.rule if section.boxes is None else f"boxes, {section.boxes.rule}"


def _member(section: Ensemble, at: int, beside: LocalSource) -> dict[str, Any]:
    one = section.members[at]
    try:
        found = bool(beside.read(one.model).versions)
    except CrossfadeError:
        found = False
    return {
        "model": one.model,
        "version": one.version,
        "label": one.label,
        "name": one.name or one.model,
        "weight": getattr(one, "weight", None),
        "inputs": dict(one.inputs),
        "outputs": dict(one.outputs),
        "found": found,
    }
