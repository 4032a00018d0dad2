"""CPU time and memory of ``import astroquery_lis``, beside those of ``import astroquery.query``."""

import os
import subprocess
import sys
import tempfile
from statistics import median

from _report import options, report

MEASURE = """
import pathlib, re, sys, time
start = time.process_time()
exec(sys.argv[1])
seconds = time.process_time() - start
status = pathlib.Path("/proc/self/status")
peak = re.search(r"VmHWM:\\s+(\\d+)", status.read_text()) if status.exists() else None
print(seconds, int(peak[1]) / 1024 if peak else "nan")
"""
BASE = "import astroquery.query"
LINES = (BASE, "import astroquery_lis", "from astroquery_lis import LegacySurvey")


def main():
    chosen = options(__doc__)
    found = {line: [] for line in LINES}
    with tempfile.TemporaryDirectory() as folder:
        # Modules are compiled in the first round, whatever the environment says of that.
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        # In turns, so that what else the machine does hits both.
        for _ in range(max(2 * chosen.runs, 3) + 1):
            for line in LINES:
                run = [sys.executable, "-c", MEASURE, line]
                said = subprocess.run(
                    run, env=environment, capture_output=True, text=True, check=True
                ).stdout
                found[line].append([float(value) for value in said.split()])
    medians = {
        line: [median(column) for column in zip(*runs[1:], strict=True)]
        for line, runs in found.items()
    }
    rows = []
    for line, measured in medians.items():
        for what, value, base, unit in zip(
            ("CPU time", "peak"), measured, medians[BASE], ("s", "MB"), strict=True
        ):
            rows.append((f"{line}: {what}", value, unit))
            if line != BASE:
                rows.append((f"{line}: {what} over that of astroquery.query", value / base, "x"))
    report("Import", rows, chosen)


if __name__ == "__main__":
    main()
