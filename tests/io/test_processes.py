"""Tasks in processes of their own: how each ends is known, and nothing outlives its parent."""

import contextlib
import json
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import wait
from pathlib import Path

import pytest

from astroquery_lis.io.processes import Processes, ServerLost

JOBS = "tests.io.process_jobs"
METHODS = ("fork", "spawn")
PATIENCE_S = 60

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks")


@pytest.fixture(scope="module")
def server():
    with Processes(environment={"CRDS_PATH": "/refs", "HOME": None}, preload=(JOBS,)) as server:
        yield server


def ask(server, name, folder, **job):
    return server.submit(f"{JOBS}:{name}", job, folder).result(PATIENCE_S)


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie is dead, but not yet reaped by whoever adopted it.
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def await_(condition):
    """Wait until something that will happen has happened; the run's time-out ends it otherwise."""
    while not condition():
        select.select([], [], [], 0.01)


def test_result(server, tmp_path):
    ended = ask(server, "double", tmp_path, value=21)
    assert ended.exit_code == 0
    assert ended.result["value"] == 42
    assert ended.result["parent"] == server.pid
    assert ended.error is None
    assert 0.003 < ended.memory_gb < 4
    assert "said on the way" in ended.console


def test_modules_are_inherited_not_imported_again(server, tmp_path):
    assert ask(server, "was_imported_before", tmp_path).result == {"inherited": True}


def test_environment(server, tmp_path):
    names = ["CRDS_PATH", "HOME", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"]
    found = ask(server, "variables", tmp_path, names=names).result
    assert found == {
        "CRDS_PATH": "/refs",
        "HOME": None,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    assert "CRDS_PATH" not in os.environ


def test_error(server, tmp_path):
    ended = ask(server, "fail", tmp_path, value="luck")
    assert ended.exit_code == 1
    assert ended.result is None
    assert ended.error["type"] == "ValueError"
    assert ended.error["message"] == "no luck"
    assert "jobs.py" in ended.error["traceback"]


# multiprocessing.Pool waits for ever for such a task.
def test_system_exit_is_an_answer(server, tmp_path):
    ended = ask(server, "system_exit", tmp_path)
    assert ended.error["type"] == "SystemExit"
    assert ended.error["message"] == "-1"


def test_hard_exit_is_seen(server, tmp_path):
    ended = ask(server, "hard_exit", tmp_path)
    assert ended.exit_code == 255
    assert ended.result is None
    assert ended.error is None
    assert "(FATAL)" in ended.console


def test_kill_of_a_child_loses_nobody_else(server, tmp_path):
    names = ["double", "kill_self", "double", "interrupt", "double"]
    futures = [
        server.submit(f"{JOBS}:{name}", {"value": i}, tmp_path / str(i))
        for i, name in enumerate(names)
    ]
    wait(futures, PATIENCE_S)
    codes = [future.result(0).exit_code for future in futures]
    assert codes == [0, -signal.SIGKILL, 0, 1, 0]
    assert [future.result(0).result["value"] for future in futures[::2]] == [0, 4, 8]


def test_more_tasks_than_a_pool_survives(server, tmp_path):
    # ProcessPoolExecutor(2, max_tasks_per_child=2) deadlocks with six.
    futures = [server.submit(f"{JOBS}:double", {"value": i}, tmp_path / str(i)) for i in range(12)]
    values = [future.result(PATIENCE_S).result for future in futures]
    assert [value["value"] for value in values] == list(range(0, 24, 2))
    assert len({value["pid"] for value in values}) == 12


def test_close_ends_what_runs(tmp_path):
    begun = tmp_path / "begun"
    with Processes(preload=(JOBS,)) as server:
        future = server.submit(f"{JOBS}:wait_for_ever", {"begun": str(begun)}, tmp_path)
        await_(lambda: begun.exists() and begun.read_text())
        pid = int(begun.read_text())
        assert is_alive(pid)
    assert not is_alive(pid)
    with pytest.raises(ServerLost):
        future.result(PATIENCE_S)
    with pytest.raises(ServerLost):
        server.submit(f"{JOBS}:double", {"value": 1}, tmp_path).result(PATIENCE_S)


def test_death_of_the_server_is_told_and_ends_its_children(tmp_path):
    begun = tmp_path / "begun"
    with Processes(preload=(JOBS,)) as server:
        future = server.submit(f"{JOBS}:wait_for_ever", {"begun": str(begun)}, tmp_path)
        await_(lambda: begun.exists() and begun.read_text())
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(ServerLost, match="ended before they did"):
            future.result(PATIENCE_S)
    pid = int(begun.read_text())
    await_(lambda: not is_alive(pid))


SCRIPT = """
from astroquery_lis.io.processes import Processes
server = Processes(preload=({jobs!r},), method={method!r})
future = server.submit("{jobs}:wait_for_ever", {{"begun": {begun!r}}}, {folder!r})
future.result()
"""


@pytest.mark.parametrize("method", METHODS)
def test_kill_of_the_parent_ends_everything(tmp_path, method):
    begun = tmp_path / "begun"
    script = SCRIPT.format(method=method, jobs=JOBS, begun=str(begun), folder=str(tmp_path))
    parent = subprocess.Popen(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": os.getcwd()}
    )
    await_(lambda: begun.exists() and begun.read_text())
    pid = int(begun.read_text())
    above = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    assert is_alive(pid)
    parent.kill()
    parent.wait()
    await_(lambda: not is_alive(pid))
    assert above != parent.pid
    await_(lambda: not is_alive(above))


POOL_SCRIPT = """
from astroquery_lis.io.workers import map_jobs
from tests.io.process_jobs import wait_for_ever
list(map_jobs(wait_for_ever, [{{"begun": {begun!r}}}], executor="processes"))
"""


def test_kill_of_the_parent_ends_the_workers_of_a_pool(tmp_path):
    begun = tmp_path / "begun"
    parent = subprocess.Popen(
        [sys.executable, "-c", POOL_SCRIPT.format(begun=str(begun))],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    await_(lambda: begun.exists() and begun.read_text())
    pid = int(begun.read_text())
    assert is_alive(pid)
    parent.kill()
    parent.wait()
    await_(lambda: not is_alive(pid))


PRELOAD_SCRIPT = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

from astroquery_lis.io.workers import workers_context
from tests.io.process_jobs import are_imported

multiprocessing.set_forkserver_preload(["colorsys"])
context = workers_context("astroquery_lis.io.journal")
with ProcessPoolExecutor(1, mp_context=context) as pool:
    print(pool.submit(are_imported, ["colorsys", "astroquery_lis.io.journal"]).result())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="no server to fork workers from")
def test_what_others_let_the_server_import_stays():
    process = subprocess.run(
        [sys.executable, "-c", PRELOAD_SCRIPT],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stdout.split("\n")[-2:] == ["[True, True]", ""]


WORKERS_SCRIPT = """
import multiprocessing
import signal
from concurrent.futures import ProcessPoolExecutor

from astroquery_lis.io.workers import begin_worker, workers_context
from tests.io.process_jobs import interrupt_self

signal.signal(signal.SIGINT, lambda *_: print("interrupted"))
multiprocessing.set_forkserver_preload(["interrupts_all"])
context = workers_context("astroquery_lis.io.journal")
with ProcessPoolExecutor(1, mp_context=context, initializer=begin_worker, initargs=({},)) as pool:
    print(pool.submit(interrupt_self, 1).result())
others = multiprocessing.get_context("forkserver")
with ProcessPoolExecutor(1, mp_context=others) as pool:
    print(repr(pool.submit(interrupt_self, 2).exception()))
"""

PARENT_SCRIPT = """
import multiprocessing
from astroquery_lis.io.workers import map_jobs
from tests.io.process_jobs import linger

multiprocessing.set_forkserver_preload(["interrupts_all"])
try:
    list(map_jobs(linger, [{"seconds": 600}], executor="processes"))
except KeyboardInterrupt:
    print(len(multiprocessing.active_children()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="no server to fork workers from")
@pytest.mark.parametrize(
    ("script", "printed"),
    [
        (WORKERS_SCRIPT, ["interrupted", "1", "KeyboardInterrupt()", ""]),
        (PARENT_SCRIPT, ["0", ""]),
    ],
)
def test_interrupts_reach_the_parent_of_workers_when_they_have_started(tmp_path, script, printed):
    (tmp_path / "interrupts_all.py").write_text("import os, signal\nos.killpg(0, signal.SIGINT)\n")
    process = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), str(tmp_path)])},
        capture_output=True,
        text=True,
        check=True,
        start_new_session=True,
        timeout=PATIENCE_S,
    )
    assert (process.stderr, process.stdout.split("\n")) == ("", printed)


@pytest.mark.parametrize("way", ["file", "stdin"])
@pytest.mark.parametrize("method", METHODS)
def test_unguarded_script(tmp_path, way, method):
    # No `if __name__ == "__main__"`: a spawning pool would run it again in each child.
    text = f"""
print("once")
from astroquery_lis.io.processes import Processes
with Processes(preload=({JOBS!r},), method={method!r}) as server:
    futures = [
        server.submit("{JOBS}:double", {{"value": i}}, {str(tmp_path)!r} + "/" + str(i))
        for i in range(3)
    ]
    print([future.result().result["value"] for future in futures])
"""
    script = tmp_path / "script.py"
    script.write_text(text)
    # A module of the user's with the name of one of Python's stays without effect.
    (tmp_path / "resource.py").write_text("raise RuntimeError\n")
    done = subprocess.run(
        [sys.executable, "-P", *([script] if way == "file" else ["-"])],
        input=None if way == "file" else text,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == "once\n[0, 2, 4]\n"


def test_exit_without_close_leaves_no_semaphore(tmp_path):
    script = (
        "from astroquery_lis.io.processes import Processes\n"
        "server = Processes()\n"
        f"server.prepare('{JOBS}:keep_a_lock', {{}})\n"
        f"server.submit('{JOBS}:double', {{'value': 1}}, {str(tmp_path)!r}).result()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_exit_while_the_server_prepares_ends_both(tmp_path):
    begun = tmp_path / "begun"
    script = (
        "from pathlib import Path\n"
        "from astroquery_lis.io.processes import Processes\n"
        "server = Processes()\n"
        f"server.prepare('{JOBS}:wait_for_ever', {{'begun': {str(begun)!r}}})\n"
        f"while not Path({str(begun)!r}).exists(): pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_server_that_cannot_start_says_why(tmp_path, monkeypatch):
    with pytest.raises(ServerLost, match=r"(?s)did not start: .*no_such_package_as_this"):
        Processes(preload=("no_such_package_as_this",))
    (tmp_path / "ends_the_process.py").write_text("import os; print('so', flush=True); os._exit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ServerLost, match="did not start: so"):
        Processes(preload=("ends_the_process",), environment={"HOME": "/"})


def test_environment_of_one_task(server, tmp_path):
    job = {"names": ["CRDS_PATH", "CRDS_CONTEXT"]}
    future = server.submit(
        f"{JOBS}:variables", job, tmp_path, environment={"CRDS_PATH": None, "CRDS_CONTEXT": "x"}
    )
    assert future.result(PATIENCE_S).result == {"CRDS_PATH": None, "CRDS_CONTEXT": "x"}
    again = ask(server, "variables", tmp_path, **job)
    assert again.result == {"CRDS_PATH": "/refs", "CRDS_CONTEXT": None}


def test_prepared_in_the_server(server, tmp_path):
    server.prepare(f"{JOBS}:fail", {"value": "luck"})
    server.prepare(f"{JOBS}:remember", {"value": 7})
    assert ask(server, "remembered", tmp_path).result == 7


def test_kill_ends_one_task_only(server, tmp_path):
    begun = tmp_path / "begun"
    future = server.submit(f"{JOBS}:wait_for_ever", {"begun": str(begun)}, tmp_path)
    await_(lambda: begun.exists() and begun.read_text())
    server.kill([future])
    assert future.result(0).exit_code == -signal.SIGKILL
    assert ask(server, "double", tmp_path, value=1).result["value"] == 2


def test_spawned_children_import_for_themselves(tmp_path):
    with Processes(preload=(JOBS,), method="spawn") as server:
        ended = ask(server, "was_imported_before", tmp_path)
    assert ended.exit_code == 0
    assert ended.result == {"inherited": False}
    assert 0.003 < ended.memory_gb < 4


def in_daemon(folder, answer):
    with Processes(preload=(JOBS,)) as server:
        answer.put(ask(server, "double", folder, value=4).result["value"])


def test_an_idle_server_ends_and_says_so(tmp_path):
    with Processes(preload=(JOBS,), idle_s=0.3) as idle:
        # A task that takes longer than that is no idleness.
        ended = ask(idle, "linger", tmp_path, seconds=0.6)
        assert ended.exit_code == 0
        pid = idle.pid
        await_(lambda: idle.is_closed)
        await_(lambda: not is_alive(pid))
        with pytest.raises(ServerLost):
            ask(idle, "double", tmp_path, value=1)


def test_a_server_that_ended_by_itself_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    idle = Processes(preload=(JOBS,), idle_s=0.1)
    await_(lambda: idle.is_closed and not list(tmp_path.iterdir()))


def test_daemons_may_have_them_too(tmp_path):
    context = multiprocessing.get_context("fork")
    answer = context.Queue()
    worker = context.Process(target=in_daemon, args=(tmp_path, answer), daemon=True)
    worker.start()
    assert answer.get(timeout=PATIENCE_S) == 8
    worker.join()


@pytest.mark.parametrize(
    ("name", "code"), [("fail", 1), ("system_exit", 1), ("hard_exit", 255), ("kill_self", -9)]
)
def test_spawned_processes_end_like_forked_ones(tmp_path, name, code):
    with Processes(preload=(JOBS,), method="spawn") as server:
        ended = ask(server, name, tmp_path, value=1)
    assert ended.exit_code == code
    assert (ended.error is None) == (name in ("hard_exit", "kill_self"))


def test_answers_hold_what_json_holds(server, tmp_path):
    ended = ask(server, "double", tmp_path, value="ä\n")
    assert ended.result["value"] == "ä\nä\n"
    assert json.loads((tmp_path / "answer.json").read_text())["result"] == ended.result
