"""The RPCs of Triton's extensions: shared memory, trace and log settings."""

from __future__ import annotations

from typing import Any

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.serving.frontends.open_inference import cuda_memory
from crossfade.serving.frontends.open_inference.rpcs import unary
from crossfade.serving.frontends.open_inference.settings import LogSettings, TraceSettings
from crossfade.serving.tensors.shared_regions import SharedRegions
from crossfade.serving.transport.calls import Access, Rpc
from crossfade.serving.wire import open_inference as wire


def table(regions: SharedRegions, traces: TraceSettings, logs: LogSettings) -> list[Rpc[Any, Any]]:
    """The RPCs; whoever may infer may bring the memory for it, settings are administration."""

    def register(request: Any) -> Any:
        regions.register(request.name, request.key, request.offset, request.byte_size)
        return wire.SystemSharedMemoryRegisterResponse()

    def unregister(request: Any) -> Any:
        regions.unregister(request.name)
        return wire.SystemSharedMemoryUnregisterResponse()

    def status(request: Any) -> Any:
        response = wire.SystemSharedMemoryStatusResponse()
        for region in regions.status(request.name):
            line = response.regions[region.name]
            line.name, line.key = region.name, region.key
            line.offset, line.byte_size = region.offset, region.size
        return response

    def cuda_status(request: Any) -> Any:
        cuda_memory.status(request.name)
        return wire.CudaSharedMemoryStatusResponse()

    def trace(request: Any) -> Any:
        wanted = {name: list(given.value) for name, given in request.settings.items()}
        response = wire.TraceSettingResponse()
        for name, values in traces.update(request.model_name, wanted).items():
            response.settings[name].value.extend(values)
        return response

    def log(request: Any) -> Any:
        wanted: dict[str, Any] = {}
        for name, given in request.settings.items():
            kind = given.WhichOneof("parameter_choice")
            if kind is None:
                raise InvalidArgument("a log setting has no value")
            wanted[name] = getattr(given, kind)
        response = wire.LogSettingsResponse()
        for name, value in logs.update(wanted).items():
            setattr(response.settings[name], _LOG_FIELDS[type(value)], value)
        return response

    def rpc(name: str, access: Access, answer: Any) -> Rpc[Any, Any]:
        return unary(name, access, getattr(wire, name + "Request"), lambda r, _: answer(r))

    infer, read, admin = Access.INFER, Access.READ, Access.ADMIN
    return [
        rpc("SystemSharedMemoryStatus", read, status),
        rpc("SystemSharedMemoryRegister", infer, register),
        rpc("SystemSharedMemoryUnregister", infer, unregister),
        rpc("CudaSharedMemoryStatus", read, cuda_status),
        rpc("CudaSharedMemoryRegister", infer, lambda _: cuda_memory.register()),
        rpc(
            "CudaSharedMemoryUnregister",
            infer,
            lambda _: wire.CudaSharedMemoryUnregisterResponse(),
        ),
        rpc("TraceSetting", admin, trace),
        rpc("LogSettings", admin, log),
    ]


_LOG_FIELDS = {bool: "bool_param", int: "uint32_param", str: "string_param"}
