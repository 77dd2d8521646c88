"""What ``options`` may hold for a TFLite model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pydantic

from crossfade.runtimes.litert.edge_tpu import devices
from crossfade.runtimes.options import Options

# libedgetpu's own notation: a bus, a number, or both.
Device = Annotated[str, pydantic.Field(pattern=r"^((usb|pci)(:\d{1,3})?|:\d{1,3})$")]
FileName = Annotated[str, pydantic.Field(pattern=r"^[^/\\]*[^/\\.][^/\\]*$")]


class LiteRtOptions(Options):
    """Options of platform ``tflite``.

    Attributes:
        threads: threads of one interpreter; ``instances`` interpreters run side by side.
        dequantize: quantised inputs and outputs become FP32, with the tensor's own parameters.
        resize_batch: try at load whether the batch may grow; off keeps the model's shapes.
        device: the Edge TPU to run on: ``usb``, ``pci``, ``usb:0``, ``:0``; short for
            ``devices`` with one entry.
        devices: several of them, each with an interpreter of its own.
        delegate: a shared library that takes over parts of the graph; the Edge TPU's where
            devices are named.
        delegate_options: passed to it, all text.
        fallback: what serves if the delegate, or the model under it, does not start.
        cpu_model: the file of the CPU's twin, beside the model; found by its name otherwise.
    """

    threads: Annotated[int, pydantic.Field(ge=1, le=1024)] = 1
    dequantize: bool = False
    resize_batch: bool = True
    device: Device | None = None
    devices: list[Device] = pydantic.Field(default_factory=list, max_length=64)
    delegate: str | None = None
    delegate_options: dict[str, str] = pydantic.Field(default_factory=dict)
    fallback: Literal["cpu"] | None = None
    cpu_model: FileName | None = None

    @pydantic.model_validator(mode="before")
    @classmethod
    def _one_device_is_a_list(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and "device" in values and "devices" in values:
            raise ValueError("'device' and 'devices' do not go together")
        return values

    @pydantic.model_validator(mode="after")
    def _together(self) -> LiteRtOptions:
        if devices(self) and "device" in self.delegate_options:
            raise ValueError("'delegate_options' names a device, and so does 'device'")
        if self.cpu_model is not None and self.fallback is None:
            raise ValueError("'cpu_model' needs 'fallback: cpu'")
        return self
