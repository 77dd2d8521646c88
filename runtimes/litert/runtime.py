"""The runtime of platform ``tflite`` and its session: a pool of interpreters."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from crossfade.runtimes.checked_options import options_of
from crossfade.runtimes.core.errors import CrossfadeError, InvalidArgument, LoadFailed, NotFound
from crossfade.runtimes.core.model import Artifact, Session, Signature, Tensors
from crossfade.runtimes.extras import require
from crossfade.runtimes.litert import delegate, failure, rows
from crossfade.runtimes.litert.interpreter import Details, Instance, Opener, calls
from crossfade.runtimes.litert.pool import Pool
from crossfade.runtimes.litert.quantization import Parameters, dequantize, quantize
from crossfade.runtimes.litert.signature import quantized, read
from crossfade.runtimes.memory import give_back

if TYPE_CHECKING:
    from crossfade.runtimes.litert.options import LiteRtOptions

_log = logging.getLogger(__name__)


class LiteRtRuntime:
    """Opens ``model.tflite`` with LiteRT."""

    platform: ClassVar[str] = "tflite"
    options: ClassVar[str] = "crossfade.runtimes.litert.options:LiteRtOptions"

    def estimate(self, artifact: Artifact) -> int:
        """The file once, and three times the file plus 8 MiB for each interpreter.

        Measured: an interpreter of a 3 MB INT8 model takes 6 to 9 MB (its repacked weights and
        its tensors); FP16 weights are unpacked to twice their size.
        """
        try:
            size = artifact.path.stat().st_size
        except OSError as error:
            raise LoadFailed(f"the model's file cannot be read: {error.strerror}") from error
        return size + artifact.instances * (3 * size + (8 << 20))

    def load(self, artifact: Artifact) -> Session:
        """See ``Runtime.load``."""
        options: LiteRtOptions = options_of(artifact.options, self.options)
        litert = require("ai_edge_litert.interpreter", "tflite", "a TFLite model")
        # Read, not mapped: one copy for all interpreters, and a file that is overwritten in place
        # while it is mapped would end the process with SIGBUS.
        try:
            content = artifact.path.read_bytes()
        except OSError as error:
            raise LoadFailed(f"the model's file cannot be read: {error.strerror}") from error
        if not content:
            raise LoadFailed("the model's file is empty")

        def open_one() -> Instance:
            delegates = (
                [delegate.load(litert, options.delegate, options.delegate_options)]
                if options.delegate
                else None
            )
            try:
                return calls(
                    litert.Interpreter(
                        model_content=content,
                        num_threads=options.threads,
                        experimental_delegates=delegates,
                    )
                )
            except Exception as error:
                raise failure.of_load(error, artifact.path) from error

        first = open_one()
        # A delegate's device is not for trying things out.
        tried = {
            name: rows.Trial(call.outputs())
            if options.delegate
            else rows.trial(call, options.resize_batch)
            for name, call in first.items()
        }
        signatures = {n: read(call, tried[n], options.dequantize) for n, call in first.items()}
        steady = all(found.steady for found in tried.values())
        if not steady:
            _log.warning(
                "model %s answers the same input differently each time: it keeps state between "
                "requests, whoever sends them, or draws random numbers",
                artifact.name,
            )
        if not steady or any(call.broken for call in first.values()):
            first = open_one()
        pool = Pool([first, *(open_one() for _ in range(artifact.instances - 1))])
        return LiteRtSession(open_one, pool, signatures, options.dequantize)


class LiteRtSession:
    """Interpreters of one model, each used by one thread at a time; others wait their turn.

    Attributes:
        quantization: scale and zero point of the quantised inputs and outputs by name, so that
            a caller can turn stored values into real ones.
    """

    def __init__(
        self,
        open_one: Opener,
        pool: Pool[Instance],
        signatures: Mapping[str, Signature],
        real: bool,
    ) -> None:
        self.signatures = signatures
        self._open_one = open_one
        self._pool = pool
        self._specs = {
            name: {spec.name: spec for spec in signature.inputs}
            for name, signature in signatures.items()
        }
        first = pool.take()
        ins = {name: _quantized_among(call.inputs) for name, call in first.items()}
        outs = {name: _quantized_among(call.outputs()) for name, call in first.items()}
        self.quantization: Mapping[str, Parameters] = {
            name: parameters
            for found in (*ins.values(), *outs.values())
            for name, (parameters, _) in found.items()
        }
        pool.give(first)
        self._to_stored = ins if real else {name: {} for name in first}
        self._to_real = outs if real else {name: {} for name in first}

    def run(self, inputs: Tensors, signature: str, outputs: Sequence[str]) -> Tensors:
        """See ``Session.run``."""
        if signature not in self.signatures:
            raise NotFound(f"no signature '{signature}'; there is {', '.join(self.signatures)}")
        stored = dict(inputs)
        for name, (parameters, dtype) in self._to_stored[signature].items():
            if name in stored:
                stored[name] = quantize(name, stored[name], parameters, dtype)
        instance = self._pool.take()
        call = instance[signature]
        try:
            results = dict(call(stored, self._specs[signature]))
        except CrossfadeError:
            raise
        except Exception as error:
            raise failure.of_run(error) from error
        finally:
            self._pool.give(self._replacement(instance) if call.broken else instance)
        for name, (parameters, _) in self._to_real[signature].items():
            results[name] = dequantize(results[name], parameters)
        try:
            return {name: results[name] for name in outputs or results}
        except KeyError as error:
            raise InvalidArgument(f"the model has no output {error}") from None

    def _replacement(self, broken: Instance) -> Instance:
        try:
            return self._open_one()
        except Exception:
            _log.exception("an interpreter that failed while resizing cannot be replaced")
            return broken

    def close(self) -> None:
        """See ``Session.close``."""
        del self._pool, self._open_one
        give_back()


def _quantized_among(details: Details) -> dict[str, tuple[Parameters, np.dtype[Any]]]:
    return {
        name: (parameters, np.dtype(d["dtype"]))
        for name, d in details.items()
        if (parameters := quantized(d))
    }
