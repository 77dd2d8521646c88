from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.training.arr_coc.allocator import (
    FULL,
    LEAST,
    MOST,
    LatencyModel,
    TokenAllocator,
    allocate,
    allocate_by_threshold,
    check_budget,
    coverage_gains,
    quality_gains,
    soft_tokens,
)
from crossfade.training.arr_coc.patch_statistics import LEVELS

UNIT = st.floats(0, 1, width=32)
RELEVANCE = st.integers(1, 12).flatmap(lambda n: arrays.arrays(np.float32, n, elements=UNIT))


def losses(relevance: np.ndarray, seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    falling = -np.cumsum(rng.uniform(0.1, 1, (len(relevance), len(LEVELS))), axis=1)
    return torch.from_numpy(falling.astype(np.float32))


def spend(relevance: np.ndarray, seed: int, budget: int) -> np.ndarray:
    gains = quality_gains(torch.from_numpy(relevance), losses(relevance, seed))
    return allocate(gains, torch.tensor(budget)).numpy()


@given(RELEVANCE, st.integers(0, 99), st.floats(0, 1))
def test_the_budget_is_met_exactly_within_the_limits(p: np.ndarray, seed: int, f: float) -> None:
    budget = round((LEAST + f * (MOST - LEAST)) * len(p))
    tokens = spend(p, seed, budget)
    assert tokens.dtype == np.int64
    assert tokens.sum() == budget
    assert tokens.min() >= LEAST
    assert tokens.max() <= MOST
    between = [t for t in tokens if t not in LEVELS]
    assert len(between) <= 1  # the last increment that could only be paid in part


@given(RELEVANCE, st.integers(0, 99), st.integers(0, 400), st.integers(0, 400))
def test_more_budget_takes_no_token_away(p: np.ndarray, seed: int, one: int, more: int) -> None:
    low = LEAST * len(p) + one
    assert (spend(p, seed, low) <= spend(p, seed, low + more)).all()


@given(RELEVANCE, st.integers(0, 99), st.floats(0, 1), st.randoms())
def test_the_order_of_patches_does_not_matter(
    p: np.ndarray, seed: int, f: float, r: object
) -> None:
    p = np.unique(p)  # ties go by place
    budget = round((LEAST + f * (MOST - LEAST)) * len(p))
    order = np.random.default_rng(seed).permutation(len(p))
    log_losses = losses(p, seed)
    straight = allocate(quality_gains(torch.from_numpy(p), log_losses), torch.tensor(budget))
    turned = allocate(
        quality_gains(torch.from_numpy(p[order].copy()), log_losses[order]), torch.tensor(budget)
    )
    distinct = (p > 1e-30).all()
    assert not distinct or (straight[order] == turned).all()


@given(RELEVANCE, st.floats(0, 1))
def test_who_is_more_relevant_has_no_fewer_tokens(p: np.ndarray, f: float) -> None:
    budget = round((LEAST + f * (MOST - LEAST)) * len(p))
    same = torch.tensor([0.0, -1, -2, -3, -4]).expand(len(p), -1)
    for gains in (quality_gains(torch.from_numpy(p), same), coverage_gains(torch.from_numpy(p))):
        tokens = allocate(gains, torch.tensor(budget)).numpy()
        for i, j in itertools.permutations(range(len(p)), 2):
            if p[i] > p[j] and p[i] > 1e-30:  # below, gains are too small for a float
                assert tokens[i] >= tokens[j]


def test_who_loses_more_has_no_fewer_tokens() -> None:
    log_losses = torch.tensor([[1.0, 0, -1, -2, -3], [3.0, 2, 1, 0, -1]])
    tokens = allocate(quality_gains(torch.full((2,), 0.5), log_losses), torch.tensor(3 * LEAST + 9))
    assert tokens[1] > tokens[0]


def test_no_other_allocation_of_whole_increments_is_better() -> None:
    rng = np.random.default_rng(1)
    p = rng.uniform(0, 1, 3).astype(np.float32)
    gains = quality_gains(torch.from_numpy(p), losses(p, 1))
    costs = np.diff(LEVELS)
    for choice in itertools.product(range(len(LEVELS)), repeat=3):
        budget = int(sum(LEVELS[c] for c in choice))
        tokens = allocate(gains, torch.tensor(budget)).numpy()
        reached = [
            np.interp(t, LEVELS, np.append(0, np.cumsum(g * costs)))
            for t, g in zip(tokens, gains.numpy(), strict=True)
        ]
        theirs = [(g * costs)[:c].sum() for c, g in zip(choice, gains.numpy(), strict=True)]
        assert sum(reached) >= sum(theirs) - 1e-6


def test_ties_go_to_the_earlier_patch() -> None:
    tokens = allocate(coverage_gains(torch.full((3,), 0.5)), torch.tensor(3 * LEAST + 36))
    assert tokens.tolist() == [LEAST + 36, LEAST, LEAST]


def test_coverage_reaches_full_before_anything_beyond() -> None:
    relevance = torch.tensor([0.9, 0.5, 0.1])
    tokens = allocate(coverage_gains(relevance), torch.tensor(3 * FULL))
    assert tokens.tolist() == [FULL] * 3


@pytest.mark.parametrize("budget", [192 * LEAST - 1, 192 * MOST + 1, 0, -5])
def test_an_impossible_budget_is_refused(budget: int) -> None:
    with pytest.raises(InvalidArgument, match="give 12288 to 76800"):
        check_budget(budget, 192)


def test_a_latency_buys_as_many_tokens_as_are_read_in_time() -> None:
    reader = LatencyModel(base_ms=5, ms_per_token=0.001)
    budget = reader.budget(25, 192)
    assert budget == 20_000
    assert reader.budget(1e9, 192) == 192 * MOST
    with pytest.raises(InvalidArgument):
        reader.budget(6, 192)


def test_the_allocator_takes_budgets_and_thresholds_side_by_side() -> None:
    relevance = torch.rand(2, 3, 192, generator=torch.Generator().manual_seed(0))
    log_losses = losses(np.zeros(2 * 192), 0).reshape(2, 192, len(LEVELS))
    budget = torch.tensor([[0, 20_000, 12_288], [76_800, 0, 30_001]])
    threshold = torch.full((2, 3), 0.7)
    tokens = TokenAllocator()(relevance, log_losses, threshold, budget)
    assert (tokens.sum(dim=-1)[budget > 0] == budget[budget > 0]).all()
    recalled = allocate_by_threshold(relevance, threshold)
    assert (tokens[budget == 0] == recalled[budget == 0]).all()
    assert set(recalled.unique().tolist()) == {LEAST, FULL}


def test_soft_tokens_have_a_gradient() -> None:
    logits = torch.tensor([-3.0, 0.0, 3.0], requires_grad=True)
    soft = soft_tokens(logits)
    soft.sum().backward()
    assert logits.grad is not None
    assert (logits.grad > 0).all()
    assert float(soft.min().detach()) > LEAST
    assert float(soft.max().detach()) < MOST
