"""What machine a result comes from."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path


def describe_machine() -> Mapping[str, object]:
    """The processor, its cores, and how busy it was before the benchmark began."""
    one_minute, five_minutes, _ = os.getloadavg()
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_1min_before": round(one_minute, 2),
        "load_5min_before": round(five_minutes, 2),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()
