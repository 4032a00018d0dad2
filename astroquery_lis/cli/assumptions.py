"""What the package takes for granted of the live services, in one table.

See docs/live_services.rst for the four kinds of evidence, and `~.questions` for how it is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..images.viewer_service import BLANK, MAX_REQUEST_PIX
from ..survey.layers import INVVAR_LIMIT_ARCSEC
from . import questions
from .questions import TAP_TABLE, Answer

SERVICES = ("mirrors", "viewer", "tap", "mast", "crds", "sesame")


@dataclass(frozen=True)
class Assumption:
    """One thing that the package takes for granted of a service."""

    name: str
    service: str
    assumed: str
    evidence: str
    ask: Callable[..., Answer]
    """Asks once; of mirrors each is asked."""
    affects: str
    """What in the package depends on it."""
    only_first: bool = False
    """Whether the first mirror is asked for all, not to ask too much."""


_FILES = "get_cutout and get_brick_files from bricks"
_RENDERED = "get_cutout(layer=...) and source='viewer'"
_TAP = "query_tractor and crossmatch with source='tap'"

ASSUMPTIONS = tuple(
    Assumption(*row)
    for row in (
        (
            "address",
            "mirrors",
            "the mirror is where the package looks for it, and has the table of bricks",
            "documented (NERSC), read (NADC)",
            questions.mirror_address,
            "all that is read of files; the order of mirrors, list_mirrors",
        ),
        (
            "byte ranges",
            "mirrors",
            "a range is answered with 206 and these bytes, with an ETag or a date",
            "assumed",
            questions.mirror_ranges,
            f"{_FILES}: without ranges whole files are fetched for a small cutout",
        ),
        (
            "coadd format",
            "mirrors",
            "an image of a brick is 3600 x 3600 pixels, Rice compressed, in nanomaggy",
            "run (DR6), read",
            questions.coadd_format,
            f"{_FILES}, units of cutouts",
        ),
        (
            "releases",
            "mirrors",
            "every release and region has its folder and its table of bricks",
            "documented, read (DR11)",
            questions.mirror_releases,
            "every method with release=, the proof that a brick is not in a release",
            True,
        ),
        (
            "checksum lists",
            "mirrors",
            "the list of a brick's folder holds the sha256 of its files",
            "documented, read",
            questions.mirror_checksums,
            "verify= of get_brick_files, LegacySurvey.verify",
        ),
        (
            "cutout",
            "viewer",
            "cutout.fits gives the plane that was asked for, on the grid that was asked for",
            "run",
            questions.viewer_cutout,
            _RENDERED,
        ),
        (
            "native pixels",
            "viewer",
            "with subimage it gives pixels and invvar of the brick, named in the headers",
            "run",
            questions.viewer_native,
            "get_cutout(source='viewer') and the fail-over from mirrors to the viewer",
        ),
        (
            "picture",
            "viewer",
            "cutout.jpg gives a JPEG",
            "run",
            questions.viewer_picture,
            "get_picture",
        ),
        (
            "unknown layer",
            "viewer",
            "it is answered with 200 and 'no such layer'",
            "run",
            questions.unknown_layer,
            "the error for a layer that is gone",
        ),
        (
            "unknown bands",
            "viewer",
            "they are replaced by all bands of the layer, without a word",
            "run",
            questions.unknown_bands,
            f"the check of bands in {_RENDERED}",
        ),
        (
            "largest size",
            "viewer",
            f"sizes beyond {MAX_REQUEST_PIX} pixels are reduced to it, without a word",
            "run",
            questions.largest_size,
            f"how large cutouts are put together in {_RENDERED}, get_picture",
        ),
        (
            "dropped invvar",
            "viewer",
            f"invvar is there up to {INVVAR_LIMIT_ARCSEC:.3f} arcsec per pixel, and not beyond",
            "run",
            questions.dropped_invvar,
            f"products='invvar' in {_RENDERED}",
        ),
        (
            "no coverage, FITS",
            "viewer",
            "status 500, or nothing but zeros",
            "run, assumed",
            questions.empty_cutout,
            "NoCoverageError of the viewer, the fallback of covers",
        ),
        (
            "no coverage, JPEG",
            "viewer",
            f"a picture of the one grey level {BLANK}",
            "run",
            questions.empty_picture,
            "NoCoverageError of get_picture",
        ),
        (
            "PSF",
            "viewer",
            "coadd-psf gives an image of sum 1 of a size that tells the camera",
            "run",
            questions.viewer_psf,
            "get_psf",
        ),
        (
            "list of bricks",
            "viewer",
            "bricks/ names the bricks that a layer has in a box",
            "run",
            questions.list_of_bricks,
            "how no coverage is told from a failure",
        ),
        (
            "list of CCDs",
            "viewer",
            "ccds/ gives camera, exposure, CCD and band, and four corners",
            "run",
            questions.list_of_ccds,
            "get_psf(to_sky=True), get_exposure_files",
        ),
        (
            "catalogue",
            "viewer",
            "cat.fits gives the Tractor rows of a box",
            "run",
            questions.viewer_catalogue,
            "query_tractor(source='viewer')",
        ),
        (
            "layers",
            "viewer",
            "it knows the layer of each release",
            "read",
            questions.viewer_layers,
            "list_layers, release= with source='viewer'",
        ),
        (
            "tables",
            "tap",
            "there is a table ls_drN.tractor of DR8 and each later release",
            "documented, read",
            questions.tap_tables,
            _TAP,
        ),
        (
            "columns",
            "tap",
            f"{TAP_TABLE} has the Tractor columns of the release, and ls_id",
            "documented, read",
            questions.tap_columns,
            f"{_TAP}, columns= and column_filters=",
        ),
        (
            "box",
            "tap",
            "ra and dec BETWEEN, and quoted columns, are understood",
            "documented, read",
            questions.tap_box,
            _TAP,
        ),
        (
            "Q3C",
            "tap",
            "'t' = Q3C_RADIAL_QUERY(...) is understood, and gives a cone",
            "read",
            questions.tap_cone,
            f"the speed of {_TAP}: without it boxes are asked for, and cut here",
        ),
        (
            "limit of rows",
            "tap",
            "MAXREC is kept to, and OVERFLOW is said",
            "assumed",
            questions.tap_limit,
            f"maxrec= and the warning of rows that were cut off in {_TAP}",
        ),
        (
            "columns",
            "mast",
            "the JWST search has the columns that the package reads",
            "read",
            questions.mast_columns,
            "JwstStage.query_uncal",
        ),
        (
            "file",
            "mast",
            "a public uncal file is served by ranges, and is as long as its list says",
            "documented, assumed",
            questions.mast_file,
            "JwstStage.download_uncal, and going on with a file that was cut",
        ),
        (
            "context",
            "crds",
            "the server names its newest context, jwst_NNNN.pmap, and where its files are",
            "read",
            questions.crds_context,
            "JwstStage.prefetch_references and run, where no context is named",
        ),
        (
            "names",
            "sesame",
            "known objects have a %J line with their place, others have none",
            "documented",
            questions.names_of_objects,
            "names of objects in place of positions",
        ),
    )
)
