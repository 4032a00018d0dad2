"""What a process says of itself."""

import subprocess
import sys

import pytest

LARGE_PARENT = """
import subprocess, sys
held = b"x" * (900 << 20)
child = "from astroquery_lis.io.processes import peak_memory_gb as gb; print(gb())"
# Forked before it becomes the child, as processes of threads that hold locks are.
print(subprocess.run([sys.executable, "-c", child], capture_output=True, text=True,
                     preexec_fn=lambda: None, check=True).stdout)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells it apart from the parent's")
def test_memory_is_that_of_the_process_and_not_of_who_started_it():
    run = [sys.executable, "-c", LARGE_PARENT]
    peak_gb = float(subprocess.run(run, capture_output=True, text=True, check=True).stdout)
    assert 0.01 < peak_gb < 0.5
