"""Conversions are exact where it matters, never overflow, and refuse what was not declared."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from crossfade.ensemble.scores import (
    FLOOR,
    Quantization,
    ScoreKind,
    calibrated,
    dequantize,
    log_scores,
    log_softmax,
    normalised,
    probabilities,
    sigmoid,
    softmax,
)
from crossfade.runtimes.core.errors import Internal

ANY_FLOAT = st.floats(allow_nan=False, allow_infinity=False, width=32)
LOGITS = hnp.arrays(np.float32, hnp.array_shapes(max_dims=4, min_side=1), elements=ANY_FLOAT)


@given(LOGITS)
def test_softmax_of_any_floats(logits: np.ndarray) -> None:
    p = softmax(logits)

    assert p.dtype == np.float32
    assert p.shape == logits.shape
    assert np.allclose(p.sum(axis=-1), 1, atol=1e-5)
    assert (
        np.take_along_axis(p, logits.argmax(axis=-1)[..., None], -1) == p.max(-1)[..., None]
    ).all()


@given(LOGITS)
def test_sigmoid_of_any_floats(logits: np.ndarray) -> None:
    p = sigmoid(logits)

    assert p.dtype == np.float32
    assert ((p >= 0) & (p <= 1)).all()
    assert np.allclose(p + sigmoid(-logits), 1)


def test_softmax_against_the_formula() -> None:
    z = np.random.default_rng(0).normal(size=(3, 4, 5))

    assert np.allclose(softmax(z), np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True))
    assert np.allclose(sigmoid(z), 1 / (1 + np.exp(-z)))


def test_a_masked_class_may_be_minus_infinity() -> None:
    assert log_softmax(np.array([0.0, -np.inf, 0.0])).tolist() == [-np.log(2), -np.inf, -np.log(2)]


def test_dequantized_as_tflite_says() -> None:
    stored = np.array([0, 3, 255], np.uint8)

    assert dequantize(stored, Quantization(1 / 127, 128)).tolist() == pytest.approx(
        [-128 / 127, -125 / 127, 1]
    )
    assert dequantize(stored, Quantization(1 / 256)).dtype == np.float32


@pytest.mark.parametrize(("dtype", "expected"), [("f2", "f4"), ("f4", "f4"), ("f8", "f8")])
def test_floats_need_no_quantization(dtype: str, expected: str) -> None:
    assert dequantize(np.ones(2, dtype), None).dtype == expected


def test_a_row_of_uint8_scores_keeps_its_probability() -> None:
    # 0.9 for one of a thousand classes; the other 0.1 was rounded to zeros.
    stored = np.zeros(1000, np.uint8)
    stored[7] = 230

    logs = log_scores(stored, ScoreKind.PROBABILITIES, quantization=Quantization(1 / 256))

    p = np.exp(logs)
    assert p[7] > 0.997  # the zeros together got no more than half a step
    assert p.sum() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("exclusive", [True, False])
@given(data=st.data())
def test_logits_and_probabilities_of_one_model_agree(exclusive: bool, data: st.DataObject) -> None:
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=3))
    logits = data.draw(hnp.arrays(np.float32, shape, elements=st.floats(-5, 5, width=32)))
    temperature = data.draw(st.floats(0.5, 4))
    as_logits, as_probabilities = (
        (ScoreKind.LOGITS, ScoreKind.PROBABILITIES)
        if exclusive
        else (ScoreKind.LABEL_LOGITS, ScoreKind.LABEL_PROBABILITIES)
    )
    plain = probabilities(logits, exclusive=exclusive)

    one = log_scores(logits, as_logits, temperature=temperature)
    other = log_scores(plain, as_probabilities, temperature=temperature)

    assert one.dtype == other.dtype == np.float32
    assert np.allclose(one, other, atol=1e-3)
    assert np.allclose(
        probabilities(log_scores(plain, as_probabilities), exclusive=exclusive), plain, atol=1e-5
    )


@example(np.full(1, 1.7e38, np.float32), ScoreKind.LOGITS, 0.5)
@given(LOGITS, st.sampled_from([ScoreKind.LOGITS, ScoreKind.LABEL_LOGITS]), st.floats(0.01, 100))
def test_log_scores_are_finite(logits: np.ndarray, kind: ScoreKind, temperature: float) -> None:
    logs = log_scores(logits, kind, temperature=temperature)

    assert np.isfinite(logs).all()
    assert logs.min() >= np.float32(np.log(FLOOR))


@pytest.mark.parametrize(
    ("scores", "kind"),
    [
        (np.array([0.2, 0.3], "f4"), ScoreKind.PROBABILITIES),  # multi-label scores, misdeclared
        (np.array([2.0, -1.0], "f4"), ScoreKind.PROBABILITIES),  # logits, misdeclared
        (np.array([2.0, -1.0], "f4"), ScoreKind.LABEL_PROBABILITIES),
        (np.array([np.nan, 1.0], "f4"), ScoreKind.PROBABILITIES),
        (np.array([np.nan, 1.0], "f4"), ScoreKind.LOGITS),
        (np.array([np.inf, 1.0], "f4"), ScoreKind.LOGITS),
        (np.array([-np.inf, -np.inf], "f4"), ScoreKind.LABEL_LOGITS),
        (np.array([1, 0], np.uint8), ScoreKind.PROBABILITIES),  # no quantisation
        (np.array([1.0, 0.0], "f4"), ScoreKind.VALUES),
        (np.float32(1), ScoreKind.LOGITS),
        (np.zeros((2, 0), "f4"), ScoreKind.PROBABILITIES),
    ],
)
def test_what_was_not_declared_is_refused(scores: np.ndarray, kind: ScoreKind) -> None:
    with pytest.raises(Internal):
        log_scores(np.asarray(scores), kind)


def test_a_quantization_of_floats_is_refused() -> None:
    with pytest.raises(Internal, match="no integers"):
        dequantize(np.ones(2, np.float32), Quantization(0.5))


@pytest.mark.parametrize("kind", [ScoreKind.PROBABILITIES, ScoreKind.LABEL_PROBABILITIES])
def test_calibrated_probabilities_stay_what_they_are(kind: ScoreKind) -> None:
    scores = np.float32([[0.2, 0.3, 0.5], [1, 0, 0]])

    assert calibrated(scores, kind) is scores
    one_way_and_back = calibrated(scores, kind, temperature=1 + 1e-9)
    np.testing.assert_allclose(one_way_and_back, scores, atol=1e-6)
    with pytest.raises(Internal):
        calibrated(scores + 1, kind)


def test_a_temperature_and_a_scale_are_used_where_they_are_given() -> None:
    logits = np.float32([[1, 2, 4]])

    np.testing.assert_allclose(
        calibrated(logits, ScoreKind.LOGITS, temperature=2), softmax(logits / 2), rtol=1e-6
    )
    stored = calibrated(
        np.uint8([[64, 192]]), ScoreKind.PROBABILITIES, quantization=Quantization(1 / 256)
    )
    np.testing.assert_allclose(stored, [[0.25, 0.75]], rtol=1e-5)


@given(
    hnp.arrays(
        np.float64, hnp.array_shapes(max_dims=3, min_side=1), elements=st.floats(0, 1, width=16)
    ),
    st.booleans(),
)
def test_the_short_way_gives_what_the_way_through_logarithms_gives(
    drawn: np.ndarray, stored: bool
) -> None:
    drawn[..., 0] += 1e-3  # a row of zeros is no distribution
    real = drawn / drawn.sum(axis=-1, keepdims=True)
    quantization = Quantization(1 / 255) if stored else None
    scores = np.round(real * 255).astype(np.uint8) if stored else real.astype(np.float32)
    logs = log_scores(scores, ScoreKind.PROBABILITIES, quantization=quantization)

    short = normalised(scores, ScoreKind.PROBABILITIES, quantization)

    assert short.dtype == np.float32
    assert np.allclose(short, probabilities(logs, exclusive=True), rtol=1e-4, atol=2e-7)


@pytest.mark.parametrize(
    "scores",
    [np.float32([0.5, 0.6]), np.float32([np.nan, 1]), np.float32([-0.5, 1.5]), np.uint8([1, 254])],
)
def test_the_short_way_refuses_as_the_other(scores: np.ndarray) -> None:
    messages = []
    for way in (log_scores, normalised):
        with pytest.raises(Internal) as caught:
            way(scores, ScoreKind.PROBABILITIES)  # type: ignore[operator]
        messages.append(caught.value.message)
    assert messages[0] == messages[1]
