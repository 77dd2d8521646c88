"""How a server of a configuration loads its models."""

from __future__ import annotations

import logging

from crossfade.runtimes.isolated.probe import Probe
from crossfade.serving.config.server_config import ServerConfig
from crossfade.serving.lifecycle.loader import Loading
from crossfade.serving.repository.folders import cache_folder

_log = logging.getLogger(__name__)


def loading(config: ServerConfig) -> Loading:
    """What of a configuration loading depends on."""
    return Loading(_probe(config) if config.probe == "auto" else None, config.environments_dir)


def _probe(config: ServerConfig) -> Probe:
    try:
        return Probe(cache_folder(config.cache) / "tried")
    except RuntimeError:  # a container whose user has no home
        _log.warning("files are tried at each start: there is no home to remember them in; --cache")
        return Probe(None)
