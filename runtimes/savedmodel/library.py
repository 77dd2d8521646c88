"""Imports TensorFlow quietly and configures what belongs to the whole process."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Collection
from typing import Any

from crossfade.runtimes.extras import require
from crossfade.runtimes.savedmodel.options import SavedModelOptions

_log = logging.getLogger(__name__)
_lock = threading.Lock()
_pools: tuple[int, int] | None = None


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
