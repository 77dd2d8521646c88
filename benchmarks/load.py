"""Load from h2load: unary gRPC calls over h2c, one in flight per connection.

h2load costs little CPU beside the server, but does not know gRPC: it sees HTTP status 200 where the
trailers carry an error. Its count of body bytes covers every reply, and a reply with an error has
no body: `unexpected_bytes` shows whether all were of the right size.

h2load 1.52 (Debian 12) counts body bytes during its own warm-up phase too, but requests only after
it. So its warm-up phase is not used: the harness takes a window inside one long run by the times in
h2load's log, and the sizes are checked over the whole run.
"""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from crossfade.benchmarks.processes import cpu_ns

METHOD_PATH = "/inference.GRPCInferenceService/ModelInfer"
GRPC_HEADERS = ("content-type: application/grpc", "te: trailers")
INSTALL_HINT = "run `make bench-deps`, or `apt-get install nghttp2-client`"
STARTED_LINE = "Main benchmark duration is started"
CLOSING_MARGIN_S = 0.1  # the window closes this long before h2load stops
KILL_MARGIN_S = 30.0  # a hung server gets this long to answer what is in flight

Sample = TypeVar("Sample")


class LoadError(Exception):
    """The load generator is missing, failed, or saw failed requests."""


@dataclass(frozen=True)
class Load:
    """One load run.

    Attributes:
        port: Where the server listens on 127.0.0.1.
        request_file: The request's body (of gRPC: framed), the same for every call.
        concurrency: Connections, each with one request in flight.
        warmup_s: Load before the window.
        window_s: Length of the window.
        path: The method or the route.
        headers: ``name: value`` each.
        http1: HTTP/1.1 instead of HTTP/2.
    """

    port: int
    request_file: Path
    concurrency: int
    warmup_s: float
    window_s: float
    path: str = METHOD_PATH
    headers: Sequence[str] = GRPC_HEADERS
    http1: bool = False


@dataclass(frozen=True)
class Summary:
    """What h2load says at its end about the whole run.

    Attributes:
        done: Requests that got a complete reply.
        failed: Requests that failed, in any way that HTTP/2 can see.
        ok_statuses: Replies with an HTTP status 2xx.
        body_bytes: Sum of the replies' bodies: gRPC frames without HTTP/2's own framing.
    """

    done: int
    failed: int
    ok_statuses: int
    body_bytes: int


@dataclass(frozen=True)
class Completion:
    """One reply.

    Attributes:
        end_us: When it was complete, in microseconds since the epoch.
        latency_us: From sending the request to the end of the reply.
    """

    end_us: int
    latency_us: int


@dataclass(frozen=True)
class Window(Generic[Sample]):
    """The measured part of a load run.

    Attributes:
        summary: h2load's own account of the whole run, warm-up included.
        duration_s: Length of the window.
        latencies_us: Latencies of the replies that were complete inside the window, ascending.
        before: The caller's sample at the start of the window.
        after: The caller's sample at the end of the window.
        client_cpu_us: CPU time of h2load inside the window.
    """

    summary: Summary
    duration_s: float
    latencies_us: Sequence[int]
    before: Sample
    after: Sample
    client_cpu_us: float

    @property
    def requests(self) -> int:
        """Replies that were complete inside the window."""
        return len(self.latencies_us)


_REQUESTS = re.compile(
    r"^requests: \d+ total, \d+ started, (\d+) done, \d+ succeeded, (\d+) failed", re.MULTILINE
)
_STATUSES = re.compile(r"^status codes: (\d+) 2xx", re.MULTILINE)
_TRAFFIC = re.compile(r"^traffic: .*, \S+ \((\d+)\) data", re.MULTILINE)


def parse_summary(output: str) -> Summary:
    """Read the summary at the end of h2load's output.

    Raises:
        LoadError: There is no summary.
    """
    requests, statuses, traffic = (
        pattern.search(output) for pattern in (_REQUESTS, _STATUSES, _TRAFFIC)
    )
    if requests is None or statuses is None or traffic is None:
        raise LoadError(f"no summary in h2load's output: {output.strip()[-500:]}")
    return Summary(
        done=int(requests[1]),
        failed=int(requests[2]),
        ok_statuses=int(statuses[1]),
        body_bytes=int(traffic[1]),
    )


def parse_log(text: str) -> list[Completion]:
    """Read h2load's log: start in microseconds since the epoch, HTTP status, latency in them.

    Streams without a status (-1) are left out; the summary counts them as failed.
    """
    completions = []
    for line in text.splitlines():
        start_us, status, latency_us = (int(field) for field in line.split("\t")[:3])
        if status >= 0:
            completions.append(Completion(start_us + latency_us, latency_us))
    return completions


def unexpected_bytes(summary: Summary, reply_bytes: int) -> int:
    """How many body bytes are missing (negative) or too many against replies of one right size.

    Args:
        summary: h2load's account of a run in which every request was the same.
        reply_bytes: The body of a right reply: its gRPC frame with the 5-byte header.
    """
    return summary.body_bytes - summary.done * reply_bytes


def percentile(ascending: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of ascending values; not a number if there are none."""
    if not ascending:
        return math.nan
    return ascending[max(0, math.ceil(len(ascending) * percent / 100) - 1)]


def find_h2load() -> str:
    """The path of h2load.

    Raises:
        LoadError: It is not installed.
    """
    path = shutil.which("h2load")
    if path is None:
        raise LoadError(f"h2load is not installed: {INSTALL_HINT}")
    return path


def h2load_version() -> str:
    """The version that h2load prints, such as ``h2load nghttp2/1.52.0``."""
    command = [find_h2load(), "--version"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def run_window(
    load: Load, during_warmup: Callable[[], None], sample: Callable[[], Sample]
) -> Window[Sample]:
    """Load a server and measure one window, after a warm-up under the same load.

    Args:
        load: What to send, for how long.
        during_warmup: Called under load at the start of the warm-up; should take less than it.
        sample: Called at the start and at the end of the window; must be quick.

    Raises:
        LoadError: h2load failed, hung, or saw a failed request.
    """
    whole_s = load.warmup_s + load.window_s + CLOSING_MARGIN_S
    with tempfile.TemporaryDirectory(prefix="crossfade-h2load-") as folder:
        log_file = Path(folder) / "requests.tsv"
        command = [
            find_h2load(),
            f"--clients={load.concurrency}",
            "--max-concurrent-streams=1",
            "--threads=1",
            f"--duration={round(whole_s * 1000)}ms",
            f"--data={load.request_file}",
            *(f"--header={header}" for header in load.headers),
            *(["--h1"] if load.http1 else []),
            f"--log-file={log_file}",
            f"http://127.0.0.1:{load.port}{load.path}",
        ]
        with _running(command, whole_s + KILL_MARGIN_S) as process:
            assert process.stdout is not None
            head = []
            for line in process.stdout:
                head.append(line)
                if line.startswith(STARTED_LINE):
                    break
            else:
                raise LoadError(f"h2load did not start: {''.join(head).strip()[-500:]}")
            started_s = time.monotonic()
            during_warmup()
            _sleep_until(started_s + load.warmup_s)
            before, start_us, client_before_ns = sample(), _now_us(), cpu_ns(process.pid)
            _sleep_until(started_s + load.warmup_s + load.window_s)
            after, end_us, client_after_ns = sample(), _now_us(), cpu_ns(process.pid)
            summary = parse_summary(process.stdout.read())
            if process.wait() != 0:
                raise LoadError(f"h2load ended with status {process.returncode}")
        completions = parse_log(log_file.read_text())
    if summary.done == 0:
        raise LoadError("no request was answered")
    if summary.failed or summary.ok_statuses != summary.done:
        raise LoadError(f"failed requests: {summary}")
    inside = [c.latency_us for c in completions if start_us < c.end_us <= end_us]
    return Window(
        summary=summary,
        duration_s=(end_us - start_us) / 1e6,
        latencies_us=sorted(inside),
        before=before,
        after=after,
        client_cpu_us=(client_after_ns - client_before_ns) / 1e3,
    )


@contextmanager
def _running(command: Sequence[str], timeout_s: float) -> Iterator[subprocess.Popen[str]]:
    """A process whose output can be read; killed after a time, and at the end."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        watchdog = threading.Timer(timeout_s, process.kill)
        watchdog.start()
        try:
            yield process
        finally:
            watchdog.cancel()
            process.kill()


def _now_us() -> int:
    return time.time_ns() // 1000


def _sleep_until(moment_s: float) -> None:
    time.sleep(max(0.0, moment_s - time.monotonic()))
