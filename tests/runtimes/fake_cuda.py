"""The part of ``cuda.bindings.runtime`` that the product calls, on the host's memory.

A stream runs nothing before somebody waits for it, and memory that was freed is overwritten, so
that what forgets to wait, or uses an address for too long, gives wrong answers here, too.
"""

from __future__ import annotations

import ctypes
import enum
import threading
from collections.abc import Callable
from typing import Any


class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorNoDevice = 100
    cudaErrorStreamCaptureUnsupported = 900


class cudaMemcpyKind(enum.IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class cudaStreamCaptureMode(enum.IntEnum):
    cudaStreamCaptureModeThreadLocal = 1


class cudaDeviceAttr(enum.IntEnum):
    cudaDevAttrComputeCapabilityMajor = 75
    cudaDevAttrComputeCapabilityMinor = 76


Work = Callable[[], None]
OK = cudaError_t.cudaSuccess
INVALID = cudaError_t.cudaErrorInvalidValue


class cudaStream_t:
    def __init__(self) -> None:
        self.queued: list[Work] = []
        self.recorded: list[Work] | None = None
        self.spoiled = False

    def __int__(self) -> int:
        return id(self)


class FakeCuda:
    """One of these in place of the module; counts what is out, so that leaks show.

    Args:
        total_bytes: memory of the device.
        devices: how many there are.
        capability: of each.
    """

    cudaError_t = cudaError_t
    cudaMemcpyKind = cudaMemcpyKind
    cudaStreamCaptureMode = cudaStreamCaptureMode
    cudaDeviceAttr = cudaDeviceAttr

    def __init__(
        self,
        total_bytes: int = 1 << 34,
        devices: int = 1,
        capability: tuple[int, int] = (9, 0),
    ) -> None:
        self.total_bytes = total_bytes
        self.devices = devices
        self.capability = capability
        self.on_device: dict[int, Any] = {}
        self.on_host: dict[int, Any] = {}
        self.streams: dict[int, cudaStream_t] = {}
        self.recordings = 0
        self.replays = 0
        self._lock = threading.Lock()

    @property
    def used_bytes(self) -> int:
        return sum(map(len, self.on_device.values()))

    def _allocate(self, where: dict[int, Any], size: int) -> tuple[Any, ...]:
        with self._lock:
            if where is self.on_device and self.used_bytes + size > self.total_bytes:
                return cudaError_t.cudaErrorMemoryAllocation, None
            made = (ctypes.c_uint8 * size)(*([0xAA] * min(size, 64)))
            where[ctypes.addressof(made)] = made
        return OK, ctypes.addressof(made)

    def _free(self, where: dict[int, Any], address: int) -> tuple[Any, ...]:
        with self._lock:
            found = where.pop(address, None)
        if found is None:
            return (INVALID,)
        ctypes.memset(address, 0xDD, len(found))
        return (OK,)

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        return self._allocate(self.on_device, size)

    def cudaMallocHost(self, size: int) -> tuple[Any, ...]:
        return self._allocate(self.on_host, size)

    def cudaFree(self, devPtr: int) -> tuple[Any, ...]:
        return self._free(self.on_device, devPtr)

    def cudaFreeHost(self, ptr: int) -> tuple[Any, ...]:
        return self._free(self.on_host, ptr)

    def cudaGetLastError(self) -> tuple[Any, ...]:
        return (OK,)

    def cudaGetDeviceCount(self) -> tuple[Any, ...]:
        return (OK, self.devices) if self.devices else (cudaError_t.cudaErrorNoDevice, None)

    def cudaSetDevice(self, device: int) -> tuple[Any, ...]:
        return (OK if device < self.devices else INVALID,)

    def cudaDeviceGetAttribute(self, attr: Any, device: int) -> tuple[Any, ...]:
        major = attr == cudaDeviceAttr.cudaDevAttrComputeCapabilityMajor
        return OK, self.capability[0 if major else 1]

    def cudaMemGetInfo(self) -> tuple[Any, ...]:
        return OK, self.total_bytes - self.used_bytes, self.total_bytes

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        made = cudaStream_t()
        self.streams[int(made)] = made
        return OK, made

    def cudaStreamDestroy(self, stream: cudaStream_t) -> tuple[Any, ...]:
        return (OK if self.streams.pop(int(stream), None) else INVALID,)

    def enqueue(self, stream: int, work: Work, can_be_recorded: bool = True) -> None:
        """What everything that is queued on a stream comes to."""
        found = self.streams[int(stream)]
        if found.recorded is None:
            found.queued.append(work)
        else:
            found.recorded.append(work)
            found.spoiled |= not can_be_recorded

    def cudaMemcpyAsync(
        self, dst: int, src: int, count: int, kind: Any, stream: int
    ) -> tuple[Any, ...]:
        to_device = kind == cudaMemcpyKind.cudaMemcpyHostToDevice
        device, host = (dst, src) if to_device else (src, dst)
        if not self._holds(self.on_device, device, count) or not self._holds(
            self.on_host, host, count
        ):
            return (INVALID,)
        self.enqueue(stream, lambda: ctypes.memmove(dst, src, count) and None)
        return (OK,)

    def _holds(self, where: dict[int, Any], address: int, size: int) -> bool:
        return address in where and size <= len(where[address])

    def cudaStreamSynchronize(self, stream: cudaStream_t) -> tuple[Any, ...]:
        queued, stream.queued = stream.queued, []
        for work in queued:
            work()
        return (OK,)

    def cudaStreamBeginCapture(self, stream: cudaStream_t, mode: Any) -> tuple[Any, ...]:
        stream.recorded, stream.spoiled = [], False
        return (OK,)

    def cudaStreamEndCapture(self, stream: cudaStream_t) -> tuple[Any, ...]:
        recorded, stream.recorded = stream.recorded, None
        if stream.spoiled:
            return cudaError_t.cudaErrorStreamCaptureUnsupported, None
        return OK, recorded

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> tuple[Any, ...]:
        self.recordings += 1
        return OK, list(graph)

    def cudaGraphDestroy(self, graph: Any) -> tuple[Any, ...]:
        return (OK,)

    def cudaGraphExecDestroy(self, graphExec: Any) -> tuple[Any, ...]:
        graphExec.clear()
        self.recordings -= 1
        return (OK,)

    def cudaGraphLaunch(self, graphExec: Any, stream: cudaStream_t) -> tuple[Any, ...]:
        self.replays += 1
        stream.queued.extend(graphExec)
        return (OK,)
