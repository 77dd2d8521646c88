"""What ``crossfade inspect`` says of an ensemble: its kind, its members, the values in force."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossfade.ensemble.gate import Measure
from crossfade.ensemble.learned import FILE, Learned
from crossfade.runtimes.core.errors import CrossfadeError
from crossfade.serving.cli import inspect_fusion
from crossfade.serving.config.ensemble_config import Cascade, Ensemble, Weighted
from crossfade.serving.lifecycle import routing
from crossfade.serving.repository.layout import ModelFiles
from crossfade.serving.repository.source import LocalSource

# What a member has only in some kinds, and how it is told.
_OF_MEMBERS = {
    "weight": "weight {:.4g}",
    "temperature": "temperature {:.4g}",
    "basis_points": "{:g} basis points",
    "threshold": "threshold {:.5g}",
}


def report(model: ModelFiles, number: int, place: Path) -> dict[str, Any]:
    """An ensemble as plain values; its members are looked for beside it."""
    section = model.config.ensemble
    assert section is not None
    version = model.versions[number]
    beside = LocalSource(place.absolute().parent)
    members = [_member(section, at, beside) for at in range(len(section.members))]
    missing = [one["model"] for one in members if not one["found"]]
    error = f"there is no model {', '.join(map(repr, missing))} beside it" if missing else None
    found: dict[str, Any] = {
        "name": model.name,
        "version": number,
        "kind": f"ensemble ({section.kind})",
        "kind_id": "ensemble",
        "platform": "ensemble",
        "rule": "",
        "measure": None,
        "gate": None,
        "adapt": None,
        "members": members,
        "fusion": None if missing else inspect_fusion.report(section, beside),
        "learned_weights": FILE in version.files,
        "error": error,
    }
    try:
        if isinstance(section, Weighted):
            _add_weights(found, section, place / version.folder)
        if isinstance(section, Cascade):
            _add_thresholds(found, section, place / version.folder)
    except CrossfadeError as failure:
        found["error"] = error or failure.message
    return found


def text(found: Mapping[str, Any]) -> str:
    """The report for a reader."""
    lines = [f"{found['name']} version {found['version']}: {found['kind']}"]
    if found["rule"]:
        learned = f"; it, weights and temperatures from {FILE}" if found["learned_weights"] else ""
        lines.append(f"  rule       {found['rule']}{learned}")
    if found["measure"]:
        solved = f"; it, thresholds and temperatures from {found['gate']}" if found["gate"] else ""
        lines.append(f"  measure    {found['measure']}{solved}")
    for one in found["members"]:
        which = f" version {one['version']}" if one["version"] else ""
        which += f" label {one['label']}" if one["label"] else ""
        named = "" if one["name"] == one["model"] else f" as {one['name']}"
        values = [
            form.format(one[key])
            for key, form in _OF_MEMBERS.items()
            if one[key] is not None and (key, one[key]) != ("temperature", 1)
        ]
        lines.append(f"  member     {', '.join([one['model'] + which + named, *values])}")
        for side in ("inputs", "outputs"):
            for own, name in one[side].items():
                lines.append(f"    {side[:-1]:7}  {own} is the ensemble's {name}")
    if found["adapt"]:
        keys = ", ".join(f"{key} {value:g}" for key, value in found["adapt"].items())
        lines.append(f"  adapt      weights follow feedback from these on: {keys}")
    if found["fusion"] is not None:
        lines.append(f"  fusion     {inspect_fusion.text(found['fusion'])}")
    if found["error"]:
        lines.append(f"  cannot be loaded here: {found['error']}")
    else:
        lines.append("  not checked here: whether the members' tensors fit (serve says it)")
    return "\n".join(lines) + "\n"


def _add_weights(found: dict[str, Any], section: Weighted, folder: Path) -> None:
    """The rule, and by member the weight and the temperature, as they are served."""
    if section.boxes is not None:
        found["rule"] = f"boxes, {section.boxes.rule}"
        return
    found["rule"] = section.rule
    if section.adapt is not None:
        found["adapt"] = section.adapt.model_dump()
    with contextlib.suppress(FileNotFoundError):
        content = (folder / FILE).read_text("utf-8", "replace")
        learned = Learned.read(content, [one["name"] for one in found["members"]])
        found["rule"] = learned.rule.value
        for one in found["members"]:
            one["weight"] = learned.weights[one["name"]]
            one["temperature"] = learned.temperatures[one["name"]]


def _add_thresholds(found: dict[str, Any], section: Cascade, folder: Path) -> None:
    """The measure, and by stage the threshold and the temperature, as they are served."""
    found["measure"] = section.measure or Measure.MAXIMUM.value
    if section.gate is None:
        return
    names = [one["name"] for one in found["members"]]
    solved = routing.solved(folder, section.gate, names, found["name"])
    found["gate"], found["measure"] = section.gate, solved.report.measure.value
    for one in found["members"]:
        one["threshold"] = solved.report.threshold
        one["temperature"] = solved.temperatures.get(one["name"], one["temperature"])
    found["members"][-1]["threshold"] = None


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
        "inputs": dict(one.inputs),
        "outputs": dict(one.outputs),
        "found": found,
        **{key: getattr(one, key, None) for key in _OF_MEMBERS},
    }
