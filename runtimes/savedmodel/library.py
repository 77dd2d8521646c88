"""Imports TensorFlow quietly and configures what belongs to the whole process."""

from __future__ import annotations

import importlib.util
import logging
import os
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from crossfade.runtimes.core.errors import LoadFailed
from crossfade.runtimes.extras import require
from crossfade.runtimes.reason import one_line

if TYPE_CHECKING:
    from crossfade.runtimes.savedmodel.options import SavedModelOptions

_log = logging.getLogger(__name__)
_lock = threading.Lock()
_pools: tuple[int, int] | None = None
# What brings ops that exported graphs are known to need (AutoML's tabular ones).
KNOWN_OPS: Final = ("struct2tensor",)


def tensorflow() -> Any:
    """Imports TensorFlow (5 s, about 500 MB) without its chatter.

    Raises:
        MissingExtra: it is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    tf = require("tensorflow", "tensorflow", "a SavedModel")
    tf.get_logger().setLevel(logging.ERROR)
    return tf


def registered_ops(names: Collection[str]) -> frozenset[str]:
    """Those of ``names`` that are ops of the TensorFlow installed here; raises as ``tensorflow``.

    Ops that another library registered in this process count, too.
    """
    tensorflow()
    from tensorflow.python.framework import op_def_registry

    return frozenset(name for name in names if op_def_registry.get(name) is not None)


def session_config(tf: Any, options: SavedModelOptions) -> Any:
    """Returns a ``ConfigProto``; TensorFlow takes the pool sizes of the first one it sees."""
    global _pools  # noqa: PLW0603 - TensorFlow's pools are a process-wide fact
    wanted = (options.intra_op_threads or 0, options.inter_op_threads or 0)
    with _lock:
        if _pools is None:
            _pools = wanted
        elif wanted not in ((0, 0), _pools):
            _log.warning("TensorFlow's thread pools exist already: thread options are ignored")
    config = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=_pools[0], inter_op_parallelism_threads=_pools[1]
    )
    # Others use the GPU too: take its memory as it is needed, not all at once.
    config.gpu_options.allow_growth = True
    return config


def load_ops(tf: Any, wanted: Sequence[str]) -> None:
    """Loads libraries of custom ops into the process; those that are there already are kept.

    Args:
        tf: the tensorflow module.
        wanted: paths of shared libraries, or packages whose ``ops/*.so`` are meant. A package is
            looked for, not imported: its Python code may need what is not installed.

    Raises:
        LoadFailed: there is no such library or package, or it was built for another TensorFlow.
    """
    for name in wanted:
        libraries = [Path(name)] if name.endswith(".so") else ops_of(name)
        if not libraries:
            raise LoadFailed(f"the package '{name}', which has ops for the model, is not installed")
        for library in libraries:
            try:
                tf.load_op_library(str(library))
            except Exception as error:
                raise LoadFailed(
                    f"the op library '{library.name}' cannot be loaded into TensorFlow"
                    f" {tf.__version__}: {one_line(error, library)}"
                ) from error


def ops_of(package: str) -> list[Path]:
    """The op libraries of a package, sorted; none if it is not installed."""
    try:
        found = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return []
    folders = (found.submodule_search_locations or []) if found else []
    return sorted(file for folder in folders for file in Path(folder).glob("ops/*.so"))
