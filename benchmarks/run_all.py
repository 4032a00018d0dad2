"""Run every benchmark, print the tables and write all numbers into one JSON file.

``python benchmarks/run_all.py --json results.json``; ``--only bench_link`` for one, ``--jwst``,
``--faults`` and ``--million`` to include those of the JWST chain, of everything that goes wrong and
of a million cutouts, which take long.
The rivals are in the extra ``bench``.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from _report import machine

HERE = Path(__file__).parent
OPT_IN = {"bench_jwst": "jwst", "bench_faults": "faults", "bench_million": "million"}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", metavar="FILE", help="write the numbers here")
    parser.add_argument("--runs", type=int, default=5, help="runs of each (default: 5)")
    parser.add_argument("--only", action="append", metavar="NAME", help="may be repeated")
    parser.add_argument("--jwst", action="store_true", help="also the JWST chain")
    parser.add_argument("--faults", action="store_true", help="also everything that goes wrong")
    parser.add_argument("--million", action="store_true", help="also a million cutouts")
    chosen = parser.parse_args()
    names = sorted(path.stem for path in HERE.glob("bench_*.py"))
    usual = [n for n in names if n not in OPT_IN or getattr(chosen, OPT_IN[n])]
    wanted = chosen.only or usual
    names = [name for name in names if name in wanted]
    results, failed = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            path = Path(folder) / f"{name}.json"
            command = [sys.executable, f"{name}.py", "--runs", str(chosen.runs), "--json", path]
            if subprocess.run(command, cwd=HERE, check=False).returncode:
                failed.append(name)
            else:
                results[name] = json.loads(path.read_text())
    if chosen.json:
        Path(chosen.json).write_text(
            json.dumps({"machine": machine(), "benchmarks": results}, indent=1) + "\n"
        )
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
