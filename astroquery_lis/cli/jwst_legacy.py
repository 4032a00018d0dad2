"""The commands of JWST beside the Legacy Surveys: ``jwst match``, ``refcat`` and ``page``."""

from ..jwst_stage import JwstStageClass
from .arguments import add_command, add_data_options, add_table_output, angle
from .exits import EXIT_NOTHING, EXIT_OK

__all__ = ["add_commands"]


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
        "Tells the offset between the two, and prints the pairs with JWST and dereddened Legacy "
        "magnitudes. Exits with 3 if nothing matched.",
    )
    match.add_argument("catalog", metavar="CATALOG", help="a _cat.ecsv file of the chain")
    match.add_argument(
        "--radius", type=angle, default="0.3arcsec", metavar="ANGLE", help="default: 0.3arcsec"
    )
    add_data_options(match, "region")
    add_table_output(match)

    refcat = add_command(
        actions,
        "refcat",
        _refcat,
        "make the reference catalogue that tweakreg aligns a field to",
        "Stars are carried to the time of the exposures by their proper motions.",
    )
    refcat.add_argument(
        "files", nargs="+", metavar="FILE", help="exposures or mosaics of the field, or a plan"
    )
    refcat.add_argument(
        "--catalog", default="legacy", choices=("legacy", "gaia"), help="default: %(default)s"
    )
    add_data_options(refcat)
    add_table_output(refcat)

    page = add_command(
        actions,
        "page",
        _page,
        "write one page that shows a field side by side, JWST and Legacy Survey",
    )
    page.add_argument("mosaics", nargs="+", metavar="MOSAIC", help="_i2d.fits of one field")
    page.add_argument("--page", default="field.html", metavar="FILE", help="default: %(default)s")
    page.add_argument("--title", metavar="TEXT", help="of the page")
    add_data_options(page, "bands")


def _given(options, survey):
    if options.mirror:
        survey.mirror = options.mirror
    return {"survey": survey, "release": options.release}


def _match(options, survey, console):
    found = JwstStageClass().match_catalogs(
        options.catalog, radius=options.radius, **_given(options, survey)
    )
    console.note(str(found))
    console.table(found.matches, options)
    return EXIT_OK if len(found.matches) else EXIT_NOTHING


def _refcat(options, survey, console):
    stage = JwstStageClass()
    given = options.files
    if len(given) == 1 and given[0].endswith(".toml"):
        given = stage._loaded(given[0])
    console.table(
        stage.astrometric_reference(given, catalog=options.catalog, **_given(options, survey)),
        options,
    )


def _page(options, survey, console):
    path = JwstStageClass().field_page(
        options.mosaics,
        options.page,
        title=options.title,
        bands=options.bands,
        **_given(options, survey),
    )
    console.put(page=str(path))
    console.line(str(path))
