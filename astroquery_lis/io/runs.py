"""The run of a long job: results to the journal, a progress bar, one line at the end."""

import sys
import time
from collections import Counter
from contextlib import suppress

from astropy import log

from .executors import map_jobs
from .results import STATUSES

__all__ = ["Progress", "run"]

_WORDS = {
    "COMPLETE": "complete",
    "CACHED": "there already",
    "SKIPPED": "skipped",
    "NODATA": "without data",
    "ERROR": "failed",
}


class Progress:
    """A bar on stderr with rate and time left, if that is a terminal and tqdm is installed.

    Parameters
    ----------
    total : int
        How many there are.
    done : int, optional
        How many were done before.
    show : bool, optional
        Whether it is wanted.
    label : str, optional
        Stands before the bar.
    unit : str, optional
        What is counted; ``'B'`` for bytes.
    """

    def __init__(self, total, *, done=0, show=True, label="", unit="row"):
        self._bar = None
        if show and sys.stderr is not None and sys.stderr.isatty():
            with suppress(ImportError):
                from tqdm import tqdm

                self._bar = tqdm(
                    total=total, initial=done, desc=label, unit=unit, unit_scale=unit == "B"
                )

    def update(self, n=1):
        """Count ``n`` more."""
        if self._bar is not None:
            self._bar.update(n)

    def close(self):
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()


def run(
    work,
    jobs,
    *,
    failed,
    total,
    ready=(),
    journal=None,
    executor=None,
    settings=None,
    on_error="record",
    show_progress=True,
    label="rows",
    in_flight=None,
):
    """Do the jobs and yield what became of each row, as it is known.

    Parameters
    ----------
    work : callable
        Takes a job and returns an iterable of `~.Result`, one for each of its rows; it catches what
        can go wrong with a row.  Importable, for processes.
    jobs : iterable
        Small and picklable; consumed as workers become free.
    failed : callable
        Takes a job and an error and returns the results of its rows: called for a job that raised
        or whose worker was lost.
    total : int
        Rows in all, with those that the journal has.
    ready : iterable of Result, optional
        What is known without work.
    journal : Journal, optional
        Gets every result before it is yielded.
    executor, settings, in_flight : optional
        As for `~.executors.map_jobs`.
    on_error : {'record', 'raise'}, optional
        Whether the first row with the status ERROR ends the run with its error.
    show_progress : bool, optional
        Whether to show a bar where there is a terminal.
    label : str, optional
        What the rows are, for the bar and the line at the end.

    Yields
    ------
    Result

    Raises
    ------
    Exception
        The error of the first row that failed, with ``on_error='raise'``.
    """
    begun = time.monotonic()
    before = len(journal.finished) if journal is not None else 0
    counts = Counter()
    progress = Progress(total, done=before, show=show_progress, label=label)
    mapped = map_jobs(work, jobs, executor=executor, settings=settings, in_flight=in_flight)
    try:
        for result in _results(ready, mapped, failed):
            if journal is not None:
                journal.append(result)
            counts[result.status] += 1
            progress.update()
            if result.status == "ERROR" and on_error == "raise":
                raise result.error
            yield result
    finally:
        mapped.close()
        progress.close()
        log.info(_summary(label, counts, before, total, time.monotonic() - begun))


def _results(ready, mapped, failed):
    yield from ready
    for job, results, error in mapped:
        yield from failed(job, error) if error is not None else results


def _summary(label, counts, before, total, seconds):
    """Return the line that tells how a run went."""
    told = [f"{counts[status]} {_WORDS[status]}" for status in STATUSES if counts[status]]
    if before:
        told.append(f"{before} done before")
    left = total - before - sum(counts.values())
    if left > 0:
        told.append(f"{left} not begun")
    return f"{total} {label}: {', '.join(told) or 'nothing to do'}, in {seconds:.1f} s."
