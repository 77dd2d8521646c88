"""Feeds real inputs to TensorRT 10's INT8 calibrator, which finds each tensor's range from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from crossfade.runtimes.core.model import Tensors
from crossfade.runtimes.trt.cuda import Buffer, Cuda, Stream


def calibrator(trt: Any, cuda: Cuda, batches: Iterable[Tensors]) -> Any:
    """Returns an ``IInt8EntropyCalibrator2`` over ``batches``; call its ``free`` at the end.

    Args:
        trt: TensorRT 10; 11 has no calibrators.
        cuda: where the inputs are copied to.
        batches: inputs by name, all of one shape, which is the calibration profile's.
    """

    class Calibrator(trt.IInt8EntropyCalibrator2):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IInt8EntropyCalibrator2.__init__(self)
            self._batches = iter(batches)
            self._stream = Stream(cuda)
            self._buffers: dict[str, Buffer] = {}

        def get_batch_size(self) -> int:
            return 1  # of no meaning where the batch is a dimension like others

        def get_batch(self, names: Sequence[str]) -> list[int] | None:
            batch: Mapping[str, np.ndarray[Any, Any]] | None = next(self._batches, None)
            if batch is None:
                return None
            for name in names:
                self._copy(name, batch[name])
            self._stream.wait()
            return [self._buffers[name].device for name in names]

        def _copy(self, name: str, array: np.ndarray[Any, Any]) -> None:
            buffer = self._buffers.setdefault(name, Buffer(cuda))
            buffer.reserve(array.nbytes)
            np.copyto(buffer.array(array.shape, array.dtype), array)
            buffer.to_device(array.nbytes, self._stream.handle)

        def read_calibration_cache(self) -> None:
            return None  # ranges of other data would be used unseen

        def write_calibration_cache(self, cache: object) -> None:
            pass

        def free(self) -> None:
            for buffer in self._buffers.values():
                buffer.free()
            self._stream.close()

    return Calibrator()
