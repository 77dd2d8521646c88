"""Learning weights: what it finds, what it refuses, and that its report keeps everything."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
from sklearn.metrics import log_loss as scikit_log_loss

from crossfade.ensemble.calibration import log_loss
from crossfade.ensemble.combine import Combination, MemberScores, Rule
from crossfade.ensemble.scores import ScoreKind, log_softmax
from crossfade.ensemble.weights import CANDIDATES, Fit, WeightsReport, learn_weights
from crossfade.runtimes.core.errors import InvalidArgument

CLASSES = 4


def members(
    strengths: list[float], rows: int, seed: int, together: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Log-scores of members that see the class by ``strengths``, and the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, rows)
    shared = rng.normal(size=(rows, CLASSES))
    noise = together * shared + np.sqrt(1 - together**2) * rng.normal(
        size=(len(strengths), rows, CLASSES)
    )
    z = noise.copy()
    z[:, np.arange(rows), labels] += np.array(strengths)[:, None]
    return z * np.array(strengths)[:, None, None], labels


@functools.cache
def learned(*strengths: float, rows: int = 600, seed: int = 0) -> WeightsReport:
    logs, labels = members(list(strengths), rows, seed)
    return learn_weights(logs, labels, [f"m{i}" for i in range(len(strengths))])


def test_equal_members_get_equal_weights() -> None:
    fit = learned(1.0, 1.0, 1.0).fit

    assert np.allclose(np.array(fit.weights) / sum(fit.weights), 1 / 3, atol=0.06)


def test_one_member_that_knows_nearly_everything_is_enough() -> None:
    report = learned(4.0, 0.3)

    assert report.chosen == "best_single"
    assert report.fit == Fit((1.0, 0.0))


def test_a_useless_member_gets_nothing_in_any_candidate() -> None:
    logs, labels = members([1.5, 1.0], 500, seed=3)
    rng = np.random.default_rng(4)
    noise = rng.normal(size=logs[:1].shape) * 3
    shuffled = logs[:1, rng.permutation(500)]

    report = learn_weights(np.concatenate([logs, noise, shuffled]), labels, list("abcd"))

    for candidate in report.candidates:
        assert candidate.fit.weights[2:] == (0.0, 0.0)
        assert candidate.shares[2:] == (0.0, 0.0)


def test_only_useless_members_are_still_an_ensemble() -> None:
    rng = np.random.default_rng(0)
    report = learn_weights(rng.normal(size=(2, 100, 3)), rng.integers(0, 3, 100), ["a", "b"])

    assert sum(report.fit.weights) > 0


def test_an_overconfident_member_is_cooled() -> None:
    logs, labels = members([1.5, 1.5], 2000, seed=5)
    logs[1] *= 5

    report = learn_weights(logs, labels, ["plain", "loud"])

    plain, loud = report.members
    assert loud.temperature == pytest.approx(5 * plain.temperature, rel=0.3)
    assert loud.calibration_error > 0.1
    assert loud.calibrated_error < 0.05


def test_the_order_of_members_and_classes_does_not_matter() -> None:
    logs, labels = members([1.4, 1.0, 0.7], 400, seed=6)
    order, classes = [2, 0, 1], [3, 1, 0, 2]
    plain = learn_weights(logs, labels, list("abc"), folds=4)
    # Folds are dealt by class, so they stay the same only if the classes do.
    moved = learn_weights(logs[order], labels, list("cab"), folds=4)
    recoded = learn_weights(logs[:, :, classes], np.argsort(classes)[labels], list("abc"), folds=4)

    assert moved.chosen == plain.chosen
    for name in CANDIDATES:
        first = next(c for c in plain.candidates if c.name == name)
        second = next(c for c in moved.candidates if c.name == name)
        third = next(c for c in recoded.candidates if c.name == name)
        assert second.log_loss == pytest.approx(first.log_loss, abs=1e-3)
        assert np.array(second.fit.weights) == pytest.approx(
            np.array(first.fit.weights)[order], abs=0.02
        )
        assert np.array(third.fit.weights) == pytest.approx(first.fit.weights, abs=0.02)


def test_the_choice_is_the_simplest_within_one_standard_error() -> None:
    for report in (learned(1.0, 1.0, 1.0), learned(4.0, 0.3), learned(1.6, 1.0, 0.4)):
        within = [c.name for c in report.candidates if c.excess <= c.excess_standard_error]
        assert [c.name for c in report.candidates] == list(CANDIDATES)
        assert report.chosen == within[0]
        assert min(c.excess for c in report.candidates) == 0


def test_the_nested_estimate_is_honest() -> None:
    # The estimate from the labelled rows against the loss on many new ones.
    errors = []
    for seed in range(6):
        logs, labels = members([1.2, 0.9, 0.6], 400, seed)
        report = learn_weights(logs, labels, list("abc"))
        fresh, truth = members([1.2, 0.9, 0.6], 20_000, seed + 100)
        temperatures = np.array([member.temperature for member in report.members])
        cooled = log_softmax(fresh / temperatures[:, None, None])
        loss = log_loss(report.fit.predict(cooled), truth).mean()
        errors.append(report.nested_log_loss / loss - 1)

    assert abs(np.mean(errors)) < 0.05


@pytest.mark.parametrize("name", CANDIDATES)
def test_what_was_learned_is_what_is_served(name: str) -> None:
    logs, labels = members([1.2, 0.9], 300, seed=7)
    report = learn_weights(logs, labels, ["a", "b"])
    fit = next(c.fit for c in report.candidates if c.name == name)
    temperatures = [member.temperature for member in report.members]
    classes = tuple(f"class {c}" for c in range(CLASSES))

    served = Combination(
        tuple(MemberScores(ScoreKind.LOGITS, classes, None, t) for t in temperatures),
        fit.weights,
        fit.rule,
        fit.bias,
    )(list(logs.astype(np.float32)))

    expected = fit.predict(log_softmax(logs / np.array(temperatures)[:, None, None]))
    assert np.allclose(served, expected, atol=1e-5)
    assert log_loss(served, labels).mean() == pytest.approx(
        scikit_log_loss(labels, served), abs=1e-5
    )


def test_the_report_goes_through_json() -> None:
    report = learned(1.6, 1.0, 0.4)
    text = report.to_json()

    assert WeightsReport.from_json(text) == report
    assert json.loads(text)["chosen"] == report.chosen
    assert any(c.fit.rule is Rule.LOGIT and len(c.fit.bias) == CLASSES for c in report.candidates)


@pytest.mark.parametrize("change", [{"chosen": "none"}, {"extra": 1}, {"members": [{}]}])
def test_another_json_is_refused(change: dict[str, object]) -> None:
    text = json.dumps({**json.loads(learned(4.0, 0.3).to_json()), **change})

    with pytest.raises(InvalidArgument):
        WeightsReport.from_json(text)


@pytest.mark.parametrize("text", ["", "[]", "{}", "null"])
def test_no_report_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        WeightsReport.from_json(text)


def test_the_same_arguments_give_the_same_report() -> None:
    logs, labels = members([1.2, 0.9], 100, seed=8)

    assert learn_weights(logs, labels, list("ab")) == learn_weights(logs, labels, list("ab"))


LOGS, LABELS = np.zeros((2, 20, 3)), np.arange(20) % 3


@pytest.mark.parametrize(
    ("logs", "labels", "names"),
    [
        (LOGS[0], LABELS, ["a", "b"]),
        (LOGS, LABELS, ["a"]),
        (LOGS[:0], LABELS, []),
        (LOGS + np.nan, LABELS, ["a", "b"]),
        (LOGS, LABELS[:-1], ["a", "b"]),
        (LOGS, LABELS + 1, ["a", "b"]),
        (LOGS, LABELS.astype(float), ["a", "b"]),
        (LOGS[:, :9], LABELS[:9], ["a", "b"]),
    ],
)
def test_what_does_not_fit_is_refused(
    logs: np.ndarray, labels: np.ndarray, names: list[str]
) -> None:
    with pytest.raises(InvalidArgument):
        learn_weights(logs, labels, names)


def test_what_is_served_is_what_was_learned() -> None:
    """A member that is certain and wrong on one row in a thousand costs the ensemble little."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 1000)
    sure = np.where(np.eye(2)[labels] > 0, 1.0, 0.0)
    sure[0] = 1 - sure[0]
    good = 0.9 * np.eye(2)[labels] + 0.05
    logs = np.log(np.maximum([sure, good], 1e-7))
    report = learn_weights(logs, labels, ["sure", "good"])
    assert report.doubt == 1 / 1002
    pool = Combination(
        tuple(
            MemberScores(ScoreKind.PROBABILITIES, ("a", "b"), temperature=member.temperature)
            for member in report.members
        ),
        report.fit.weights,
        report.fit.rule,
        report.fit.bias,
        report.doubt,
    )
    answer = pool([sure, good])
    assert -np.log(answer[np.arange(1000), labels]).mean() < 0.02
    assert answer[0, labels[0]] > 1e-4


def test_members_that_say_nothing_still_have_shares() -> None:
    report = learn_weights(np.zeros((2, 60, 3)), np.arange(60) % 3, ["x", "y"])
    for one in report.candidates:
        assert sum(one.shares) == pytest.approx(1)
    assert report.nested_log_loss == pytest.approx(np.log(3), abs=0.01)
