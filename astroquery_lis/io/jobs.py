"""Long jobs: work through any executor, what became of each row, the run and its progress.

Few jobs are in flight, results come as they are known, and workers that die are replaced.  A worker
in another process takes over the configuration of the process that sent it work, so that it never
falls back to defaults.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    wait,
)
from dataclasses import dataclass, field, fields
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from astropy import log
from astropy.config import ConfigItem

from .._conf import Conf, conf, setting
from .._forks import new_lock
from ..exceptions import LegacySurveyError, refuse
from .bounds import Threads

if TYPE_CHECKING:
    from astropy.table import Table
    from tqdm.auto import tqdm

    from .journal import Journal

Mapped: TypeAlias = Generator[tuple[Any, Any, Exception | None], None, None]
"""Of each job: the job, what its work returned, and what it raised instead."""

STATUSES = ("COMPLETE", "CACHED", "SKIPPED", "NODATA", "ERROR")
"""What can become of a row: the words of MAST's manifest, and NODATA."""

FINAL = frozenset(STATUSES) - {"ERROR"}
"""Those that a later run of the same job leaves alone."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one row."""

    row: int
    """Number of the row in what the user gave, from 0."""
    status: str
    local_path: str = ""
    message: str = ""
    """Why, if it is not COMPLETE, and what else the user should know."""
    url: str = ""
    id: object = ""
    """The user's name for the row; its number if there is none."""
    release: str = ""
    region: str = ""
    bands: str = ""
    observed: str = ""
    """The share of the pixels that were observed in each of the bands, in their order."""
    layer: str = ""
    """The layer that answered, if one was asked for."""
    seconds: float = 0.0
    bytes: int = 0
    sha256: str = ""
    error: BaseException | None = field(default=None, compare=False)
    """The error behind the status ERROR; not kept in the journal."""


RECORDED = tuple(f.name for f in fields(Result) if f.name != "error")
"""The attributes that are kept."""

_COLUMNS = {
    "local_path": "Local Path",
    "status": "Status",
    "message": "Message",
    "url": "URL",
    **{name: name for name in ("id", "release", "region", "bands", "seconds", "bytes", "sha256")},
}
_TYPES = {"row": np.int64, "seconds": float, "bytes": np.int64}

AT_ONCE = 1000
"""Results that are looked at, or written to the journal, together, if they come one by one."""


def failure(row: int, error: BaseException, **known: Any) -> Result:
    """Return the `Result` of a row that failed."""
    kind = type(error).__name__
    return Result(row, "ERROR", message=f"{kind}: {error}", error=portable(error), **known)


def portable(error: BaseException) -> BaseException:
    """Return the error, or one that says the same and survives the way between processes."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        copy = LegacySurveyError(str(error))
        if isinstance(error, LegacySurveyError):
            # Only the error behind it, from another package, may refuse to be pickled.
            copy = type(error)(*error.args)
            copy.__dict__.update({**error.__dict__, "cause": None})
        return copy
    return error


def manifest(results: Iterable[Result], *, more: Sequence[str] = ()) -> Table:
    """Return the table of what became of each row, with ``more`` attributes after the bands."""
    # Only here: workers do without it, and it takes a fifth of their start.
    from astropy.table import Table

    headings = [*_COLUMNS.items()]
    after_bands = list(_COLUMNS).index("bands") + 1
    headings[after_bands:after_bands] = [(name, name) for name in more]
    blocks: dict[str, list[np.ndarray]] = {name: [] for name in ("row", *dict(headings))}
    results = iter(results)
    # Short arrays of bytes: objects, or the four bytes of a letter of numpy, would be gigabytes.
    while (block := list(islice(results, AT_ONCE))) or not blocks["row"]:
        for name, arrays in blocks.items():
            arrays.append(_packed([getattr(result, name) for result in block], _TYPES.get(name)))
    rows = np.concatenate(blocks.pop("row"))
    # Of several results of a row the last counts.
    _, from_end = np.unique(rows[::-1], return_index=True)
    places = np.full(len(rows), -1)
    places[len(rows) - 1 - from_end] = np.arange(len(from_end))
    columns = {heading: _column(blocks[name], places) for name, heading in headings}
    return Table(columns, copy=False)


_PASS = "surrogatepass"
"""Names of files need not be text: their other bytes come as half a pair of UTF-16."""


def _packed(values: list[Any], dtype: type | None) -> np.ndarray:
    """Return values as an array, text as UTF-8."""
    if dtype is None and not (values and all(isinstance(value, int) for value in values)):
        return np.array([str(value).encode("utf-8", _PASS) for value in values], bytes)
    if dtype is None and max(values) > np.iinfo(np.int64).max:
        dtype = np.uint64  # numpy would take floats for them and smaller ones together
    return np.array(values, dtype)


def _column(arrays: list[np.ndarray], places: np.ndarray) -> np.ndarray:
    """Return a column of values that have places in it, or -1; each array is let go when used."""
    is_text = any(array.dtype.kind == "S" for array in arrays)
    dtype = (
        np.dtype(f"U{max(max(a.dtype.itemsize for a in arrays), 1)}")
        if is_text
        else max((array.dtype for array in arrays), key=lambda dtype: dtype.kind)
    )
    column = np.empty(places.max(initial=-1) + 1, dtype)
    start = 0
    while arrays:
        array = arrays.pop(0)
        where = places[start : start + len(array)]
        start += len(array)
        array = array[where >= 0]
        is_bytes = array.dtype.kind == "S"
        column[where[where >= 0]] = np.char.decode(array, "utf-8", _PASS) if is_bytes else array
    return column


# ---- through an executor ------------------------------------------------------------------------

OWN_KINDS = ("threads", "processes")
OWN_THREADS = 4
"""Jobs at once in threads of our own; each reads its files over many connections already."""

UNKNOWN_IN_FLIGHT = 32
"""Jobs in flight for an executor that does not tell how many workers it has."""

JOB_TRIES = 3
"""How often a job is begun that ends with the death of its worker."""

# distributed raises it when a task's worker died several times; it is optional, hence the name.
_LOST_WORKER = frozenset({"KilledWorker"})

_MODULE = uuid.uuid4().hex


def settings_in_force() -> dict[str, object]:
    """Return the whole configuration as plain values, to be carried to workers."""
    names = [name for name, item in vars(Conf).items() if isinstance(item, ConfigItem)]
    return {name: setting(name) for name in names}


def _this_process() -> tuple[str, int]:
    """Return what tells this process from all others, on any host, forked or not."""
    return _MODULE, os.getpid()


_adopting = new_lock()


@dataclass(frozen=True)
class _Carried:
    """A function with the configuration of the process that it comes from."""

    function: Callable[[Any], Any]
    settings: dict
    home: tuple

    def __call__(self, job: Any, attempt: int) -> object:
        """Do ``job``; ``attempt`` only makes a repeated call differ from the first."""
        if self.home != _this_process():
            with _adopting:
                for name, value in self.settings.items():
                    if getattr(conf, name) != value:
                        setattr(conf, name, value)
        return self.function(job)


def map_jobs(
    function: Callable[[Any], Any],
    jobs: Iterable,
    *,
    executor: Executor | str | None = None,
    settings: dict | None = None,
    in_flight: int | None = None,
) -> Mapped:
    """Call a function with each of many jobs and yield what comes back, as it comes."""
    settings = settings_in_force() if settings is None else settings
    workers = _Workers(executor, _module_of(function))
    return _mapped(_Carried(function, settings, _this_process()), jobs, workers, in_flight)


def _mapped(function: _Carried, jobs: Iterable, workers: _Workers, in_flight: int | None) -> Mapped:
    jobs = iter(jobs)
    limit = workers.in_flight if in_flight is None else in_flight
    pending: dict[Future, tuple] = {}
    suspects: deque[tuple[Any, int]] = deque()
    is_over = False
    try:
        while True:
            # Whatever was in flight when a worker died goes alone, so that the job that kills
            # workers is found and takes no other with it.
            room = 1 if suspects else limit
            while len(pending) < room:
                job, attempt = suspects.popleft() if suspects else (next(jobs, _END), 0)
                if job is _END:
                    break
                future = workers.submit(function, job, attempt)  # may replace the executor
                pending[future] = (job, attempt, workers.current)
                if attempt:
                    break
            if not pending:
                is_over = True
                return
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                job, attempt, executor = pending.pop(future)
                value, error = _outcome(future)
                again = _is_lost_worker(error) and workers.go_on(error, executor)
                if again and attempt + 1 < JOB_TRIES:
                    suspects.append((job, attempt + 1))
                    continue
                yield job, value, error
    finally:
        for future in pending:
            future.cancel()
        workers.close(at_once=not is_over)


_END = object()


def _outcome(future: Future) -> tuple[object, Exception | None]:
    try:
        return future.result(), None
    except CancelledError as error:
        return None, error
    except Exception as error:
        return None, error


def _is_lost_worker(error: Exception | None) -> bool:
    return isinstance(error, BrokenExecutor) or type(error).__name__ in _LOST_WORKER


class _Workers:
    """An executor, the user's or our own."""

    def __init__(self, executor: Executor | str | None, module: str = "") -> None:
        self._module = module
        self.kind = "threads" if executor is None else executor
        self.is_own = isinstance(self.kind, str)
        if self.kind not in OWN_KINDS if self.is_own else not isinstance(executor, Executor):
            must = (
                "must be a concurrent.futures.Executor, such as that of "
                f"dask.distributed's Client.get_executor(), or one of: {', '.join(OWN_KINDS)}."
            )
            refuse("executor", executor, must)
        self.current: Any = None if self.is_own else executor

    @property
    def in_flight(self) -> int:
        if self.kind == "threads":
            return OWN_THREADS
        if self.kind == "processes":
            return 2 * cores()
        n_workers = getattr(self.current, "_max_workers", None)
        return 2 * n_workers if isinstance(n_workers, int) else UNKNOWN_IN_FLIGHT

    def submit(self, function: _Carried, *args: Any) -> Future:
        if self.kind != "processes":
            return self._submit(function, *args)
        from .workers import interrupts_held

        with interrupts_held():
            return self._submit(function, *args)

    def _submit(self, function: _Carried, *args: Any) -> Future:
        if self.current is None:
            self.current = self._new()
        try:
            return self.current.submit(function, *args)
        except BrokenExecutor as error:
            if not self.go_on(error, self.current):
                raise
            self.current = self._new()
            return self.current.submit(function, *args)

    def go_on(self, error: Exception | None, executor: Executor) -> bool:
        """Return True if work can go on after an executor lost a worker; it is replaced if ours."""
        if isinstance(error, BrokenExecutor):
            if not self.is_own:
                return False
            if executor is self.current:
                executor.shutdown(wait=False)
                self.current = None
        return True

    def _new(self) -> Executor:
        if self.kind == "threads":
            return Threads(OWN_THREADS, "astroquery_lis-job")
        # Only here: multiprocessing takes longer to load than the rest of this room.
        from concurrent.futures import ProcessPoolExecutor

        from .workers import begin_worker, workers_context

        context = workers_context(self._module)
        environment = dict(os.environ)
        return ProcessPoolExecutor(
            cores(), mp_context=context, initializer=begin_worker, initargs=(environment,)
        )

    def close(self, *, at_once: bool) -> None:
        """End an executor of our own, with what it is at if that is given up."""
        if self.is_own and self.current is not None:
            if at_once:
                # Our processes take no Ctrl-C, and what they do can be taken up again.
                for process in list((getattr(self.current, "_processes", None) or {}).values()):
                    process.terminate()
            self.current.shutdown(wait=True, cancel_futures=True)


def _module_of(function: Callable) -> str:
    """Return the module that workers need."""
    while isinstance(function, partial):
        function = function.func
    return getattr(function, "__module__", "")


def cores() -> int:
    """Return how many processors this process may use."""
    try:
        return max(len(os.sched_getaffinity(0)), 1)
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


# ---- the run ------------------------------------------------------------------------------------

_WORDS = {
    "COMPLETE": "complete",
    "CACHED": "there already",
    "SKIPPED": "skipped",
    "NODATA": "without data",
    "ERROR": "failed",
}


def bar(**options: Any) -> tqdm | None:
    """Return a bar on stderr, if tqdm is installed, and it is a terminal or this is a notebook."""
    if sys.stderr is None or not (sys.stderr.isatty() or "ipykernel" in sys.modules):
        return None
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None
    return tqdm(**options)


class Progress:
    """A bar with rate and time left, where there can be one."""

    def __init__(
        self,
        total: int | None,
        *,
        done: int = 0,
        show: bool = True,
        label: str = "",
        unit: str = "row",
    ) -> None:
        options = {"total": total, "initial": done, "desc": label, "unit": unit}
        self._bar = bar(**options, unit_scale=unit == "B") if show else None

    def update(self, n: int = 1) -> None:
        """Count ``n`` more."""
        if self._bar is not None:
            self._bar.update(n)

    def note(self, text: str) -> None:
        """Show what is being done."""
        if self._bar is not None:
            self._bar.set_postfix_str(text)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()


def run(
    work: Callable[[Any], Iterable[Result]],
    jobs: Iterable,
    *,
    failed: Callable[[Any, Exception], Iterable[Result]],
    total: int,
    ready: Iterable[Result] = (),
    journal: Journal | None = None,
    executor: Executor | str | None = None,
    settings: dict | None = None,
    on_error: str = "record",
    show_progress: bool = True,
    label: str = "rows",
    in_flight: int | None = None,
) -> Generator[Result, None, None]:
    """Do the jobs and yield what became of each row, as it is known.

    ``work`` catches what can go wrong with a row; ``failed`` gives the results of a job that raised
    or whose worker was lost.  What is ``ready`` needs no work.  The journal gets every result
    before it is yielded.  With ``on_error='raise'`` the first error ends the run.
    """
    begun = time.monotonic()
    before = len(journal.finished) if journal is not None else 0
    counts: Counter[str] = Counter()
    progress = Progress(total, done=before, show=show_progress, label=label)
    mapped = map_jobs(work, jobs, executor=executor, settings=settings, in_flight=in_flight)
    try:
        for results in _blocks(ready, mapped, failed):
            if journal is not None:
                journal.append(*results)
            for result in results:
                counts[result.status] += 1
                progress.update()
                if result.status == "ERROR" and on_error == "raise":
                    raise result.error or LegacySurveyError(result.message)
                yield result
    finally:
        mapped.close()
        progress.close()
        log.info(_summary(label, counts, before, total, time.monotonic() - begun))


def _blocks(
    ready: Iterable[Result], mapped: Mapped, failed: Callable[[Any, Exception], Iterable[Result]]
) -> Iterator[list[Result]]:
    """Yield the results that are known together: of a job, or without any work."""
    ready = iter(ready)
    while block := list(islice(ready, AT_ONCE)):
        yield block
    for job, results, error in mapped:
        yield list(failed(job, error) if error is not None else results)


def _summary(label: str, counts: Counter, before: int, total: int, seconds: float) -> str:
    """Return the line that tells how a run went."""
    parts = [f"{counts[status]} {_WORDS[status]}" for status in STATUSES if counts[status]]
    if before:
        parts.append(f"{before} done before")
    n_open = total - before - sum(counts.values())
    if n_open > 0:
        parts.append(f"{n_open} not begun")
    return f"{total} {label}: {', '.join(parts) or 'nothing to do'}, in {seconds:.1f} s."
