"""What the processes in the tests of the fork server do."""

import json
import os
import signal
import sys
import time
from pathlib import Path

PID = os.getpid()


def double(job):
    print("said on the way")
    return {"value": 2 * job["value"], "pid": os.getpid(), "parent": os.getppid()}


def variables(job):
    return {name: os.environ.get(name) for name in job["names"]}


def fail(job):
    msg = f"no {job['value']}"
    raise ValueError(msg)


def system_exit(job):
    sys.exit(-1)


def hard_exit(job):
    sys.stderr.write("CRDS - ERROR -  (FATAL) cannot continue\n")
    sys.stderr.flush()
    os._exit(255)


def kill_self(job):
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for_ever(job):
    Path(job["begun"]).write_text(str(os.getpid()))
    while True:
        time.sleep(60)


def interrupt(job):
    raise KeyboardInterrupt


def was_imported_before(job):
    # The module was imported by the server, of which this process is a copy.
    return {"inherited": os.getpid() != PID}


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
    hard_exit({})


def correct_crash(model, tries):
    count(tries)
    os.kill(os.getpid(), signal.SIGSEGV)


def correct_wrong(model, tries):
    count(tries)
    msg = "not like this"
    raise RuntimeError(msg)
