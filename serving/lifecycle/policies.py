"""Which versions are wanted, and the next step towards them. Pure, stateless, idempotent."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Collection, Iterable, Sequence
from typing import Literal

from crossfade.serving.config.model_config import ModelConfig


class State(enum.Enum):
    """The life of a version; ``END`` may come from any of the others, with a reason."""

    START = "START"
    LOADING = "LOADING"
    AVAILABLE = "AVAILABLE"
    UNLOADING = "UNLOADING"
    END = "END"


@dataclasses.dataclass(frozen=True, slots=True)
class Snapshot:
    """One version's files and where they are in their life.

    Attributes:
        fingerprint: the same version with other files is another snapshot.
        wanted: it is among the versions to be served.
    """

    version: int
    fingerprint: str
    state: State
    wanted: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Action:
    """One step."""

    kind: Literal["load", "unload"]
    version: int
    fingerprint: str


def wanted_versions(config: ModelConfig, present: Collection[int]) -> frozenset[int]:
    """Versions that the configuration asks for, among those that are there.

    A version that has a label is served whatever the policy says.
    """
    policy = config.version_policy
    labelled = set(config.labels.values())
    if policy.all:
        chosen = set(present)
    elif policy.specific is not None:
        chosen = set(policy.specific)
    else:
        chosen = set(sorted(present)[-(policy.latest or 1) :])
    return frozenset((chosen | labelled) & set(present))


def next_action(snapshots: Sequence[Snapshot]) -> Action | None:
    """The next step, so that the model is never without a version that could serve.

    What is wanted is loaded before what is not wanted is unloaded; and that only goes once its
    successor serves: the same version from new files, or any wanted version once all of them
    have been tried. A version that failed to load therefore leaves its predecessor serving.
    """
    wanted = [s for s in snapshots if s.wanted]
    starting = _of(wanted, State.START)
    if starting:
        newest = max(starting, key=lambda s: s.version)
        return Action("load", newest.version, newest.fingerprint)
    if _of(wanted, State.LOADING):
        return None
    for old in sorted(_of(snapshots, State.AVAILABLE), key=lambda s: s.version):
        if old.wanted:
            continue
        heirs = [s for s in wanted if s.version == old.version] or wanted
        if not heirs or _of(heirs, State.AVAILABLE):
            return Action("unload", old.version, old.fingerprint)
    return None


def _of(snapshots: Iterable[Snapshot], state: State) -> list[Snapshot]:
    return [s for s in snapshots if s.state is state]
