import math
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import grpc
import pytest

from crossfade.benchmarks import load
from crossfade.benchmarks.framing import FRAME_HEADER_BYTES, frame
from crossfade.benchmarks.load import (
    Completion,
    Load,
    LoadError,
    Summary,
    find_h2load,
    parse_log,
    parse_summary,
    percentile,
    run_window,
    unexpected_bytes,
)

# What h2load 1.52 printed in a run of half a second.
OUTPUT = """\
starting benchmark...
Main benchmark duration is started for thread #0.
Main benchmark duration is over for thread #0. Stopping all clients.

finished in 502.92ms, 2028.00 req/s, 494.20KB/s
requests: 1014 total, 1022 started, 1014 done, 1014 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 1014 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 247.10KB (253032) total, 3.56KB (3642) headers (space savings 95.57%), \
187.15KB (191646) data
                     min         max         mean         sd        +/- sd
time for request:     1.48ms     11.40ms      3.94ms      1.14ms    83.83%
"""


def test_parse_summary_reads_the_counters():
    assert parse_summary(OUTPUT) == Summary(
        done=1014, failed=0, ok_statuses=1014, body_bytes=191646
    )


def test_parse_summary_refuses_output_without_a_summary():
    with pytest.raises(LoadError, match="connection refused"):
        parse_summary("connection refused\n")


def test_parse_log_gives_ends_and_latencies_and_leaves_failed_streams_out():
    text = "1795487198284133\t200\t725\n1795487198284200\t-1\t12\n1795487198284919\t200\t881\n"
    assert parse_log(text) == [
        Completion(1795487198284858, 725),
        Completion(1795487198285800, 881),
    ]


def test_unexpected_bytes_is_zero_when_every_reply_has_the_right_size():
    assert unexpected_bytes(parse_summary(OUTPUT), 189) == 0


def test_unexpected_bytes_shows_one_reply_without_a_body_among_thousands():
    summary = Summary(done=5000, failed=0, ok_statuses=5000, body_bytes=4999 * 189)
    assert unexpected_bytes(summary, 189) == -189


@pytest.mark.parametrize(
    ("percent", "value"), [(0, 1), (50, 50), (99, 99), (99.5, 100), (100, 100)]
)
def test_percentile_is_the_nearest_rank(percent, value):
    assert percentile(range(1, 101), percent) == value


def test_percentile_of_nothing_is_not_a_number():
    assert math.isnan(percentile([], 50))


def test_a_missing_h2load_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(load.shutil, "which", lambda _: None)
    with pytest.raises(LoadError, match="make bench-deps"):
        find_h2load()


REPLY = b"x" * 20


@pytest.fixture
def serve():
    """Start gRPC servers whose every n-th reply is an error."""
    servers = []

    def start(error_every):
        numbers = count(1)

        def infer(request, context):
            if error_every and next(numbers) % error_every == 0:
                context.abort(grpc.StatusCode.INTERNAL, "broken")
            return REPLY

        server = grpc.server(ThreadPoolExecutor(2))
        handler = grpc.method_handlers_generic_handler(
            "inference.GRPCInferenceService",
            {"ModelInfer": grpc.unary_unary_rpc_method_handler(infer)},
        )
        server.add_generic_rpc_handlers((handler,))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return port

    yield start
    for server in servers:
        server.stop(None).wait()


@pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load is not installed")
@pytest.mark.parametrize("error_every", [0, 50])
def test_a_run_shows_its_window_and_whether_all_replies_were_whole(serve, tmp_path, error_every):
    request_file = tmp_path / "request"
    request_file.write_bytes(frame(b"request"))
    warmed_up = threading.Event()
    samples = count()
    window = run_window(
        Load(serve(error_every), request_file, concurrency=2, warmup_s=0.1, window_s=0.3),
        during_warmup=warmed_up.set,
        sample=lambda: next(samples),
    )
    assert warmed_up.is_set()
    assert (window.before, window.after) == (0, 1)
    assert 0.25 < window.duration_s < 1
    assert 0 < window.requests < window.summary.done
    assert window.latencies_us == sorted(window.latencies_us)
    assert window.client_cpu_us > 0
    missing = unexpected_bytes(window.summary, FRAME_HEADER_BYTES + len(REPLY))
    assert (missing < 0) == bool(error_every)


@pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load is not installed")
def test_a_server_that_is_not_there_is_an_error(tmp_path):
    request_file = tmp_path / "request"
    request_file.write_bytes(frame(b"request"))
    with pytest.raises(LoadError):
        run_window(
            Load(1, request_file, concurrency=1, warmup_s=0.1, window_s=0.1),
            during_warmup=lambda: None,
            sample=lambda: None,
        )
