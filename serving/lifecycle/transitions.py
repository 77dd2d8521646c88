"""Loads and unloads versions, and makes room for them."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable, Sequence

from crossfade.runtimes import memory
from crossfade.runtimes.core.errors import CrossfadeError, Internal, LoadFailed, ResourceExhausted
from crossfade.serving.lifecycle import loader
from crossfade.serving.lifecycle.loader import Loading
from crossfade.serving.lifecycle.memory_budget import MemoryBudget
from crossfade.serving.lifecycle.memory_policy import Holding
from crossfade.serving.lifecycle.policies import State, next_action
from crossfade.serving.lifecycle.revivals import Revivals
from crossfade.serving.lifecycle.served import Served
from crossfade.serving.lifecycle.versions import Entry, Found, Key, Version, snapshots

_log = logging.getLogger(__name__)


class Transitions:
    """Takes versions from one state to the next. The lock of an entry is held by the caller.

    Args:
        entry: finds a model's by its name.
        live: all versions that take traffic.
        loading: how.
        memory_bytes: what all models may take together; ``None`` is no limit.
        evicts: whether models that nobody uses make room for others.
    """

    def __init__(
        self,
        entry: Callable[[str], Entry],
        live: Callable[[], Sequence[Served]],
        loading: Loading,
        memory_bytes: int | None,
        evicts: bool,
    ) -> None:
        self._entry = entry
        self._live = live
        self._loading = loading
        self.memory = MemoryBudget(memory_bytes, evicts, self._holdings, self._evict)
        self.revivals = Revivals(self._revive)

    def step(
        self, entry: Entry, wanted: set[Key], found: Found | None, unload: bool = True
    ) -> None:
        """Loads and unloads until the model's versions are those wanted."""
        for one in entry.versions:
            if one.evicted and one.key not in wanted:
                one.evicted, one.reason = None, "unloaded"
        while action := next_action(snapshots(entry, wanted)):
            before = State.START if action.kind == "load" else State.AVAILABLE
            key = (action.version, action.fingerprint)
            version = next(v for v in entry.versions if v.key == key and v.state is before)
            if found is not None and action.kind == "load":
                self._load(entry, version, found)
            elif unload:
                self._unload(entry, version)
            else:
                break
        entry.route()

    def _load(self, entry: Entry, version: Version, found: Found) -> None:
        version.state = State.LOADING
        files = found.files
        no_room = False
        log = {"model": files.name, "version": version.version}
        try:
            version_files = files.versions[version.version]
            folder = found.source.fetch(files, version_files)
            needed_bytes = loader.estimate(files, version_files, folder)
            with self.memory.room(files.name, needed_bytes):
                served = loader.load(files, version_files, folder, self._loading)
            served.memory_bytes = needed_bytes
            version.served, version.found, version.evicted = served, found, None
            version.metadata = served.metadata
        except ResourceExhausted as error:
            version.reason, no_room = error.message, True
        except CrossfadeError as error:
            version.reason = error.message
        except Exception as error:
            version.reason = Internal.hide(error, _log, f"fetching {files.name}").message
        if version.served is None:
            # One that was evicted is tried again with the next request, as others may go then.
            again = version.evicted is not None and no_room
            version.state, version.failed = State.END, not again
            if not again:
                version.evicted = None
            _log.error("load failed", extra={**log, "reason": version.reason})
            return
        version.state, version.reason = State.AVAILABLE, ""
        entry.route()
        _log.info("loaded", extra=log)

    def _holdings(self) -> list[Holding]:
        return [
            Holding(
                (s.metadata.name, s.metadata.version),
                s.memory_bytes,
                s.last_used_ns,
                s.idle and s.config.sequence is None,  # else its callers' states would go
            )
            for s in self._live()
        ]

    def _evict(self, key: tuple[str, int], reason: str) -> bool:
        """Unloads a version that nobody uses; it is loaded again on request."""
        entry = self._entry(key[0])
        # Never waited for: whoever holds it may be waiting for memory, too.
        if not entry.lock.acquire(blocking=False):
            return False
        try:
            live = (v for v in entry.versions if v.version == key[1] and v.served)
            version = next(live, None)
            if version is None or (served := version.served) is None:
                return False
            # First nobody finds it, who would then ask it in vain for a lease.
            version.state, version.evicted = State.END, version.found
            version.served = None
            entry.route()
            if not served.retire_idle():
                version.state, version.evicted = State.AVAILABLE, None
                version.served = served
                entry.route()
                return False
            version.reason = reason
        finally:
            entry.lock.release()
        self.memory.give_back(served.memory_bytes)
        gc.collect()
        memory.give_back()
        return True

    def _revive(self, name: str, number: int) -> None:
        entry = self._entry(name)
        with entry.lock:
            version = next((v for v in entry.versions if v.evicted and v.version == number), None)
            if version is None or version.evicted is None:
                return  # it is there again, or gone for good: the caller looks again
            self._load(entry, version, version.evicted)
            entry.route()
            if version.served is None:
                if version.failed:
                    raise LoadFailed(f"the model could not be loaded again: {version.reason}")
                raise ResourceExhausted(version.reason, retry_after_s=1.0)

    def _unload(self, entry: Entry, version: Version) -> None:
        version.state = State.UNLOADING
        entry.route()
        served, version.served = version.served, None

        def drain() -> None:
            if served is not None:
                served.retire()
                served.wait_closed()
                self.memory.give_back(served.memory_bytes)
            version.state, version.reason = State.END, "unloaded"
            gc.collect()
            memory.give_back()
            _log.info("unloaded", extra={"model": entry.name, "version": version.version})

        threading.Thread(target=drain, name="drain", daemon=True).start()
