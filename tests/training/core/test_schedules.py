"""Schedules against torch's own, where it has them, and their shape where it has not."""

from __future__ import annotations

import itertools
from typing import Any

import pydantic
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crossfade.training.core.schedules import Plateau, Schedule

STEPS = 40


def of_torch(make: Any) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    rates = []
    for _ in range(STEPS):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return rates


def ours(**values: Any) -> list[float]:
    schedule = Schedule(**values)
    return [schedule.factor(step, STEPS) for step in range(STEPS)]


def test_as_torch_does_it() -> None:
    rates = torch.optim.lr_scheduler
    cosine = of_torch(lambda o: rates.CosineAnnealingLR(o, STEPS - 1, eta_min=0.1))
    assert ours(kind="cosine", final=0.1) == pytest.approx(cosine, abs=1e-6)
    linear = of_torch(lambda o: rates.LinearLR(o, 1.0, 0.25, STEPS - 1))
    assert ours(kind="linear", final=0.25) == pytest.approx(linear, abs=1e-6)
    stepped = of_torch(lambda o: rates.StepLR(o, 7, 0.3))
    assert ours(kind="step", every_steps=7, gamma=0.3) == pytest.approx(stepped, rel=1e-6)


def test_one_cycle_as_torch_does_it_where_its_peak_falls_on_a_step() -> None:
    # torch puts the peak at rise * total - 1.
    rise = 14 / (STEPS - 1)
    cycle = torch.optim.lr_scheduler.OneCycleLR
    theirs = of_torch(
        lambda o: cycle(o, 1.0, total_steps=STEPS, pct_start=15 / STEPS, final_div_factor=1e9)
    )
    assert ours(kind="one_cycle", rise=rise) == pytest.approx(theirs, abs=1e-6)


def test_plateau_as_torch_does_it() -> None:
    values = [3.0, 2.0, 2.0, 2.0, 2.0, 1.5, 1.6, 1.6, 1.7, 1.8, 1.4999, 1.5, 1.6]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=2)
    mine = Plateau(0.5, 2)
    for value in values:
        theirs.step(value)
        assert mine.look(value) == optimizer.param_groups[0]["lr"]
    again = Plateau(0.5, 2)
    again.load_state_dict(mine.state_dict())
    assert again.state_dict() == mine.state_dict()


def test_wsd_is_stable_and_then_falls() -> None:
    factors = ours(kind="wsd", warmup_steps=5, decay=0.25)
    assert factors[:5] == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6])
    assert set(factors[5:30]) == {1.0}
    assert all(b < a for a, b in itertools.pairwise(factors[31:]))
    assert factors[-1] == 0


@given(
    st.sampled_from(["constant", "cosine", "linear", "step", "one_cycle", "wsd", "plateau"]),
    st.integers(0, 50),
    st.integers(1, 100),
    st.floats(0, 1),
    st.integers(0, 1000),
)
def test_a_factor_is_from_0_to_1(
    kind: Any, warmup: int, total: int, final: float, step: int
) -> None:
    warmup = 0 if kind == "one_cycle" else warmup
    schedule = Schedule(kind=kind, warmup_steps=warmup, final=final)
    assert 0 <= schedule.factor(step, total) <= 1
    if kind in ("cosine", "linear", "one_cycle", "wsd"):
        end = max(total - 1, warmup + 1)
        assert schedule.factor(end, total) == pytest.approx(final)
        assert schedule.factor(end + step, total) == pytest.approx(final)


@given(
    st.sampled_from(["constant", "cosine", "linear", "step", "wsd", "plateau"]),
    st.integers(0, 50),
    st.integers(3, 60),
)
def test_a_warm_up_is_half_of_the_run_at_most(kind: Any, steps: int, total: int) -> None:
    plain = Schedule(kind=kind)
    warmed = plain.warmed(steps, total)
    rise = warmed.warmup_steps
    assert rise == min(steps, total // 2)
    factors = [warmed.factor(step, total) for step in range(total)]
    assert factors[: rise + 1] == pytest.approx([(i + 1) / (rise + 1) for i in range(rise + 1)])
    assert factors[-1] == pytest.approx(plain.factor(total - 1, total)) or kind == "step"


def test_a_schedule_that_rises_by_itself_gets_no_other_warm_up() -> None:
    for schedule in (Schedule(kind="one_cycle"), Schedule(warmup_steps=3)):
        assert schedule.warmed(10, STEPS) == schedule


def test_two_rises_are_refused() -> None:
    with pytest.raises(pydantic.ValidationError, match="rises by itself"):
        Schedule(kind="one_cycle", warmup_steps=3)
