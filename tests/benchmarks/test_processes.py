import os
import subprocess
import sys
import time

import pytest

from crossfade.benchmarks.processes import (
    CpuSample,
    Launch,
    MachineSample,
    ServerError,
    ServerProcess,
    cpu_between_us,
    cpu_ns,
    free_ports,
    pss_bytes,
    tree_pids,
)

MACHINE = MachineSample(busy_s=0, stolen_s=0)

# A parent that ignores SIGTERM's polite meaning for its child, which ignores SIGTERM.
STUBBORN_TREE = """
import signal, subprocess, sys, time
child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
subprocess.Popen([sys.executable, "-c", child])
print("ready", flush=True)
time.sleep(60)
"""


def sample(**by_pid_ns):
    return CpuSample({int(pid[1:]): ns for pid, ns in by_pid_ns.items()}, MACHINE)


def test_cpu_between_counts_every_process_and_new_ones_from_their_beginning():
    assert cpu_between_us(sample(p1=5_000, p2=1_000), sample(p1=8_000, p2=1_000, p3=500)) == 3.5


def test_cpu_between_refuses_to_lose_a_process():
    with pytest.raises(ServerError, match="2"):
        cpu_between_us(sample(p1=1, p2=1), sample(p1=2))


def test_cpu_ns_is_the_process_cpu_clock():
    before = cpu_ns(os.getpid())
    own_before = time.process_time_ns()
    while time.process_time_ns() < own_before + 20_000_000:
        pass
    assert 20_000_000 <= cpu_ns(os.getpid()) - before < 200_000_000


def test_cpu_ns_of_no_process_is_an_error():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with pytest.raises(ProcessLookupError):
        cpu_ns(process.pid)


def test_free_ports_are_different():
    ports = free_ports(3)
    assert len(set(ports)) == 3


def test_pss_of_this_process_is_some_megabytes():
    assert 1e6 < pss_bytes([os.getpid()]) < 1e10


def test_stop_ends_the_whole_tree_even_a_child_that_ignores_sigterm(tmp_path, monkeypatch):
    monkeypatch.setattr("crossfade.benchmarks.processes.STOP_TIMEOUT_S", 0.3)
    log = tmp_path / "log"
    server = ServerProcess("s", Launch([sys.executable, "-c", STUBBORN_TREE], 0), log)
    server.start()
    deadline_s = time.monotonic() + 20
    while "ready" not in server.log_tail() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    pids = server.pids()
    assert len(pids) == 2
    assert server.running()
    server.stop()
    assert not server.running()
    assert not set(pids) & set(tree_pids(pids[0]))
    assert not any(os.path.exists(f"/proc/{pid}/exe") for pid in pids)
    server.stop()  # a second time does nothing


def test_a_program_that_is_not_there_is_a_server_error(tmp_path):
    server = ServerProcess("s", Launch(["/no/such/program"], 0), tmp_path / "log")
    with pytest.raises(ServerError, match="cannot be started"):
        server.start()
