"""How a server of a configuration loads its models."""

from __future__ import annotations

from crossfade.runtimes.isolated.probe import Probe
from crossfade.serving.config.server_config import ServerConfig
from crossfade.serving.lifecycle.loader import Loading
from crossfade.serving.repository.folders import cache_folder


def loading(config: ServerConfig) -> Loading:
    """What of a configuration loading depends on."""
    probe = Probe(cache_folder(config.cache) / "tried") if config.probe == "auto" else None
    return Loading(probe, config.environments_dir)
