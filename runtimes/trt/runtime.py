"""The runtime of platform ``tensorrt_plan`` and its session."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from crossfade.runtimes.checked_options import options_of
from crossfade.runtimes.core.errors import (
    CrossfadeError,
    Internal,
    InvalidArgument,
    LoadFailed,
    NotFound,
)
from crossfade.runtimes.core.model import DEFAULT_SIGNATURE, Artifact, Session, Signature, Tensors
from crossfade.runtimes.memory import give_back
from crossfade.runtimes.pool import Pool
from crossfade.runtimes.reason import one_line
from crossfade.runtimes.trt import engine as engines
from crossfade.runtimes.trt import failure
from crossfade.runtimes.trt.cuda import Cuda
from crossfade.runtimes.trt.instance import Instance
from crossfade.runtimes.trt.libraries import Libraries, find

if TYPE_CHECKING:
    from crossfade.runtimes.trt.options import TensorRtOptions

_log = logging.getLogger(__name__)
_MIB: Final = 1 << 20


class TensorRtRuntime:
    """Opens ``model.plan`` with TensorRT."""

    platform: ClassVar[str] = "tensorrt_plan"
    options: ClassVar[str] = "crossfade.runtimes.trt.options:TensorRtOptions"

    def __init__(self, libraries: Callable[[], Libraries] = find) -> None:
        self._libraries = libraries

    def estimate(self, artifact: Artifact) -> int:
        """The file twice, and 64 MiB for each context.

        A guess: the file does not say what its layers need to work, so ``load`` asks the engine
        and compares that with what is free on the GPU.
        """
        try:
            size = artifact.path.stat().st_size
        except OSError as error:
            raise LoadFailed(f"the engine's file cannot be read: {error.strerror}") from error
        return 2 * size + artifact.instances * 64 * _MIB

    def load(self, artifact: Artifact) -> Session:
        """See ``Runtime.load``."""
        options: TensorRtOptions = options_of(artifact.options, self.options)
        try:
            plan = artifact.path.read_bytes()
        except OSError as error:
            raise LoadFailed(f"the engine's file cannot be read: {error.strerror}") from error
        if not plan:
            raise LoadFailed("the engine's file is empty")
        libraries = self._libraries()
        cuda = Cuda(libraries.cuda, options.device_id)
        cuda.start()
        try:
            return _load(artifact, options, plan, libraries.trt, cuda)
        except CrossfadeError:
            raise
        except Exception as error:
            raise LoadFailed(
                f"TensorRT cannot load the engine: {one_line(error, artifact.path)}"
            ) from error


def _load(
    artifact: Artifact, options: TensorRtOptions, plan: bytes, trt: Any, cuda: Cuda
) -> Session:
    said = failure.Said(trt)
    runtime = trt.Runtime(said.logger)
    runtime.engine_host_code_allowed = options.trust_host_code
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise LoadFailed(failure.of_engine(said.take(), trt.__version__, cuda.capability()))
    layout = engines.read(engine, trt)
    needed = engines.memory_bytes(engine, layout, 0, artifact.instances)  # the weights are there
    free = cuda.free_bytes()
    _log.info(
        "memory on the GPU",
        extra={
            "model": artifact.name,
            "weights_mib": round(len(plan) / _MIB),
            "contexts": artifact.instances,
            "contexts_mib_at_most": round(needed / _MIB),
            "free_mib": round(free / _MIB),
        },
    )
    if needed > free:
        raise LoadFailed(
            f"{artifact.instances} instances need up to {needed // _MIB} MiB on the GPU, "
            f"{free // _MIB} MiB are free: lower 'instances'"
        )
    instances: list[Instance] = []
    try:
        for _ in range(artifact.instances):
            instances.append(Instance(engine, layout, cuda, said, options.cuda_graphs))
    except BaseException:
        for instance in instances:
            instance.close()
        raise
    return TensorRtSession(runtime, engine, layout, instances)


class TensorRtSession:
    """Contexts of one engine, each used by one thread at a time; others wait their turn.

    Attributes:
        max_rows: rows of the largest batch that the engine was built for.
    """

    def __init__(
        self, runtime: Any, engine: Any, layout: engines.Layout, instances: Sequence[Instance]
    ) -> None:
        offered = layout.signature()
        self.signatures: Mapping[str, Signature] = {DEFAULT_SIGNATURE: offered}
        if offered.batched:
            self.max_rows = layout.max_rows()
        self._specs = {slot.name: slot for slot in layout.inputs}
        self._outputs = [slot.name for slot in layout.outputs]
        self._instances = list(instances)
        self._pool = Pool(instances)
        # The engine must outlive its contexts, the runtime its engine.
        self._held = [runtime, engine]

    def run(self, inputs: Tensors, signature: str, outputs: Sequence[str]) -> Tensors:
        """See ``Session.run``."""
        if signature != DEFAULT_SIGNATURE:
            raise NotFound(f"an engine has one signature, {DEFAULT_SIGNATURE}")
        if inputs.keys() != self._specs.keys():
            raise InvalidArgument(f"inputs must be {', '.join(self._specs)}")
        if unknown := [name for name in outputs if name not in self._outputs]:
            raise InvalidArgument(f"the model has no output '{unknown[0]}'")
        for name, slot in self._specs.items():
            if inputs[name].dtype != slot.numpy:
                raise InvalidArgument(f"input '{name}' must be {slot.dtype}")
        instance = self._pool.take()
        try:
            results = instance.run(inputs)
        except CrossfadeError:
            raise
        except Exception as error:
            raise Internal.hide(error, _log, "a TensorRT run") from error
        finally:
            self._pool.give(instance)
        return {name: results[name] for name in outputs or self._outputs}

    def close(self) -> None:
        """See ``Session.close``."""
        del self._pool
        for instance in self._instances:
            instance.close()
        self._instances.clear()
        while self._held:
            self._held.pop()
        give_back()
