"""What is known of models, as the protocol's messages; gRPC sends them, HTTP turns them to JSON."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from typing import Any, Final

from crossfade.runtimes import registry
from crossfade.runtimes.core.errors import InvalidArgument, NotFound, Unimplemented, escape
from crossfade.runtimes.core.model import ModelRef, Signature, TensorSpec
from crossfade.serving.config.ensemble_config import Pipeline
from crossfade.serving.dataplane.door import DataPlane
from crossfade.serving.frontends.open_inference.infer_codec import version_of
from crossfade.serving.lifecycle.policies import State
from crossfade.serving.lifecycle.served import Served
from crossfade.serving.lifecycle.versions import IndexEntry
from crossfade.serving.metrics.statistics import Statistics
from crossfade.serving.repository import triton_sequences
from crossfade.serving.repository.triton_dtypes import WIRE_DTYPES
from crossfade.serving.wire import model_config as config_wire
from crossfade.serving.wire import open_inference as wire

# What of Triton's extensions is implemented; nothing else is advertised.
EXTENSIONS: Final = (
    "binary_tensor_data",
    "classification",
    "logging",
    "model_repository",
    "model_configuration",
    "parameters",
    "sequence",
    "statistics",
)
_INDEX_STATE: Final = {
    State.START: "LOADING",
    State.LOADING: "LOADING",
    State.AVAILABLE: "READY",
    State.UNLOADING: "UNLOADING",
    State.END: "UNAVAILABLE",
}


class Describe:
    """Answers the questions about the server and its models. Thread-safe."""

    def __init__(
        self, plane: DataPlane, server_name: str, extensions: Sequence[str] = EXTENSIONS
    ) -> None:
        self._plane = plane
        self._extensions = extensions
        self._server_name = server_name

    def server(self) -> Any:
        """The ``ServerMetadataResponse``."""
        return wire.ServerMetadataResponse(
            name=self._server_name,
            version=importlib.metadata.version("crossfade"),
            extensions=self._extensions,
        )

    def signature(self, ref: ModelRef) -> Signature:
        """The signature that requests are for; raises as ``Resolver.lease`` does."""
        served = self._plane.facts(ref)
        return served.metadata.signatures[served.default_signature]

    def metadata(self, name: str, version: str) -> Any:
        """The ``ModelMetadataResponse``; raises as ``Resolver.lease`` does."""
        served = self._plane.facts(ModelRef(name, version_of(version)))
        signature = served.metadata.signatures[served.default_signature]
        versions = [str(s.metadata.version) for s in self._of(name)]
        return wire.ModelMetadataResponse(
            name=name,
            versions=[str(served.metadata.version)] if version else versions,
            platform=served.metadata.platform,
            inputs=[_tensor(spec) for spec in signature.inputs],
            outputs=[_tensor(spec) for spec in signature.outputs],
        )

    def config(self, name: str, version: str) -> Any:
        """The ``ModelConfigResponse``: the configuration, completed from the model."""
        served = self._plane.facts(ModelRef(name, version_of(version)))
        metadata, config = served.metadata, served.config
        entry = registry.entries().get(metadata.platform)  # none of an ensemble's
        signature = metadata.signatures[served.default_signature]
        limit = metadata.max_batch_size if signature.batched else 0
        message = config_wire.ModelConfig(
            name=name,
            platform=metadata.platform,
            backend=entry.backend if entry else "",
            max_batch_size=limit,
            default_model_filename=config.default_filename or "",
        )
        _fill_policy(message.version_policy, config.version_policy)
        _fill_tensors(message, served, signature, skip=1 if limit else 0)
        queue = served.queue
        if config.sequence is not None:
            triton_sequences.write(config.sequence, message.sequence_batching, queue.max_rows)
        elif queue.max_rows > 1:
            message.dynamic_batching.preferred_batch_size.append(queue.max_rows)
            message.dynamic_batching.max_queue_delay_microseconds = round(queue.max_delay_s * 1e6)
        if served.fusion is not None:
            message.parameters["fusion"].string_value = str(served.fusion.state)
        if config.cache is not None:
            message.response_cache.enable = True
        if config.decoupled:
            message.model_transaction_policy.decoupled = True
        if entry:
            message.instance_group.add(
                name=name, count=queue.instances, kind=config_wire.ModelInstanceGroup.KIND_CPU
            )
        if isinstance(config.ensemble, Pipeline):
            _fill_steps(message.ensemble_scheduling, config.ensemble)
        return wire.ModelConfigResponse(config=message)

    def statistics(self, name: str, version: str) -> Any:
        """The ``ModelStatisticsResponse`` of one model, one version, or of all (no name).

        Raises:
            InvalidArgument: the model or version is not served (Triton answers so).
        """
        number = version_of(version)
        found = self._of(name) if name else self._plane.manager.served()
        found = [s for s in found if number in (None, s.metadata.version)]
        if name and not found:
            raise InvalidArgument(
                f"requested model '{escape(name)}' is not available: it is unknown or not ready"
            )
        return wire.ModelStatisticsResponse(model_stats=[_statistics(s) for s in found])

    def index(self, repository: str, ready_only: bool) -> Any:
        """The ``RepositoryIndexResponse``; raises Unimplemented if a repository is named."""
        if repository:
            raise Unimplemented("'repository_name' specification is not supported")
        lines = self._plane.manager.index()
        response = wire.RepositoryIndexResponse()
        for line in lines:
            if not ready_only or line.state is State.AVAILABLE:
                _add_line(response, line)
        return response

    def ready(self, name: str, version: str) -> bool:
        """Whether a model could answer now; an unknown one is not ready."""
        try:
            return self._plane.model_ready(ModelRef(name, version_of(version)))
        except NotFound:
            return False

    def _of(self, name: str) -> list[Served]:
        return [s for s in self._plane.manager.served() if s.metadata.name == name]


def _tensor(spec: TensorSpec) -> Any:
    return wire.ModelMetadataResponse.TensorMetadata(
        name=spec.name, datatype=spec.dtype, shape=spec.shape if spec.shape is not None else [-1]
    )


def _fill_policy(message: Any, policy: Any) -> None:
    if policy.all:
        message.all.SetInParent()
    elif policy.specific is not None:
        message.specific.versions.extend(policy.specific)
    else:
        message.latest.num_versions = policy.latest or 1


def _fill_steps(message: Any, pipeline: Pipeline) -> None:
    for step in pipeline.steps:
        message.step.add(
            model_name=step.model,
            model_version=step.version or -1,
            input_map=step.inputs,
            output_map=step.outputs,
        )


def _fill_tensors(message: Any, served: Served, signature: Signature, skip: int) -> None:
    files = {out.name: out.labels_file or "" for out in served.config.outputs}
    for spec in signature.inputs:
        dims = (spec.shape or ())[skip:]
        message.input.add(
            name=spec.name, data_type=WIRE_DTYPES[spec.dtype], dims=dims, optional=spec.optional
        )
    for spec in signature.outputs:
        message.output.add(
            name=spec.name,
            data_type=WIRE_DTYPES[spec.dtype],
            dims=(spec.shape or ())[skip:],
            label_filename=files.get(spec.name, ""),
        )


def _statistics(served: Served) -> Any:
    counts: Statistics = served.statistics
    runs: Sequence[tuple[int, tuple[int, int]]] = sorted(counts.runs.copy().items())
    message = wire.ModelStatistics(
        name=served.metadata.name,
        version=str(served.metadata.version),
        last_inference=counts.last_ns // 1_000_000,
        inference_count=counts.rows - counts.cache.rows,
        execution_count=sum(count for _, (count, _) in runs),
    )
    message.memory_usage.add(type="CPU", byte_size=served.memory_bytes)
    stats = message.inference_stats
    success = counts.success
    stats.success.count, stats.success.ns = success, counts.success_ns
    stats.fail.count, stats.fail.ns = sum(counts.failure.values()), counts.failure_ns
    stats.queue.count, stats.queue.ns = success, counts.queue_ns
    stats.compute_infer.count, stats.compute_infer.ns = success, counts.infer_ns
    stats.compute_input.count, stats.compute_input.ns = success, counts.input_ns
    stats.compute_output.count, stats.compute_output.ns = success, counts.output_ns
    stats.cache_hit.count, stats.cache_hit.ns = counts.cache.hits, counts.cache.hit_ns
    stats.cache_miss.count, stats.cache_miss.ns = counts.cache.misses, counts.cache.miss_ns
    for rows, (count, total_ns) in runs:
        line = message.batch_stats.add(batch_size=rows)
        line.compute_infer.count, line.compute_infer.ns = count, total_ns
        line.compute_input.count = line.compute_output.count = count
    return message


def _add_line(response: Any, line: IndexEntry) -> None:
    response.models.add(
        name=line.name,
        version="" if line.version is None else str(line.version),
        state=_INDEX_STATE[line.state] if line.state else "UNAVAILABLE" if line.reason else "",
        reason=line.reason,
    )
