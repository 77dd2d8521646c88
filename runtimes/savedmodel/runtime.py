"""The runtime of platform ``tensorflow_savedmodel`` and its session.

Models are loaded as TensorFlow Serving loads them, into a graph and a ``tf.compat.v1.Session``,
those of TensorFlow 2 too. Against ``tf.saved_model.load`` (measured with 2.21) this loads what
that refuses (an input named ``in``, a declared shape that disagrees with the graph), answers for a
small model in 213 instead of 269 µs, and gives the variables back at ``close``.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from crossfade.runtimes.checked_options import options_of
from crossfade.runtimes.core.dtypes import NUMPY
from crossfade.runtimes.core.errors import InvalidArgument, LoadFailed, NotFound
from crossfade.runtimes.core.model import Artifact, Session, Signature, Tensor, Tensors
from crossfade.runtimes.memory import give_back
from crossfade.runtimes.savedmodel import failure, library, variables
from crossfade.runtimes.savedmodel.signature import Bound, bind

if TYPE_CHECKING:
    from crossfade.runtimes.savedmodel.options import SavedModelOptions


class SavedModelRuntime:
    """Opens the folder that holds ``saved_model.pb``."""

    platform: ClassVar[str] = "tensorflow_savedmodel"
    options: ClassVar[str] = "crossfade.runtimes.savedmodel.options:SavedModelOptions"

    def estimate(self, artifact: Artifact) -> int:
        """Twelve times the graph, one and a half times variables and assets, plus 32 MiB.

        Measured: 92 MB of variables take 106 MB, the same weights as constants in
        ``saved_model.pb`` up to 1,020 MB after the first run (the optimiser copies them).
        TensorFlow itself (about 500 MB, once a process) is not in it.
        """
        files = {f: f.stat().st_size for f in artifact.path.rglob("*") if f.is_file()}
        graph = sum(size for f, size in files.items() if f.name.startswith("saved_model.pb"))
        return 12 * graph + 3 * (sum(files.values()) - graph) // 2 + (32 << 20)

    def load(self, artifact: Artifact) -> Session:
        """See ``Runtime.load``."""
        options: SavedModelOptions = options_of(artifact.options, self.options)
        _check_files(artifact.path)
        tf = library.tensorflow()
        library.load_ops(tf, options.op_libraries)
        try:
            return _open(tf, artifact.path, options)
        except Exception as error:
            known = [package for package in library.KNOWN_OPS if library.ops_of(package)]
            if not (known and failure.lacks_op(error)):
                raise failure.of_load(error, artifact.path, options.tags) from error
        library.load_ops(tf, known)
        try:
            return _open(tf, artifact.path, options)
        except Exception as error:
            raise failure.of_load(error, artifact.path, options.tags) from error


def _open(tf: Any, path: Path, options: SavedModelOptions) -> Session:
    graph = tf.Graph()
    session = tf.compat.v1.Session(graph=graph, config=library.session_config(tf, options))
    try:
        with graph.as_default():
            meta_graph = tf.compat.v1.saved_model.loader.load(session, options.tags, str(path))
        variables.complete(tf, session)
        return SavedModelSession(session, bind(graph, meta_graph.signature_def, tf), tf)
    except BaseException:
        session.close()
        raise


def _check_files(path: Path) -> None:
    found = [path / name for name in ("saved_model.pb", "saved_model.pbtxt")]
    if not any(file.is_file() for file in found):
        raise LoadFailed("not a SavedModel: no saved_model.pb")
    if all(file.stat().st_size == 0 for file in found if file.is_file()):
        raise LoadFailed("the SavedModel is empty: saved_model.pb has no bytes")


class SavedModelSession:
    """One loaded MetaGraph. Runs from many threads at once."""

    def __init__(self, session: Any, bound: Mapping[str, Bound], tf: Any) -> None:
        self._session = session
        self._bound = bound
        self._tf = tf
        self.signatures: Mapping[str, Signature] = {n: b.signature for n, b in bound.items()}

    def run(self, inputs: Tensors, signature: str, outputs: Sequence[str]) -> Tensors:
        """See ``Session.run``."""
        bound = self._bound.get(signature)
        if bound is None:
            raise NotFound(f"no signature '{signature}'; there is {', '.join(self._bound)}")
        names = outputs or bound.outputs
        try:
            fetches = [bound.outputs[name] for name in names]
            feeds = {**bound.defaults, **{bound.inputs[n]: array for n, array in inputs.items()}}
        except KeyError as error:
            raise InvalidArgument(f"the model has no input or output {error}") from None
        try:
            results = self._session.run(fetches, feeds)
        except Exception as error:
            raise failure.of_run(error, self._tf) from error
        return dict(zip(names, map(_array, results), strict=True))

    def close(self) -> None:
        """See ``Session.close``."""
        self._session.close()
        del self._session, self._bound
        gc.collect()  # graph, operations and tensors refer to each other
        give_back()


def _array(value: Any) -> Tensor:
    """TensorFlow gives scalars as numpy scalars or, for strings, as bare bytes."""
    if isinstance(value, np.ndarray):
        return value
    return np.array(value, dtype=NUMPY["BYTES"] if isinstance(value, bytes) else None)
