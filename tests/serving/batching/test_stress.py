"""Everything at once, from many threads, with a seed: the promises that must hold all the same."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence

import pytest

from crossfade.runtimes.core.errors import Code, CrossfadeError, InvalidArgument
from crossfade.runtimes.core.model import InferRequest, InferResponse, InferResult
from crossfade.serving.transport.cancellation import CancelToken
from tests.serving.batching.fakes import Bench, Runs, answer, request, values

THREADS = 12
ROUNDS = 80
BAD = 13_000_000.0  # float32 has room for every number up to 16 million


class Checked(Runs):
    """Looks at every run from the inside."""

    def __init__(self, seed: int) -> None:
        super().__init__(self._fail)
        self.faults: list[str] = []
        self.forbidden: set[float] = set()
        self.max_rows = 1
        self._random = random.Random(seed)

    def _fail(self, one: InferRequest) -> InferResult | None:
        seen = set(one.inputs["x"].ravel().tolist())
        if seen & self.forbidden:
            self.faults.append(f"{seen & self.forbidden} should never have been run")
        if one.rows > self.max_rows and len(seen - {BAD}) > 1:
            self.faults.append(f"a batch of {one.rows} rows")
        if self._random.random() < 0.3:
            time.sleep(0.001)
        if self._random.random() < 0.02:
            raise MemoryError
        return InvalidArgument("bad") if BAD in seen else None


def one_thread(bench: Bench, runs: Checked, index: int, seed: int, wrong: list[str]) -> None:
    rng = random.Random(1000 * seed + index)
    for turn in range(ROUNDS):
        numbers = [10_000 * index + 10 * turn + n for n in range(rng.choice([1, 1, 1, 2, 5]))]
        sent, expected = [], []
        for number in numbers:
            rows, width = rng.randint(1, 3), rng.choice([2, 2, 3])
            fate = rng.choice(["good"] * 6 + ["bad", "late", "gone", "brief", "leaves"])
            deadline_s, token = None, None
            if fate in {"late", "gone"}:
                runs.forbidden.add(float(number))
            if fate in {"late", "brief"}:
                deadline_s = time.monotonic() + (0.003 if fate == "brief" else 0)
            if fate in {"gone", "leaves"}:
                token = CancelToken()
                if fate == "gone":
                    token.set()
                else:
                    threading.Timer(rng.random() * 0.004, token.set).start()
            sent.append(
                request(
                    int(BAD) if fate == "bad" else number,
                    rows,
                    width,
                    deadline_s=deadline_s,
                    cancelled=token,
                    priority=rng.randint(0, 3),
                )
            )
            expected.append((fate, answer(number, rows, width)))
        found = bench.scheduled.infer(sent)
        wrong += check(found, expected)


ALLOWED = {
    "good": set(),
    "bad": {Code.INVALID_ARGUMENT},
    "late": {Code.DEADLINE_EXCEEDED},
    "gone": {Code.CANCELLED},
    "brief": {Code.DEADLINE_EXCEEDED},
    "leaves": {Code.CANCELLED},
}


def check(
    found: Sequence[InferResult], expected: Sequence[tuple[str, list[list[float]]]]
) -> list[str]:
    wrong = []
    if len(found) != len(expected):
        return [f"{len(found)} answers to {len(expected)} requests"]
    for result, (fate, right) in zip(found, expected, strict=True):
        if isinstance(result, InferResponse):
            if fate in {"bad", "late", "gone"} or values(result) != right:
                wrong.append(f"{fate}: {result.outputs}")
        elif result.code not in ALLOWED[fate] | {Code.INTERNAL}:  # the model's MemoryError
            wrong.append(f"{fate}: {result!r}")
    return wrong


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("max_delay_s", [0.0, 0.002])
@pytest.mark.parametrize(("instances", "max_rows"), [(1, 8), (2, 1), (3, 5)])
def test_stress(instances: int, max_rows: int, max_delay_s: float, seed: int) -> None:
    runs = Checked(seed)
    runs.max_rows = max_rows
    wrong: list[str] = []
    with Bench(
        runs,
        instances=instances,
        max_rows=max_rows,
        max_delay_s=max_delay_s,
        priority_levels=3,
        default_priority=2,
    ) as bench:
        threads = [
            threading.Thread(target=one_thread, args=(bench, runs, index, seed, wrong), daemon=True)
            for index in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads), "somebody still waits"
        assert wrong == []
        assert runs.faults == []
        assert runs.most_active == instances
        stacked = [set(numbers) for numbers in runs.numbers if len(set(numbers)) > 1]
        assert bool(stacked) == (max_rows > 1)
        assert bench.scheduled.waiting == 0
        bench.scheduled.max_delay_s = 0
        bench.assert_all_instances_work()


def test_a_full_queue_under_load_loses_nobody() -> None:
    codes: list[Code | None] = []
    with Bench(max_rows=2, max_size=3) as bench:

        def send(index: int) -> None:
            for turn in range(100):
                (found,) = bench.scheduled.infer((request(100 * index + turn),))
                if isinstance(found, CrossfadeError):
                    assert found.retry_after_s is not None
                    codes.append(found.code)
                else:
                    assert values(found) == answer(100 * index + turn)
                    codes.append(None)

        bench.runs.behaviour = lambda _: time.sleep(0.0002)
        threads = [threading.Thread(target=send, args=(index,), daemon=True) for index in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(codes) == 1000, "a thread failed or hangs"
        assert set(codes) == {None, Code.RESOURCE_EXHAUSTED}
        bench.assert_all_instances_work()
