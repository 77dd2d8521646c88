"""The runtime of platform ``tflite``: opens interpreters, on the CPU or under a delegate."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from crossfade.runtimes.checked_options import options_of
from crossfade.runtimes.core.errors import LoadFailed
from crossfade.runtimes.core.model import Artifact, Session
from crossfade.runtimes.extras import require
from crossfade.runtimes.litert import delegate, edge_tpu, failure, placement, rows
from crossfade.runtimes.litert.interpreter import Instance, calls
from crossfade.runtimes.litert.pipeline import PipelinedSession
from crossfade.runtimes.litert.session import LiteRtSession
from crossfade.runtimes.litert.signature import read

if TYPE_CHECKING:
    from crossfade.runtimes.litert.options import LiteRtOptions

_log = logging.getLogger(__name__)
# Where one interpreter runs: a delegate's options, or the CPU alone.
Place = Mapping[str, str] | None


class LiteRtRuntime:
    """Opens ``model.tflite`` with LiteRT."""

    platform: ClassVar[str] = "tflite"
    options: ClassVar[str] = "crossfade.runtimes.litert.options:LiteRtOptions"

    def estimate(self, artifact: Artifact) -> int:
        """The file, or all segments, once, and three times that and 8 MiB for each interpreter.

        Measured: an interpreter of a 3 MB INT8 model takes 6 to 9 MB (its repacked weights and
        its tensors); FP16 weights are unpacked to twice their size.
        """
        try:
            size = sum(path.stat().st_size for path in edge_tpu.segments(artifact.path))
        except OSError as error:
            raise LoadFailed(f"the model's file cannot be read: {error.strerror}") from error
        return size + artifact.instances * (3 * size + (8 << 20))

    def load(self, artifact: Artifact) -> Session:
        """See ``Runtime.load``."""
        options: LiteRtOptions = options_of(artifact.options, self.options)
        litert = require("ai_edge_litert.interpreter", "tflite", "a TFLite model")
        opener = _Opener(litert, options, artifact.name)
        path = edge_tpu.compiled(artifact.path) if edge_tpu.devices(options) else artifact.path
        try:
            return opener.open(path, _places(options, artifact.instances))
        except LoadFailed as error:
            if options.fallback is None:
                raise
            twin = edge_tpu.twin(path, options.cpu_model)
            _log.warning(
                "the model does not start on its device: its twin runs on the CPU",
                extra={"model": artifact.name, "file": twin.name, "reason": error.message},
            )
        return opener.open(twin, [None] * artifact.instances)


def _places(options: LiteRtOptions, instances: int) -> Sequence[Place]:
    """One interpreter a device, as it runs one thing at a time; elsewhere as many as asked for."""
    if named := edge_tpu.devices(options):
        return [{**options.delegate_options, "device": device} for device in named]
    return [options.delegate_options if options.delegate else None] * instances


class _Opener:
    """Opens files as one model's options say."""

    def __init__(self, litert: Any, options: LiteRtOptions, model: str) -> None:
        self._litert = litert
        self._options = options
        self._model = model

    def open(self, path: Path, places: Sequence[Place]) -> Session:
        files = edge_tpu.segments(path)
        if len(files) == 1:
            return self._session(path, places)
        opened: list[LiteRtSession] = []
        try:
            for number, file in enumerate(files):
                opened.append(self._session(file, [places[number % len(places)]]))
            return PipelinedSession(opened)
        except BaseException:
            for segment in opened:
                segment.close()
            raise

    def _session(self, path: Path, places: Sequence[Place]) -> LiteRtSession:
        # Read, not mapped: one copy for all interpreters, and a file that is overwritten in place
        # while it is mapped would end the process with SIGBUS.
        try:
            content = path.read_bytes()
        except OSError as error:
            raise LoadFailed(f"the model's file cannot be read: {error.strerror}") from error
        if not content:
            raise LoadFailed("the model's file is empty")
        first = self._instance(content, path, places[0])
        # A delegate's device is not for trying things out.
        tried = {
            name: rows.trial(call, self._options.resize_batch)
            if places[0] is None
            else rows.Trial(call.outputs())
            for name, call in first.calls.items()
        }
        signatures = {
            name: read(call, tried[name], self._options.dequantize)
            for name, call in first.calls.items()
        }
        steady = all(found.steady for found in tried.values())
        if not steady:
            _log.warning(
                "model %s answers the same input differently each time: it keeps state between "
                "requests, whoever sends them, or draws random numbers",
                self._model,
            )
        if not steady or any(call.broken for call in first.calls.values()):
            first = first.again()
        others = [self._instance(content, path, place) for place in places[1:]]
        if first.nodes:
            placement.report(
                first.nodes, self._model, [(p or {}).get("device", "") for p in places]
            )
        return LiteRtSession([first, *others], signatures, self._options.dequantize)

    def _instance(self, content: bytes, path: Path, place: Place) -> Instance:
        delegates = None
        if place is not None:
            library = self._options.delegate or edge_tpu.LIBRARY
            delegates = [delegate.load(self._litert, library, place)]
        nodes = {}
        try:
            interpreter = self._litert.Interpreter(
                model_content=content,
                num_threads=self._options.threads,
                experimental_delegates=delegates,
            )
            if delegates:
                outputs = [details["index"] for details in interpreter.get_output_details()]
                nodes = placement.count(interpreter._get_ops_details(), outputs)
            found = calls(interpreter)
        except Exception as error:
            raise failure.of_load(error, path) from error
        return Instance(found, lambda: self._instance(content, path, place), nodes)
