"""Long jobs: what became of each row, the run and its progress; many files as such a job."""

from __future__ import annotations

import pickle
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from astropy import log

from ..exceptions import (
    CacheError,
    LegacySurveyError,
    TransferError,
)
from .bounds import Threads, allow_more_time, within
from .workers import Mapped, map_jobs

if TYPE_CHECKING:
    from tqdm.auto import tqdm

    from .journal import Journal


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
    mapped = map_jobs(work, jobs, executor=executor, in_flight=in_flight)
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


# ---- any files ----------------------------------------------------------------------------------


class Job(Protocol):
    """One file that somebody wants."""

    @property
    def row(self) -> int:
        """Its number in the manifest."""

    @property
    def about(self) -> dict[str, str]:
        """What the manifest says of it, whatever became of it."""

    def fetch(self) -> Result:
        """Have the file, and say what became of it."""


def deliver(job: Job) -> list[Result]:
    """Fetch one file, or find it, and return what became of it."""
    begun = time.perf_counter()
    try:
        with within(grows=True):
            result = job.fetch()
    except (TransferError, CacheError) as error:
        return failed_delivery(job, error)
    return [replace(result, seconds=round(time.perf_counter() - begun, 4))]


def failed_delivery(job: Job, error: Exception) -> list[Result]:
    """Return the result of a file that could not be had."""
    url = str(getattr(error, "url", None) or "")
    return [failure(job.row, error, **{"url": url, **job.about})]


def deliver_all(
    jobs: Sequence[Job],
    *,
    max_threads: int,
    ready: Sequence[Result] = (),
    executor: Executor | str | None = None,
    total_bytes: int | None = None,
    show_progress: bool = False,
    in_flight: int | None = None,
) -> list[Result]:
    """Fetch files, several at a time, with a bar of their bytes; results by their rows.

    ``conf.deadline`` begins anew with each that is had; without any, all that is left fails.
    """
    own = None
    if executor is None:
        executor = own = Threads(max_threads, "astroquery_lis-files")
    progress = Progress(total_bytes, show=show_progress, label="files", unit="B")
    results = []
    delivered = run(
        deliver,
        jobs,
        failed=failed_delivery,
        total=len(ready) + len(jobs),
        ready=ready,
        executor=executor,
        show_progress=False,
        label="files",
        in_flight=in_flight,
    )
    try:
        with within(grows=True):
            for result in delivered:
                results.append(result)
                progress.update(result.bytes)
                if result.error is None and result.status != "SKIPPED":
                    allow_more_time()
    finally:
        progress.close()
        if own is not None:
            own.shutdown(cancel_futures=True)
    return sorted(results, key=lambda result: result.row)
