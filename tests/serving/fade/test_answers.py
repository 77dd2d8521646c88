"""What an answer says in one word."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from crossfade.runtimes.core.errors import Internal
from crossfade.runtimes.core.model import InferResponse, ModelMetadata
from crossfade.serving.fade.answers import said


def response(names: dict[str, tuple[str, ...]] | None = None, **outputs: Any) -> InferResponse:
    arrays = {name: np.asarray(value) for name, value in outputs.items()}
    return InferResponse(arrays, ModelMetadata("m", 1, "fake", {}, names or {}))


def texts(*words: bytes) -> Any:
    return np.array([words], np.object_)


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (response({"scores": ("rose", "oak")}, scores=[[0.2, 0.8]]), "oak"),
        (response({"scores": ("rose", "oak")}, scores=np.array([[9, 8]], np.uint8)), "rose"),
        (response({"scores": ("rose", "oak")}, scores=[[0.2, 0.8]] * 2), None),  # two rows
        (response(None, scores=[[0.2, 0.8]]), None),
        (response(None, labels=texts(b"oak", b"rose"), scores=[[0.8, 0.2]]), "oak"),
        (response(None, label=texts(b"a\0b")), "ab"),
        (response(None, price=[[2.5]]), None),  # a real number is never exactly right
        (response(None, count=[[7]]), "7"),
        (response(None, spam=[[True]]), "True"),
        (response(None, label=texts(b"x" * 2000)), "x" * 1024),
        (response(None, label=texts(b"")), None),
        (response({"scores": ("", "oak")}, scores=[[0.8, 0.2]]), None),
    ],
)
def test_the_word(answer: InferResponse, word: str | None) -> None:
    assert said(answer) == word


def test_an_error_says_nothing() -> None:
    assert said(Internal("broken")) is None
