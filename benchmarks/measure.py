"""One life of one server: start it, measure its windows, stop it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from crossfade.benchmarks.checker import Checker, CheckerError, Verdict
from crossfade.benchmarks.disturbance import least_disturbed
from crossfade.benchmarks.load import (
    Load,
    LoadError,
    Window,
    percentile,
    run_window,
    unexpected_bytes,
)
from crossfade.benchmarks.peers.peer import Peer
from crossfade.benchmarks.plan import Life, Plan
from crossfade.benchmarks.processes import (
    CpuSample,
    ServerError,
    ServerProcess,
    cpu_between_us,
    pss_bytes,
)
from crossfade.benchmarks.progress import progress
from crossfade.benchmarks.report import Measurement, Start
from crossfade.benchmarks.workspace import Workspace

READY_TIMEOUT_S = 180.0
READY_SLICE_S = 1.0  # how soon the death of a starting server is noticed
CHECKED_CALLS = 8  # before and after each window; one per reference
SIZE_ATTEMPTS = 3


class WrongAnswerError(Exception):
    """A server gave an answer that differs from bare ONNX Runtime's, or of the wrong size."""


class _ClosingReplyError(Exception):
    """Some replies were cut off as the load ended, so that their sizes prove nothing."""


def measure_server(peer: Peer, workspace: Workspace, plan: Plan, repetition: int) -> Life:
    """Start a server, measure all its windows, and stop it."""
    measurements: list[Measurement] = []
    failures: list[str] = []
    starts: list[Start] = []
    try:
        with _running(peer, workspace, plan) as (server, ready_s):
            idle = _Idle.watch(server, plan.idle_s)
            with Checker(server.grpc_port, plan.models, workspace) as checker:
                subject = _Subject(server, checker, workspace, plan)
                for model in plan.models:
                    for concurrency in plan.concurrencies:
                        try:
                            measurement = subject.measure(model, concurrency, repetition)
                        except (LoadError, WrongAnswerError) as error:
                            failures.append(f"{peer.name} {model} c{concurrency}: {error}")
                            progress(f"FAILED {failures[-1]}")
                            continue
                        measurements.append(measurement)
            starts.append(
                Start(
                    server=peer.name,
                    repetition=repetition,
                    ready_s=ready_s,
                    processes=idle.processes,
                    pss_idle_mb=idle.pss_mb,
                    pss_after_mb=pss_bytes(server.pids()) / 1e6,
                    idle_cpu_percent=idle.cpu_percent,
                )
            )
    except (ServerError, CheckerError) as error:
        failures.append(f"{peer.name}: {error}")
        progress(f"FAILED {failures[-1]}")
    return Life(starts, measurements, failures)


@contextmanager
def _running(peer: Peer, workspace: Workspace, plan: Plan) -> Iterator[tuple[ServerProcess, float]]:
    """A started, ready server, and how long it took; stopped at the end."""
    launch = peer.launch(workspace, plan.models)
    server = ServerProcess(peer.name, launch, workspace.log_file(peer.name))
    # The checking client is up before the server starts, so that its own start takes nothing from
    # the server's, and gone before memory is measured.
    with Checker(launch.grpc_port, plan.models, workspace) as checker:
        try:
            server.start()
            ready_s = _wait_ready(server, checker, plan.models) - server.started_s
        except BaseException:
            server.stop()
            raise
    progress(f"{peer.name}: ready after {ready_s:.2f} s")
    try:
        yield server, ready_s
    finally:
        server.stop()


def _wait_ready(server: ServerProcess, checker: Checker, models: Sequence[str]) -> float:
    while True:
        ready_at_s = checker.wait_ready(models, READY_SLICE_S)
        if ready_at_s is not None:
            return ready_at_s
        if not server.running():
            raise ServerError(f"it ended before it was ready: {server.log_tail()}")
        if time.monotonic() - server.started_s > READY_TIMEOUT_S:
            raise ServerError(f"not ready after {READY_TIMEOUT_S:.0f} s: {server.log_tail()}")


@dataclass(frozen=True)
class _Idle:
    """An idle server, models loaded, before its first request."""

    processes: int
    pss_mb: float
    cpu_percent: float

    @classmethod
    def watch(cls, server: ServerProcess, duration_s: float) -> _Idle:
        """Let a server settle for as long as it is then watched."""
        time.sleep(duration_s)
        before, before_s = server.sample_cpu(), time.monotonic()
        time.sleep(duration_s)
        after, after_s = server.sample_cpu(), time.monotonic()
        pids = server.pids()
        return cls(
            processes=len(pids),
            pss_mb=pss_bytes(pids) / 1e6,
            cpu_percent=cpu_between_us(before, after) / 1e4 / (after_s - before_s),
        )


@dataclass(frozen=True)
class _Subject:
    """A running server with what its windows need."""

    server: ServerProcess
    checker: Checker
    workspace: Workspace
    plan: Plan

    def measure(self, model: str, concurrency: int, repetition: int) -> Measurement:
        """Measure one window, all of whose answers were right; again if it was disturbed.

        Raises:
            WrongAnswerError: An answer was wrong.
            LoadError: The load generator failed.
        """
        once = partial(self._measure_once, model, concurrency, repetition)
        return least_disturbed(once, self.plan.attempts)

    def _measure_once(self, model: str, concurrency: int, repetition: int) -> Measurement:
        for _ in range(SIZE_ATTEMPTS):
            try:
                window, verdict = self._checked_window(model, concurrency)
            except _ClosingReplyError:
                progress(f"{self.server.name} {model} c{concurrency}: a reply was cut off, again")
                continue
            break
        else:
            raise LoadError(f"{SIZE_ATTEMPTS} times the sizes of the replies did not add up")
        cpu_us = cpu_between_us(window.before, window.after)
        return Measurement(
            server=self.server.name,
            model=model,
            concurrency=concurrency,
            repetition=repetition,
            requests=window.requests,
            rps=window.requests / window.duration_s,
            p50_ms=percentile(window.latencies_us, 50) / 1e3,
            p99_ms=percentile(window.latencies_us, 99) / 1e3,
            cpu_us=cpu_us / window.requests,
            client_cpu_us=window.client_cpu_us / window.requests,
            stolen_cores=_stolen_cores(window),
            foreign_cores=_foreign_cores(window, cpu_us),
            checked=verdict.checked,
            counted=window.summary.done,
        )

    def _checked_window(self, model: str, concurrency: int) -> tuple[Window[CpuSample], Verdict]:
        verdict = self.checker.check(model, CHECKED_CALLS)
        reply_bytes = self.checker.reply_bytes(model)
        load = Load(
            port=self.server.grpc_port,
            request_file=self.workspace.request_file(model),
            concurrency=concurrency,
            warmup_s=self.plan.warmup_s,
            window_s=self.plan.window_s,
        )
        # Half of the warm-up, so that the checking client is quiet inside the window.
        check_s = self.plan.warmup_s / 2
        try:
            window = run_window(
                load,
                during_warmup=lambda: self.checker.begin_check(model, check_s),
                sample=self.server.sample_cpu,
            )
        finally:
            verdict += self.checker.end_check()
        verdict += self.checker.check(model, CHECKED_CALLS)
        if verdict.wrong:
            raise WrongAnswerError(
                f"{verdict.wrong} of {verdict.checked} answers were wrong: {verdict.first_error}"
            )
        if self.checker.reply_bytes(model) != reply_bytes:
            raise WrongAnswerError("the size of the reply changed")
        surplus = unexpected_bytes(window.summary, reply_bytes)
        if surplus < 0:
            raise WrongAnswerError(
                f"{-surplus} bytes are missing in {window.summary.done} replies of {reply_bytes}"
            )
        if surplus > 0:
            raise _ClosingReplyError
        if window.requests == 0:
            raise LoadError("no request was answered inside the window")
        return window, verdict


def _stolen_cores(window: Window[CpuSample]) -> float:
    stolen_s = window.after.machine.stolen_s - window.before.machine.stolen_s
    return stolen_s / window.duration_s


def _foreign_cores(window: Window[CpuSample], server_cpu_us: float) -> float:
    """Cores that neither server nor load generator used: other programs, and interrupts."""
    busy_s = window.after.machine.busy_s - window.before.machine.busy_s
    ours_s = (server_cpu_us + window.client_cpu_us) / 1e6
    return max(0.0, busy_s - ours_s) / window.duration_s
