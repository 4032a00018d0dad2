"""What the processes in the tests of `astroquery_lis.io.processes` do."""

import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

PID = os.getpid()
MEMORY = []


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


def linger(job):
    time.sleep(job["seconds"])


def interrupt(job):
    raise KeyboardInterrupt


def interrupt_self(value):
    os.kill(os.getpid(), signal.SIGINT)
    return value


def was_imported_before(job):
    # The module was imported by the server, of which this process is a copy.
    return {"inherited": os.getpid() != PID}


def are_imported(names):
    return [name in sys.modules for name in names]


def remember(job):
    MEMORY.append(job["value"])


def remembered(job):
    return MEMORY[-1]


def keep_a_lock(job):
    MEMORY.append(multiprocessing.Lock())
