"""One execution context with a stream and buffers of its own: one run at a time.

What a run queues: inputs from page-locked memory to the device, the engine, outputs back. Shapes
and addresses are told to the context only when they change; a run with the last one's shapes can
be recorded as a CUDA graph and replayed. A recording holds addresses and the context's state, so
that there is one at most, for the shapes that are set.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from crossfade.runtimes.core.errors import LoadFailed, ResourceExhausted, Unimplemented
from crossfade.runtimes.core.model import Tensor, Tensors
from crossfade.runtimes.trt.cuda import Buffer, Cuda, CudaError, Stream
from crossfade.runtimes.trt.engine import Layout
from crossfade.runtimes.trt.failure import Said, reason
from crossfade.runtimes.trt.shapes import Shape, choose, size_bytes

_log = logging.getLogger(__name__)


class RunFailed(RuntimeError):
    """TensorRT refused a step; the text is for the log."""


class Instance:
    """An execution context. Not thread-safe."""

    def __init__(self, engine: Any, layout: Layout, cuda: Cuda, said: Said, graphs: bool) -> None:
        self._cuda, self._said, self._layout = cuda, said, layout
        self._context = engine.create_execution_context()
        if self._context is None:
            raise LoadFailed(
                f"no execution context can be made (too little GPU memory?): {reason(said.take())}"
            )
        self._stream = Stream(cuda)
        self._buffers = {s.name: Buffer(cuda) for s in (*layout.inputs, *layout.outputs)}
        self._profile = 0  # what a new context has
        self._set_for: Mapping[str, Shape] = {}  # the inputs' shapes that the context knows
        self._shapes: Mapping[str, Shape] = {}
        self._sizes: dict[str, int] = {}
        self._graphs = graphs
        self._recording: Any = None
        self._runs = 0  # with the shapes that are set

    def run(self, inputs: Tensors) -> dict[str, Tensor]:
        """Runs once; the arrays returned are copies.

        Raises:
            InvalidArgument: no profile takes these shapes; nothing was touched.
            ResourceExhausted: the device has no memory for these sizes.
            RunFailed, CudaError: anything else.
        """
        self._cuda.use()
        wanted = {slot.name: inputs[slot.name].shape for slot in self._layout.inputs}
        if wanted != self._set_for:
            profile = choose(self._layout.profiles, wanted)
            self._set_for = {}  # what was set half-way is set again by the next run
            self._set(wanted, profile)
            self._set_for = wanted
        for slot in self._layout.inputs:
            array = self._buffers[slot.name].array(self._shapes[slot.name], slot.numpy)
            np.copyto(array, inputs[slot.name], casting="no")
        try:
            self._go()
            self._stream.wait()
        except BaseException:
            self._set_for = {}
            raise
        return {
            slot.name: self._buffers[slot.name].array(self._shapes[slot.name], slot.numpy).copy()
            for slot in self._layout.outputs
        }

    def _set(self, wanted: Mapping[str, Shape], profile: int) -> None:
        self._forget()
        context, stream = self._context, self._stream
        if profile != self._profile:
            self._must(context.set_optimization_profile_async(profile, stream.handle), "profile")
            stream.wait()
            self._profile = profile
        for name, shape in wanted.items():
            self._must(context.set_input_shape(name, shape), f"shape of '{name}'")
        if missing := context.infer_shapes():
            raise RunFailed(f"shapes are not known for {', '.join(missing)}")
        shapes = dict(wanted)
        for slot in self._layout.outputs:
            dims = context.get_tensor_shape(slot.name)
            shapes[slot.name] = tuple(int(dims[at]) for at in range(len(dims)))
            if -1 in shapes[slot.name]:
                raise Unimplemented(
                    f"the shape of '{slot.name}' depends on values, which is not served"
                )
        for slot in (*self._layout.inputs, *self._layout.outputs):
            shape, buffer = shapes[slot.name], self._buffers[slot.name]
            self._sizes[slot.name] = int(np.prod(shape, dtype=np.int64)) * slot.numpy.itemsize
            if buffer.reserve(size_bytes(shape, slot.numpy.itemsize, slot.name)):
                self._must(
                    context.set_tensor_address(slot.name, buffer.device),
                    f"address of '{slot.name}'",
                )
        self._shapes, self._runs = shapes, 0

    def _go(self) -> None:
        """Queues a run; the second one with the same shapes is recorded, later ones replayed."""
        self._runs += 1
        if self._recording is None and self._graphs and self._runs > 1:
            self._record()
        if self._recording is not None:
            self._stream.replay(self._recording)
        else:
            self._queue()

    def _record(self) -> None:
        self._stream.begin()
        try:
            try:
                self._queue()
            finally:
                self._recording = self._stream.end()
        except (CudaError, RunFailed) as error:
            self._forget()
            self._graphs = False
            _log.warning("the engine cannot be recorded as a CUDA graph: %s", error)

    def _queue(self) -> None:
        handle = self._stream.handle
        for slot in self._layout.inputs:
            self._buffers[slot.name].to_device(self._sizes[slot.name], handle)
        self._must(self._context.execute_async_v3(handle), "execution")
        for slot in self._layout.outputs:
            self._buffers[slot.name].to_host(self._sizes[slot.name], handle)

    def _must(self, done: bool, what: str) -> None:
        if not done:
            errors = self._said.take()
            if any("out of memory" in error.lower() for error in errors):
                raise ResourceExhausted("there is not enough memory for a run of these sizes")
            raise RunFailed(f"{what}: {reason(errors) or 'TensorRT gives no reason'}")

    def _forget(self) -> None:
        recording, self._recording = self._recording, None
        if recording is not None:
            self._stream.forget(recording)

    def close(self) -> None:
        """Gives the context, the buffers and the stream back."""
        self._cuda.use()
        self._forget()
        del self._context
        for buffer in self._buffers.values():
            buffer.free()
        self._stream.close()
