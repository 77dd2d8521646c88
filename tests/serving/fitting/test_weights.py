from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfade.ensemble.combine import Combination, Rule
from crossfade.ensemble.learned import Learned
from crossfade.ensemble.members import Known, Member
from crossfade.ensemble.scores import softmax
from crossfade.runtimes.core.errors import CrossfadeError
from crossfade.runtimes.core.model import ModelRef
from crossfade.serving.config import ensemble_config as config
from crossfade.serving.fitting import weights
from crossfade.serving.fitting.sample import Sample
from crossfade.serving.lifecycle.ensembles import weighted
from tests.ensemble.live import FakeLive, echo

ABC, CBA = ("a", "b", "c"), ("c", "b", "a")


def section(**keys: object) -> config.Weighted:
    members = [
        {"model": "x", "scores": "probabilities", "temperature": 3.0},
        {"model": "y", "scores": "logits"},
    ]
    return config.Weighted.model_validate({"kind": "weighted", "members": members, **keys})


def known(x: tuple[str, ...] = ABC, y: tuple[str, ...] = CBA) -> list[Known]:
    live = FakeLive(x=echo(x), y=echo(y))
    return [Known(Member(n, ModelRef(n)), live.metadata(ModelRef(n))) for n in "xy"]


def sample(seed: int, rows: int = 120) -> Sample:
    """Two members that see the truth through noise of their own; ``y`` in the other order."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, rows)
    seen = [2 * np.eye(3)[truth] + rng.normal(size=(rows, 3)) for _ in range(2)]
    return Sample(
        ("x", "y"),
        (np.float32(softmax(seen[0])), np.float32(3 * seen[1][:, ::-1])),
        truth,
        (1.0, 2.0),
        0,
        {},
        rows,
    )


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_what_is_served_is_what_was_fitted(seed: int) -> None:
    drawn = sample(seed)
    output, pool = weights.pool_of(section(), known(), None)
    assert output == "scores"
    found = weights.learn(pool, drawn, allow_unseen=False)
    learned = Learned.read(found.to_json(), ["x", "y"])
    served = weighted(section(), learned).pools(known())["scores"]
    logs = served.log_scores(drawn.scores).astype(np.float64)
    expected = found.report.fit.predict(logs)
    assert served(drawn.scores) == pytest.approx(expected, abs=1e-5)
    # The member in the other order was taken by its labels: both are better than a guess.
    assert all(one.log_loss < np.log(3) for one in found.report.members)


def test_temperatures_and_weights_of_the_configuration_do_not_count() -> None:
    _, pool = weights.pool_of(section(), known(), None)
    assert [one.temperature for one in pool.members] == [1.0, 1.0]
    assert pool.weights == (0.5, 0.5)


def test_the_file_has_the_labels() -> None:
    _, pool = weights.pool_of(section(), known(), None)
    found = weights.learn(pool, sample(1), allow_unseen=False)
    assert json.loads(found.to_json())["labels"] == list(ABC)
    assert found.logs.shape == (2, 120, 3)


def test_a_member_that_lacks_a_label_takes_the_opinion_of_the_other() -> None:
    drawn = sample(2)
    x, y = drawn.scores
    x = x[:, :2] / x[:, :2].sum(axis=1, keepdims=True)
    drawn = Sample(drawn.names, (x, y), drawn.truth, drawn.row_ms, 0, {}, 0)
    _, pool = weights.pool_of(section(), known(ABC[:2]), None)
    assert pool.labels == ABC
    found = weights.learn(pool, drawn, allow_unseen=False)
    assert np.isfinite(found.logs).all()
    assert np.exp(found.logs).sum(axis=2) == pytest.approx(1, abs=1e-4)
    blind = drawn.truth == 2  # what only the other knows
    taken, own = found.logs[0][blind, 2], found.logs[1][blind, 2]
    assert taken == pytest.approx(own, abs=1e-4)


def test_a_label_without_rows() -> None:
    drawn = sample(3)
    keep = drawn.truth < 2
    few = Sample(
        drawn.names, tuple(s[keep] for s in drawn.scores), drawn.truth[keep], (1.0, 1.0), 0, {}, 0
    )
    _, pool = weights.pool_of(section(), known(), None)
    with pytest.raises(CrossfadeError, match=r"no row has the label 'c': .*--allow-unseen"):
        weights.learn(pool, few, allow_unseen=False)
    assert weights.learn(pool, few, allow_unseen=True).report.rows == keep.sum()


@pytest.mark.parametrize(
    ("changed", "wanted", "says"),
    [
        ({"boxes": {}, "members": [{"model": "x"}, {"model": "y"}]}, None, "detectors"),
        (
            {"scores": "values", "members": [{"model": "x"}, {"model": "y"}]},
            None,
            "not for values",
        ),
        (
            {"scores": "label_logits", "members": [{"model": "x"}, {"model": "y"}]},
            None,
            "not for label_logits",
        ),
        ({}, "boxes", "combines scores, not 'boxes'"),
    ],
)
def test_what_has_no_weights_to_learn(
    changed: dict[str, object], wanted: str | None, says: str
) -> None:
    with pytest.raises(CrossfadeError, match=says):
        weights.pool_of(section(**changed), known(), wanted)


def test_log_scores_are_what_is_pooled() -> None:
    drawn = sample(4)
    _, pool = weights.pool_of(section(), known(), None)
    logit = Combination(pool.members, (0.3, 0.7), Rule.LOGIT)
    pooled = np.tensordot([0.3, 0.7], logit.log_scores(drawn.scores), 1)
    assert logit(drawn.scores) == pytest.approx(softmax(pooled), abs=1e-5)
