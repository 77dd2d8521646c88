"""The little of CUDA's runtime that an engine needs, over NVIDIA's ``cuda-bindings``.

Every call of theirs returns a tuple that leads with an error code. Not thread-safe per object:
one instance owns its stream and its buffers. The device is set for each thread that runs.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

import numpy as np

from crossfade.runtimes.core.errors import LoadFailed, ResourceExhausted
from crossfade.runtimes.core.model import Tensor

_NON_BLOCKING: Final = 1  # cudaStreamNonBlocking


class CudaError(RuntimeError):
    """A call failed; the text has CUDA's name of the error."""


class Cuda:
    """CUDA's runtime on one device."""

    def __init__(self, runtime: Any, device_id: int) -> None:
        self.runtime = runtime
        self.device_id = device_id

    def check(self, answer: tuple[Any, ...]) -> Any:
        """Returns what a call answered besides its code: nothing, a value or a tuple.

        Raises:
            ResourceExhausted: the device has no memory for it.
            CudaError: anything else.
        """
        code, *values = answer
        if code == self.runtime.cudaError_t.cudaErrorMemoryAllocation:
            # The error is not sticky, but it would be found by whoever asks next.
            self.runtime.cudaGetLastError()
            raise ResourceExhausted("there is not enough memory for a run of these sizes")
        if code != self.runtime.cudaError_t.cudaSuccess:
            raise CudaError(getattr(code, "name", str(code)))
        return values[0] if len(values) == 1 else tuple(values) or None

    def use(self) -> None:
        """Makes the device this thread's; cheap, and nothing where it is already."""
        self.check(self.runtime.cudaSetDevice(self.device_id))

    def start(self) -> None:
        """Looks for the device.

        Raises:
            LoadFailed: there is no driver, no GPU or not that one.
        """
        try:
            count = self.check(self.runtime.cudaGetDeviceCount())
        except CudaError as error:
            raise LoadFailed(
                f"there is no usable NVIDIA GPU ({error}): check the driver with nvidia-smi"
            ) from error
        if self.device_id >= count:
            raise LoadFailed(f"there is no GPU {self.device_id}; this machine has {count}")
        self.use()

    def capability(self) -> tuple[int, int]:
        """The device's compute capability, such as (9, 0)."""
        names = self.runtime.cudaDeviceAttr
        asked = (names.cudaDevAttrComputeCapabilityMajor, names.cudaDevAttrComputeCapabilityMinor)
        major, minor = (
            self.check(self.runtime.cudaDeviceGetAttribute(name, self.device_id)) for name in asked
        )
        return int(major), int(minor)

    def free_bytes(self) -> int:
        """Memory that is free on the device."""
        free, _ = self.check(self.runtime.cudaMemGetInfo())
        return int(free)


class Buffer:
    """Memory on the device and, page-locked, on the host; grows, and keeps what it has."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self.size_bytes = 0
        self.device = 0
        self._host = 0
        self._bytes: np.ndarray[Any, np.dtype[np.uint8]] = np.empty(0, np.uint8)

    def reserve(self, size_bytes: int) -> bool:
        """Makes it at least so large; True if its addresses have changed.

        Raises:
            ResourceExhausted: there is no memory; the buffer is then empty.
        """
        if size_bytes <= self.size_bytes:
            return False
        self.free()
        runtime, check = self._cuda.runtime, self._cuda.check
        try:
            self.device = int(check(runtime.cudaMalloc(size_bytes)))
            self._host = int(check(runtime.cudaMallocHost(size_bytes)))
        except BaseException:
            self.free()
            raise
        raw = (ctypes.c_uint8 * size_bytes).from_address(self._host)
        self._bytes = np.frombuffer(memoryview(raw), np.uint8)
        self.size_bytes = size_bytes
        return True

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Tensor:
        """A view on the host's side."""
        count = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        view: Tensor = self._bytes[:count].view(dtype).reshape(shape)
        return view

    def to_device(self, size_bytes: int, stream: int) -> None:
        """Queues a copy of the first bytes to the device."""
        kind = self._cuda.runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._copy(self.device, self._host, size_bytes, kind, stream)

    def to_host(self, size_bytes: int, stream: int) -> None:
        """Queues a copy of the first bytes to the host."""
        kind = self._cuda.runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._copy(self._host, self.device, size_bytes, kind, stream)

    def _copy(self, to: int, of: int, size_bytes: int, kind: Any, stream: int) -> None:
        if size_bytes:
            copy = self._cuda.runtime.cudaMemcpyAsync
            self._cuda.check(copy(to, of, size_bytes, kind, stream))

    def free(self) -> None:
        """Gives the memory back."""
        self._bytes = np.empty(0, np.uint8)
        device, host = self.device, self._host
        self.device = self._host = self.size_bytes = 0
        if device:
            self._cuda.check(self._cuda.runtime.cudaFree(device))
        if host:
            self._cuda.check(self._cuda.runtime.cudaFreeHost(host))


class Stream:
    """A queue of work on the device, and recordings of such work."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._made = cuda.check(cuda.runtime.cudaStreamCreateWithFlags(_NON_BLOCKING))
        self.handle = int(self._made)

    def wait(self) -> None:
        """Waits until all that was queued is done; other Python threads go on meanwhile."""
        self._cuda.check(self._cuda.runtime.cudaStreamSynchronize(self._made))

    def begin(self) -> None:
        """Begins a recording; what is queued from now on is not run."""
        modes = self._cuda.runtime.cudaStreamCaptureMode
        begin = self._cuda.runtime.cudaStreamBeginCapture
        # Other instances' threads may allocate meanwhile.
        self._cuda.check(begin(self._made, modes.cudaStreamCaptureModeThreadLocal))

    def end(self) -> Any:
        """Ends a recording and returns it, ready to be replayed."""
        runtime, check = self._cuda.runtime, self._cuda.check
        graph = check(runtime.cudaStreamEndCapture(self._made))
        try:
            return check(runtime.cudaGraphInstantiate(graph, 0))
        finally:
            check(runtime.cudaGraphDestroy(graph))

    def replay(self, recording: Any) -> None:
        """Queues a recording."""
        self._cuda.check(self._cuda.runtime.cudaGraphLaunch(recording, self._made))

    def forget(self, recording: Any) -> None:
        """Gives a recording's memory back."""
        self._cuda.check(self._cuda.runtime.cudaGraphExecDestroy(recording))

    def close(self) -> None:
        """Gives the stream back."""
        self._cuda.check(self._cuda.runtime.cudaStreamDestroy(self._made))
