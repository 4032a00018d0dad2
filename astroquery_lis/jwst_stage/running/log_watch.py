"""The log of a task: to a file, and read along for what nothing else tells.

jwst does not return which parameters were in force, how long a step took, or how many sources
tweakreg matched; its log does.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import time
from typing import TYPE_CHECKING

from ...io.store import write_whole

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

_LOGGERS = ("jwst", "stcal", "stdatamodels", "stpipe", "tweakwcs", "CRDS", "py.warnings")
_BEGUN = re.compile(r"^Step (\S+) running with args")
_DONE = re.compile(r"^Step (\S+) done")
_PARAMETERS = re.compile(r"^Step (\S+) parameters are:", re.MULTILINE)
_MATCHES = re.compile(r"^Found (\d+) matches for")
_ABSOLUTE = re.compile(r"^Aligning to absolute reference catalog")


class LogWatch(logging.Handler):
    """Writes the log of a task and keeps what the record of the task needs.  A context manager.

    ``state`` is a file that always names the step that runs now, for whoever wants to know.

    Attributes
    ----------
    steps : list of dict
        ``step`` and ``seconds``, in the order in which they began.
    parameters : dict
        As the pipeline reported them.
    errors : list of str
        The last lines that were errors.
    warnings : list of str
        The last lines that were warnings.
    relative_matches, absolute_matches : list of int
        Sources that tweakreg matched, for each group.
    """

    def __init__(self, path: Path, state: Path) -> None:
        super().__init__(logging.INFO)
        self.steps: list[dict] = []
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self.parameters: dict = {}
        self.relative_matches: list[int] = []
        self.absolute_matches: list[int] = []
        self._absolute = False
        self._running: list[tuple[dict, float]] = []
        self._state = state
        self._file = logging.FileHandler(path, "w", "utf-8")
        self._file.setFormatter(
            logging.Formatter("%(asctime)s - %(name)s - %(levelname)s - %(message)s")
        )

    def __enter__(self) -> Self:
        logging.captureWarnings(True)
        with contextlib.suppress(ImportError, AttributeError):
            from crds.core import log as crds_log

            crds_log.remove_console_handler()
        for name in _LOGGERS:
            logger = logging.getLogger(name)
            logger.setLevel(logging.INFO)
            logger.addHandler(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for name in _LOGGERS:
            logging.getLogger(name).removeHandler(self)
        self._file.close()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, and read it."""
        self._file.emit(record)
        text = record.getMessage()
        if record.levelno >= logging.ERROR:
            self.errors = [*self.errors[-9:], text]
        elif record.levelno >= logging.WARNING:
            self.warnings = [*self.warnings[-49:], text]
        if record.name.startswith("stpipe"):
            self._note_step(text, record.created)
        elif match := _MATCHES.match(text):
            matches = self.absolute_matches if self._absolute else self.relative_matches
            matches.append(int(match.group(1)))
        elif _ABSOLUTE.match(text):
            self._absolute = True

    def say(self, text: str) -> None:
        """Write a line of our own."""
        self._file.emit(logging.LogRecord("astroquery_lis", logging.INFO, "", 0, text, None, None))

    def _note_step(self, text: str, moment: float) -> None:
        if match := _BEGUN.match(text):
            step = {"step": match.group(1), "seconds": 0.0}
            self.steps.append(step)
            self._running.append((step, moment))
            self._tell()
        elif match := _DONE.match(text):
            name = match.group(1)
            for place in range(len(self._running) - 1, -1, -1):
                step, begun = self._running[place]
                if step["step"] == name:
                    step["seconds"] = round(moment - begun, 3)
                    del self._running[place:]
                    break
            self._tell()
        elif match := _PARAMETERS.match(text):
            self.parameters = _parsed(text[match.end() :])

    def _tell(self) -> None:
        step = self._running[-1][0]["step"] if self._running else ""
        with contextlib.suppress(OSError):
            state = {"step": step, "since": time.time(), "pid": os.getpid()}
            with write_whole(self._state) as temporary:
                temporary.write_text(json.dumps(state))


def _parsed(text: str) -> dict:
    """Return the parameters that stpipe logs as YAML, with Python's words for constants."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        values = yaml.load(re.sub(r" None$", " null", text, flags=re.MULTILINE), Loader=loader)
    except yaml.YAMLError:
        return {}
    return values if isinstance(values, dict) else {}
