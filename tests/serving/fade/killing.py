"""A writer that dies somewhere in the middle."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time


def told_before_death(
    program: str, *arguments: str, most_s: float, rng: random.Random
) -> list[str]:
    """Runs a program that prints what it has done, and kills it with ``kill -9``.

    Args:
        program: Python; flushes each line.
        arguments: of it.
        most_s: after its first line it lives so long at most.
        rng: decides how long: somewhere in a transaction, or between two.

    Returns:
        Its whole lines.
    """
    writer = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    first = writer.stdout.readline()
    assert first, writer.communicate(timeout=60)
    time.sleep(rng.uniform(0, most_s))
    writer.send_signal(signal.SIGKILL)
    with writer:  # not communicate: it forgets what readline has read ahead
        told = [first.rstrip("\n"), *writer.stdout.read().splitlines()]
    assert writer.returncode == -signal.SIGKILL
    return told
