"""Tails against SciPy and by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from crossfade.ensemble.tails import (
    binomial_cdf,
    binomial_pmf,
    binomial_two_sided,
    binomial_upper,
    chi_square_tail,
)

SHARES = st.floats(1e-4, 1 - 1e-4)


@given(st.integers(0, 400), SHARES, st.data())
def test_binomial(n: int, p: float, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))

    assert binomial_pmf(n, p).sum() == pytest.approx(1)
    assert binomial_cdf(k, n, p) == pytest.approx(stats.binom.cdf(k, n, p), rel=1e-8, abs=1e-12)
    assert binomial_two_sided(k, n, p) == pytest.approx(
        stats.binomtest(k, n, p).pvalue if n else 1.0, rel=1e-6, abs=1e-12
    )


@given(st.integers(1, 400), st.floats(0.001, 0.5), st.data())
def test_clopper_pearson(n: int, delta: float, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))

    expected = stats.beta.ppf(1 - delta, k + 1, n - k) if k < n else 1.0

    assert binomial_upper(k, n, delta) == pytest.approx(expected, abs=1e-6)


@given(st.floats(0, 200), st.integers(1, 20))
def test_chi_square(x: float, degrees: int) -> None:
    assert chi_square_tail(x, degrees) == pytest.approx(
        stats.chi2.sf(x, degrees), rel=1e-9, abs=1e-300
    )


def test_what_is_certain() -> None:
    assert binomial_pmf(2, 0.0).tolist() == [1, 0, 0]
    assert binomial_pmf(2, 1.0).tolist() == [0, 0, 1]
    assert binomial_cdf(5, 5, 0.1) == 1
    assert binomial_upper(5, 5, 0.05) == 1


def test_the_rule_of_three() -> None:
    assert binomial_upper(0, 598, 0.05) == pytest.approx(0.005, abs=1e-5)
    assert 0.995**598 < 0.05 < 0.995**597


def test_a_million_trials() -> None:
    assert binomial_cdf(500_000, 1_000_000, 0.5) == pytest.approx(0.5003989, abs=1e-6)
