"""The JWST story on the embedded sky: archive, stages, mosaic, and the ground beside it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import astropy.units as u
import numpy as np

from .. import _conf
from ..client import LegacySurvey
from ..exceptions import OptionalDependencyError
from ..jwst_stage import JwstStageClass
from ..jwst_stage.legacy.field_page import jwst_picture, offset_figure
from ..pictures.page import Markup, figures, section
from ..sandbox.mast import serve_mast
from .survey_sections import Cost, call, picture_figure, sky_figure

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..sandbox.server import Sandbox

    Say = Callable[[str], object]

__all__ = ["jwst_section"]

TITLE = "A JWST field, from the archive to a mosaic, beside the Legacy Surveys"
FILTER = "F356W"
DITHERS = 3
OFFSET_ARCSEC = (0.2, -0.22)
"""An error of the pointing that all exposures have: what the alignment has to take out."""

RADIUS = 1 * u.arcmin
STEPS = {"tweakreg": {"abs_minobj": 3, "abs_fitgeometry": "shift", "abs_searchrad": 1.0}}
"""A field of half an arcminute has too few stars for the rotation that is fitted by default."""


def jwst_section(sky: Sandbox, folder: Path, say: Say) -> Markup:
    """Find, fetch and reduce simulated exposures, and match them to the Tractor catalogue.

    Without the extra ``jwst`` the section says what is missing.
    """
    from astroquery import mast

    try:
        from ..sandbox.jwst import simulate

        observation = simulate(
            size=256, filters=(FILTER,), dithers=DITHERS, groups=5, offset_arcsec=OFFSET_ARCSEC
        )
    except OptionalDependencyError as error:
        text = f"Left out: {error}"
        say(f"{TITLE}: {text}")
        return section(TITLE, note=text)
    stage = JwstStageClass()
    stage.crds_path, stage.crds_context = observation.crds_path, observation.crds_context
    service = serve_mast(sky, observation)
    start = time.perf_counter()
    with mast.conf.set_temp("server", service.url):
        rows = stage.query_uncal(sky.positions["clump"], radius=RADIUS)
        say(f"MAST has {len(rows)} uncal files of {rows['size'].sum() / 1e6:.0f} MB there")
        files = stage.download_uncal(rows, download_dir=folder / "uncal", show_progress=False)
    # The sandbox's cache ends with it; here a second run finds what the first has asked jwst.
    with _conf.override(cache_dir=str(folder / "cache")):
        plan = stage.plan(files, output_dir=folder / "reduced", abs_refcat="legacy", steps=STEPS)
    say(f"{len(plan)} products of the real pipeline, offline: half a minute, unless they are there")
    manifest = stage.run(plan, survey=LegacySurvey, show_progress=False)
    failed = manifest[manifest["Status"] == "ERROR"]
    if len(failed):
        text = f"The chain failed: {failed['Message'][0]}"
        say(text)
        return section(TITLE, note=text)
    stage.report(folder / "reduced")
    cost = f"{rows['size'].sum() / 1e6:.1f} MB of uncal files, {time.perf_counter() - start:.0f} s"
    mosaics = [f"{plan.output_dir}/{task.name}" for task in plan.tasks if task.stage == 3]
    with Cost(sky) as spent:
        match = stage.match_catalogs(
            mosaics[0].replace("_i2d.fits", "_cat.ecsv"), survey=LegacySurvey
        )
        stage.field_page(mosaics, folder / "field.html", match=match, survey=LegacySurvey)
        cutout = stage.cutouts_for(mosaics, bands="grz", survey=LegacySurvey, like="own")[0]
    text = (
        f"{len(match.matches)} sources are in both; JWST is {match.offset}, after an error of "
        f"{1e3 * np.hypot(*OFFSET_ARCSEC):.0f} mas that was put into the pointing."
    )
    say(f"{TITLE}: {text}")
    mosaic = jwst_picture(mosaics[0])
    shown = figures(
        sky_figure(
            mosaic.image,
            mosaic.matrix,
            f"JWST {FILTER}: the mosaic (i2d)",
            unit="MJy/sr",
            look=f"{DITHERS} exposures, aligned: no star is seen twice. {cost}.",
        ),
        picture_figure(
            cutout,
            "Legacy Surveys z, r, g",
            f"On the pixels of the mosaic; what JWST parts is one blob from the ground. {spent}.",
        ),
        offset_figure(match),
    )
    links = Markup(
        "<p>The plot shows each match: how far a source of the mosaic is from its partner in the "
        'Tractor catalogue. <a href="field.html">The field in detail</a>, '
        '<a href="reduced/report.html">the report of the run</a>.</p>'
    )
    made = _calls(Path("reduced", *Path(mosaics[0]).parts[-2:]).as_posix())
    return section(TITLE, made, shown, links, note=text)


def _calls(mosaic: str) -> Markup:
    catalog = mosaic.replace("_i2d.fits", "_cat.ecsv")
    return call(
        "from astroquery import mast",
        "from astroquery_lis.jwst_stage import JwstStageClass",
        "from astroquery_lis.sandbox.jwst import simulate",
        "from astroquery_lis.sandbox.mast import serve_mast",
        "",
        "# A simulated archive and its references; the real ones need neither of these lines.",
        f'observation = simulate(size=256, filters=("{FILTER}",), dithers={DITHERS}, groups=5,',
        f"                       offset_arcsec={OFFSET_ARCSEC})",
        "mast.conf.server = serve_mast(sky, observation).url",
        "stage = JwstStageClass()",
        "stage.crds_path, stage.crds_context = observation.crds_path, observation.crds_context",
        "",
        'rows = stage.query_uncal(sky.positions["clump"], radius=1 * u.arcmin)',
        'files = stage.download_uncal(rows, download_dir="uncal")  # raw ramps: uncal',
        f"steps = {STEPS}",
        'plan = stage.plan(files, output_dir="reduced", abs_refcat="legacy", steps=steps)',
        "manifest = stage.run(plan, survey=LegacySurvey)  # rate, cal, and the mosaic: i2d",
        f'catalog = "{catalog}"',
        "match = stage.match_catalogs(catalog, survey=LegacySurvey)",
    )
