"""Makes a version that can take traffic of a version's files: load, declare, stack, warm up."""

from __future__ import annotations

import dataclasses
import logging
import os
from pathlib import Path
from typing import Final

from crossfade.ensemble.adaptive import Open
from crossfade.runtimes import registry
from crossfade.runtimes.core.errors import CrossfadeError, Internal, LoadFailed, escape
from crossfade.runtimes.core.model import (
    Artifact,
    Model,
    ModelMetadata,
    Session,
    StreamingSession,
)
from crossfade.runtimes.isolated import environments
from crossfade.runtimes.isolated import runtime as isolated
from crossfade.runtimes.isolated.probe import Probe
from crossfade.runtimes.isolated.session import IsolatedSession
from crossfade.serving.batching.decoupled import Decoupled
from crossfade.serving.batching.leaf import Leaf
from crossfade.serving.batching.response_cache import Cached
from crossfade.serving.batching.scheduler import Scheduled
from crossfade.serving.batching.sequences import Sequenced
from crossfade.serving.config.model_config import Isolation, ModelConfig
from crossfade.serving.lifecycle import labels
from crossfade.serving.lifecycle.declared import declare
from crossfade.serving.lifecycle.ensembles import Ensembles
from crossfade.serving.lifecycle.origin import Origin
from crossfade.serving.lifecycle.served import Served
from crossfade.serving.lifecycle.warming import set_batching, warm_up
from crossfade.serving.metrics.statistics import Measured, Statistics
from crossfade.serving.repository.layout import ModelFiles, VersionFiles

_log = logging.getLogger(__name__)
# Rows that a request may have where the configuration does not say; larger ones are a mistake.
_DERIVED_MAX_BATCH = 4096
# Characters: gRPC sends messages as headers, which have a limit.
_MAX_REASON = 800
# Runs of a model that runs somewhere else: they wait, and take no core.
_INDIRECT_RUNS = 64


@dataclasses.dataclass(frozen=True, slots=True)
class Loading:
    """How a server loads.

    Attributes:
        probe: tries new files in another process first; ``None`` does not.
        environments: the folder of those for isolated models; ``None`` is the user's.
        ensembles: builds those.
        adapt: has ensembles' weights follow feedback; ``None`` without a place to keep that.
    """

    probe: Probe | None = None
    environments: Path | None = None
    ensembles: Ensembles | None = None
    adapt: Open | None = None


PLAIN: Final = Loading()


def load(
    model: ModelFiles, version: VersionFiles, folder: Path, loading: Loading = PLAIN
) -> Served:
    """Loads one version and warms it up.

    Args:
        model: the model's folder, as it was read.
        version: which of its versions.
        folder: where the version's files are on the local disk.
        loading: how.

    Raises:
        LoadFailed: with the reason, which holds no path.
        MissingExtra: the platform's library is not installed.
    """
    try:
        return _load(model, version, folder, loading)
    except CrossfadeError as error:
        error.message = _presentable(error.message.replace(str(folder), model.name))
        raise
    except Exception as error:
        raise Internal.hide(error, _log, f"loading {model.name}") from error


def _presentable(reason: str) -> str:
    """Bounds and escapes a reason: names in it may come from a file or from a client."""
    text = "".join(c if c.isascii() and c.isprintable() else escape(c) for c in reason)
    return text if len(text) <= _MAX_REASON else f"{text[:_MAX_REASON]}..."


def estimate(model: ModelFiles, version: VersionFiles, folder: Path) -> int:
    """Bytes of memory that a version takes at most; 0 where that cannot be said, nor loaded."""
    if model.config.ensemble is not None:
        return 0
    cached_bytes = model.config.cache.max_bytes if model.config.cache else 0
    try:
        platform, artifact = _artifact(model, version, folder)
        return registry.create(platform).estimate(artifact) + cached_bytes
    except (CrossfadeError, OSError):
        return 0


def _artifact(model: ModelFiles, version: VersionFiles, folder: Path) -> tuple[str, Artifact]:
    config = model.config
    platform, path = find_artifact(config, folder)
    cores = len(os.sched_getaffinity(0))
    instances = config.instances or (_INDIRECT_RUNS if registry.is_indirect(platform) else cores)
    return platform, Artifact(path, model.name, version.version, instances, config.options)


def _open(config: ModelConfig, platform: str, artifact: Artifact, loading: Loading) -> Session:
    """Loads in a worker process or, what is known not to crash, in this one."""
    where = config.isolation
    if where is not None and where.process:
        if registry.is_indirect(platform):
            raise LoadFailed(
                f"isolation: a model of platform '{platform}' runs in another server already, so"
                " that there is nothing to isolate; remove isolation"
            )
        python = interpreter(where, loading.environments)
        limits = isolated.Limits(
            where.memory_limit_bytes, where.load_timeout_s, where.run_timeout_s
        )
        return isolated.load(platform, artifact, limits, python)
    if loading.probe is not None:
        loading.probe.check(platform, artifact)
    return registry.create(platform).load(artifact)


def interpreter(where: Isolation, folder: Path | None = None) -> Path | None:
    """The Python that an isolated model asks for; ``None`` is the server's own.

    Args:
        where: how the model is isolated.
        folder: of environments; ``None`` is the user's.

    Raises:
        LoadFailed: there is no such environment.
    """
    if where.environment:
        return environments.interpreter(where.environment, folder)
    return Path(where.python) if where.python else None


def _load(model: ModelFiles, version: VersionFiles, folder: Path, loading: Loading) -> Served:
    config = model.config
    if config.ensemble is not None and loading.ensembles is not None:
        return loading.ensembles.load(model, version, folder)
    platform, artifact = _artifact(model, version, folder)
    indirect = registry.is_indirect(platform)
    loaded = _open(config, platform, artifact, loading)
    instances = getattr(loaded, "instances", artifact.instances)
    try:
        if config.decoupled and not isinstance(loaded, StreamingSession):
            raise LoadFailed(
                f"platform '{platform}' gives one response to a request; remove decoupled"
            )
        session = declare(loaded, config)
        metadata = _metadata(model, version, folder, platform, session)
        metadata = dataclasses.replace(
            metadata,
            nodes=getattr(loaded, "nodes", {}),
            quantization=getattr(loaded, "quantization", {}),
            max_batch_size=min(
                metadata.max_batch_size, getattr(loaded, "max_rows", metadata.max_batch_size)
            ),
        )
        statistics = Statistics()
        leaf = Leaf(session, metadata)
        scheduled = Scheduled(
            leaf, statistics, instances=instances, queue=config.queue, indirect=indirect
        )
        if config.decoupled:
            assert isinstance(session, StreamingSession)
            decoupled = Decoupled(session, metadata, statistics)
            measured = Measured(decoupled, statistics)
            return Served(measured, statistics, config, scheduled, streaming=decoupled)
        model_inside: Model = scheduled
        if config.sequence is not None:
            model_inside = Sequenced(scheduled, config.sequence)
        around = None
        if (config.preprocess, config.postprocess, config.table) != (None, None, None):
            from crossfade.serving.processing.build import around as process  # imports Pillow

            stored = getattr(loaded, "quantization", {})
            names = labels.names(model, folder)
            around = process(model_inside.metadata, config, stored, names, folder)
        warm: Model = leaf
        if around is not None:
            model_inside = around(model_inside)
            if config.warmup and config.sequence is None:
                warm = around(leaf)
        if config.warmup or not indirect:
            warm_up(warm, config.warmup, folder)
        if config.batching or not indirect:
            set_batching(scheduled, leaf, config)
    except BaseException:
        loaded.close()
        raise
    cached = None
    if config.cache is not None:
        model_inside = cached = Cached(model_inside, config.cache, statistics)
    return Served(
        Measured(model_inside, statistics),
        statistics,
        config,
        scheduled,
        cache=cached.store if cached else None,
        origin=Origin(platform, artifact, leaf, around, folder),
        worker=loaded if isinstance(loaded, IsolatedSession) else None,
        processes=around is not None,
    )


def find_artifact(config: ModelConfig, folder: Path) -> tuple[str, Path]:
    """Finds the platform of a version's folder and the path that its runtime opens.

    Raises:
        LoadFailed: nothing in the folder can be opened; the message lists what could be.
    """
    if config.default_filename is not None:
        name = config.default_filename
        path = folder / name
        if not path.exists():
            raise LoadFailed(f"the version's folder has no '{name}'")
        opened = folder if name.startswith("saved_model.pb") else path
        if config.platform:
            return registry.resolve(config.platform), opened
        name += "/" * path.is_dir()
        for platform, entry in registry.entries().items():
            if entry.opens(name):
                return platform, opened
        raise LoadFailed(f"no platform is known to open '{name}'; set platform")
    wanted = registry.resolve(config.platform) if config.platform else None
    found = registry.detect(folder, wanted)
    if found is None and wanted and registry.is_indirect(wanted):
        return wanted, folder
    if found is None:
        entries = registry.entries()
        patterns = (
            entries[wanted].patterns
            if wanted
            else [p for entry in entries.values() for p in entry.patterns]
        )
        raise LoadFailed(
            f"the version's folder holds no model: expected one of {', '.join(patterns)}"
        )
    return found


def _metadata(
    model: ModelFiles, version: VersionFiles, folder: Path, platform: str, session: Session
) -> ModelMetadata:
    signatures = dict(session.signatures)
    limit = model.config.max_batch_size
    if limit == 0:
        signatures = {n: dataclasses.replace(s, batched=False) for n, s in signatures.items()}
    batched = any(signature.batched for signature in signatures.values())
    return ModelMetadata(
        model.name,
        version.version,
        platform,
        signatures,
        labels.of(model, folder, signatures),
        (_DERIVED_MAX_BATCH if limit is None else limit) if batched else 0,
    )
