"""``batching: auto``: laws of the choice, and a measurement that knows when to stop."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.serving.batching import tuning
from crossfade.serving.batching.tuning import choose, measure

SECONDS = st.floats(1e-5, 1.0)


@st.composite
def curves(draw: st.DrawFn) -> dict[int, float]:
    count = draw(st.integers(1, 7))
    return {2**n: draw(SECONDS) for n in range(count)}


@given(curve=curves(), slo_s=SECONDS)
def test_a_run_never_takes_more_than_half_of_what_was_promised(
    curve: dict[int, float], slo_s: float
) -> None:
    rows, delay_s, _ = choose(curve, slo_s)
    assert rows == 1 or curve[rows] <= slo_s / 2
    assert 0 <= delay_s <= max(0.0, slo_s - 2 * curve[rows])


@given(curve=curves())
def test_nobody_waits_where_nothing_was_promised(curve: dict[int, float]) -> None:
    assert choose(curve).max_delay_s == 0


@given(curve=curves(), slo_s=st.none() | SECONDS)
def test_stacking_is_chosen_only_where_it_saves_a_fifth(
    curve: dict[int, float], slo_s: float | None
) -> None:
    rows, delay_s, _ = choose(curve, slo_s)
    assert rows in curve
    if rows == 1:
        assert delay_s == 0
    else:
        assert curve[rows] / rows <= 0.8 * curve[1]


@given(curve=curves(), slo_s=st.none() | SECONDS)
def test_no_other_size_is_much_better(curve: dict[int, float], slo_s: float | None) -> None:
    rows = choose(curve, slo_s).max_rows
    allowed = [t / n for n, t in curve.items() if slo_s is None or t <= slo_s / 2]
    if allowed and rows > 1:
        assert curve[rows] / rows <= 1.1 * min(allowed)


@given(one_s=SECONDS, sizes=st.integers(1, 7), slo_s=st.none() | SECONDS)
def test_a_model_whose_time_is_proportional_is_not_stacked(
    one_s: float, sizes: int, slo_s: float | None
) -> None:
    assert choose({2**n: one_s * 2**n for n in range(sizes)}, slo_s)[:2] == (1, 0.0)


@given(one_s=SECONDS, sizes=st.integers(1, 7))
def test_a_model_whose_time_is_constant_is_stacked_as_far_as_possible(
    one_s: float, sizes: int
) -> None:
    most = 2 ** (sizes - 1)
    assert choose({2**n: one_s for n in range(sizes)}) == (most, 0.0, most)


@pytest.mark.parametrize(
    ("curve", "slo_s", "expected"),
    [
        # 8 rows cost 2.5 ms each, 16 cost 2.4: not worth twice the batch.
        ({1: 0.010, 2: 0.012, 4: 0.014, 8: 0.020, 16: 0.0384}, None, (8, 0.0)),
        # half of 30 ms allows 4 rows; a quarter of the slack of 2 ms
        ({1: 0.010, 2: 0.012, 4: 0.014, 8: 0.020}, 0.030, (4, 0.0005)),
        # plenty of time: half a full run
        ({1: 0.010, 8: 0.020}, 1.0, (8, 0.010)),
        # over before a wait could pay
        ({1: 0.0009, 8: 0.001}, 1.0, (8, 0.0)),
        # not even one row is in time
        ({1: 0.5, 8: 0.5}, 0.1, (1, 0.0)),
    ],
)
def test_examples(
    curve: dict[int, float], slo_s: float | None, expected: tuple[int, float]
) -> None:
    assert choose(curve, slo_s)[:2] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("curve", "slo_s", "crowd_rows"),
    [
        ({1: 0.0100, 2: 0.0202}, None, 2),
        ({1: 0.0100, 2: 0.0204}, None, 1),
        ({1: 0.0005, 2: 0.0009}, None, 1),  # over in a moment
        ({1: 0.0100, 2: 0.0199}, 0.030, 1),  # a pair takes more than half of what was promised
        ({1: 0.0100}, None, 1),
    ],
)
def test_pairs_in_a_crowd(curve: dict[int, float], slo_s: float | None, crowd_rows: int) -> None:
    assert choose(curve, slo_s) == (1, 0.0, crowd_rows)


class Clock:
    """A model whose runs take a known time, on a clock that only they move."""

    def __init__(self, seconds: Callable[[int], float]) -> None:
        self.now_s = 0.0
        self.runs: list[int] = []
        self._seconds = seconds

    def perf_counter(self) -> float:
        return self.now_s

    def run(self, rows: int) -> None:
        self.runs.append(rows)
        self.now_s += self._seconds(rows)


def measured(
    monkeypatch: pytest.MonkeyPatch, seconds: Callable[[int], float], max_rows: int = 64
) -> tuple[Clock, dict[int, float]]:
    clock = Clock(seconds)
    monkeypatch.setattr(tuning, "time", clock)
    return clock, dict(measure(clock.run, max_rows))


def test_every_size_is_measured_while_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, curve = measured(monkeypatch, lambda rows: 0.001, max_rows=16)
    assert curve == pytest.approx({1: 0.001, 2: 0.001, 4: 0.001, 8: 0.001, 16: 0.001})
    assert max(clock.runs) == 16


def test_the_largest_size_is_what_the_model_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    _, curve = measured(monkeypatch, lambda rows: 0.001, max_rows=6)
    assert list(curve) == [1, 2, 4]


def test_it_stops_where_more_rows_save_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    _, curve = measured(monkeypatch, lambda rows: 0.001 * rows)
    assert list(curve) == [1, 2]  # more would only take memory for nothing


@pytest.mark.parametrize("one_s", [0.0001, 0.01, 0.1, 3.0])
def test_it_does_not_spend_much_more_than_its_budget(
    monkeypatch: pytest.MonkeyPatch, one_s: float
) -> None:
    clock, curve = measured(monkeypatch, lambda rows: one_s * rows**0.5)
    assert curve[1] == pytest.approx(one_s)
    assert clock.now_s <= max(0.3 * 1.2, 2 * one_s)


def test_the_best_of_several_runs_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first run of a size is slow: memory is not there yet, kernels are not chosen."""
    seen: set[int] = set()

    def seconds(rows: int) -> float:
        slow = rows not in seen
        seen.add(rows)
        return 0.01 if slow else 0.001

    _, curve = measured(monkeypatch, seconds, max_rows=4)
    assert curve == pytest.approx({1: 0.001, 2: 0.001, 4: 0.001})


def test_a_long_first_run_of_each_size_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU may take most of a second to choose kernels for a size that it has not seen."""
    seen = {1}  # by the warm-up

    def seconds(rows: int) -> float:
        slow = rows not in seen
        seen.add(rows)
        return 0.7 if slow else 0.002

    _, curve = measured(monkeypatch, seconds, max_rows=16)
    assert curve == pytest.approx(dict.fromkeys((1, 2, 4, 8, 16), 0.002))


def test_a_model_that_pays_for_every_change_of_size_is_not_stacked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Convolutions on a GPU: a plan for one shape, built anew for every other one."""
    last = 1

    def seconds(rows: int) -> float:
        nonlocal last
        changed, last = rows != last, rows
        return 0.0015 + 0.8 * changed

    clock, curve = measured(monkeypatch, seconds)
    assert curve == pytest.approx({1: 0.0015})
    assert max(clock.runs) == 2
    assert clock.runs[-1] == 1  # the plan that is left is that for one row


def test_one_slow_change_of_size_is_a_disturbance(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.001] * 7 + [0.02])  # three of one row, four of two, then the change
    _, curve = measured(monkeypatch, lambda rows: next(times, 0.001), max_rows=4)
    assert list(curve) == [1, 2, 4]


def test_an_error_of_the_model_ends_it() -> None:
    def run(_: int) -> None:
        raise ValueError("not this shape")

    with pytest.raises(ValueError, match="not this shape"):
        measure(run, 8)


def test_a_disturbed_first_measurement_leads_to_no_large_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disturbed = iter([3, 3, 3])
    clock, curve = measured(monkeypatch, lambda rows: 0.004 * rows * next(disturbed, 1))
    assert max(clock.runs) == 2
    assert choose(curve).max_rows == 1
