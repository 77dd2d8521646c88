"""A model cut into segments, each on an Edge TPU of its own, as one session."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence

from crossfade.runtimes.core.errors import InvalidArgument, LoadFailed, NotFound
from crossfade.runtimes.core.model import DEFAULT_SIGNATURE, Signature, Tensors
from crossfade.runtimes.litert.quantization import Parameters
from crossfade.runtimes.litert.session import LiteRtSession


class PipelinedSession:
    """Runs segments one after the other; while one works on a request, another does on the next.

    Tensors go by their names from the segment that makes them to those that take them. Each
    segment lends its interpreter to one thread at a time, which is all that a pipeline needs.

    Attributes:
        instances: as many runs may go on as there are segments.
        nodes: how many nodes run where, over all segments.
        quantization: as ``LiteRtSession.quantization``.
    """

    def __init__(self, segments: Sequence[LiteRtSession]) -> None:
        self._segments = [
            (segment, [spec.name for spec in segment.signatures[DEFAULT_SIGNATURE].inputs])
            for segment in segments
        ]
        ends = [segment.signatures[DEFAULT_SIGNATURE] for segment in (segments[0], segments[-1])]
        known = {spec.name for spec in ends[0].inputs}
        for number, (segment, takes) in enumerate(self._segments):
            if missing := [name for name in takes if name not in known]:
                raise LoadFailed(
                    f"segment {number} takes '{missing[0]}', which no segment before it makes"
                )
            known |= {spec.name for spec in segment.signatures[DEFAULT_SIGNATURE].outputs}
        self.signatures: Mapping[str, Signature] = {
            DEFAULT_SIGNATURE: Signature(ends[0].inputs, ends[1].outputs)
        }
        self.instances = len(segments)
        nodes: collections.Counter[str] = collections.Counter()
        self.quantization: dict[str, Parameters] = {}
        for segment in segments:
            nodes.update(segment.nodes)
            self.quantization |= segment.quantization
        self.nodes: Mapping[str, int] = dict(nodes)

    def run(self, inputs: Tensors, signature: str, outputs: Sequence[str]) -> Tensors:
        """See ``Session.run``."""
        if signature != DEFAULT_SIGNATURE:
            raise NotFound(f"no signature '{signature}'; there is {DEFAULT_SIGNATURE}")
        offered = self.signatures[signature]
        if inputs.keys() != {spec.name for spec in offered.inputs}:
            raise InvalidArgument(f"inputs must be {', '.join(s.name for s in offered.inputs)}")
        tensors = dict(inputs)
        results: Tensors = {}
        for segment, takes in self._segments:
            results = segment.run({name: tensors[name] for name in takes}, signature, ())
            tensors |= results
        try:
            return {name: results[name] for name in outputs or results}
        except KeyError as error:
            raise InvalidArgument(f"the model has no output {error}") from None

    def close(self) -> None:
        """See ``Session.close``."""
        for segment, _ in self._segments:
            segment.close()
