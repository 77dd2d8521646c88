"""Thread pools for a server with many sessions.

ONNX Runtime's defaults give every session a pool that spins between runs: measured with four
sessions on two cores, a run takes three to four times as long. One thread a session (the calling
thread, no pool) has the most throughput once several runs go on; the shared pool has the least
latency for a lone run.

The shared pool is process-wide and for good: once it exists, this build refuses sessions with a
pool of their own (sessions made before keep theirs). So a model that asks for its own pool after
that runs on the shared one, with a warning, rather than fail by the order of loading.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crossfade.runtimes.ort.options import OrtOptions

_log = logging.getLogger(__name__)
_lock = threading.Lock()
_shared_exists = False


def configure(session_options: Any, options: OrtOptions, ort: Any) -> None:
    """Sets a session's pools; makes the shared one if it is wanted and not there yet.

    Args:
        session_options: an ``onnxruntime.SessionOptions`` to write to.
        options: what the model's configuration says.
        ort: the onnxruntime module.
    """
    global _shared_exists  # noqa: PLW0603 - onnxruntime's pool is a process-wide fact
    with _lock:
        if options.thread_pool == "shared" and not _shared_exists:
            threads = options.shared_threads or len(os.sched_getaffinity(0))
            ort.set_global_thread_pool_sizes(threads, 1)
            _shared_exists = True
        if _shared_exists:
            session_options.use_per_session_threads = False
            if options.thread_pool == "own" and options.intra_op_threads > 1:
                _log.warning("the shared ONNX Runtime pool exists: intra_op_threads is ignored")
            return
    session_options.intra_op_num_threads = options.intra_op_threads
    session_options.inter_op_num_threads = 1
    session_options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    session_options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session_options.add_session_config_entry("session.inter_op.allow_spinning", "0")
