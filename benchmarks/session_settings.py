"""The ONNX Runtime settings that all servers of a benchmark share, apart from ONNX Runtime itself.

The harness states them in its report and must not import ONNX Runtime (see `models.py`).
"""

from __future__ import annotations

THREADS_PER_RUN = 1
PARALLEL_RUNS = 2
SPINNING = False
DESCRIPTION = (
    f"CPU provider, intra_op={THREADS_PER_RUN}, inter_op={THREADS_PER_RUN}, sequential, "
    f"spinning {'on' if SPINNING else 'off'}"
)
