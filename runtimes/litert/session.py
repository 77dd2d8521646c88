"""A TFLite model as a session: interpreters that are lent to one thread at a time."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from crossfade.runtimes.core.errors import CrossfadeError, InvalidArgument, NotFound
from crossfade.runtimes.core.model import Signature, Tensors
from crossfade.runtimes.litert import failure
from crossfade.runtimes.litert.interpreter import Details, Instance
from crossfade.runtimes.litert.quantization import Parameters, dequantize, quantize
from crossfade.runtimes.litert.signature import quantized
from crossfade.runtimes.memory import give_back
from crossfade.runtimes.pool import Pool

_log = logging.getLogger(__name__)


class LiteRtSession:
    """Interpreters of one model, each used by one thread at a time; others wait their turn.

    Attributes:
        quantization: scale and zero point of the quantised inputs and outputs by name, so that
            a caller can turn stored values into real ones.
        instances: how many runs may go on at the same time.
        nodes: how many nodes run where, if a delegate has its share.
    """

    def __init__(
        self, instances: Sequence[Instance], signatures: Mapping[str, Signature], real: bool
    ) -> None:
        self.signatures = signatures
        self.instances = len(instances)
        self.nodes = instances[0].nodes
        self._pool = Pool(instances)
        self._specs = {
            name: {spec.name: spec for spec in signature.inputs}
            for name, signature in signatures.items()
        }
        first = instances[0].calls
        ins = {name: _quantized_among(call.inputs) for name, call in first.items()}
        outs = {name: _quantized_among(call.outputs()) for name, call in first.items()}
        self.quantization: Mapping[str, Parameters] = {
            name: parameters
            for found in (*ins.values(), *outs.values())
            for name, (parameters, _) in found.items()
        }
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
        call = instance.calls[signature]
        try:
            results = dict(call(stored, self._specs[signature]))
        except CrossfadeError:
            raise
        except Exception as error:
            raise failure.of_run(error) from error
        finally:
            self._pool.give(_replacement(instance) if call.broken else instance)
        for name, (parameters, _) in self._to_real[signature].items():
            results[name] = dequantize(results[name], parameters)
        try:
            return {name: results[name] for name in outputs or results}
        except KeyError as error:
            raise InvalidArgument(f"the model has no output {error}") from None

    def close(self) -> None:
        """See ``Session.close``."""
        del self._pool
        give_back()


def _replacement(broken: Instance) -> Instance:
    try:
        return broken.again()
    except Exception:
        _log.exception("an interpreter that failed while resizing cannot be replaced")
        return broken


def _quantized_among(details: Details) -> dict[str, tuple[Parameters, np.dtype[Any]]]:
    return {
        name: (parameters, np.dtype(d["dtype"]))
        for name, d in details.items()
        if (parameters := quantized(d))
    }
