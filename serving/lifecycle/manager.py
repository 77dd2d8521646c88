"""Keeps what is served in step with what the repository holds, without losing a request."""

from __future__ import annotations

import dataclasses
import enum
import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from crossfade.runtimes import memory
from crossfade.runtimes.core.errors import (
    CrossfadeError,
    FailedPrecondition,
    LoadFailed,
    NotFound,
    Unavailable,
    escape,
)
from crossfade.runtimes.core.model import ModelMetadata, ModelRef
from crossfade.serving.config.model_config import ModelConfig
from crossfade.serving.lifecycle import dependents, loader
from crossfade.serving.lifecycle.dependents import Dependents
from crossfade.serving.lifecycle.ensembles import Ensembles
from crossfade.serving.lifecycle.loader import Loading
from crossfade.serving.lifecycle.policies import State, wanted_versions
from crossfade.serving.lifecycle.served import Served
from crossfade.serving.lifecycle.transitions import Transitions
from crossfade.serving.lifecycle.versions import Entry, Found, IndexEntry, Version, mark, read
from crossfade.serving.repository.layout import ModelFiles, check_name, unknown_model
from crossfade.serving.repository.source import Source

_log = logging.getLogger(__name__)
# How long the end of the server waits for a model that is still loading or in use.
_CLOSE_S = 5.0
# Characters of all versions' reasons together that a client gets.
_MAX_REASONS = 4096


class Mode(enum.Enum):
    """Who decides what is loaded: nobody after the start, the repository, or the caller."""

    NONE = "none"
    POLL = "poll"
    EXPLICIT = "explicit"


class Manager:
    """The models that are served. Thread-safe.

    Args:
        sources: repositories; of two models with one name the first source's is served.
        mode: who decides what is loaded.
        poll_s: seconds between two looks at the repository, in mode ``poll``.
        startup: names to load at the start in mode ``explicit``; ``*`` is all.
        load_threads: models that are loaded at the same time.
        loading: how.
        memory_bytes: what all models may take together; ``None`` is no limit.
        evicts: whether models that nobody uses make room for others.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        mode: Mode = Mode.NONE,
        poll_s: float = 5.0,
        startup: Sequence[str] = (),
        load_threads: int = 2,
        *,
        loading: Loading = loader.PLAIN,
        memory_bytes: int | None = None,
        evicts: bool = False,
    ) -> None:
        self._sources = sources
        self._mode = mode
        self._poll_s = poll_s
        self._startup = startup
        self._load_threads = load_threads
        self._entries: dict[str, Entry] = {}
        self._ensembles = Ensembles(self, lambda: self.memory, loading.adapt)
        self._dependents = Dependents(self._entries, self._ensembles)
        loading = dataclasses.replace(loading, ensembles=self._ensembles)
        self._transitions = Transitions(self._entry, self.served, loading, memory_bytes, evicts)
        self.memory = self._transitions.memory
        # Held while all models are taken to what the sources hold: they may be replaced.
        self._turn = threading.Lock()
        self._entries_lock = threading.Lock()
        self._untried: set[str] = set()  # at the start: their turn will come
        self._stop = threading.Event()
        self._poller: threading.Thread | None = None
        self._started = False

    @property
    def started(self) -> bool:
        """Every model that is to be there from the start has been tried."""
        return self._started

    def start(self) -> None:
        """Loads what the mode asks for, some models at a time, and begins to poll."""
        names = self._startup
        with self._turn:
            if self._mode is not Mode.EXPLICIT or "*" in names:
                names = self._names()
            found = self._with_members(names)
            for name, one in found.items():
                self._entry(name).wanted = one  # so that a cycle is seen as such
            self._untried = set(found)
            with ThreadPoolExecutor(self._load_threads, "load") as pool:
                for wave in dependents.order(found):
                    list(pool.map(lambda name: self._try_sync(name, found[name]), wave))
        memory.give_back()  # what loading and measuring took for a while
        self._started = True
        if self._mode is Mode.POLL:
            self._poller = threading.Thread(target=self._poll, name="poll", daemon=True)
            self._poller.start()

    def close(self) -> None:
        """Retires every version; those that hold leases close when these are back.

        What is still loading, or in use, after some seconds is left to the end of the process.
        """
        self._stop.set()
        until_s = time.monotonic() + _CLOSE_S
        if self._poller is not None:
            self._poller.join(_CLOSE_S)
        live = self.served()
        for entry in list(self._entries.values()):
            entry.wanted = None  # nothing is taken to what others are now
        for name, entry in list(self._entries.items()):
            if entry.lock.acquire(timeout=max(0.0, until_s - time.monotonic())):
                entry.lock.release()
                self._sync(name, None)
        for served in live:
            served.wait_closed(max(0.0, until_s - time.monotonic()))
        self._ensembles.close()

    def lease(self, ref: ModelRef, deadline_s: float | None = None) -> Served:
        """See ``Resolver.lease``; the lease is also the version's record.

        A version that was evicted is loaded again first, for which the caller waits until
        ``deadline_s`` (``time.monotonic()``).
        """
        while True:
            served = self._find(ref)
            if isinstance(served, int):
                self._transitions.revivals.wait_for(ref.name, served, deadline_s)
            elif served.acquire():
                return served

    def metadata(self, ref: ModelRef) -> ModelMetadata:
        """Of the version that is meant, also where it would have to be loaded again.

        Raises:
            NotFound: no such model, version or label.
            Unavailable: known, but no version can take traffic now.
        """
        found = self._find(ref)
        if isinstance(found, Served):
            return found.metadata
        metadata = self._entries[ref.name].routing.evicted.get(found)
        if metadata is None:  # it has just been loaded again
            return self.metadata(ref)
        return metadata

    def can_answer(self, ref: ModelRef) -> bool:
        """Whether a request would be answered, if need be after its version is loaded again.

        Raises:
            NotFound: no such model, version or label.
        """
        try:
            return bool(self._find(ref))
        except Unavailable:
            return False

    def leaves_out(self, name: str, version: int) -> bool:
        """Whether a version was in the repository at the last look, and is not to be served."""
        entry = self._entries.get(name)
        if entry is None or entry.wanted is None or entry.wanted.files.error is not None:
            return False
        files = entry.wanted.files
        return version in files.versions and version not in wanted_versions(
            files.config, files.versions
        )

    def is_quick(self, name: str) -> bool:
        """Whether every version of a model would now answer at once, without a wait."""
        entry = self._entries.get(name)
        versions = entry.routing.by_version.values() if entry else ()
        evicted = entry is not None and bool(entry.routing.evicted)
        return bool(versions) and not evicted and all(served.is_quick for served in versions)

    def load(self, name: str, override: ModelConfig | None = None) -> None:
        """Loads or reloads a model, in mode ``explicit``; the old versions serve meanwhile.

        Members of an ensemble that are not loaded are loaded first.

        Args:
            name: the model's.
            override: counts instead of the repository's configuration until the next load.

        Raises:
            FailedPrecondition: not in mode ``explicit``.
            NotFound: the repository has no such model.
            LoadFailed: no version could be loaded, with the reasons.
        """
        self._check_explicit()
        found = self._read(check_name(name), override)
        self._entry(name).wanted = found
        others = self._with_members(sorted(dependents.names_of(found.files.config)))
        for wave in dependents.order({n: one for n, one in others.items() if n != name}):
            for other in wave:
                routing = self._entry(other).routing
                if not (routing.by_version or routing.evicted):
                    self._try_sync(other, others[other])
        failures = self._sync(name, found, retry=True)
        if failures:
            reasons = "; ".join(failures)[:_MAX_REASONS]
            raise LoadFailed(f"failed to load '{name}', {reasons}")

    def unload(self, name: str, members: bool = False) -> None:
        """Unloads all versions of a model, in mode ``explicit``; unknown names are no error.

        Args:
            name: the model's.
            members: of an ensemble, those that no other one needs go as well, at any depth.
        """
        self._check_explicit()
        entry = self._entries.get(check_name(name))
        if entry is None:
            return
        wanted = entry.wanted
        self._sync(name, None)
        if members and wanted is not None:
            for member in sorted(dependents.names_of(wanted.files.config)):
                if not self._dependents.of(member):
                    self.unload(member, members=True)

    def replace(self, sources: Sequence[Source], *, labels_may_wait: bool = False) -> None:
        """Serves what these sources hold instead, or else what it did before.

        What is new is loaded first, beside what is served; only when all of it is there do labels
        move, and is unloaded what is no longer wanted.

        Args:
            sources: instead of those before.
            labels_may_wait: a new label may name a version that is not available yet.

        Raises:
            FailedPrecondition: a label names a version that is not available.
            LoadFailed: a model has no version that could be served, or a new one failed, and why.
        """
        with self._turn:
            found = {name: read(sources, name) for source in sources for name in source.names()}
            known = set(self._entries)
            before = {name: self._versions(name) for name in found}
            try:
                failures: list[str] = []
                with ThreadPoolExecutor(self._load_threads, "load") as pool:
                    for wave in dependents.order(found):
                        failures += pool.map(lambda name: self._add(name, found[name]), wave)
                if reasons := [reason for reason in failures if reason]:
                    raise LoadFailed("; ".join(reasons))
                for name, one in found.items():
                    self._check_labels(name, one.files, labels_may_wait)
            except BaseException:
                for name, versions in before.items():
                    self._go_back(name, versions)
                    if name not in known:
                        del self._entries[name]
                raise
            self._sources = sources
            for name, one in found.items():
                self._sync(name, one)
            for name in set(self._entries) - set(found):
                self._sync(name, None)

    def index(self) -> list[IndexEntry]:
        """Every model in the repository or loaded from it, with the state of each version."""
        lines: list[IndexEntry] = []
        asked_for = {*self._names(), *self._startup} - {"*"}
        for name in sorted({*asked_for, *self._entries}):
            entry = self._entries.get(name)
            states = self.states(name)
            # A name that is nowhere but in an ensemble is forgotten with the ensemble.
            if not states and (name in asked_for or self._dependents.of(name)):
                states = [IndexEntry(name, None, None, entry.error if entry else "")]
            lines += states
        return lines

    def states(self, name: str) -> list[IndexEntry]:
        """The states of a model's versions, without a look at the repository; unknown: none."""
        entry = self._entries.get(name)
        return entry.index() if entry else []

    def served(self) -> list[Served]:
        """All versions that take traffic, by name and version."""
        found = [s for e in list(self._entries.values()) for s in e.routing.by_version.values()]
        return sorted(found, key=lambda s: (s.metadata.name, s.metadata.version))

    def _find(self, ref: ModelRef) -> Served | int:
        """The version that is meant, or the number of one that was evicted."""
        entry = self._entries.get(ref.name)
        if entry is None:
            raise unknown_model(ref.name)
        routing = entry.routing
        version = ref.version
        if ref.label is not None:
            version = routing.labels.get(ref.label)
            if version is None:
                raise NotFound(f"model '{ref.name}' has no version label '{escape(ref.label)}'")
        served = routing.latest if version is None else routing.by_version.get(version)
        if served is not None:
            return served
        if version in routing.evicted or (version is None and routing.evicted):
            return version or max(routing.evicted)
        asked = f"'{ref.name}'" if version is None else f"'{ref.name}' version {version}"
        if version is None or any(v.version == version for v in entry.versions):
            raise Unavailable(f"Request for unknown model: {asked} is not at ready state")
        raise NotFound(f"Request for unknown model: {asked} is not found")

    def _check_explicit(self) -> None:
        if self._mode is not Mode.EXPLICIT:
            raise FailedPrecondition(
                "models are loaded and unloaded on request only with --model-control-mode explicit"
            )

    def _names(self) -> list[str]:
        return sorted({name for source in self._sources for name in source.names()})

    def _read(self, name: str, override: ModelConfig | None = None) -> Found:
        return read(self._sources, name, override)

    def _poll(self) -> None:
        while not self._stop.wait(self._poll_s):
            try:
                with self._turn:
                    present = self._names()
                    for name in present:
                        self._try_sync(name, self._try_read(name))
                    for name in set(self._entries) - set(present):
                        self._sync(name, None)
            except Exception:  # an unreachable bucket, say: what is served stays
                _log.exception("the model repository cannot be read; it is tried again")

    def _try_read(self, name: str) -> Found | None:
        """What a model's files ask for; ``None``, and a note of why, where they cannot be read."""
        try:
            return self._read(name)
        except CrossfadeError as error:
            self._entry(name).note(error.message)
        except Exception:  # its files cannot be read; the other models' can
            _log.exception("model not served", extra={"model": name})
        return None

    def _try_sync(self, name: str, found: Found | None) -> None:
        if found is None:
            return  # what is served stays
        try:
            self._sync(name, found)
        except CrossfadeError as error:
            self._entry(name).note(error.message)
        except Exception:
            _log.exception("model not served", extra={"model": name})

    def _with_members(self, names: Sequence[str]) -> dict[str, Found]:
        """What the files of these models ask for, and of all that are, at any depth, members."""
        found: dict[str, Found] = {}
        left = list(names)
        while left:
            name = left.pop(0)
            if name not in found and (one := self._try_read(name)) is not None:
                found[name] = one
                left += sorted(dependents.names_of(one.files.config))
        return found

    def _drop_stale(self, entry: Entry) -> None:
        """Unloads what was built for other members, though nothing may have come in its place."""
        live = [v for v in entry.versions if v.state is State.AVAILABLE and v.found is not None]
        kept = {v.key for v in live if self._dependents.is_current(v)}
        if len(kept) < len(live):
            self._transitions.step(entry, kept, None)

    def _follow(self, name: str) -> None:
        """Takes the ensembles that a model is a member of to what it is now."""
        for other, found in self._dependents.of(name):
            if other not in self._untried:
                self._try_sync(other, found)

    def _entry(self, name: str) -> Entry:
        with self._entries_lock:
            return self._entries.setdefault(name, Entry(name))

    def _versions(self, name: str) -> list[Version]:
        entry = self._entry(name)
        with entry.lock:
            return list(entry.versions)

    def _add(self, name: str, found: Found) -> str:
        """Loads what a model's files ask for beside what it has; returns what went wrong."""
        entry = self._entry(name)
        with entry.lock:
            if found.files.error is not None:
                return f"model {name}: {found.files.error}"
            found = self._dependents.bound(name, found)
            tried = {v.key for v in entry.versions if v.failed}
            wanted = mark(entry, found.files, False, labelled=False)
            if not wanted:
                return f"model {name}: there is no version to serve"
            self._transitions.step(entry, wanted, found, unload=False)
            failed = [v for v in entry.versions if v.failed and v.key not in tried]
            reasons = [f"version {v.version}: {v.reason}" for v in failed]
            return f"model {name}: {'; '.join(reasons)}" if reasons else ""

    def _check_labels(self, name: str, files: ModelFiles, may_wait: bool) -> None:
        entry = self._entry(name)
        live = entry.routing.by_version.keys() & files.versions.keys()
        for label, version in files.config.labels.items():
            is_free = entry.labels.get(label) in (None, version)
            if version not in live and not (may_wait and is_free):
                raise FailedPrecondition(
                    f"Request to assign label to version {version} of model {name}, which is not"
                    " currently available for inference"
                )

    def _go_back(self, name: str, before: list[Version]) -> None:
        """Unloads what has been added to these versions, and forgets what has failed."""
        entry = self._entry(name)
        with entry.lock:
            self._transitions.step(
                entry, {v.key for v in before if v.state is State.AVAILABLE or v.evicted}, None
            )
            added = [v for v in entry.versions if all(v is not old for old in before)]
            draining = [v for v in added if not v.failed and v.state is not State.START]
            entry.versions = before + draining

    def _sync(self, name: str, found: Found | None, retry: bool = False) -> list[str]:
        """Takes a model to what its files ask for (``None``: nothing); returns the failures."""
        entry = self._entry(name)
        self._untried.discard(name)
        with entry.lock:
            before = entry.routing
            entry.wanted = found
            failures = self._step(entry, found, retry)
            self._drop_stale(entry)
            now = entry.routing
        if (before.by_version, before.labels) != (now.by_version, now.labels):
            self._follow(name)
        return failures

    def _step(self, entry: Entry, found: Found | None, retry: bool) -> list[str]:
        if found is None:
            self._transitions.step(entry, set(), None)
            return []
        if found.files.error is not None:
            entry.note(found.files.error)
            return [entry.error]  # what is served stays
        try:
            found = self._dependents.bound(entry.name, found)
        except LoadFailed as error:
            entry.note(error.message)
            return [entry.error]
        entry.labels = found.files.config.labels
        wanted = mark(entry, found.files, retry)
        entry.note("" if wanted else "there is no version to serve")
        self._transitions.step(entry, wanted, found)
        failures = [f"version {v.version}: {v.reason}" for v in entry.versions if v.failed]
        return failures or ([entry.error] if entry.error else [])
