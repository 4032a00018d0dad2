"""How much memory there is, and whether the system ended processes for want of it."""

import contextlib
import os
from pathlib import Path

__all__ = ["available_gb", "cores", "kills"]

_GB = 1 << 30
_CGROUP = Path("/sys/fs/cgroup")


def available_gb():
    """Return the memory that processes can still take: of the machine, or of its container.

    Returns
    -------
    float
        GB; infinite where the system does not tell.
    """
    return min(_of_machine(), _of_cgroup())


def cores():
    """Return the number of cores that this process may use.

    Returns
    -------
    int
    """
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        allowed = os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = (_CGROUP / "cpu.max").read_text().split()
        allowed = min(allowed, max(int(quota) // int(period), 1))
    return max(allowed, 1)


def kills():
    """Return how many processes the system has ended for want of memory since it started.

    Returns
    -------
    int
        0 where it does not tell.
    """
    for path in (_CGROUP / "memory.events", Path("/proc/vmstat")):
        with contextlib.suppress(OSError, ValueError):
            for line in path.read_text().splitlines():
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return int(value)
    return 0


def _of_machine():
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return int(value.split()[0]) * 1024 / _GB
    with contextlib.suppress(OSError, ValueError, AttributeError):
        # macOS does not tell what is free; half of what there is has proved to be.
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GB / 2
    return float("inf")


def _of_cgroup():
    for limit, usage, stat, cached in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "total_inactive_file",
        ),
    ):
        with contextlib.suppress(OSError, ValueError):
            most = int((_CGROUP / limit).read_text())
            used = int((_CGROUP / usage).read_text())
            for line in (_CGROUP / stat).read_text().splitlines():
                name, _, value = line.partition(" ")
                # Pages of files that were read are given back when they are needed.
                used -= int(value) if name == cached else 0
            return max(most - used, 0) / _GB
    return float("inf")
