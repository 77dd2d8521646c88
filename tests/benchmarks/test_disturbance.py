import pytest

from crossfade.benchmarks.disturbance import disturbed, least_disturbed
from crossfade.benchmarks.report import Measurement, summarise


def measurement(stolen_cores, rps=1.0):
    return Measurement(
        server="floor",
        model="addsub",
        concurrency=1,
        repetition=0,
        requests=1,
        rps=rps,
        p50_ms=1,
        p99_ms=1,
        cpu_us=1,
        client_cpu_us=1,
        stolen_cores=stolen_cores,
        foreign_cores=0.0,
        checked=1,
        counted=1,
    )


@pytest.mark.parametrize(
    ("stolen", "attempts", "kept", "measured"),
    [
        ([0.0, 0.0], 3, 0.0, 1),
        ([0.9, 0.1, 0.0], 3, 0.1, 2),
        ([0.9, 0.5, 0.7, 0.0], 3, 0.5, 3),
        ([0.9, 0.0], 1, 0.9, 1),
    ],
)
def test_the_least_disturbed_window_counts(stolen, attempts, kept, measured):
    windows = [measurement(each, rps=index) for index, each in enumerate(stolen)]
    remaining = list(windows)
    best = least_disturbed(lambda: remaining.pop(0), attempts)
    assert best.stolen_cores == kept
    assert len(windows) - len(remaining) == measured


def test_disturbed_rows_are_named():
    assert disturbed(summarise([measurement(0.0)])) == []
    assert disturbed(summarise([measurement(0.0), measurement(0.5)])) == ["floor addsub c1"]
