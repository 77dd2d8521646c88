"""Losses against references, their gradients, and what must hold of any of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.training.losses import classification, contrastive, multi_task, ranking

CLASSES = torch.tensor([0, 1, 0, 2, 1, 1])


def numbers(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    drawn = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=drawn) * scale


LOSSES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "focal": lambda x: classification.focal(x, CLASSES % 4, gamma=2.0, label_smoothing=0.1),
    "binary_focal": lambda x: classification.binary_focal(x, (numbers(6, 4, seed=9) > 0).double()),
    "nt_xent": lambda x: contrastive.nt_xent(x[:3], x[3:]),
    "sup_con": lambda x: contrastive.supervised_contrastive(x, CLASSES),
    "triplet_all": lambda x: contrastive.triplet(x, CLASSES, margin=1.0, mining="all"),
    "triplet_hard": lambda x: contrastive.triplet(x, CLASSES, margin=1.0, mining="hard"),
    "triplet_semi": lambda x: contrastive.triplet(x, CLASSES, margin=1.0),
    "margin": lambda x: ranking.margin_ranking(x[:, 0], CLASSES.double()),
    "list_net": lambda x: ranking.list_net(x, numbers(6, 4, seed=8)),
    "list_mle": lambda x: ranking.list_mle(x, numbers(6, 4, seed=8)),
}


@pytest.fixture(autouse=True)
def in_double_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Finite differences need it: the losses compute in no less than single precision."""
    monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor.double())


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    point = numbers(6, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(LOSSES[name], (point,), atol=1e-5)
    (gradient,) = torch.autograd.grad(LOSSES[name](point), point)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e4])
def test_extreme_values_give_finite_losses_and_gradients(
    name: str, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    point = (numbers(6, 4, seed=2) * scale).float().requires_grad_()
    loss = LOSSES[name](point)
    (gradient,) = torch.autograd.grad(loss, point)
    assert bool(loss.isfinite())
    assert bool(gradient.isfinite().all())


@pytest.mark.parametrize(
    "name", ["focal", "sup_con", "triplet_all", "triplet_hard", "triplet_semi", "margin"]
)
@given(order=st.permutations(range(6)))
@settings(max_examples=20, deadline=None)
def test_the_order_of_rows_does_not_matter(name: str, order: list[int]) -> None:
    point = numbers(6, 4, seed=3)
    of_rows: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
        "focal": classification.focal,
        "sup_con": contrastive.supervised_contrastive,
        "triplet_all": lambda x, c: contrastive.triplet(x, c, mining="all"),
        "triplet_hard": lambda x, c: contrastive.triplet(x, c, mining="hard"),
        "triplet_semi": contrastive.triplet,
        "margin": lambda x, c: ranking.margin_ranking(x[:, 0], c.double()),
    }
    loss = of_rows[name]
    expected = float(loss(point, CLASSES))
    assert float(loss(point[order], CLASSES[order])) == pytest.approx(expected, abs=1e-12)


def test_focal_is_cross_entropy_at_gamma_0() -> None:
    logits, weights = numbers(6, 3), torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)
    for smoothing in (0.0, 0.2):
        ours = classification.focal(
            logits, CLASSES, gamma=0, weights=weights, label_smoothing=smoothing
        )
        rows = functional.cross_entropy(
            logits, CLASSES, weight=weights, label_smoothing=smoothing, reduction="none"
        )
        assert float(ours) == pytest.approx(float(rows.sum() / weights[CLASSES].sum()))
    theirs = functional.cross_entropy(logits, CLASSES, weight=weights)
    assert float(classification.focal(logits, CLASSES, gamma=0, weights=weights)) == pytest.approx(
        float(theirs)
    )


@given(st.floats(0, 5))
@settings(deadline=None)
def test_focal_is_its_formula(gamma: float) -> None:
    logits = numbers(6, 3)
    p = torch.softmax(logits, 1)[torch.arange(6), CLASSES]
    expected = -((1 - p) ** gamma * p.log()).mean()
    assert float(classification.focal(logits, CLASSES, gamma=gamma)) == pytest.approx(
        float(expected)
    )


def test_binary_focal_is_its_formula() -> None:
    logits, targets = numbers(5, 3), (numbers(5, 3, seed=4) > 0).double()
    p = torch.sigmoid(logits)
    right = torch.where(targets == 1, p, 1 - p)
    alpha = torch.where(targets == 1, 0.25, 0.75)
    expected = -(alpha * (1 - right) ** 2 * right.log()).mean()
    assert float(classification.binary_focal(logits, targets)) == pytest.approx(float(expected))
    plain = classification.binary_focal(logits, targets, gamma=0, alpha=None)
    entropy = functional.binary_cross_entropy_with_logits(logits, targets)
    assert float(plain) == pytest.approx(float(entropy))


def test_nt_xent_is_its_formula() -> None:
    first, second = numbers(4, 5), numbers(4, 5, seed=5)
    rows = [*first, *second]
    total = 0.0
    for i, j in [(k, (k + 4) % 8) for k in range(8)]:
        others = [
            math.exp(float(functional.cosine_similarity(rows[i], rows[k], dim=0)) / 0.5)
            for k in range(8)
            if k != i
        ]
        own = float(functional.cosine_similarity(rows[i], rows[j], dim=0)) / 0.5
        total += -(own - math.log(sum(others))) / 8
    assert float(contrastive.nt_xent(first, second)) == pytest.approx(total)
    assert float(contrastive.nt_xent(second, first)) == pytest.approx(total)
    assert float(contrastive.nt_xent(first * 7, second)) == pytest.approx(total), "lengths count"


def test_sup_con_with_pairs_is_nt_xent() -> None:
    first, second = numbers(4, 5), numbers(4, 5, seed=5)
    both = torch.cat([first, second])
    labels = torch.arange(4).repeat(2)
    ours = contrastive.supervised_contrastive(both, labels, temperature=0.5)
    assert float(ours) == pytest.approx(float(contrastive.nt_xent(first, second)))


def test_triplets_one_by_one() -> None:
    rows, margin = numbers(6, 4, seed=6), 0.7
    distance = [[float((a - b).norm()) for b in rows] for a in rows]
    same = [[bool(a == b) for b in CLASSES] for a in CLASSES]
    every, hard, semi = [], [], []
    for a in range(6):
        positives = [p for p in range(6) if p != a and same[a][p]]
        negatives = [distance[a][n] for n in range(6) if not same[a][n]]
        every += [distance[a][p] - n + margin for p in positives for n in negatives]
        if positives:
            hard.append(max(distance[a][p] for p in positives) - min(negatives) + margin)
        for p in positives:
            farther = [n for n in negatives if n > distance[a][p]]
            semi.append(distance[a][p] - (min(farther) if farther else max(negatives)) + margin)
    costly = [loss for loss in every if loss > 0]
    expected = {
        "all": sum(costly) / len(costly),
        "hard": sum(max(0, loss) for loss in hard) / len(hard),
        "semi_hard": sum(max(0, loss) for loss in semi) / len(semi),
    }
    for mining, value in expected.items():
        ours = contrastive.triplet(rows, CLASSES, margin=margin, mining=mining)  # type: ignore[arg-type]
        assert float(ours) == pytest.approx(value), mining


def test_one_triplet_is_torchs() -> None:
    rows = numbers(3, 4, seed=7)
    theirs = functional.triplet_margin_loss(rows[:1], rows[1:2], rows[2:], margin=5.0, eps=0.0)
    other = functional.triplet_margin_loss(rows[1:2], rows[:1], rows[2:], margin=5.0, eps=0.0)
    ours = contrastive.triplet(rows, torch.tensor([0, 0, 1]), margin=5.0, mining="all")
    assert float(ours) == pytest.approx(float(theirs + other) / 2)


@pytest.mark.parametrize("mining", ["all", "hard", "semi_hard"])
def test_without_a_triplet_there_is_no_loss(mining: contrastive.Mining) -> None:
    rows = numbers(3, 4).requires_grad_()
    for classes in (torch.tensor([0, 1, 2]), torch.tensor([1, 1, 1])):
        loss = contrastive.triplet(rows, classes, mining=mining)
        assert float(loss.detach()) == 0
        loss.backward()
    assert float(contrastive.supervised_contrastive(rows, torch.arange(3)).detach()) == 0


def test_margin_ranking_is_torchs_over_all_pairs() -> None:
    scores = numbers(6)
    relevance = torch.tensor([2.0, 0.0, 1.0, 1.0, 0.0, 2.0])
    groups = torch.tensor([0, 0, 0, 1, 1, 1])
    for given_groups in (None, groups):
        pairs = [
            (i, j)
            for i, j in itertools.permutations(range(6), 2)
            if relevance[i] > relevance[j] and (given_groups is None or groups[i] == groups[j])
        ]
        first, second = (torch.tensor(side) for side in zip(*pairs, strict=True))
        ones = torch.ones(len(pairs), dtype=torch.float64)
        theirs = functional.margin_ranking_loss(scores[first], scores[second], ones, margin=1.0)
        ours = ranking.margin_ranking(scores, relevance, groups=given_groups)
        assert float(ours) == pytest.approx(float(theirs))
    assert float(ranking.margin_ranking(scores, torch.ones(6))) == 0


@given(order=st.permutations(range(5)), seed=st.integers(0, 99), tied=st.booleans())
@settings(max_examples=30, deadline=None)
def test_lists_in_any_order(order: list[int], seed: int, tied: bool) -> None:
    scores, relevance = numbers(2, 5, seed=seed), numbers(2, 5, seed=seed + 1)
    relevance = relevance.round() if tied else relevance
    for loss in (ranking.list_net, ranking.list_mle):
        expected = float(loss(scores, relevance))
        assert float(loss(scores[:, order], relevance[:, order])) == pytest.approx(expected)
        shifted = float(loss(scores + 100, relevance))
        assert shifted == pytest.approx(expected), "only differences of scores count"


@pytest.mark.parametrize("loss", [ranking.list_net, ranking.list_mle])
def test_absent_rows_do_not_count(loss: Callable[..., torch.Tensor]) -> None:
    scores, relevance = numbers(1, 4), numbers(1, 4, seed=1)
    more = torch.cat([scores, torch.tensor([[50.0, -50.0]])], 1)
    relevant = torch.cat([relevance, torch.tensor([[9.0, 9.0]])], 1)
    present = torch.tensor([[True] * 4 + [False] * 2])
    ours = loss(more, relevant, present=present)
    assert float(ours) == pytest.approx(float(loss(scores, relevance)))


def test_list_mle_is_the_plackett_luce_chance() -> None:
    scores, relevance = numbers(1, 4), torch.tensor([[3.0, 1.0, 2.0, 0.0]])
    left, chance = [0, 2, 1, 3], 1.0
    weights = [math.exp(s) for s in scores[0].tolist()]
    while left:
        chance *= weights[left[0]] / sum(weights[i] for i in left)
        left = left[1:]
    assert float(ranking.list_mle(scores, relevance)) == pytest.approx(-math.log(chance))


def test_a_right_order_costs_less() -> None:
    relevance = torch.tensor([[3.0, 2.0, 1.0, 0.0]])
    scores = torch.tensor([[3.0, 2.0, 1.0, 0.0]])
    for loss in (ranking.list_net, ranking.list_mle):
        assert float(loss(scores, relevance)) < float(loss(scores.flip(1), relevance))


def test_fixed_weights() -> None:
    losses = {"box": torch.tensor(2.0), "class": torch.tensor(3.0)}
    assert float(multi_task.weighted(losses, {"class": 0.5, "box": 2.0})) == 5.5
    with pytest.raises(InvalidArgument, match="not both: box, boxes"):
        multi_task.weighted(losses, {"class": 1.0, "boxes": 1.0})


def test_learned_weights_come_to_where_they_are_best() -> None:
    """At the minimum exp(s) is twice the loss of a classification, and the loss of a regression."""
    module = multi_task.Uncertainty(classification=["class"], regression=["box"])
    losses = {"class": torch.tensor(0.4), "box": torch.tensor(9.0)}
    assert float(module(losses).detach()) == pytest.approx(0.4 + 4.5)
    optimizer = torch.optim.LBFGS(module.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        loss = module(losses)
        loss.backward()
        return float(loss.detach())

    optimizer.step(closure)
    assert module.log_variance.exp().tolist() == pytest.approx([0.8, 9.0], rel=1e-3)
    with pytest.raises(InvalidArgument, match="not both: box"):
        module({"class": torch.tensor(1.0)})
    with pytest.raises(InvalidArgument, match="each once"):
        multi_task.Uncertainty(classification=["a"], regression=["a"])
