"""What ``crossfade inspect`` says of the work that an ensemble's members share."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossfade.runtimes import registry
from crossfade.runtimes.core.errors import CrossfadeError, FailedPrecondition, LoadFailed
from crossfade.runtimes.core.model import DEFAULT_SIGNATURE, Artifact
from crossfade.runtimes.fusing import Branch
from crossfade.runtimes.isolated.probe import trial
from crossfade.serving.config.ensemble_config import Ensemble, Weighted, WeightedMember
from crossfade.serving.config.model_config import ModelConfig
from crossfade.serving.lifecycle.fusion import WORTHWHILE
from crossfade.serving.lifecycle.loader import find_artifact
from crossfade.serving.lifecycle.policies import wanted_versions
from crossfade.serving.repository.source import LocalSource


def report(section: Ensemble, beside: LocalSource) -> dict[str, Any] | None:
    """Fuses the members' files, and says what that shares; ``None`` where it is not done.

    A server also compares the answers before it uses the graph.
    """
    if not isinstance(section, Weighted) or len(section.members) < 2 or not section.fuse:
        return None
    if section.member_timeout_ms is not None:
        return None
    try:
        found = [_branch(member, beside) for member in section.members]
        platforms = {platform for platform, _, _ in found}
        fuse = registry.fuser(platforms.pop())
        if platforms or fuse is None:
            raise FailedPrecondition("the members' platforms have no graphs that can be one")
        if any(config.preprocess != found[0][1].preprocess for _, config, _ in found):
            raise FailedPrecondition("the members are preprocessed differently")
        with tempfile.TemporaryDirectory(prefix="crossfade-fused-") as folder:
            fused = fuse([branch for _, _, branch in found], Path(folder))
    except CrossfadeError as error:
        return {"fused": False, "reason": error.message}
    return {
        "fused": fused.saved >= WORTHWHILE,
        "reason": "" if fused.saved >= WORTHWHILE else f"less than {WORTHWHILE:.0%} is saved",
        "nodes": fused.nodes,
        "fused_nodes": fused.fused_nodes,
        "shared_nodes": fused.shared_nodes,
        "weights_bytes": fused.weights_bytes,
        "shared_bytes": fused.shared_bytes,
        "saved": round(fused.saved, 4),
    }


def text(found: Mapping[str, Any]) -> str:
    """One line for a reader."""
    if "nodes" not in found:
        return f"not fused: {found['reason']}"
    shared = (
        f"{found['shared_nodes']} nodes and {found['shared_bytes']:,} of"
        f" {found['weights_bytes']:,} bytes of weights are shared; one graph of"
        f" {found['fused_nodes']} nodes saves {found['saved']:.0%} of the work of {found['nodes']}"
    )
    return shared if found["fused"] else f"not fused, {found['reason']}: {shared}"


def _branch(member: WeightedMember, beside: LocalSource) -> tuple[str, ModelConfig, Branch]:
    """A member's platform, configuration and graph."""
    files = beside.read(member.model)
    config = files.config
    number = member.version or config.labels.get(member.label or "")
    version = files.versions.get(number or max(wanted_versions(config, files.versions), default=0))
    if config.ensemble is not None or version is None:
        raise LoadFailed(f"'{member.model}' has no graph of its own")
    platform, path = find_artifact(config, beside.fetch(files, version))
    if registry.fuser(platform) is None:
        raise FailedPrecondition(f"'{member.model}' is of the platform {platform}")
    artifact = Artifact(path, member.model, version.version, 1, config.options)
    signature = trial(platform, artifact).signatures[DEFAULT_SIGNATURE]
    own = [spec.name for spec in signature.inputs]
    inputs = {name: member.inputs.get(name, name) for name in own}
    if config.preprocess is not None:  # the members' own names of the same pictures
        inputs = {name: f"input {number}" for number, name in enumerate(own)}
    return platform, config, Branch(path, inputs, [spec.name for spec in signature.outputs])
