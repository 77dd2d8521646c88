from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from crossfade.training.arr_coc.backbone import Detection, DetectorBackbone, freeze
from crossfade.training.arr_coc.balancer import Tensions
from crossfade.training.arr_coc.config import HeadsConfig
from crossfade.training.arr_coc.geometry import CELL, INPUT_HEIGHT, INPUT_WIDTH
from crossfade.training.arr_coc.losses import relevance_loss, tension_spread
from crossfade.training.arr_coc.model import QueryHeads, Scores
from crossfade.training.arr_coc.patch_statistics import LEVELS, PatchStatistics, resampling
from crossfade.training.arr_coc.queries import Language
from crossfade.training.arr_coc.train_heads import make_heads

LANGUAGE = Language.make(("cat", "dog"), {}, ("any thing",), ())
FULL = HeadsConfig(information=True, salience=True, tension=True)


@pytest.fixture(scope="module")
def seen() -> tuple[Detection, torch.Tensor]:
    torch.manual_seed(0)
    pictures = torch.rand(3, 3, INPUT_HEIGHT, INPUT_WIDTH) * 255
    with torch.no_grad():
        return freeze(DetectorBackbone(2))(pictures), PatchStatistics()(pictures)


def heads(config: HeadsConfig = FULL) -> QueryHeads:
    torch.manual_seed(1)
    return make_heads(LANGUAGE, config)


def ask(model: QueryHeads, seen: tuple[Detection, torch.Tensor], *texts: str) -> Scores:
    tokens = torch.from_numpy(LANGUAGE.tokens(texts))
    batch = len(seen[1])
    scores: Scores = model(*seen, tokens[None].expand(batch, -1, -1))
    return scores


def test_gradients_reach_every_module(seen: tuple[Detection, torch.Tensor]) -> None:
    model = heads()
    scores = ask(model, seen, "cat left", "any thing", "dog on the top")
    truth = (torch.rand(scores.logits.shape) < 0.2).float()
    assert scores.tensions is not None
    loss = relevance_loss(scores.logits, truth) + tension_spread(scores.tensions)
    (loss + scores.log_losses.square().mean()).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@pytest.mark.parametrize("config", [FULL, HeadsConfig()])
def test_a_picture_is_answered_alike_in_any_company(
    seen: tuple[Detection, torch.Tensor], config: HeadsConfig
) -> None:
    model = heads(config).eval()
    together = ask(model, seen, "cat left", "dog").logits
    alone = ask(model, (Detection(*(p[1:2] for p in seen[0])), seen[1][1:2]), "dog").logits
    assert torch.allclose(together[1:2, 1:], alone, atol=1e-5)


def test_queries_and_pictures_both_matter(seen: tuple[Detection, torch.Tensor]) -> None:
    scores = ask(heads().eval(), seen, "cat", "dog", "cat left").logits
    assert not torch.allclose(scores[:, 0], scores[:, 1], atol=1e-3)
    assert not torch.allclose(scores[:, 0], scores[:, 2], atol=1e-3)
    assert not torch.allclose(scores[0], scores[1], atol=1e-3)


def test_words_mean_the_same_in_any_order_and_unknown_ones_nothing(
    seen: tuple[Detection, torch.Tensor],
) -> None:
    scores = ask(heads().eval(), seen, "cat left", "left cat", "LEFT unheard-of CAT!").logits
    assert torch.allclose(scores[:, 0], scores[:, 1], atol=1e-5)
    assert torch.allclose(scores[:, 0], scores[:, 2], atol=1e-5)


def test_a_query_without_known_words_is_the_fallback(
    seen: tuple[Detection, torch.Tensor],
) -> None:
    scores = ask(heads().eval(), seen, "", "unheard-of", "any thing").logits
    assert torch.allclose(scores[:, 0], scores[:, 2])
    assert torch.allclose(scores[:, 1], scores[:, 2])


def test_one_more_word_never_makes_a_patch_more_relevant(
    seen: tuple[Detection, torch.Tensor],
) -> None:
    scores = ask(heads(HeadsConfig()).eval(), seen, "cat", "cat left").logits
    assert (scores[:, 1] <= scores[:, 0] + 1e-5).all()


def test_an_untrained_balancer_passes_the_coupling_on(
    seen: tuple[Detection, torch.Tensor],
) -> None:
    plain = ask(heads(HeadsConfig()).eval(), seen, "cat").logits
    full = ask(heads().eval(), seen, "cat").logits
    assert np.corrcoef(plain[0, 0].detach(), full[0, 0].detach())[0, 1] > 0.8


def test_frozen_is_frozen() -> None:
    model = freeze(DetectorBackbone(2))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with torch.no_grad():
        model(torch.rand(2, 3, INPUT_HEIGHT, INPUT_WIDTH))
    assert all((before[k] == v).all() for k, v in model.state_dict().items())
    assert not any(p.requires_grad for p in model.parameters())


def test_shrinking_keeps_what_is_even() -> None:
    for level in LEVELS:
        matrix = resampling(int(math.sqrt(level)), CELL)
        assert torch.allclose(matrix.sum(dim=1), torch.ones(CELL, dtype=matrix.dtype))


def test_statistics_tell_busy_patches_from_even_ones() -> None:
    picture = torch.full((1, 3, INPUT_HEIGHT, INPUT_WIDTH), 100.0)
    picture[:, :, :CELL, :CELL] = torch.randint(0, 256, (CELL, CELL)).float()
    found = PatchStatistics()(picture)[0]
    assert (found[:, 0, 0] > found[:, 5, 5]).all()
    losses = found[2:, 0, 0]
    assert (losses[:-1] > losses[1:]).all()  # more samples, less is lost


def test_tensions_that_collapse_cost() -> None:
    spread = torch.linspace(0, 1, 12).reshape(3, 4) ** 2
    even = tension_spread(Tensions(spread, spread, spread))
    flat = tension_spread(Tensions(spread * 0, spread * 0, spread * 0))
    assert float(even) < float(flat)
