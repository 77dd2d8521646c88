"""Where the key of a request is found."""

from __future__ import annotations

import numpy as np
import pytest

from crossfade.ensemble.keys import Key, KeySource
from crossfade.runtimes.core.model import InferRequest, Tensor


def test_a_header_is_found_whatever_the_case_of_its_name() -> None:
    key = Key(KeySource.HEADER, "X-User")
    request = InferRequest({}, parameters={"header:x-user": "anna", "X-User": "bert"})

    assert key.headers == ("x-user",)
    assert key.of(request) == "anna"


@pytest.mark.parametrize(
    ("value", "text"), [("anna", "anna"), (42, "42"), (True, "True"), (b"\xff", "\udcff")]
)
def test_a_parameter_is_its_text(value: object, text: str) -> None:
    key = Key(KeySource.PARAMETER, "user")

    assert key.headers == ()
    assert key.of(InferRequest({}, parameters={"user": value})) == text
    assert key.of(InferRequest({})) is None


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.array([[42], [7]], np.int64), "42"),
        (np.array([b"anna"], object), "anna"),
        (np.array(0.5, np.float32), "0.5"),
        (np.empty((0, 2), np.int64), None),
    ],
)
def test_an_input_is_its_first_element(array: Tensor, text: str | None) -> None:
    key = Key(KeySource.INPUT, "user")

    assert key.of(InferRequest({"user": array})) == text
    assert key.of(InferRequest({"other": array})) is None
