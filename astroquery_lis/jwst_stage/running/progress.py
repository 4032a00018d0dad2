"""One line for a whole run: how many tasks are done, and which steps run now."""

import sys
from contextlib import suppress

__all__ = ["TaskProgress"]

_WIDTH = 100


class TaskProgress:
    """A line on stderr if that is a terminal: a bar where tqdm is installed, else plain text.

    Parameters
    ----------
    total : int
        How many tasks there are.
    done : int, optional
        How many are done already.
    show : bool, optional
        Whether it is wanted.
    """

    def __init__(self, total, *, done=0, show=True):
        self._total, self._done = total, done
        self._told = ""
        self._bar = None
        self._plain = show and sys.stderr is not None and sys.stderr.isatty()
        if self._plain:
            with suppress(ImportError):
                from tqdm import tqdm

                self._bar = tqdm(total=total, initial=done, desc="tasks", unit="task")
                self._plain = False

    def update(self, n=1):
        """Count ``n`` more."""
        self._done += n
        if self._bar is not None:
            self._bar.update(n)

    def steps(self, running):
        """Tell which step of which task runs.

        Parameters
        ----------
        running : dict of str to str
            The step that runs, by task.
        """
        told = ", ".join(f"{_short(name)} {step}".strip() for name, step in running.items())
        if told == self._told:
            return
        self._told = told
        if self._bar is not None:
            self._bar.set_postfix_str(told)
        elif self._plain:
            self._write(f"\r{f'{self._done}/{self._total} tasks: {told}'[:_WIDTH]:<{_WIDTH}}")

    def close(self):
        """Leave the line as it is."""
        if self._bar is not None:
            self._bar.close()
        elif self._plain:
            self._write("\n")

    @staticmethod
    def _write(text):
        with suppress(OSError, ValueError):
            sys.stderr.write(text)
            sys.stderr.flush()


def _short(name):
    return name.rpartition("/")[2].removesuffix(".fits")
