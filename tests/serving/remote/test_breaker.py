"""The circuit breaker against any sequence of calls, and its phases one by one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from crossfade.serving.remote.breaker import Breaker, Phase, Rule, Verdict

RULE = Rule(failures=3, pause_s=10.0)
# How long a step takes, whether a new call asks or an old one ends, which one, and how.
STEPS = st.lists(
    st.tuples(
        st.floats(0, 12),
        st.booleans(),
        st.integers(0, 5),
        st.sampled_from(Verdict),
    ),
    max_size=60,
)


def opened(now_s: float = 0.0) -> Breaker:
    breaker = Breaker(RULE)
    for _ in range(RULE.failures):
        breaker, ticket = breaker.admit(now_s)
        assert ticket is not None
        breaker = breaker.report(ticket, Verdict.ILL, now_s)
    assert breaker.phase is Phase.OPEN
    return breaker


@given(STEPS)
def test_whatever_happens(steps: list[tuple[float, bool, int, Verdict]]) -> None:
    """One probe at a time, nothing while it pauses, and never shut for good."""
    breaker, now_s = Breaker(RULE), 0.0
    out: list[tuple[int, Phase]] = []
    paused_until_s = 0.0
    for passed_s, asks, which, verdict in steps:
        now_s += passed_s
        if asks:
            breaker, ticket = breaker.admit(now_s)
            if ticket is None:
                assert breaker.phase is not Phase.CLOSED
            else:
                out.append((ticket, breaker.phase))
                assert breaker.phase is not Phase.OPEN
                assert breaker.phase is Phase.CLOSED or now_s >= paused_until_s
        elif out:
            ticket, _ = out.pop(which % len(out))
            before = breaker
            breaker = breaker.report(ticket, verdict, now_s)
            if ticket != before.generation:
                assert breaker == before
            if breaker.phase is Phase.OPEN and breaker != before:
                paused_until_s = now_s + RULE.pause_s * (verdict is Verdict.ILL)
        probes = [t for t, phase in out if phase is Phase.HALF_OPEN and t == breaker.generation]
        assert len(probes) <= 1
        assert breaker.failures < RULE.failures
        assert breaker.phase is not Phase.HALF_OPEN or probes
    # Once all calls have ended and the pause is over, the next call goes out.
    for ticket, _ in out:
        breaker = breaker.report(ticket, Verdict.UNKNOWN, now_s)
    _, ticket = breaker.admit(now_s + RULE.pause_s)
    assert ticket is not None


def test_failures_count_in_a_row_only() -> None:
    breaker = Breaker(RULE)
    for verdict in (Verdict.ILL, Verdict.ILL, Verdict.WELL, Verdict.ILL, Verdict.ILL):
        breaker, ticket = breaker.admit(0)
        assert ticket is not None
        breaker = breaker.report(ticket, verdict, 0)
    assert breaker.phase is Phase.CLOSED


def test_nothing_goes_out_while_it_pauses_and_one_call_after() -> None:
    breaker = opened(now_s=5)
    assert breaker.admit(14.9) == (breaker, None)
    probing, ticket = breaker.admit(15)
    assert probing.phase is Phase.HALF_OPEN
    assert ticket is not None
    assert probing.admit(99)[1] is None
    assert probing.report(ticket, Verdict.WELL, 16).phase is Phase.CLOSED
    again = probing.report(ticket, Verdict.ILL, 16)
    assert again.admit(25.9)[1] is None
    assert again.admit(26)[1] is not None


def test_a_probe_that_says_nothing_lets_the_next_one_try_at_once() -> None:
    probing, ticket = opened().admit(10)
    assert ticket is not None
    assert probing.report(ticket, Verdict.UNKNOWN, 11).admit(11)[1] is not None


def test_calls_from_before_it_opened_do_not_close_it() -> None:
    breaker = Breaker(RULE)
    breaker, early = breaker.admit(0)
    assert early is not None
    for _ in range(RULE.failures):
        breaker, ticket = breaker.admit(0)
        assert ticket is not None
        breaker = breaker.report(ticket, Verdict.ILL, 0)
    assert breaker.report(early, Verdict.WELL, 1) == breaker
