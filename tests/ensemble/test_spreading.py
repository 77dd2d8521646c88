"""Members run side by side only where that is faster, and the choice is looked at again."""

from __future__ import annotations

import pytest

from crossfade.ensemble.spreading import Spreading


def choices(serial_s: float, spread_s: float, calls: int, chosen: Spreading) -> list[bool]:
    found = []
    for _ in range(calls):
        spread = chosen.choose()
        chosen.took(spread, spread_s if spread else serial_s, 0.0)
        found.append(spread)
    return found


@pytest.mark.parametrize(
    ("serial_s", "spread_s", "pays"), [(0.020, 0.011, True), (0.020, 0.019, False)]
)
def test_both_ways_are_tried_and_the_faster_is_kept(
    serial_s: float, spread_s: float, pays: bool
) -> None:
    found = choices(serial_s, spread_s, 640, Spreading())
    assert found[:6] == [False, True] * 3
    assert found[6:].count(not pays) <= 10
    assert found[6:].count(not pays) >= 1, "the other way is never looked at again"


def test_what_is_over_in_a_moment_is_not_worth_a_thread() -> None:
    assert True not in choices(0.0001, 0.00001, 100, Spreading())[1:]


def test_a_change_is_noticed() -> None:
    chosen = Spreading()
    assert choices(0.02, 0.019, 200, chosen)[-1] is False
    assert choices(0.02, 0.005, 2000, chosen)[-2:] == [True, True]


def test_in_a_crowd_what_computes_runs_one_after_the_other() -> None:
    computing, waiting = Spreading(), Spreading()
    for _ in range(10):
        for one, cpu_s in ((computing, 0.019), (waiting, 0.001)):
            spread = one.choose()
            one.took(spread, 0.01 if spread else 0.02, cpu_s)
    assert computing.choose() is True
    assert computing.choose(crowded=True) is False
    assert waiting.choose(crowded=True) is True
