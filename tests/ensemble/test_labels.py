"""Scores meet by label, never by index."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.ensemble.labels import LabelAlignment, canonical
from crossfade.runtimes.core.errors import FailedPrecondition, Internal

NAMES = st.lists(st.integers(0, 30).map("label {}".format), min_size=1, unique=True)


def test_two_members_in_different_order() -> None:
    alignment = LabelAlignment.of([["rose", "tulip", "daisy"], ["daisy", "lily", "rose"]])

    assert alignment.labels == ("rose", "tulip", "daisy", "lily")
    assert [alignment.is_complete(member) for member in (0, 1)] == [False, False]
    scores = np.array([[1, 2, 3]], np.float32)
    assert alignment.spread(0, scores, -1).tolist() == [[1, 2, 3, -1]]
    assert alignment.spread(1, scores, -1).tolist() == [[3, -1, 1, 2]]
    assert alignment.classes(1, np.array([[0.0, 2.0]])).tolist() == [[2, 0]]


def test_the_same_order_costs_no_copy() -> None:
    alignment = LabelAlignment.of([["a", "b"], ["a", "b"]])
    scores = np.zeros((5, 2))

    assert alignment.spread(1, scores, 0) is scores


@given(st.lists(NAMES, min_size=1, max_size=4), st.data())
def test_every_label_keeps_its_score(members: list[list[str]], data: st.DataObject) -> None:
    alignment = LabelAlignment.of(members)
    number = data.draw(st.integers(0, len(members) - 1))
    scores = np.arange(2 * len(members[number]), dtype=np.float32).reshape(2, -1)

    spread = alignment.spread(number, scores, np.nan)

    assert sorted(alignment.labels) == sorted({label for member in members for label in member})
    for place, label in enumerate(alignment.labels):
        if label in members[number]:
            expected = scores[:, members[number].index(label)]
            assert np.array_equal(spread[:, place], expected)
        else:
            assert np.isnan(spread[:, place]).all()


@given(st.text())
def test_the_canonical_form_is_one_form(text: str) -> None:
    once = canonical(text)

    assert canonical(once) == once
    assert canonical(unicodedata.normalize("NFD", text)) == once
    assert canonical(f" \t{text}\r\n") == once


def test_spellings_of_one_label_meet() -> None:
    composed, decomposed = "caf\u00e9  noir", " cafe\u0301\u00a0noir\r"

    assert LabelAlignment.of([[composed, "x"], ["x", decomposed]]).labels == ("caf\u00e9 noir", "x")


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ([["a", "b"], ["b", "c", " b "]], "member 1 has the label 'b' twice"),
        ([["a"], []], "member 1 has no labels"),
        ([["a", " \t"]], "member 0 has no labels, or an empty one"),
        ([["rose", "lily"], ["Rose", "lily"]], "write one label as 'Rose' and 'rose'"),
    ],
)
def test_what_is_refused(members: list[list[str]], says: str) -> None:
    with pytest.raises(FailedPrecondition, match=says):
        LabelAlignment.of(members)


def test_case_tells_classes_apart_where_a_member_says_so() -> None:
    assert LabelAlignment.of([["US", "us"], ["us", "it"]]).labels == ("US", "us", "it")


@pytest.mark.parametrize("shape", [(), (3,), (2, 1)])
def test_an_answer_of_another_width_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(Internal, match="has 2 labels but answered"):
        LabelAlignment.of([["a", "b"]]).spread(0, np.zeros(shape), 0)


@pytest.mark.parametrize("bad", [-1, 2, 0.5, np.nan, np.inf])
def test_a_class_id_outside_the_labels_is_refused(bad: float) -> None:
    with pytest.raises(Internal, match="class id"):
        LabelAlignment.of([["a", "b"]]).classes(0, np.array([0, bad], np.float32))
