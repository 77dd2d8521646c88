"""Libraries' texts, made fit for clients."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.runtimes.reason import one_line


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("two\n  lines\tand more", "two lines and more"),
        ("in /usr/lib/python3/site.py:12 it broke", "in site.py:12 it broke"),
        ("b'/srv/a b/models/m/3/saved_model.pb': bad", "b'saved_model.pb': bad"),
        ("/srv/a b/models/m/w.bin is not there", "w.bin is not there"),
        ("see https://www.tensorflow.org/lite/guide and/or 1/2", None),
        ("a\x1b[31mred\x00", "a [31mred"),
        ("x" * 400, "x" * 299 + "…"),
    ],
)
def test_one_line(said: str, told: str | None) -> None:
    assert one_line(said, Path("/srv/a b/models/m/3")) == (said if told is None else told)


def test_relative_paths_are_known_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("my models/m/1/model.onnx")
    assert one_line(f"Load {path} failed: {path.absolute()}", path) == (
        "Load model.onnx failed: model.onnx"
    )


@given(st.text(max_size=500))
def test_is_one_printable_line_whatever_was_said(text: str) -> None:
    told = one_line(text, Path("/srv/models/m/1/model.onnx"))
    assert len(told) <= 300
    assert told.isprintable()
