"""The commands of JWST beside the Legacy Surveys: ``jwst match``, ``refcat`` and ``page``."""

from pathlib import Path

from ..jwst_stage import JwstStageClass
from ..jwst_stage.tasks import REFCATS
from .arguments import add_command, add_data_options, add_output, add_table_output, angle
from .console import check_output
from .exits import EXIT_NOTHING, EXIT_OK
from .jwst_words import readable, write_page
from .tables import read_table

__all__ = ["add_commands"]

# The other columns are in every other format.
_PAIRS = {"label": None, "jwst_ra": ".6f", "jwst_dec": ".6f", "d_ra": ".1f", "d_dec": ".1f"}
_PAIRS |= {"separation": ".1f", "jwst_mag": ".2f"}
_PAIRS |= {f"mag_{band}": ".2f" for band in ("g", "r", "i", "z", "w1", "w2")} | {"type": None}
_SOURCES = {"RA": ".7f", "DEC": ".7f", "error_mas": ".1f", "weight": ".2f", "kind": None}
_SOURCES |= {"type": None, "ref_id": None}


def add_commands(actions):
    """Add the commands of this module.

    Parameters
    ----------
    actions : object
        What ``add_subparsers`` of the group returned.
    """
    match = add_command(
        actions,
        "match",
        _match,
        "match the catalogue of a mosaic to Tractor",
        "Prints the pairs with JWST and dereddened Legacy magnitudes (AB), and tells the offset "
        "between the two, JWST minus Legacy. Exits with 3 if nothing matched.",
    )
    match.add_argument(
        "catalog", metavar="CATALOG", help="a _cat.ecsv file of stage 3, or the _i2d.fits beside it"
    )
    match.add_argument(
        "--radius",
        type=angle,
        default="0.3arcsec",
        metavar="ANGLE",
        help="largest separation once the common offset is taken off (default: %(default)s)",
    )
    add_data_options(match, "region")
    add_table_output(match)

    refcat = add_command(
        actions,
        "refcat",
        _refcat,
        "make the reference catalogue that tweakreg aligns a field to",
        "Stars are carried to the time of the exposures by their proper motions. With -o the file "
        "is what --abs-refcat takes.",
    )
    refcat.add_argument(
        "files",
        nargs="+",
        metavar="FILE|PLAN",
        help="exposures or mosaics of the field, the table of 'jwst query', or a plan",
    )
    refcat.add_argument(
        "--catalog", default="legacy", choices=REFCATS, help="default: %(default)s"
    )
    add_data_options(refcat)
    add_table_output(refcat)

    page = add_command(
        actions,
        "page",
        _page,
        "write one page that shows a field side by side, JWST and Legacy Survey",
        "Prints the name of the page, which needs no other file.",
    )
    page.add_argument(
        "mosaics",
        nargs="+",
        metavar="MOSAIC",
        help="_i2d.fits of one field, on one grid if there are several",
    )
    page.add_argument("--title", metavar="TEXT", help="of the page")
    add_data_options(page, "bands", cache=False)
    add_output(page, "name of the page; by default that of the first mosaic with .html")


def _given(options, survey):
    if options.mirror:
        survey.mirror = options.mirror
    given = {"survey": survey, "release": options.release}
    if getattr(options, "no_cache", False):
        given["cache"] = False
    return given


def _match(options, survey, console):
    found = JwstStageClass().match_catalogs(
        options.catalog, radius=options.radius, region=options.region, **_given(options, survey)
    )
    console.put(
        n_jwst_only=len(found.jwst_only),
        n_legacy_only=len(found.legacy_only),
        offset=_offset(found.offset),
        star_offset=_offset(found.star_offset),
    )
    console.table(found.matches, options, lines=readable(found.matches, _PAIRS))
    console.note(
        f"{len(found.matches)} pairs, {len(found.jwst_only)} sources of JWST and "
        f"{len(found.legacy_only)} of Tractor without a partner"
    )
    if len(found.matches):
        console.note(f"JWST minus Legacy: {found.offset}")
    return EXIT_OK if len(found.matches) else EXIT_NOTHING


def _offset(offset):
    if offset is None:
        return None
    names = ("d_ra", "d_dec", "scatter_ra", "scatter_dec")
    return {f"{name}_mas": getattr(offset, name).to_value("mas") for name in names} | {
        "number": offset.number
    }


def _refcat(options, survey, console):
    stage = JwstStageClass()
    given = options.files
    if len(given) == 1 and given[0].endswith(".toml"):
        given = stage._loaded(given[0])
    elif len(given) == 1 and (given[0] == "-" or given[0].endswith((".ecsv", ".csv"))):
        given = read_table(given[0], None)
    table = stage.astrometric_reference(given, catalog=options.catalog, **_given(options, survey))
    console.table(table, options, lines=readable(table, _SOURCES))
    return EXIT_OK if len(table) else EXIT_NOTHING


def _page(options, survey, console):
    if options.output is None:
        options.output = f"{Path(options.mosaics[0]).stem}.html"
        check_output(options)
    given = _given(options, survey)
    write_page(
        lambda path: JwstStageClass().field_page(
            options.mosaics, path, title=options.title, bands=options.bands, **given
        ),
        options.output,
        console,
    )
