"""The main job on the embedded sky, ending in a page of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .. import sandbox
from ..pictures.page import Markup, html_page, section, write_page
from .heartbeat import Heartbeat
from .jwst_section import jwst_section
from .survey_sections import SCENES, call, survey_sections

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._typing import FilePath

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
    output_dir: FilePath = "astroquery-lis-demo", *, say: Callable[[str], object] = print
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
    say("Starting the embedded sky (a file is made when it is first asked for)")
    with sandbox.serve() as sky, Heartbeat(say) as tell:
        tell(f"Serving {len(sky.truth)} simulated sources at {sky.mirror_url}")
        sections = [*survey_sections(sky, tell), jwst_section(sky, folder, tell)]
    sections = [section("Lines to copy", *BEGIN), *sections, section("Next", NEXT)]
    path = write_page(folder / PAGE, html_page("A simulated sky", "".join(sections), about=ABOUT))
    say(f"The page is {path.resolve()}")
    return path
