"""The versions of a model: where each is in its life, and which of them answer now."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Mapping, Sequence

from crossfade.runtimes.core.errors import NotFound
from crossfade.runtimes.core.model import ModelMetadata
from crossfade.serving.config.model_config import ModelConfig
from crossfade.serving.lifecycle.policies import Snapshot, State, wanted_versions
from crossfade.serving.lifecycle.served import Served
from crossfade.serving.repository.layout import OWN_CONFIG, TRITON_CONFIG, ModelFiles
from crossfade.serving.repository.source import Source

_log = logging.getLogger(__name__)
Key = tuple[int, str]


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """A model's folder and the repository that holds it."""

    source: Source
    files: ModelFiles


@dataclasses.dataclass(slots=True)
class Version:
    """One version from one set of files.

    Attributes:
        failed: tells an end by failure from an unload.
        found: what it was loaded from.
        evicted: the same, where it ended to make room and is loaded again on request.
        metadata: of what was loaded.
    """

    version: int
    fingerprint: str
    state: State = State.START
    reason: str = ""
    failed: bool = False
    served: Served | None = None
    found: Found | None = None
    evicted: Found | None = None
    metadata: ModelMetadata | None = None

    @property
    def key(self) -> Key:
        """The number and the fingerprint."""
        return (self.version, self.fingerprint)


@dataclasses.dataclass(frozen=True, slots=True)
class Routing:
    """Who answers now, or after it is loaded again; replaced as a whole, read without a lock."""

    by_version: Mapping[int, Served]
    labels: Mapping[str, int]
    latest: Served | None
    evicted: Mapping[int, ModelMetadata] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class IndexEntry:
    """One line of the repository's index; ``state`` is ``None`` where nothing was ever loaded."""

    name: str
    version: int | None
    state: State | None
    reason: str
    failed: bool = False


class Entry:
    """One model. ``versions`` and ``files`` are guarded by ``lock``, held through each load.

    ``wanted`` is what its files last asked for; ``None`` where it is not to be served.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.lock = threading.Lock()
        self.versions: list[Version] = []
        self.labels: Mapping[str, int] = {}
        self.routing = Routing({}, {}, None)
        self.wanted: Found | None = None
        self.error = ""

    def route(self) -> None:
        """Has the versions that are available answer from now on."""
        live = {
            v.version: v.served
            for v in self.versions
            if v.state is State.AVAILABLE and v.served is not None
        }
        # A label stays where it is until its new version can answer.
        before = self.routing.labels
        labels = {
            label: before[label] if version not in live and before.get(label) in live else version
            for label, version in self.labels.items()
        }
        evicted = {
            v.version: v.metadata
            for v in self.versions
            if v.evicted and v.metadata and v.version not in live
        }
        newest = max((*live, *evicted), default=0)
        self.routing = Routing(live, labels, live.get(newest), evicted)

    def index(self) -> list[IndexEntry]:
        """Where each version is and, of the newest files that were refused, why."""
        versions = sorted(self.versions, key=lambda v: v.version)
        again = {v.version for v in versions if v.state is not State.END or v.failed}
        live = {v.version for v in versions if v.state is State.AVAILABLE}
        refused = {v.version: v.reason for v in versions if v.failed}
        lines = []
        for v in versions:
            if v.state is State.END and v.version in (live if v.failed else again):
                continue  # unloaded and there again, or told where its predecessor serves
            reason = self.error if v.failed and self.error else v.reason
            if v.state is State.AVAILABLE and (why := self.error or refused.get(v.version)):
                reason = f"{_refused(why)}; the one before serves"
            lines.append(IndexEntry(self.name, v.version, v.state, reason, v.failed))
        return lines

    def note(self, error: str) -> None:
        """Keeps, and logs once, why the model is not what its files ask for."""
        if error and error != self.error:
            _log.error("model not updated", extra={"model": self.name, "reason": error})
        self.error = error


def _refused(reason: str) -> str:
    """A reason as a sentence about the configuration, if that is what it names, or the files."""
    for file in (OWN_CONFIG, TRITON_CONFIG):
        if reason.startswith(file):
            return f"{file} refused{reason.removeprefix(file)}"
    return f"new files refused: {reason}"


def read(sources: Sequence[Source], name: str, override: ModelConfig | None = None) -> Found:
    """Reads a model's folder in the first source that has it; raises NotFound if none has."""
    for source in sources:
        try:
            return Found(source, source.read(name, override))
        except NotFound:
            continue
    raise NotFound(
        f"failed to load '{name}', failed to poll from model repository: there is no such model"
    )


def mark(entry: Entry, files: ModelFiles, retry: bool, labelled: bool = True) -> set[Key]:
    """Adds the versions that are new, forgets those that are over; returns the wanted."""
    present = files.versions
    config = files.config if labelled else files.config.model_copy(update={"labels": {}})
    wanted = {(v, present[v].fingerprint) for v in wanted_versions(config, present)}
    entry.versions = [
        v
        for v in entry.versions
        if v.state is not State.END or ((v.failed or v.evicted) and v.key in wanted and not retry)
    ]
    known = {v.key for v in entry.versions if v.state is not State.UNLOADING}
    entry.versions += [Version(*new) for new in sorted(wanted - known)]
    return wanted


def snapshots(entry: Entry, wanted: set[Key]) -> list[Snapshot]:
    """What ``policies.next_action`` looks at."""
    return [Snapshot(*v.key, v.state, v.key in wanted) for v in entry.versions]
