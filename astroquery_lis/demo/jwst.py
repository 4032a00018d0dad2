"""The JWST story on the embedded sky: archive, stages, mosaic, and the ground beside it."""

import io

import astropy.units as u
import numpy as np

from ..client import LegacySurvey
from ..exceptions import OptionalDependencyError
from ..jwst_stage import JwstStageClass
from ..jwst_stage.legacy.picture import jwst_picture
from ..sandbox.mast import serve_mast
from .html_page import figure, plain_section, png_figure
from .legacy import rgb_array

__all__ = ["jwst_section"]

TITLE = "A JWST field, from the archive to a mosaic, beside the Legacy Surveys"
SIZE = 512
FILTERS = ("F356W",)
DITHERS = 3
GROUPS = 5
OFFSET_ARCSEC = (0.2, -0.22)
"""An error of the pointing that all exposures have: what the alignment has to take out."""

RADIUS = 1 * u.arcmin
STEPS = {"tweakreg": {"abs_minobj": 3, "abs_fitgeometry": "shift", "abs_searchrad": 1.0}}
"""A field of half an arcminute has too few stars for the rotation that is fitted by default."""


def jwst_section(sky, folder, say):
    """Find, fetch and reduce simulated exposures, and match them to the Tractor catalogue.

    Parameters
    ----------
    sky : `~astroquery_lis.sandbox.server.Sandbox`
        The running sky.
    folder : `~pathlib.Path`
        For the files and the two pages.
    say : callable
        Told what happens, a line at a time.

    Returns
    -------
    str
        The section; it says what is missing where the extra ``jwst`` is not installed.
    """
    from astroquery import mast

    try:
        observation = _observe()
    except OptionalDependencyError as error:
        text = f"Left out: {error}"
        say(f"{TITLE}: {text}")
        return plain_section(TITLE, text, "")
    stage = JwstStageClass()
    stage.crds_path, stage.crds_context = observation.crds_path, observation.crds_context
    service = serve_mast(sky, observation)
    place = sky.positions["clump"]
    with mast.conf.set_temp("server", service.url):
        found = stage.query_uncal(place, radius=RADIUS)
        say(f"MAST has {len(found)} uncal files of {found['size'].sum() / 1e6:.0f} MB there")
        files = stage.download_uncal(found, download_dir=folder / "uncal", show_progress=False)
    plan = stage.plan(files, output_dir=folder / "reduced", abs_refcat="legacy", steps=STEPS)
    say(f"{len(plan)} products to make, in the real pipeline, offline; about a minute")
    manifest = stage.run(plan, survey=LegacySurvey, show_progress=False)
    failed = manifest[manifest["Status"] == "ERROR"]
    if len(failed):
        text = f"The chain failed: {failed['Message'][0]}"
        say(text)
        return plain_section(TITLE, text, "")
    stage.report(plan.output_dir)
    return _beside(stage, plan, folder, say)


def _observe():
    from ..sandbox.jwst import simulate

    return simulate(
        size=SIZE, filters=FILTERS, dithers=DITHERS, groups=GROUPS, offset_arcsec=OFFSET_ARCSEC
    )


def _beside(stage, plan, folder, say):
    mosaics = [f"{plan.output_dir}/{task.name}" for task in plan.tasks if task.stage == 3]
    catalog = mosaics[0].replace("_i2d.fits", "_cat.ecsv")
    match = stage.match_catalogs(catalog, survey=LegacySurvey)
    stage.field_page(mosaics, folder / "field.html", match=match, survey=LegacySurvey)
    cutout = stage.cutouts_for(mosaics, bands="grz", survey=LegacySurvey, like="own")[0]
    text = (
        f"{len(match.matches)} sources are in both; JWST is {match.offset}, after an error of "
        f"{1e3 * np.hypot(*OFFSET_ARCSEC):.0f} mas that was put into the pointing."
    )
    say(f"{TITLE}: {text}")
    caption = f"JWST {FILTERS[0]}: {DITHERS} exposures, aligned"
    figures = figure(jwst_picture(mosaics[0]).image, caption)
    figures += figure(rgb_array(cutout), "Legacy Surveys z, r, g on the pixels of the mosaic")
    figures += _offsets(match)
    links = (
        '<p><a href="field.html">The field in detail</a>, '
        '<a href="reduced/report.html">the report of the run</a></p>'
    )
    section = plain_section(TITLE, text, figures)
    return section.replace("</section>", f"{links}</section>")


def _offsets(match):
    """Return a plot of the offsets of the pairs, where there is matplotlib."""
    try:
        import matplotlib as mpl
    except ImportError:
        return ""
    mpl.use("Agg")
    from matplotlib import pyplot

    drawn, axes = pyplot.subplots(figsize=(4, 4), layout="constrained")
    axes.plot(match.matches["d_ra"], match.matches["d_dec"], "o", alpha=0.7)
    reach = 1.2 * max(np.abs([match.matches["d_ra"], match.matches["d_dec"]]).max(), 5)
    limits = (-reach, reach)
    axes.set(xlabel="dRA cos(Dec) (mas)", ylabel="dDec (mas)", xlim=limits, ylim=limits)
    axes.axhline(0, color="0.7", zorder=0)
    axes.axvline(0, color="0.7", zorder=0)
    stream = io.BytesIO()
    drawn.savefig(stream, dpi=100)
    pyplot.close(drawn)
    return png_figure(stream.getvalue(), "JWST minus Tractor")
