"""Boxes in the one format that leaves the server."""

from __future__ import annotations

import numpy as np

from crossfade.serving.processing.boxes import to_yxyx


def test_formats() -> None:
    wanted = np.array([[0.1, 0.2, 0.5, 0.8]], np.float32)
    np.testing.assert_array_equal(to_yxyx(wanted, "yxyx"), wanted)
    np.testing.assert_array_equal(to_yxyx(np.array([[0.2, 0.1, 0.8, 0.5]]), "xyxy"), wanted)
    middle = np.array([[0.5, 0.3, 0.6, 0.4]])
    np.testing.assert_allclose(to_yxyx(middle, "cxcywh"), wanted, atol=1e-6)
