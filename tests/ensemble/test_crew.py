"""Tasks run side by side, never wait for a thread, and their failures are raised."""

from __future__ import annotations

import contextvars
import threading
import time

import pytest

from crossfade.ensemble.crew import Crew


def test_all_but_the_last_run_on_other_threads() -> None:
    barrier = threading.Barrier(3, timeout=20)  # passes only if they run at the same time

    def task() -> int:
        barrier.wait()
        return threading.get_ident()

    first, second, last = Crew(4).run([task] * 3)
    assert last == threading.get_ident()
    assert len({first, second, last}) == 3


def test_one_after_the_other_where_spreading_does_not_pay() -> None:
    found = Crew(4).run([threading.get_ident] * 3, spread=False)
    assert set(found) == {threading.get_ident()}


def test_what_finds_no_thread_runs_on_the_callers_own() -> None:
    crew = Crew(1)
    inner = [threading.get_ident] * 2
    # Each of the outer tasks needs threads itself: waiting for one would be for ever.
    found = crew.run([lambda: crew.run(inner), lambda: crew.run(inner)])
    assert all(one is not None and len(one) == 2 for one in found)


def test_who_is_late_is_not_waited_for() -> None:
    crew, release = Crew(2), threading.Event()
    began_s = time.monotonic()
    found = crew.run([lambda: release.wait(20), lambda: 7], time.monotonic() + 0.05)
    assert found == [None, 7]
    assert time.monotonic() - began_s < 10
    release.set()


def test_a_failure_is_raised_once_all_have_ended() -> None:
    done: list[int] = []

    def fails() -> int:
        raise ValueError("no")

    def works() -> int:
        time.sleep(0.05)
        done.append(1)
        return 1

    with pytest.raises(ValueError, match="no"):
        Crew(2).run([fails, works, works])
    assert done == [1, 1]


def test_threads_see_what_the_caller_set() -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)
    variable.set(5)
    assert Crew(2).run([variable.get, variable.get]) == [5, 5]


def test_a_closed_crew_still_answers() -> None:
    crew = Crew(2)
    crew.close()
    assert crew.run([lambda: 1, lambda: 2]) == [1, 2]


def test_calls_that_keep_the_cores_busy_are_a_crowd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    crew = Crew(2)
    with crew.counted() as first, crew.counted() as second:
        assert (first, second) == (False, True)
    with crew.counted() as again:
        assert again is False
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    with Crew(2).counted() as alone:
        assert alone is False, "one core: nothing to learn from the crowd"
    crew.close()
