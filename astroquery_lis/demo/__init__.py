"""The main job on the embedded sky, ending in a page of pictures."""

from pathlib import Path

from .. import sandbox
from .html_page import page, pillow
from .jwst import jwst_section
from .legacy import SCENES, legacy_sections, rgb_array

__all__ = ["SCENES", "rgb_array", "run"]

PAGE = "index.html"


def run(output_dir="astroquery-lis-demo", *, say=print):
    """Serve the embedded sky, do everything that the package does, and write a page of it.

    Cutouts, PSFs, mosaics, catalogue; then a JWST field from the archive to a mosaic, its sources
    beside those of the Legacy Surveys.

    Parameters
    ----------
    output_dir : str or `~pathlib.Path`, optional
        Folder for the page.
    say : callable, optional
        Told what happens, a line at a time.

    Returns
    -------
    `~pathlib.Path`
        The page.

    Raises
    ------
    OptionalDependencyError
        If pillow is not installed.

    Examples
    --------
    >>> from astroquery_lis import demo
    >>> page = demo.run("demo")  # doctest: +SKIP
    """
    pillow()
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    say("Starting the embedded sky (its files are made the first time, in about half a minute)")
    with sandbox.serve(show_progress=True) as sky:
        say(f"Serving {len(sky.truth)} simulated sources at {sky.mirror_url}")
        sections = [*legacy_sections(sky, say), jwst_section(sky, folder, say)]
    path = folder / PAGE
    path.write_text(page(sections), encoding="utf-8")
    say(f"The page is {path.resolve()}")
    return path
