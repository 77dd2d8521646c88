"""Server processes: start and stop, and what their whole tree uses of CPU and memory (Linux)."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HOST = "127.0.0.1"
STOP_TIMEOUT_S = 15.0
KILL_TIMEOUT_S = 5.0
POLL_S = 0.02
LOG_TAIL_CHARACTERS = 2000


class ServerError(Exception):
    """A server did not start, did not become ready, or lost a process."""


@dataclass(frozen=True)
class Launch:
    """How to start a server.

    Attributes:
        command: The command line.
        grpc_port: Where it will serve gRPC on 127.0.0.1.
        environment: Variables on top of the harness's own.
        folder: Working directory; the harness's own if None.
    """

    command: Sequence[str]
    grpc_port: int
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None


@dataclass(frozen=True)
class CpuSample:
    """CPU time of a process tree at one moment.

    Attributes:
        by_pid_ns: User and system time of each live process, all its threads, ended ones included.
        machine: The machine's own counters at that moment.
    """

    by_pid_ns: Mapping[int, int]
    machine: MachineSample


@dataclass(frozen=True)
class MachineSample:
    """The machine's CPU time at one moment, in seconds summed over the cores.

    Attributes:
        busy_s: Not idle.
        stolen_s: Taken by the hypervisor for other guests.
    """

    busy_s: float
    stolen_s: float


def free_ports(count: int) -> list[int]:
    """Ports on 127.0.0.1 that nothing listens on at the moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def cpu_ns(pid: int) -> int:
    """User and system time of a process in nanoseconds, over all its threads, ended ones included.

    The process's CPU clock counts what the scheduler counts; ``/proc/<pid>/stat`` shows the same in
    steps of 10 ms, too coarse for short windows and trees of many processes.

    Raises:
        ProcessLookupError: There is no such process.
    """
    # The clock's id as clock_getcpuclockid(3) makes it: the inverted pid, and 2 for the scheduler.
    try:
        return time.clock_gettime_ns((~pid << 3) | 2)
    except OSError as error:
        raise ProcessLookupError(pid) from error


def cpu_between_us(before: CpuSample, after: CpuSample) -> float:
    """CPU time of a tree between two samples, in microseconds.

    A process that appeared in between counts from its beginning.

    Raises:
        ServerError: A process ended in between, so that its time is lost.
    """
    lost = before.by_pid_ns.keys() - after.by_pid_ns.keys()
    if lost:
        raise ServerError(f"processes ended during the window: {sorted(lost)}")
    used_ns = sum(
        after_ns - before.by_pid_ns.get(pid, 0) for pid, after_ns in after.by_pid_ns.items()
    )
    return used_ns / 1e3


def sample_machine() -> MachineSample:
    """Read the machine's CPU counters."""
    with open("/proc/stat") as stat:
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(
            int, stat.readline().split()[1:9]
        )
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    return MachineSample(
        busy_s=(user + nice + system + irq + softirq) / ticks_per_s, stolen_s=steal / ticks_per_s
    )


def tree_pids(root: int) -> list[int]:
    """The live processes that descend from a process or share its session, itself included.

    The session catches those whose parent has ended.
    """
    parents: dict[int, int] = {}
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = Path("/proc", entry, "stat").read_text()
        except OSError:  # it ended meanwhile
            continue
        state, parent, _group, session = stat.rpartition(")")[2].split()[:4]
        if state == "Z":
            continue
        parents[int(entry)] = int(parent)
        if int(session) == root:
            found.append(int(entry))
    tree = set(found)
    grew = True
    while grew:
        children = {pid for pid, parent in parents.items() if parent in tree} - tree
        tree |= children
        grew = bool(children)
    return sorted(tree)


def pss_bytes(pids: Sequence[int]) -> int:
    """Proportional set size of some processes: shared pages count once, divided by their users.

    Raises:
        ServerError: One of them has ended, or belongs to another user.
    """
    total_kb = 0
    for pid in pids:
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError as error:
            raise ServerError(f"no memory reading of process {pid}: {error.strerror}") from error
        total_kb += sum(
            int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")
        )
    return total_kb * 1024


class ServerProcess:
    """One server as a process tree in a session and process group of its own."""

    def __init__(self, name: str, launch: Launch, log_file: Path) -> None:
        self.name = name
        self.grpc_port = launch.grpc_port
        self.started_s = 0.0
        self._launch = launch
        self._log_file = log_file
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process and return at once; `started_s` is the monotonic time just before.

        Raises:
            ServerError: There is no such program.
        """
        self._log_file.parent.mkdir(parents=True, exist_ok=True)
        with self._log_file.open("wb") as log:
            self.started_s = time.monotonic()
            try:
                self._process = subprocess.Popen(
                    self._launch.command,
                    env={**os.environ, **self._launch.environment},
                    cwd=self._launch.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise ServerError(f"it cannot be started: {error}") from error

    def pids(self) -> list[int]:
        """The live processes of the server's tree."""
        return tree_pids(self._process.pid) if self._process else []

    def running(self) -> bool:
        """Whether the process that was started is still there."""
        return self._process is not None and self._process.poll() is None

    def sample_cpu(self) -> CpuSample:
        """CPU time of the tree and of the machine, now."""
        by_pid_ns = {}
        for pid in self.pids():
            try:
                by_pid_ns[pid] = cpu_ns(pid)
            except ProcessLookupError:  # it ended since the list was made
                continue
        return CpuSample(by_pid_ns, sample_machine())

    def log_tail(self) -> str:
        """The end of what the server printed."""
        if not self._log_file.exists():
            return ""
        return self._log_file.read_text(errors="replace")[-LOG_TAIL_CHARACTERS:].strip()

    def stop(self) -> None:
        """Ask the server to end, and kill what is left of its tree; bounded in time.

        Raises:
            ServerError: Something of the tree is still there.
        """
        process, self._process = self._process, None
        if process is None:
            return
        # A pidfd stays with its process; its number may be another process's by the time we kill.
        handles = _open_handles(tree_pids(process.pid))
        try:
            if process.poll() is None:
                process.terminate()
            if not _all_ended(handles, process, STOP_TIMEOUT_S):
                for handle in handles:
                    with contextlib.suppress(ProcessLookupError):
                        signal.pidfd_send_signal(handle, signal.SIGKILL)
                if not _all_ended(handles, process, KILL_TIMEOUT_S):
                    raise ServerError(f"{self.name}: processes are left after SIGKILL")
        finally:
            for handle in handles:
                os.close(handle)


def _open_handles(pids: Sequence[int]) -> list[int]:
    handles = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            handles.append(os.pidfd_open(pid))
    return handles


def _all_ended(handles: Sequence[int], process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Wait until every process has ended: then its pidfd is readable."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        ended, _, _ = select.select(handles, [], [], 0)
        if len(ended) == len(handles):
            process.wait()  # reaps it
            return True
        if time.monotonic() >= deadline_s:
            return False
        time.sleep(POLL_S)
