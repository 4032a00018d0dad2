"""Medians, a table on the screen, and the numbers as JSON."""

import argparse
import json
import platform
import time
from pathlib import Path
from statistics import median

__all__ = ["median_seconds", "options", "report"]


def options(description):
    """Parse the arguments that every benchmark takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--runs", type=int, default=5, help="runs of each (default: 5)")
    parser.add_argument("--json", metavar="FILE", help="also write the numbers here")
    return parser.parse_args()


def median_seconds(call, runs):
    """Return the median duration of a call, after one that is not counted."""
    call()
    durations = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        durations.append(time.perf_counter() - start)
    return median(durations)


def report(title, rows, chosen):
    """Print rows of (name, value, unit) and write them where that was asked for."""
    print(f"\n{title}")
    for name, value, unit in rows:
        print(f"  {name:<58} {value:>12.4g} {unit}")
    if chosen.json:
        machine = {"python": platform.python_version(), "machine": platform.machine()}
        found = {name: {"value": value, "unit": unit} for name, value, unit in rows}
        text = json.dumps({"title": title, "machine": machine, "rows": found}, indent=2)
        Path(chosen.json).write_text(text + "\n")
