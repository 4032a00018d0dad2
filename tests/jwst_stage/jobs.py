"""What the corrections in the tests of a run do."""

import json
import os
import signal
import sys
from pathlib import Path


def count(path):
    """Note that a function was begun, and return how often it was before."""
    path = Path(path)
    before = len(path.read_text()) if path.exists() else 0
    with path.open("a") as file:
        file.write("x")
    return before


def correct_well(model, tries):
    count(tries)
    Path(f"{tries}.json").write_text(json.dumps(dict(os.environ)))
    model.data += 1
    return model


def correct_killed_once(model, tries):
    if count(tries) == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return model


def correct_killed(model, tries):
    count(tries)
    os.kill(os.getpid(), signal.SIGKILL)


def correct_out_of_memory(model, tries):
    count(tries)
    raise MemoryError


def correct_system_exit(model, tries):
    count(tries)
    sys.exit(3)


def correct_hard_exit(model, tries):
    count(tries)
    sys.stderr.write("CRDS - ERROR -  (FATAL) cannot continue\n")
    sys.stderr.flush()
    os._exit(255)


def correct_crash(model, tries):
    count(tries)
    os.kill(os.getpid(), signal.SIGSEGV)


def correct_wrong(model, tries):
    count(tries)
    msg = "not like this"
    raise RuntimeError(msg)
