"""Copies run outside the request's way, bounded; pairs are compared, counted, kept and told."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from crossfade.ensemble.comparison import Comparer
from crossfade.ensemble.measures import Histogram
from crossfade.ensemble.mirror import Limits, Mirror
from crossfade.ensemble.observing import Outcome, Pair
from crossfade.runtimes.core.errors import Unavailable
from crossfade.runtimes.core.model import InferRequest, InferResponse, InferResult, ModelMetadata

METADATA = ModelMetadata("flowers", 1, "fake", {})


def answer(first: float) -> InferResponse:
    return InferResponse({"y": np.float32([[first, 1 - first]])}, METADATA)


def request(**keys: object) -> InferRequest:
    return InferRequest({"x": np.ones((1, 2), np.float32)}, **keys)  # type: ignore[arg-type]


class Members:
    """Answers copies with ``result``, once ``open`` is set."""

    def __init__(self, result: InferResult | Exception) -> None:
        self.result = result
        self.open = threading.Event()
        self.open.set()
        self.asked: list[InferRequest] = []

    def ask(self, member: int, requests: Sequence[InferRequest]) -> list[Outcome]:
        self.open.wait(20)
        self.asked += requests
        if isinstance(self.result, Exception) and not isinstance(self.result, Unavailable):
            raise self.result
        return [Outcome(member, self.result, 6.0)]


class Told:
    def __init__(self) -> None:
        self.pairs: list[Pair] = []

    def observe_pair(self, pair: Pair) -> None:
        self.pairs.append(pair)

    def observe_alone(self, requests: Sequence[InferRequest], outcomes: Sequence[Outcome]) -> None:
        raise AssertionError("a mirror has pairs only")


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def mirror(told: Told) -> Iterator[Mirror]:
    mirror = Mirror(("red", "blue"), Comparer(("y",)), (told,), Limits(requests=2, kept=3))
    yield mirror
    mirror.close()


def measured(mirror: Mirror, name: str) -> dict[tuple[str, ...], float]:
    (found,) = [one.values for one in mirror.measures() if one.name == name]
    return {k: sum(v.read()[0]) if isinstance(v, Histogram) else v for k, v in found.items()}


def test_a_pair_is_compared_counted_kept_and_told(mirror: Mirror, told: Told) -> None:
    members = Members(answer(0.4))

    assert mirror.offer(request(id="7"), Outcome(0, answer(0.9), 3.0), members.ask)
    assert mirror.wait_idle(10)

    (pair,) = told.pairs
    assert (pair.first.member, pair.second.member, pair.answered_by) == (0, 1, 0)
    assert pair.comparison.agreed is False
    assert pair.comparison.score_difference == pytest.approx(0.5)
    (kept,) = mirror.kept
    assert (kept.request_id, kept.members, kept.answered_by) == ("7", ("red", "blue"), "red")
    assert kept.latency_ms == (3.0, 6.0)
    assert measured(mirror, "shadow_pairs") == {("blue", "differed"): 1}
    assert measured(mirror, "shadow_latency_ratio") == {("blue",): 1}


def test_the_primary_comes_first_whoever_answered(mirror: Mirror, told: Told) -> None:
    members = Members(answer(0.9))
    mirror.offer(request(), Outcome(1, answer(0.8), 3.0), members.ask)
    assert mirror.wait_idle(10)

    (pair,) = told.pairs
    assert (pair.first.member, pair.second.member, pair.answered_by) == (0, 1, 1)
    assert measured(mirror, "shadow_pairs") == {("red", "agreed"): 1}
    assert measured(mirror, "shadow_latency_ratio") == {("red",): 1, ("blue",): 0}


@pytest.mark.parametrize("failure", [Unavailable("gone"), RuntimeError("broken")])
def test_a_copy_that_fails_is_a_pair_too(mirror: Mirror, told: Told, failure: Exception) -> None:
    mirror.offer(request(), Outcome(0, answer(0.9), 3.0), Members(failure).ask)
    assert mirror.wait_idle(10)

    assert told.pairs[0].second.failed
    assert told.pairs[0].comparison.agreed is None
    assert measured(mirror, "shadow_pairs") == {("blue", "mirror_failed"): 1}
    assert measured(mirror, "shadow_latency_ratio")["blue",] == 0


def test_copies_beyond_the_queue_are_dropped_at_once(mirror: Mirror) -> None:
    members = Members(answer(0.9))
    members.open.clear()
    offered = [
        mirror.offer(request(), Outcome(0, answer(0.9), 1.0), members.ask) for _ in range(10)
    ]
    dropped = measured(mirror, "shadow_dropped")["blue",]
    members.open.set()
    assert mirror.wait_idle(10)

    # Two wait, and one may run already.
    assert 2 <= sum(offered) <= 3
    assert dropped == 10 - sum(offered)
    assert measured(mirror, "shadow_pairs") == {("blue", "agreed"): sum(offered)}


def test_copies_are_bounded_by_their_bytes_but_one_of_any_size_runs() -> None:
    mirror = Mirror(("red", "blue"), Comparer(), limits=Limits(bytes=4))
    members = Members(answer(0.9))
    members.open.clear()
    offered = [
        mirror.offer(request(), Outcome(0, answer(0.9), 1.0), members.ask) for _ in range(10)
    ]
    members.open.set()
    assert mirror.wait_idle(10)
    mirror.close()

    assert 1 <= sum(offered) <= 2


def test_only_the_last_comparisons_are_kept(mirror: Mirror) -> None:
    for number in range(5):
        mirror.offer(request(id=str(number)), Outcome(0, answer(1), 1.0), Members(answer(1)).ask)
        assert mirror.wait_idle(10)

    assert [kept.request_id for kept in mirror.kept] == ["2", "3", "4"]


def test_a_copy_outlives_its_call(mirror: Mirror) -> None:
    """Memory of the message may be used for something else; nobody waits for the copy."""
    message = bytearray(np.ones(4, np.float32).tobytes())
    lasting = np.ones(4, np.float32).tobytes()
    inputs = {
        "borrowed": np.ndarray((2, 2), np.float32, memoryview(message).toreadonly()),
        "lasting": np.ndarray((2, 2), np.float32, memoryview(lasting)),
    }
    members = Members(answer(0.9))
    members.open.clear()
    mirror.offer(InferRequest(inputs, deadline_s=1.0), Outcome(0, answer(0.9), 1.0), members.ask)
    message[:] = bytes(16)
    members.open.set()
    assert mirror.wait_idle(10)

    (copy,) = members.asked
    assert copy.inputs["borrowed"].tolist() == [[1, 1], [1, 1]]
    assert copy.inputs["lasting"] is inputs["lasting"]
    assert copy.deadline_s is not None
    assert copy.deadline_s > 1.0
    assert copy.priority > 1000


def test_an_observer_that_fails_harms_nobody(told: Told) -> None:
    class Broken(Told):
        def observe_pair(self, pair: Pair) -> None:
            raise ValueError

    mirror = Mirror(("red", "blue"), Comparer(), (Broken(), told))
    mirror.offer(request(), Outcome(0, answer(1), 1.0), Members(answer(1)).ask)
    assert mirror.wait_idle(10)
    mirror.close()

    assert len(told.pairs) == 1


def test_nothing_is_taken_once_it_is_closed(mirror: Mirror) -> None:
    mirror.close()

    assert not mirror.offer(request(), Outcome(0, answer(1), 1.0), Members(answer(1)).ask)
