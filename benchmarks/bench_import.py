"""Time and memory of ``import astroquery_lis``, beside those of ``import astroquery.query``."""

import subprocess
import sys
from statistics import median

from _report import options, report

MEASURE = """
import pathlib, re, sys, time
start = time.perf_counter()
exec(sys.argv[1])
seconds = time.perf_counter() - start
status = pathlib.Path("/proc/self/status")
peak = re.search(r"VmHWM:\\s+(\\d+)", status.read_text()) if status.exists() else None
print(seconds, int(peak[1]) / 1024 if peak else "nan")
"""
BASE = "import astroquery.query"
LINES = (BASE, "import astroquery_lis", "from astroquery_lis import LegacySurvey")


def main():
    chosen = options(__doc__)
    found = {line: [] for line in LINES}
    # In turns, so that what else the machine does hits both.
    for _ in range(max(2 * chosen.runs, 3) + 1):
        for line in LINES:
            run = [sys.executable, "-c", MEASURE, line]
            said = subprocess.run(run, capture_output=True, text=True, check=True).stdout
            found[line].append([float(value) for value in said.split()])
    medians = {
        line: [median(column) for column in zip(*runs[1:], strict=True)]
        for line, runs in found.items()
    }
    rows = []
    for line, measured in medians.items():
        for what, value, base, unit in zip(
            ("time", "peak"), measured, medians[BASE], ("s", "MB"), strict=True
        ):
            rows.append((f"{line}: {what}", value, unit))
            if line != BASE:
                rows.append((f"{line}: {what} over that of astroquery.query", value / base, "x"))
    report("Import", rows, chosen)


if __name__ == "__main__":
    main()
