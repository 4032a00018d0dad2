"""Medians, a table on the screen, and the numbers as JSON."""

import argparse
import json
import os
import platform
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

__all__ = [
    "machine",
    "median_cpu_seconds",
    "median_seconds",
    "options",
    "parser",
    "processor_seconds",
    "report",
]


def parser(description):
    """Return a parser of the arguments that every benchmark takes."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--runs", type=int, default=5, help="runs of each (default: 5)")
    made.add_argument("--json", metavar="FILE", help="also write the numbers here")
    return made


def options(description):
    """Parse those arguments."""
    return parser(description).parse_args()


def machine():
    """Return what the numbers were measured on."""
    versions = {}
    for name in ("astroquery_lis", "astropy", "astroquery", "numpy", "fsspec", "astrocut", "jwst"):
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        **versions,
    }


def processor_seconds(server=None):
    """Return what this process and its descendants took, gone or not, without one that serves."""
    tree = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            fields = Path("/proc", name, "stat").read_text().rpartition(")")[2].split()
            tree[int(name)] = int(fields[1]), sum(map(int, fields[11:15]))
    todo, ticks = [os.getpid()], 0
    while todo:
        parent = todo.pop()
        ticks += tree[parent][1]
        todo += [process for process, (of, _) in tree.items() if of == parent and process != server]
    return ticks / os.sysconf("SC_CLK_TCK")


def median_seconds(call, runs):
    """Return the median duration of a call, after one that is not counted."""
    call()
    return median(_seconds(call, time.perf_counter) for _ in range(runs))


def median_cpu_seconds(calls, runs):
    """Return the median CPU time of each of several calls, made by turns."""
    for call in calls:
        call()
    rounds = [[_seconds(call, time.process_time) for call in calls] for _ in range(runs)]
    return [median(times) for times in zip(*rounds, strict=True)]


def _seconds(call, clock):
    start = clock()
    call()
    return clock() - start


def report(title, rows, chosen):
    """Print rows of (name, value, unit) and write them where that was asked for."""
    print(f"\n{title}")
    for name, value, unit in rows:
        print(f"  {name:<58} {value:>12.4g} {unit}")
    if chosen.json:
        found = {name: {"value": value, "unit": unit} for name, value, unit in rows}
        text = json.dumps({"title": title, "machine": machine(), "rows": found}, indent=2)
        Path(chosen.json).write_text(text + "\n")
