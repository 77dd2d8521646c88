"""Fusion and suppression against slow references in plain Python, and their laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.ensemble.boxes import Detections, fuse, overlap, suppress
from crossfade.runtimes.core.errors import Internal

Box = tuple[tuple[float, ...], float, int]  # corners, score, class


def detections(found: list[Box]) -> Detections:
    return Detections(
        np.array([box for box, _, _ in found], np.float32).reshape(-1, 4),
        np.array([score for _, score, _ in found], np.float32),
        np.array([label for _, _, label in found], np.intp),
    )


def slow_overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    height = min(a[2], b[2]) - max(a[0], b[0])
    width = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(height, 0) * max(width, 0)
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / both if both > 0 else 0.0


def slow_fuse(members: list[list[Box]], weights: list[float], threshold: float) -> list[Box]:
    everything = [
        (score * weight, number, box, label)
        for number, (member, weight) in enumerate(zip(members, weights, strict=True))
        for box, score, label in member
        if score * weight > 0
    ]
    everything.sort(key=lambda each: -each[0])
    clusters: list[list[tuple[float, int, tuple[float, ...], int]]] = []

    def mean_of(cluster: list[tuple[float, int, tuple[float, ...], int]]) -> tuple[float, ...]:
        mass = sum(each[0] for each in cluster)
        return tuple(sum(s * box[i] for s, _, box, _ in cluster) / mass for i in range(4))

    for each in everything:
        best, most = None, threshold
        for cluster in clusters:
            if cluster[0][3] == each[3] and slow_overlap(mean_of(cluster), each[2]) > most:
                best, most = cluster, slow_overlap(mean_of(cluster), each[2])
        if best is None:
            clusters.append([each])
        else:
            best.append(each)
    fused = []
    for cluster in clusters:
        seen = {
            number: max(s for s, n, _, _ in cluster if n == number) for _, number, _, _ in cluster
        }
        fused.append((mean_of(cluster), sum(seen.values()) / sum(weights), cluster[0][3]))
    return sorted(fused, key=lambda each: -each[1])


def slow_suppress(members: list[list[Box]], weights: list[float], threshold: float) -> list[Box]:
    everything = [
        (box, score * weight / max(weights), label)
        for member, weight in zip(members, weights, strict=True)
        for box, score, label in member
        if score * weight > 0
    ]
    everything.sort(key=lambda each: -each[1])
    kept: list[Box] = []
    for each in everything:
        if all(k[2] != each[2] or slow_overlap(k[0], each[0]) <= threshold for k in kept):
            kept.append(each)
    return kept


# Corners on a grid of 1/8 and scores in 1/64 are exact in binary: no rounding decides a match.
@st.composite
def found(draw: st.DrawFn) -> Box:
    y, x = draw(st.integers(0, 6)), draw(st.integers(0, 6))
    bottom, right = draw(st.integers(y, 8)), draw(st.integers(x, 8))
    return (
        (y / 8, x / 8, bottom / 8, right / 8),
        draw(st.integers(0, 64)) / 64,
        draw(st.integers(0, 2)),
    )


MEMBERS = st.lists(st.lists(found(), max_size=8), min_size=1, max_size=3)
THRESHOLDS = st.sampled_from([0.317, 0.503, 0.711])


def close(got: Detections, expected: list[Box]) -> None:
    assert got.classes.tolist() == [label for _, _, label in expected]
    assert got.scores == pytest.approx([score for _, score, _ in expected], abs=1e-6)
    assert np.allclose(
        got.boxes, np.array([box for box, _, _ in expected]).reshape(-1, 4), atol=1e-6
    )


def distinct(members: list[list[Box]]) -> list[list[Box]]:
    """The same with every score different, so that equal ones do not leave the order open."""
    number = 0
    for member in members:
        for place, (box, score, label) in enumerate(member):
            number += 1
            member[place] = (box, score / 2 + number / 512 if score else 0.0, label)
    return members


@given(MEMBERS.map(distinct), THRESHOLDS, st.data())
def test_fusion_is_the_slow_one(
    members: list[list[Box]], threshold: float, data: st.DataObject
) -> None:
    weights = [float(data.draw(st.sampled_from([1, 2, 4]))) for _ in members]

    fused = fuse([detections(m) for m in members], weights, iou_threshold=threshold)

    expected = slow_fuse(members, weights, threshold)
    order = sorted(
        range(len(fused.scores)), key=lambda i: (-round(float(fused.scores[i]), 5), *fused.boxes[i])
    )
    slow = sorted(expected, key=lambda each: (-round(each[1], 5), *np.float32(each[0])))
    close(Detections(fused.boxes[order], fused.scores[order], fused.classes[order]), slow)


@given(MEMBERS.map(distinct), THRESHOLDS)
def test_suppression_is_the_slow_one(members: list[list[Box]], threshold: float) -> None:
    weights = [1.0, 0.5, 0.25][: len(members)]

    kept = suppress([detections(m) for m in members], weights, iou_threshold=threshold)

    close(kept, slow_suppress(members, weights, threshold))


@given(MEMBERS, THRESHOLDS)
def test_fused_boxes_keep_the_laws(members: list[list[Box]], threshold: float) -> None:
    weights = [1.0, 3.0, 0.5][: len(members)]
    fused = fuse([detections(m) for m in members], weights, iou_threshold=threshold)
    boxes = [box for member in members for box in member if box[1] > 0]

    assert len(fused.scores) <= len(boxes)
    assert {int(label) for label in fused.classes} == {label for _, _, label in boxes}
    assert (np.diff(fused.scores) <= 0).all()
    assert ((fused.scores > 0) & (fused.scores <= 1 + 1e-6)).all()
    for label in set(fused.classes.tolist()):
        own = np.array([box for box, _, of in boxes if of == label])
        of_label = fused.boxes[fused.classes == label]
        assert (of_label >= own.min(axis=0) - 1e-6).all()
        assert (of_label <= own.max(axis=0) + 1e-6).all()


@given(st.lists(found(), max_size=8), THRESHOLDS)
def test_suppressing_twice_changes_nothing(boxes: list[Box], threshold: float) -> None:
    once = suppress([detections(boxes)], [1.0], iou_threshold=threshold)
    twice = suppress([once], [1.0], iou_threshold=threshold)

    assert np.array_equal(once.boxes, twice.boxes)
    assert np.array_equal(once.scores, twice.scores)


def test_agreement_shows_in_the_score() -> None:
    sees = detections([((0.0, 0.0, 0.5, 0.5), 0.75, 0)])
    sees_too = detections([((0.0, 0.0, 0.5, 0.625), 0.25, 0)])
    blind = detections([])

    agreed, alone = fuse([sees, sees_too], [1, 1]), fuse([sees, blind], [1, 1])

    assert agreed.scores.tolist() == [0.5]
    assert agreed.boxes.tolist() == [[0, 0, 0.5, 0.53125]]  # by score: 3 to 1
    assert alone.scores.tolist() == [0.375]
    assert alone.boxes.tolist() == sees.boxes.tolist()


def test_labels_do_not_meet() -> None:
    box = (0.0, 0.0, 1.0, 1.0)
    members = [detections([(box, 0.9, 0)]), detections([(box, 0.8, 1)])]

    assert fuse(members, [1, 1]).classes.tolist() == [0, 1]
    assert suppress(members, [1, 1]).classes.tolist() == [0, 1]


def test_one_member_with_many_boxes_cannot_lift_the_score() -> None:
    box = (0.0, 0.0, 1.0, 1.0)
    crowd = detections([(box, 0.5, 0)] * 5)

    assert fuse([crowd, detections([])], [0.9, 0.1]).scores.tolist() == pytest.approx([0.45])


def test_no_boxes_at_all() -> None:
    empty = detections([])

    assert fuse([empty, empty], [1, 1]).boxes.shape == (0, 4)
    assert suppress([empty], [1]).boxes.shape == (0, 4)


@given(st.lists(found(), max_size=5), st.lists(found(), max_size=5))
def test_overlaps(left: list[Box], right: list[Box]) -> None:
    a, b = detections(left), detections(right)

    ratio = overlap(a.boxes, b.boxes)

    assert ratio.shape == (len(left), len(right))
    assert np.allclose(ratio, overlap(b.boxes, a.boxes).T)
    for i, (box, _, _) in enumerate(left):
        for j, (other, _, _) in enumerate(right):
            assert ratio[i, j] == pytest.approx(slow_overlap(box, other))


@pytest.mark.parametrize(
    ("boxes", "scores", "classes"),
    [((2, 4), (3,), (2,)), ((2, 5), (2,), (2,)), ((2, 4), (2,), (1,)), ((4,), (1,), (1,))],
)
def test_what_does_not_fit_is_refused(
    boxes: tuple[int, ...], scores: tuple[int, ...], classes: tuple[int, ...]
) -> None:
    with pytest.raises(Internal, match="fit together"):
        Detections(
            np.zeros(boxes, np.float32), np.zeros(scores, np.float32), np.zeros(classes, np.intp)
        )


def test_a_box_that_is_no_number_is_refused() -> None:
    with pytest.raises(Internal, match="not finite"):
        detections([((0, 0, float("nan"), 1), 0.5, 0)])
