"""The main job on the embedded sky, ending in a page of pictures."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .. import sandbox
from ..io.jobs import bar
from ..pictures.page import Markup, html_page, section, write_page
from .sections import JWST_TITLE, SCENES, SURVEY_JOBS, call, jwst_section

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._typing import FilePath
    from .sections import Job

__all__ = ["SCENES", "run"]

PAGE = "index.html"
ABOUT = (
    "Every picture of the survey was cut out of its bricks by LegacySurvey.get_cutout, over HTTP, "
    "a few compressed tiles at a time. The sky is simulated: do not use it for science."
)
BEGIN = (
    Markup(
        "<p>The lines above the pictures made them. They go on from these, in a session of Python "
        "or a notebook:</p>"
    ),
    call(
        "import astropy.units as u",
        "from astroquery_lis import LegacySurvey, pictures, sandbox",
        "",
        "sky = sandbox.serve()  # the simulated sky; sky.close() ends it",
    ),
)
NEXT = Markup(
    "<p>Leave the sandbox out, give a place of the real sky, and the same lines ask the survey's "
    "own services.</p>"
)


def run(
    output_dir: FilePath = "astroquery-lis-demo",
    *,
    say: Callable[[str], object] = print,
    show_progress: bool = True,
) -> Path:
    """Serve the embedded sky, do everything that the package does, and write a page of it.

    Cutouts, PSFs, mosaics, catalogue; then a JWST field from the archive to a mosaic, its sources
    beside those of the Legacy Surveys.

    Parameters
    ----------
    output_dir : str or `~pathlib.Path`, optional
        Folder for the page.
    say : callable, optional
        Called with a line of text for each step.
    show_progress : bool, optional
        Whether to show how long a step takes meanwhile.

    Returns
    -------
    `~pathlib.Path`
        The page.

    Examples
    --------
    >>> from astroquery_lis import demo
    >>> page = demo.run("demo")  # doctest: +SKIP
    """
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    jobs: tuple[Job, ...] = (*SURVEY_JOBS, (JWST_TITLE, partial(jwst_section, folder=folder)))
    sections = [section("Lines to copy", *BEGIN)]
    say("Starting the embedded sky (a file is made when it is first asked for)")
    with Heartbeat(say, is_shown=show_progress) as tell, sandbox.serve() as sky:
        tell(f"Serving {len(sky.truth)} simulated sources at {sky.mirror_url}")
        for title, make in jobs:
            tell.begin(title)
            sections.append(make(sky, tell, title))
        sections.append(section("Next", NEXT))
        page = html_page("A simulated sky", "".join(sections), about=ABOUT)
        path = write_page(folder / PAGE, page)
    say(f"The page is {path.resolve()}")
    return path


_TICK_S = 0.5
_LINE_S = 2.0
_ENDLESS = {"leave": False, "bar_format": "{desc} {bar:10}", "total": 20, "dynamic_ncols": True}


class Heartbeat:
    """Says lines, and in a ``with`` block how long the next is waited for.

    That is a bar that moves, in terminals and notebooks where tqdm is installed, and a line of text
    every two seconds elsewhere, which ``note`` says; nothing but the lines if not ``is_shown``.
    """

    def __init__(
        self,
        say: Callable[[str], object],
        note: Callable[[str], object] | None = None,
        *,
        is_shown: bool = True,
    ) -> None:
        self._say, self._note = say, note or say
        self._step = ""
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._since = self._said = time.monotonic()
        self._bar = bar(**_ENDLESS) if is_shown else None
        if not is_shown:
            self._ended.set()

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._ended.set()
        self._thread.join()
        if self._bar is not None:
            self._bar.close()

    def __call__(self, text: str) -> None:
        """Say a line."""
        with self._lock:
            if self._bar is not None:
                self._bar.clear()
            self._say(text)
            self._since = self._said = time.monotonic()

    def begin(self, step: str) -> None:
        """Name what is being done."""
        with self._lock:
            self._step = f"{step}: "
            self._since = time.monotonic()

    def _beat(self) -> None:
        # Whoever says the next line meets the same error, as of a closed pipe, and tells of it.
        with suppress(OSError):
            while not self._ended.wait(_TICK_S):
                with self._lock:
                    self._tell(time.monotonic())

    def _tell(self, now: float) -> None:
        """Say how long the step has taken, if it is time to."""
        if self._bar is not None:
            self._bar.set_description_str(f"{self._step}{now - self._since:.0f} s")
            # It fills, and begins again.
            self._bar.n = (self._bar.n + 1) % self._bar.total
            self._bar.refresh()
        elif now - self._said >= _LINE_S - _TICK_S:
            self._note(f"  {self._step}{now - self._since:.0f} s")
            self._said = now
