import json
import math
from dataclasses import replace

import pytest

from crossfade.benchmarks.report import (
    Measurement,
    Start,
    format_rows,
    format_starts,
    headline,
    jsonable,
    ratio,
    summarise,
    summarise_starts,
)


def measurement(server, model="addsub", concurrency=1, repetition=0, **values):
    numbers = dict.fromkeys(
        ("rps", "p50_ms", "p99_ms", "cpu_us", "client_cpu_us", "stolen_cores", "foreign_cores"), 1.0
    )
    return Measurement(
        server=server,
        model=model,
        concurrency=concurrency,
        repetition=repetition,
        requests=1,
        checked=1,
        counted=1,
        **(numbers | values),
    )


START = Start(
    server="crossfade",
    repetition=0,
    ready_s=1.0,
    processes=1,
    pss_idle_mb=100.0,
    pss_after_mb=120.0,
    idle_cpu_percent=0.1,
)


def test_summarise_takes_medians_and_the_spread_of_each_cell():
    rows = summarise(
        [
            measurement("a", rps=10.0, stolen_cores=0.0),
            measurement("b", rps=1.0),
            measurement("a", rps=30.0, stolen_cores=0.5),
            measurement("a", rps=11.0, stolen_cores=0.1),
        ]
    )
    assert [row.server for row in rows] == ["a", "b"]
    assert (rows[0].rps, rows[0].rps_min, rows[0].rps_max) == (11.0, 10.0, 30.0)
    assert rows[0].stolen_cores == 0.5
    assert rows[0].repetitions == 3


def test_summarise_starts_takes_medians():
    starts = [replace(START, ready_s=seconds) for seconds in (1.0, 5.0, 2.0)]
    assert [row.ready_s for row in summarise_starts(starts)] == [2.0]


@pytest.mark.parametrize(
    ("numerator", "denominator", "quotient"),
    [(3.0, 2.0, 1.5), (None, 2.0, None), (3.0, None, None), (3.0, 0.0, None), (math.nan, 1, None)],
)
def test_ratio_is_none_where_a_side_is_missing(numerator, denominator, quotient):
    assert ratio(numerator, denominator) == quotient


def test_headline_divides_crossfade_by_its_peers():
    rows = summarise(
        [
            measurement("crossfade", rps=3000.0),
            measurement("triton", rps=2000.0),
            measurement("crossfade", concurrency=32, rps=9000.0, cpu_us=50.0),
            measurement("kserve", concurrency=32, rps=1000.0),
            measurement("floor", concurrency=32, cpu_us=400.0),
            measurement("crossfade", "cnn", 8, rps=180.0, cpu_us=11000.0),
            measurement("bare", "cnn", 8, cpu_us=10000.0),
        ]
    )
    values = headline(rows, summarise_starts([START]))
    assert values["addsub_c1_vs_triton"] == 1.5
    assert values["addsub_c32_vs_kserve"] == 9
    assert values["addsub_c32_vs_mlserver"] is None
    assert values["addsub_cpu_vs_floor"] == 0.125
    assert values["cnn_cpu_vs_bare"] == 1.1
    assert values["cnn_c8_vs_triton"] is None
    assert (values["ready_s"], values["pss_idle_mb"]) == (1.0, 100.0)


def test_headline_without_crossfade_is_all_none():
    assert set(headline(summarise([measurement("triton")]), []).values()) == {None}


def test_tables_have_a_line_per_row():
    assert len(format_rows(summarise([measurement("a"), measurement("b")])).splitlines()) == 3
    assert len(format_starts(summarise_starts([START])).splitlines()) == 2


def test_jsonable_rounds_and_replaces_what_json_cannot_hold():
    value = {"a": [math.nan, 1.23456789, (math.inf, True)], "b": "text", "c": 12345678}
    assert jsonable(value) == {"a": [None, 1.23457, [None, True]], "b": "text", "c": 12345678}
    json.dumps(jsonable(value), allow_nan=False)
