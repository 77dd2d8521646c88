"""Who gives way: only who may, the longest unused first, and nobody in vain."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from crossfade.serving.lifecycle.memory_policy import Holding, victims

holdings = st.lists(
    st.builds(
        Holding,
        st.tuples(st.text("abc", min_size=1, max_size=3), st.integers(1, 5)),
        st.integers(0, 100),
        st.integers(0, 20),
        st.booleans(),
    ),
    max_size=8,
    unique_by=lambda holding: holding.key,
)
Held = list[Holding]


def chosen(excess: int, held: Held) -> Held | None:
    keys = victims(excess, held)
    by_key = {holding.key: holding for holding in held}
    return None if keys is None else [by_key[key] for key in keys]


@given(st.integers(-50, 500), holdings)
def test_enough_comes_free_or_nothing_is_touched(excess: int, held: Held) -> None:
    found = chosen(excess, held)
    available = sum(h.memory_bytes for h in held if h.may_go)
    if found is None:
        assert available < excess
    else:
        assert sum(h.memory_bytes for h in found) >= excess


@given(st.integers(-50, 500), holdings)
def test_only_those_that_may_go_each_once_and_oldest_first(excess: int, held: Held) -> None:
    found = chosen(excess, held) or []
    assert all(holding.may_go and holding.memory_bytes for holding in found)
    assert len({holding.key for holding in found}) == len(found)
    assert [h.last_used_ns for h in found] == sorted(h.last_used_ns for h in found)


@given(st.integers(-50, 500), holdings)
def test_nobody_goes_in_vain(excess: int, held: Held) -> None:
    found = chosen(excess, held) or []
    for one in found:
        rest = sum(h.memory_bytes for h in found if h is not one)
        assert rest < excess


@given(st.integers(1, 500), holdings)
def test_one_used_later_goes_only_if_all_used_before_do_not_suffice(
    excess: int, held: Held
) -> None:
    found = chosen(excess, held)
    if found:
        newest = max(h.last_used_ns for h in found)
        before = sum(h.memory_bytes for h in held if h.may_go and h.last_used_ns < newest)
        assert before < excess


@given(st.integers(-50, 500), holdings, st.randoms())
def test_the_order_of_the_list_does_not_matter(excess: int, held: Held, random: object) -> None:
    shuffled = held.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert victims(excess, shuffled) == victims(excess, held)
