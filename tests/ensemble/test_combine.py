"""The laws of a combination, for every rule, kind and rank."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from crossfade.ensemble.combine import TIE, Combination, MemberScores, Rule
from crossfade.ensemble.scores import Quantization, ScoreKind, sigmoid, softmax
from crossfade.runtimes.core.errors import FailedPrecondition, Internal, Unavailable

LOGITS = (ScoreKind.LOGITS, ScoreKind.LABEL_LOGITS)
RULES = list(Rule)
ELEMENTS = st.floats(-8, 8, width=32)


def named(classes: int) -> tuple[str, ...]:
    return tuple(f"class {c}" for c in range(classes))


@st.composite
def ensembles(draw: st.DrawFn) -> tuple[Combination, list[np.ndarray]]:
    members = draw(st.integers(1, 4))
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=5, min_side=1, max_side=4))
    raw = draw(st.lists(st.integers(1, 9), min_size=members, max_size=members))
    kind = draw(st.sampled_from(LOGITS))
    outputs = [draw(hnp.arrays(np.float32, shape, elements=ELEMENTS)) for _ in raw]
    combination = Combination(
        (MemberScores(kind, named(shape[-1])),) * members,
        tuple(weight / sum(raw) for weight in raw),
        draw(st.sampled_from(RULES)),
    )
    return combination, outputs


@given(ensembles())
def test_probabilities_of_the_same_shape(given_: tuple[Combination, list[np.ndarray]]) -> None:
    combination, outputs = given_
    combined = combination(outputs)

    assert combined.dtype == np.float32
    assert combined.shape == outputs[0].shape
    assert ((combined >= 0) & (combined <= 1 + 1e-5)).all()
    if combination.members[0].kind.exclusive:
        assert np.allclose(combined.sum(axis=-1), 1, atol=1e-5)


@given(ensembles(), st.randoms(use_true_random=False))
def test_the_order_of_members_does_not_matter(
    given_: tuple[Combination, list[np.ndarray]], rnd: object
) -> None:
    combination, outputs = given_
    order = list(range(len(outputs)))
    rnd.shuffle(order)  # type: ignore[attr-defined]
    shuffled = Combination(
        tuple(combination.members[i] for i in order),
        tuple(combination.weights[i] for i in order),
        combination.rule,
    )

    assert np.allclose(shuffled([outputs[i] for i in order]), combination(outputs), atol=1e-5)


@given(ensembles(), st.data())
def test_the_order_of_labels_does_not_matter(
    given_: tuple[Combination, list[np.ndarray]], data: st.DataObject
) -> None:
    combination, outputs = given_
    classes = outputs[0].shape[-1]
    orders = [data.draw(st.permutations(range(classes))) for _ in outputs]
    shuffled = Combination(
        tuple(
            MemberScores(member.kind, tuple(member.labels[i] for i in order))
            for member, order in zip(combination.members, orders, strict=True)
        ),
        combination.weights,
        combination.rule,
    )

    combined = shuffled([o[..., order] for o, order in zip(outputs, orders, strict=True)])

    places = [shuffled.labels.index(label) for label in combination.labels]
    assert np.allclose(combined[..., places], combination(outputs), atol=1e-5)


@given(ensembles())
def test_members_that_agree_are_believed(given_: tuple[Combination, list[np.ndarray]]) -> None:
    combination, outputs = given_
    assume(combination.rule is not Rule.VOTE)
    exclusive = combination.members[0].kind.exclusive

    combined = combination([outputs[0]] * len(outputs))

    expected = softmax(outputs[0]) if exclusive else sigmoid(outputs[0])
    assert np.allclose(combined, expected, atol=1e-5)


@given(ensembles())
def test_the_arithmetic_mean_lies_between_its_members(
    given_: tuple[Combination, list[np.ndarray]],
) -> None:
    combination, outputs = given_
    assume(combination.rule is Rule.PROBABILITY)
    exclusive = combination.members[0].kind.exclusive
    each = np.stack([softmax(o) if exclusive else sigmoid(o) for o in outputs])

    combined = combination(outputs)

    assert (combined >= each.min(axis=0) - 1e-5).all()
    assert (combined <= each.max(axis=0) + 1e-5).all()


@given(ensembles(), st.data())
def test_a_duplicate_that_shares_the_weight_changes_nothing(
    given_: tuple[Combination, list[np.ndarray]], data: st.DataObject
) -> None:
    combination, outputs = given_
    twice = data.draw(st.integers(0, len(outputs) - 1))
    half = combination.weights[twice] / 2
    weights = [half if i == twice else w for i, w in enumerate(combination.weights)]
    doubled = Combination(
        (*combination.members, combination.members[twice]), (*weights, half), combination.rule
    )

    assert np.allclose(doubled([*outputs, outputs[twice]]), combination(outputs), atol=1e-5)


@given(ensembles(), st.data())
def test_a_member_left_out_is_as_if_it_was_never_there(
    given_: tuple[Combination, list[np.ndarray]], data: st.DataObject
) -> None:
    combination, outputs = given_
    assume(len(outputs) > 1)
    out = data.draw(st.integers(0, len(outputs) - 1))
    rest = [i for i in range(len(outputs)) if i != out]
    total = sum(combination.weights[i] for i in rest)
    without = Combination(
        tuple(combination.members[i] for i in rest),
        tuple(combination.weights[i] / total for i in rest),
        combination.rule,
    )

    combined = combination([None if i == out else o for i, o in enumerate(outputs)])

    assert np.allclose(combined, without([outputs[i] for i in rest]), atol=1e-5)


@pytest.mark.parametrize("rank", range(6))
def test_weights_meet_the_members_at_every_rank(rank: int) -> None:
    # Two members and dimensions of two: the case in which a wrong broadcast goes unseen.
    shape = (2,) * rank
    first, second = np.zeros(shape, np.float32), np.ones(shape, np.float32)
    values = Combination((MemberScores(ScoreKind.VALUES),) * 2, (0.25, 0.75))

    assert np.array_equal(values([first, second]), np.full(shape, 0.75, np.float32))


def test_by_hand() -> None:
    p, q = np.array([[0.8, 0.2]], np.float32), np.array([[0.4, 0.6]], np.float32)
    member = MemberScores(ScoreKind.PROBABILITIES, ("a", "b"))

    def combined(rule: Rule, weights: tuple[float, float]) -> list[float]:
        return Combination((member, member), weights, rule)([p, q])[0].tolist()  # type: ignore[no-any-return]

    assert combined(Rule.PROBABILITY, (0.75, 0.25)) == pytest.approx([0.7, 0.3])
    geometric = [math.sqrt(0.8 * 0.4), math.sqrt(0.2 * 0.6)]
    assert combined(Rule.LOGIT, (0.5, 0.5)) == pytest.approx(
        [value / sum(geometric) for value in geometric]
    )
    # One vote each is a tie, and the first member is the surer one.
    tied = combined(Rule.VOTE, (0.5, 0.5))
    assert tied == pytest.approx([0.5 + 0.1 * TIE, 0.5 - 0.1 * TIE])
    assert combined(Rule.VOTE, (0.4, 0.6))[1] > 0.59


def test_a_member_with_two_first_classes_has_half_a_vote_for_each() -> None:
    member = MemberScores(ScoreKind.PROBABILITIES, ("a", "b", "c"))
    scores = np.array([0.4, 0.4, 0.2], np.float32)

    assert Combination((member,), (1.0,), Rule.VOTE)([scores]) == pytest.approx(
        [0.5, 0.5, 0], abs=TIE
    )


def test_votes_for_labels_that_do_not_exclude_each_other() -> None:
    member = MemberScores(ScoreKind.LABEL_PROBABILITIES, ("a", "b", "c"))
    one = np.array([0.9, 0.1, 0.5], np.float32)
    two = np.array([0.8, 0.9, 0.9], np.float32)

    shares = Combination((member, member), (0.5, 0.5), Rule.VOTE)([one, two])

    assert shares == pytest.approx([1, 0.5, 0.75], abs=TIE)


def test_an_automl_export_beside_a_model_with_logits_in_another_order() -> None:
    export = MemberScores(
        ScoreKind.PROBABILITIES, ("rose", "tulip", "daisy"), Quantization(1 / 256)
    )
    custom = MemberScores(ScoreKind.LOGITS, ("daisy", "rose", "tulip"), temperature=2.0)
    combination = Combination((export, custom), (0.5, 0.5))

    combined = combination(
        [np.array([[192, 32, 32]], np.uint8), np.array([[0.0, 2 * math.log(6), 0.0]], np.float32)]
    )

    assert combination.labels == ("rose", "tulip", "daisy")
    assert combined[0] == pytest.approx([0.75, 0.125, 0.125], abs=1e-5)


def test_exponents_and_bias_as_stacking_learns_them() -> None:
    member = MemberScores(ScoreKind.LOGITS, ("a", "b"))
    z = np.array([[1.0, -1.0]], np.float32)

    combined = Combination((member, member), (1.5, -0.25), Rule.LOGIT, (0.0, 0.5))([z, z])

    assert combined[0] == pytest.approx(softmax(np.array([1.25, -1.25 + 0.5])), abs=1e-6)


def test_a_member_that_only_corrects_another_is_no_answer_alone() -> None:
    member = MemberScores(ScoreKind.LOGITS, ("a", "b"))
    z = np.array([1.0, -1.0], np.float32)

    corrected = Combination((member, member), (1.5, -0.5), Rule.LOGIT)
    assert corrected([z, None]) == pytest.approx(softmax(z))
    with pytest.raises(Unavailable):
        corrected([None, z])
    against = Combination((member, member), (0.5, -1.5), Rule.LOGIT)
    assert against([z, z]) == pytest.approx(softmax(-z))


# A member that lacks a label.


def test_the_one_that_knows_the_label_decides_on_it() -> None:
    knows = MemberScores(ScoreKind.PROBABILITIES, ("rose", "tulip", "lily"))
    lacks = MemberScores(ScoreKind.PROBABILITIES, ("tulip", "rose"))
    combination = Combination((knows, lacks), (0.5, 0.5))

    def lily(p: float) -> np.ndarray:
        return combination([np.array([1 - p, 0, p], "f4"), np.array([0.5, 0.5], "f4")])

    # A picture of a lily: the other member has only wrong answers, and they do not count.
    assert lily(1.0) == pytest.approx([0, 0, 1], abs=1e-5)
    # Its proportions stay, within what is left.
    assert lily(0.2) == pytest.approx([(0.8 + 0.4) / 2, 0.4 / 2, 0.2], abs=1e-5)


def test_labels_that_do_not_exclude_each_other_are_averaged_over_who_knows_them() -> None:
    one = MemberScores(ScoreKind.LABEL_PROBABILITIES, ("a", "b"))
    two = MemberScores(ScoreKind.LABEL_PROBABILITIES, ("b", "c"))

    combined = Combination((one, two), (0.25, 0.75))(
        [np.array([0.9, 0.8], "f4"), np.array([0.4, 0.1], "f4")]
    )

    assert combined == pytest.approx([0.9, 0.25 * 0.8 + 0.75 * 0.4, 0.1], abs=1e-5)


def test_nobody_left_who_knows_a_label() -> None:
    one = MemberScores(ScoreKind.PROBABILITIES, ("a", "b"))
    two = MemberScores(ScoreKind.PROBABILITIES, ("b", "c"))

    combined = Combination((one, two), (0.5, 0.5))([None, np.array([0.4, 0.6], "f4")])

    assert combined == pytest.approx([0, 0.4, 0.6], abs=1e-5)


@given(st.data(), st.sampled_from(RULES), st.sampled_from(LOGITS))
def test_partly_shared_labels_keep_the_laws(
    data: st.DataObject, rule: Rule, kind: ScoreKind
) -> None:
    universe = named(6)
    labels = [
        tuple(data.draw(st.lists(st.sampled_from(universe), min_size=1, unique=True)))
        for _ in range(data.draw(st.integers(2, 4)))
    ]
    outputs = [
        data.draw(hnp.arrays(np.float32, (2, len(own)), elements=ELEMENTS)) for own in labels
    ]
    n = len(labels)
    combination = Combination(tuple(MemberScores(kind, own) for own in labels), (1 / n,) * n, rule)
    backwards = Combination(combination.members[::-1], combination.weights, rule)

    combined = combination(outputs)

    assert combined.shape == (2, len(combination.labels))
    assert ((combined >= 0) & (combined <= 1 + 1e-5)).all()
    if kind.exclusive:
        assert np.allclose(combined.sum(axis=-1), 1, atol=1e-5)
    if rule is not Rule.VOTE:  # a vote jumps where rounding decides which class is first
        places = [backwards.labels.index(label) for label in combination.labels]
        assert np.allclose(backwards(outputs[::-1])[:, places], combined, atol=1e-4)


# Numbers at the edge, and what is refused.


def test_the_largest_floats_do_not_overflow() -> None:
    top = np.finfo(np.float32).max
    values = Combination((MemberScores(ScoreKind.VALUES),) * 3, (1 / 3,) * 3)
    assert values([np.full(2, top)] * 3).tolist() == [top, top]

    logits = MemberScores(ScoreKind.LOGITS, ("a", "b"))
    for rule, order in itertools.product(RULES, ([top, -top], [-top, top])):
        z = np.array(order, np.float32)
        combined = Combination((logits, logits), (0.5, 0.5), rule)([z, z])
        assert combined == pytest.approx((np.array(order) > 0).astype(float), abs=1e-3)


def test_doubles_stay_doubles_where_they_have_a_unit() -> None:
    values = Combination((MemberScores(ScoreKind.VALUES),) * 2, (0.5, 0.5))

    assert values([np.array([1e15]), np.array([1e15 + 2])]).tolist() == [1e15 + 1]


P, LP, V = ScoreKind.PROBABILITIES, ScoreKind.LABEL_PROBABILITIES, ScoreKind.VALUES
AB = ("a", "b")


@pytest.mark.parametrize(
    ("members", "weights", "rule", "bias", "says"),
    [
        ([(P, AB), (LP, AB)], (0.5, 0.5), Rule.LOGIT, (), "cannot be combined"),
        ([(P, AB), (V, ())], (0.5, 0.5), Rule.PROBABILITY, (), "cannot be combined"),
        ([(V, ()), (V, ())], (0.5, 0.5), Rule.VOTE, (), "plain values"),
        ([(P, AB)], (0.5, 0.5), Rule.PROBABILITY, (), "1 members need as many weights"),
        ([], (), Rule.PROBABILITY, (), "0 members"),
        ([(P, AB)] * 2, (0.5, 0.6), Rule.PROBABILITY, (), "sum to 1"),
        ([(P, AB)] * 2, (1.5, -0.5), Rule.VOTE, (), "not be negative"),
        ([(P, AB)] * 2, (0.0, 0.0), Rule.LOGIT, (), "not all of them 0"),
        ([(P, AB)] * 2, (math.nan, 1.0), Rule.LOGIT, (), "finite numbers"),
        ([(P, AB)], (1.0,), Rule.PROBABILITY, (0.0, 0.0), "bias"),
        ([(P, AB)], (1.0,), Rule.LOGIT, (0.0,), "bias"),
        ([(P, ())], (1.0,), Rule.LOGIT, (), "no labels"),
    ],
)
def test_what_is_refused_when_it_is_made(
    members: list[tuple[ScoreKind, tuple[str, ...]]],
    weights: tuple[float, ...],
    rule: Rule,
    bias: tuple[float, ...],
    says: str,
) -> None:
    with pytest.raises(FailedPrecondition, match=says):
        Combination(tuple(MemberScores(*each) for each in members), weights, rule, bias)


def test_what_is_refused_of_an_answer() -> None:
    member = MemberScores(ScoreKind.LOGITS, AB)
    combination = Combination((member, member), (1.0, 0.0))
    good = np.zeros((3, 2), np.float32)

    with pytest.raises(Internal, match="different shapes: \\[2\\] and \\[3, 2\\]"):
        combination([good, good[0]])
    with pytest.raises(Internal, match="member 1: the logits are not finite"):
        combination([good, good + np.float32(np.nan)])
    with pytest.raises(Unavailable):
        combination([None, None])
    with pytest.raises(Unavailable):
        combination([None, good])  # a weight of 0 alone is no answer
    values = Combination((MemberScores(V),), (1.0,))
    with pytest.raises(Internal, match="not finite"):
        values([np.array([np.inf])])
    with pytest.raises(FailedPrecondition, match="temperature"):
        Combination((MemberScores(P, AB, temperature=0),), (1.0,))


def test_a_zero_that_is_doubted_forbids_nothing() -> None:
    two = (MemberScores(ScoreKind.PROBABILITIES, ("a", "b")),) * 2
    sure, other = np.array([[1.0, 0.0]]), np.array([[0.001, 0.999]])
    plain = Combination(two, (0.5, 0.5), Rule.LOGIT)([sure, other])
    doubting = Combination(two, (0.5, 0.5), Rule.LOGIT, doubt=0.01)([sure, other])
    assert plain[0, 0] > 0.98
    expected = np.sqrt([0.995 * 0.00599, 0.005 * 0.99401])
    np.testing.assert_allclose(doubting[0], expected / expected.sum(), rtol=1e-4)
    with pytest.raises(FailedPrecondition, match="doubt"):
        Combination(two, (0.5, 0.5), doubt=1.0)
