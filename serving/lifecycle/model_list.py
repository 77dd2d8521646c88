"""Keeps what is served in step with a list of models: a file, or what an administrator sends."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crossfade.runtimes.core.errors import CrossfadeError, FailedPrecondition, Unavailable
from crossfade.serving.lifecycle.manager import Manager
from crossfade.serving.repository import tf_model_list
from crossfade.serving.repository.layout import ModelFiles
from crossfade.serving.repository.places import PlacedSource, Settings
from crossfade.serving.wire import tf_model_server as wire

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class ModelListSettings:
    """What a server that serves a list of models is told at its start.

    Attributes:
        listed: the ``ModelServerConfig`` to begin with.
        defaults: fields of ``ModelConfig`` for what a model's folder does not say.
        file: where the list is looked for again; ``None`` is nowhere.
        file_poll_s: seconds between two looks at it.
        labels_may_wait: a new label may name a version that is not available yet.
    """

    listed: Any
    defaults: Callable[[ModelFiles], Settings]
    file: Path | None = None
    file_poll_s: float = 0.0
    labels_may_wait: bool = False


class ModelList:
    """The list that a manager follows. Thread-safe.

    Args:
        settings: what it begins with.
        cache: where remote versions are copied to; ``None`` is the user's cache folder.

    Raises:
        InvalidArgument: as ``tf_model_list.places``.
    """

    def __init__(self, settings: ModelListSettings, cache: Path | None = None) -> None:
        self._settings = settings
        self._cache = cache
        self._listed = settings.listed
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._follower: threading.Thread | None = None
        self._manager: Manager | None = None
        self.source = self._source(settings.listed)

    def follow(self, manager: Manager) -> None:
        """Has ``manager``, which serves ``source``, follow the list from now on."""
        self._manager = manager
        if self._settings.file and self._settings.file_poll_s > 0:
            self._follower = threading.Thread(target=self._poll, name="model-list", daemon=True)
            self._follower.start()

    def close(self) -> None:
        """Looks at the file no more."""
        self._stop.set()

    def replace(self, listed: Any) -> None:
        """Serves what another ``ModelServerConfig`` lists, as a whole or not at all.

        Raises:
            FailedPrecondition: a model's platform would change, or as ``Manager.replace``.
            InvalidArgument: as ``tf_model_list.places``.
            LoadFailed, NotFound: as ``Manager.replace``.
        Unavailable: the server is still loading the first list.
        """
        if self._manager is None:
            raise Unavailable("the server is still loading its models", retry_after_s=1.0)
        with self._lock:
            source = self._source(listed)
            before = tf_model_list.platforms(self._listed)
            for name, platform in tf_model_list.platforms(listed).items():
                if before.get(name, platform) != platform:
                    raise FailedPrecondition(
                        f"Illegal to change a model's platform. For model {name}: Attempting to"
                        f" change platform from {before[name]} to {platform}"
                    )
            self._manager.replace([source], labels_may_wait=self._settings.labels_may_wait)
            self._listed = listed
        _log.info("model list replaced", extra={"models": source.names()})

    def _source(self, listed: Any) -> PlacedSource:
        return PlacedSource(tf_model_list.places(listed), self._cache, self._settings.defaults)

    def _poll(self) -> None:
        said = ""
        while not self._stop.wait(self._settings.file_poll_s):
            try:
                assert self._settings.file is not None
                listed = tf_model_list.read_text(self._settings.file, wire.ModelServerConfig())
                if listed != self._listed:
                    self.replace(listed)
                said = ""
            except CrossfadeError as error:  # what is served stays; it is tried again
                if error.message != said:
                    _log.error("model list not taken", extra={"reason": error.message})
                said = error.message
            except Exception:
                _log.exception("model list not taken")
