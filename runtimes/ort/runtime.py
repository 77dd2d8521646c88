"""The runtime of platform ``onnxruntime_onnx`` and its session."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from crossfade.runtimes.checked_options import options_of
from crossfade.runtimes.core.errors import CrossfadeError, LoadFailed, NotFound
from crossfade.runtimes.core.model import (
    DEFAULT_SIGNATURE,
    Artifact,
    Session,
    Signature,
    Tensor,
    Tensors,
)
from crossfade.runtimes.extras import require
from crossfade.runtimes.memory import give_back
from crossfade.runtimes.ort import convert, failure, providers, signature, threads
from crossfade.runtimes.reason import one_line

if TYPE_CHECKING:
    from crossfade.runtimes.ort.options import OrtOptions


class OnnxRuntime:
    """Opens ``model.onnx`` with ONNX Runtime."""

    platform: ClassVar[str] = "onnxruntime_onnx"
    options: ClassVar[str] = "crossfade.runtimes.ort.options:OrtOptions"

    def estimate(self, artifact: Artifact) -> int:
        """Three times the files plus 32 MiB.

        Measured: a 57 MB model takes 90 MB once loaded (weights are repacked beside the
        originals) and 140 MB after a run of 8 images. External data lies beside the model, so
        everything in its folder counts.
        """
        files = sum(f.stat().st_size for f in artifact.path.parent.rglob("*") if f.is_file())
        return 3 * files + (32 << 20)

    def load(self, artifact: Artifact) -> Session:
        """See ``Runtime.load``."""
        options: OrtOptions = options_of(artifact.options, self.options)
        ort = require("onnxruntime", "onnx", "an ONNX model")
        chosen = providers.choose(options.execution_providers, ort.get_available_providers())
        session_options = ort.SessionOptions()
        # Arena and memory patterns stay on: without them a closed session leaves more behind
        # (72 to 120 MB instead of 41 to 49 before the trim, 11 MB after it either way) and runs
        # are no faster.
        threads.configure(session_options, options, ort)
        providers.prepare(chosen, session_options, ort)
        session_options.log_severity_level = 4  # its errors come as exceptions; no second report
        try:
            # Its own fallback would rerun on the CPU and print to stdout.
            loaded = ort.InferenceSession(
                str(artifact.path), session_options, providers=chosen, enable_fallback=0
            )
        except Exception as error:
            reason = one_line(failure.plain(error), artifact.path)
            raise LoadFailed(f"ONNX Runtime cannot load the model: {reason}") from error
        providers.check(chosen, loaded.get_providers())
        nodes = providers.report(chosen, loaded, artifact.name)
        offered = signature.read(loaded, artifact.path)
        dtypes = {spec.dtype for spec in (*offered.inputs, *offered.outputs)}
        if not dtypes & {"BYTES", "BF16"}:
            return OnnxSession(loaded, offered, nodes)
        if {"BYTES", "BF16"} <= dtypes:
            raise LoadFailed(
                "BYTES and BF16 tensors in one model: ONNX Runtime's API carries no such mix"
            )
        return ConvertingSession(loaded, offered, nodes, ort)


class OnnxSession:
    """A graph whose tensors pass as they are. Runs from many threads at once.

    ``run`` adds 2.5 µs to ONNX Runtime's own (measured on Triton's ``simple``, 10.7 µs).

    Attributes:
        nodes: how many nodes each execution provider took; empty where there is the CPU alone.
    """

    def __init__(self, loaded: Any, offered: Signature, nodes: Mapping[str, int]) -> None:
        self.nodes = nodes
        self._loaded = loaded
        self._call: Callable[[Sequence[str], dict[str, Tensor]], Sequence[Tensor]] = loaded.run
        self._offered = offered
        self._names = [spec.name for spec in offered.outputs]
        self._dimensions = {value.name: list(value.shape) for value in loaded.get_inputs()}
        self.signatures: Mapping[str, Signature] = {DEFAULT_SIGNATURE: offered}

    def run(self, inputs: Tensors, signature: str, outputs: Sequence[str]) -> Tensors:
        """See ``Session.run``."""
        if signature != DEFAULT_SIGNATURE:
            raise NotFound(f"an ONNX model has one signature, {DEFAULT_SIGNATURE}")
        names = outputs or self._names
        try:
            feed = inputs if type(inputs) is dict else dict(inputs)
            return dict(zip(names, self._call(names, feed), strict=True))
        except CrossfadeError:
            raise
        except Exception as error:
            raise failure.of_run(error, inputs, self._offered, self._dimensions) from error

    def close(self) -> None:
        """See ``Session.close``."""
        del self._loaded, self._call
        give_back()


class ConvertingSession(OnnxSession):
    """A graph with BYTES or BF16 tensors, which are converted on the way in and out."""

    def __init__(self, loaded: Any, offered: Signature, nodes: Mapping[str, int], ort: Any) -> None:
        super().__init__(loaded, offered, nodes)
        self._ort = ort
        self._strings_in = {spec.name for spec in offered.inputs if spec.dtype == "BYTES"}
        dtypes = {spec.dtype for spec in (*offered.inputs, *offered.outputs)}
        self._call = self._run_values if "BF16" in dtypes else self._run_strings

    def _run_values(self, names: Sequence[str], feed: dict[str, Tensor]) -> Sequence[Tensor]:
        values = {name: convert.value_in(array, self._ort) for name, array in feed.items()}
        return [convert.value_out(v) for v in self._loaded.run_with_ort_values(names, values)]

    def _run_strings(self, names: Sequence[str], feed: dict[str, Tensor]) -> Sequence[Tensor]:
        texts = {
            name: convert.strings_in(name, feed[name]) for name in self._strings_in & feed.keys()
        }
        arrays = self._loaded.run(names, feed | texts)
        return [convert.strings_out(a) if a.dtype == object else a for a in arrays]
