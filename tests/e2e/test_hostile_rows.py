"""Every row of the list of hostile inputs is tested on every front end, or a reason says why."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROWS = frozenset(range(1, 43))
BELOW = "a matter of the host, which all protocols share"
NO_SUCH = "the protocol has no such thing"
ELSEWHERE = "of the other protocol"
JSON, HTTP, GRPC = {27, 28, 29}, {30, 31, 32, 33, 34, 35, 36}, {26, 37, 38, 39}
TFS = {41, 42}
# The files of each front end, and the rows that none of them has.
FRONTS = {
    "gRPC v2": (
        ("hostile_grpc", "hostile_frames", "settings", "shared_memory", "stream_infer"),
        {ELSEWHERE: JSON | HTTP | TFS},
    ),
    "HTTP v2": (
        ("hostile_http", "settings", "shared_memory", "binary_tensors"),
        {
            ELSEWHERE: GRPC | TFS,
            NO_SUCH: {8, 9, 17},  # each tensor brings its own bytes, at its own place
        },
    ),
    "TensorFlow Serving": (
        ("hostile_tensorflow", "tensorflow_serving_grpc", "tensorflow_serving_rest"),
        {
            # Tensors by name and no parameters; neither shared memory nor a repository.
            NO_SUCH: {8, 9, 20, 21, 22, 25, 30, 31},
            BELOW: {35, 38},
        },
    ),
}


@pytest.mark.parametrize("front", FRONTS)
def test_every_row_is_tested(front: str) -> None:
    files, without = FRONTS[front]
    folder = Path(__file__).parent
    texts = [(folder / f"test_{name}.py").read_text() for name in files]
    pattern = re.compile(r"case\(\s*(\d+),|def test_row(\d+)_")
    tested = {int(a or b) for text in texts for a, b in pattern.findall(text)}
    excused = set().union(*without.values())
    assert tested | excused == ROWS
    assert not tested & excused
