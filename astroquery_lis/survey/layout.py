"""Where every file of a brick lies, relative to the root of a mirror.

Pure functions, one per kind of file; the folder ``<AAA>`` is the first three letters of the brick's
name (not the integer part of its RA, which differs for 40 bricks).  Names as documented in the
releases' file pages and seen in the DR10.1 list of re-released files.
"""

from types import MappingProxyType
from typing import NamedTuple

from ..exceptions import InvalidRequestError
from .releases import WISE_BANDS, WISE_PRODUCTS, get_release

__all__ = [
    "BRICK_PICTURES",
    "BRICK_TABLES",
    "COADD_PRODUCTS",
    "MASK_PLANES",
    "METRICS",
    "WISE_BANDS",
    "WISE_PRODUCTS",
    "CoaddProduct",
    "brick_picture_path",
    "brick_table_path",
    "coadd_checksum_path",
    "coadd_path",
    "coadd_paths",
    "coadd_product",
    "folder_checksum_path",
    "get_tree",
    "metrics_checksum_path",
    "metrics_path",
    "region_bricks_path",
    "survey_bricks_path",
    "tractor_checksum_path",
    "tractor_i_checksum_path",
    "tractor_i_path",
    "tractor_path",
]


class CoaddProduct(NamedTuple):
    """One kind of image that every brick has.

    Attributes
    ----------
    name : str
        As in the file name.
    per_band : bool
        Whether there is one file per band.
    unit : str
        What the pixels are in, as the survey writes ``BUNIT``; empty for pure numbers.
    interpolated : bool
        Whether a neighbour's pixels are interpolated smoothly; the nearest is taken otherwise.
    no_value : float
        What a pixel holds where no brick file covers the sky.
    description : str
        One line.

    Examples
    --------
    >>> from astroquery_lis.survey.layout import COADD_PRODUCTS
    >>> COADD_PRODUCTS['psfsize'].unit
    'arcsec'
    """

    name: str
    per_band: bool
    unit: str
    interpolated: bool
    no_value: float
    description: str


NAN = float("nan")
IVAR_UNIT = "1/nanomaggy^2"

COADD_PRODUCTS = MappingProxyType(
    {
        row[0]: CoaddProduct(*row)
        for row in (
            ("image", True, "nanomaggy", True, NAN, "inverse-variance weighted coadd"),
            ("invvar", True, IVAR_UNIT, False, 0, "inverse variance of the image"),
            ("model", True, "nanomaggy", True, NAN, "Tractor model of all sources"),
            ("blobmodel", True, "nanomaggy", True, NAN, "Tractor model clipped to its blobs"),
            ("chi2", True, "", False, NAN, "summed chi-squared of the model"),
            ("depth", True, IVAR_UNIT, False, 0, "point-source depth, as inverse variance"),
            ("galdepth", True, IVAR_UNIT, False, 0, "depth for a 0.45 arcsec round galaxy"),
            ("nexp", True, "", False, 0, "number of good exposures"),
            ("psfsize", True, "arcsec", False, NAN, "weighted PSF FWHM"),
            ("maskbits", False, "", False, 1, "bit mask; NPRIMARY where no brick is"),
        )
    }
)
"""Every coadd product that has files of its own, by name."""

MASK_PLANES = MappingProxyType(
    {
        "wisem1": (2, CoaddProduct("wisem1", False, "", False, 0, "bright-star mask of W1")),
        "wisem2": (3, CoaddProduct("wisem2", False, "", False, 0, "bright-star mask of W2")),
    }
)
"""Planes beside MASKBITS in the same file, from DR8 on: HDU, and what they are."""


def coadd_product(name):
    """Return the `CoaddProduct` of a product or a mask plane.

    Parameters
    ----------
    name : str
        A name of `COADD_PRODUCTS` or `MASK_PLANES`.

    Returns
    -------
    CoaddProduct

    Examples
    --------
    >>> from astroquery_lis.survey.layout import coadd_product
    >>> coadd_product('maskbits').per_band
    False
    """
    return MASK_PLANES[name][1] if name in MASK_PLANES else COADD_PRODUCTS[name]

BRICK_TABLES = ("ccds", "depth")
"""Tables in the folder of a brick's coadds: the CCDs that went in, and a histogram of depths."""

BRICK_PICTURES = ("image", "model", "resid", "blobmodel", "wise", "wisemodel", "wiseresid")
"""JPEG pictures in the folder of a brick's coadds."""

METRICS = MappingProxyType(
    {
        "all-models": ".fits",
        "reference": ".fits",
        "blobs": ".fits.gz",
        "outlier-mask": ".fits.fz",
        "outliers-pre": ".jpg",
        "outliers-post": ".jpg",
        "outliers-masked-pos": ".jpg",
        "outliers-masked-neg": ".jpg",
    }
)
"""Files of the metrics folder, with their endings."""


def get_tree(release, region):
    """Return the `~.releases.Tree` that holds a region of a release.

    Parameters
    ----------
    release : str
        Release name.
    region : str
        ``'north'`` or ``'south'``.

    Returns
    -------
    Tree

    Raises
    ------
    InvalidRequestError
        If the release does not have that region.

    Examples
    --------
    >>> from astroquery_lis.survey.layout import get_tree
    >>> get_tree('dr10', 'north').folder
    'dr9/north'
    """
    found = get_release(release)
    if region not in found.trees:
        allowed = ", ".join(("auto", *found.regions))
        msg = f"region={region!r} is not in {found.name}; allowed: {allowed}."
        raise InvalidRequestError(msg, parameter="region", value=region)
    return found.trees[region]


def _coadd_folder(tree, brick):
    return f"{tree.folder}/coadd/{brick[:3]}/{brick}"


def coadd_paths(release, region, product, brick, band=None):
    """Return the names that a coadd file may have, the likeliest first.

    Parameters
    ----------
    release, region : str
        For example ``'dr10'``, ``'south'``.
    product : str
        A name of `COADD_PRODUCTS`.
    brick : str
        Brick name.
    band : str, optional
        Needed for the products that come per band.

    Returns
    -------
    tuple of str
        Paths relative to the mirror's root; one but for DR5 to DR7, whose endings vary.

    Examples
    --------
    >>> from astroquery_lis.survey.layout import coadd_paths
    >>> len(coadd_paths('dr5', 'south', 'image', '1901p012', 'r'))
    3
    """
    tree = get_tree(release, region)
    stem = f"{_coadd_folder(tree, brick)}/legacysurvey-{brick}-{product}"
    if COADD_PRODUCTS[product].per_band:
        stem = f"{stem}-{band}"
    return tuple(stem + suffix for suffix in get_release(tree.release).suffixes)


def coadd_path(release, region, product, brick, band=None):
    """Return the likeliest of `coadd_paths`.

    Parameters
    ----------
    release, region, product, brick, band : str
        As for `coadd_paths`.

    Returns
    -------
    str

    Examples
    --------
    >>> from astroquery_lis.survey.layout import coadd_path
    >>> coadd_path('dr10', 'south', 'image', '1901p012', 'r')
    'dr10/south/coadd/190/1901p012/legacysurvey-1901p012-image-r.fits.fz'
    """
    return coadd_paths(release, region, product, brick, band)[0]


def _checksum_name(folder, *parts):
    return "_".join(["legacysurvey", *folder.split("/"), *parts]) + ".sha256sum"


def coadd_checksum_path(release, region, brick):
    """Return the path of the sha256sum file of a brick's coadds.

    Parameters
    ----------
    release, region, brick : str
        As for `coadd_paths`.

    Returns
    -------
    str
        ``.../legacysurvey_dr10_south_coadd_190_1901p012.sha256sum`` and the like.

    Examples
    --------
    >>> from astroquery_lis.survey.layout import coadd_checksum_path
    >>> print(coadd_checksum_path('dr10', 'south', '1901p012'))
    dr10/south/coadd/190/1901p012/legacysurvey_dr10_south_coadd_190_1901p012.sha256sum
    """
    tree = get_tree(release, region)
    name = _checksum_name(tree.folder, "coadd", brick[:3], brick)
    return f"{_coadd_folder(tree, brick)}/{name}"


def tractor_path(release, region, brick):
    """Return the path of a brick's Tractor catalogue.

    Parameters
    ----------
    release, region, brick : str
        As for `coadd_paths`.

    Returns
    -------
    str

    Examples
    --------
    >>> from astroquery_lis.survey.layout import tractor_path
    >>> print(tractor_path('dr10', 'south', '1901p012'))
    dr10/south/tractor/190/tractor-1901p012.fits
    """
    tree = get_tree(release, region)
    return f"{tree.folder}/tractor/{brick[:3]}/tractor-{brick}.fits"


def tractor_checksum_path(release, region, brick):
    """Return the path of the sha256sum file of the Tractor folder that holds a brick.

    Parameters
    ----------
    release, region, brick : str
        As for `coadd_paths`.

    Returns
    -------
    str

    Examples
    --------
    >>> from astroquery_lis.survey.layout import tractor_checksum_path
    >>> print(tractor_checksum_path('dr10', 'south', '1901p012'))
    dr10/south/tractor/190/legacysurvey_dr10_south_tractor_190.sha256sum
    """
    tree = get_tree(release, region)
    name = _checksum_name(tree.folder, "tractor", brick[:3])
    return f"{tree.folder}/tractor/{brick[:3]}/{name}"


def survey_bricks_path(release):
    """Return the path of the table of all 662,174 bricks.

    Parameters
    ----------
    release : str
        Release name.

    Returns
    -------
    str

    Examples
    --------
    >>> from astroquery_lis.survey.layout import survey_bricks_path
    >>> print(survey_bricks_path('dr10'))
    dr10/survey-bricks.fits.gz
    """
    return f"{get_release(release).name}/survey-bricks.fits.gz"


def region_bricks_path(release, region):
    """Return the path of the table of the bricks that a region of a release has.

    Parameters
    ----------
    release, region : str
        For example ``'dr10'``, ``'south'``.

    Returns
    -------
    str

    Examples
    --------
    >>> from astroquery_lis.survey.layout import region_bricks_path
    >>> print(region_bricks_path('dr10', 'south'))
    dr10/south/survey-bricks-dr10-south.fits.gz
    """
    tree = get_tree(release, region)
    if "/" not in tree.folder:
        return f"{tree.folder}/survey-bricks-{tree.release}.fits.gz"
    return f"{tree.folder}/survey-bricks-{tree.release}-{tree.region}.fits.gz"


def folder_checksum_path(folder):
    """Return the path of the sha256sum file of any folder of files.

    Parameters
    ----------
    folder : str
        Relative to the survey's root, such as ``'dr10/south/sweep/10.1'``.

    Returns
    -------
    str

    Examples
    --------
    >>> from astroquery_lis.survey.layout import folder_checksum_path
    >>> print(folder_checksum_path('dr10/south/sweep/10.1'))
    dr10/south/sweep/10.1/legacysurvey_dr10_south_sweep_10.1.sha256sum
    """
    return f"{folder}/{_checksum_name(folder)}"


def brick_table_path(release, region, brick, kind):
    """Return the path of a table that lies with a brick's coadds.

    Parameters
    ----------
    release, region, brick : str
        As for `coadd_paths`.
    kind : {'ccds', 'depth'}
        One of `BRICK_TABLES`.

    Returns
    -------
    str

    Examples
    --------
    >>> from astroquery_lis.survey.layout import brick_table_path
    >>> print(brick_table_path('dr10', 'south', '1901p012', 'ccds'))
    dr10/south/coadd/190/1901p012/legacysurvey-1901p012-ccds.fits
    """
    tree = get_tree(release, region)
    return f"{_coadd_folder(tree, brick)}/legacysurvey-{brick}-{kind}.fits"


def brick_picture_path(release, region, brick, kind):
    """Return the path of a JPEG picture that lies with a brick's coadds.

    Parameters
    ----------
    release, region, brick : str
        As for `coadd_paths`.
    kind : str
        One of `BRICK_PICTURES`.

    Returns
    -------
    str

    Examples
    --------
    >>> from astroquery_lis.survey.layout import brick_picture_path
    >>> print(brick_picture_path('dr10', 'south', '1901p012', 'image'))
    dr10/south/coadd/190/1901p012/legacysurvey-1901p012-image.jpg
    """
    tree = get_tree(release, region)
    return f"{_coadd_folder(tree, brick)}/legacysurvey-{brick}-{kind}.jpg"


def tractor_i_path(release, region, brick):
    """Return the path of the intermediate Tractor catalogue of a brick.

    Parameters
    ----------
    release, region, brick : str
        As for `coadd_paths`.

    Returns
    -------
    str

    Examples
    --------
    >>> from astroquery_lis.survey.layout import tractor_i_path
    >>> print(tractor_i_path('dr10', 'south', '1901p012'))
    dr10/south/tractor-i/190/tractor-i-1901p012.fits
    """
    tree = get_tree(release, region)
    return f"{tree.folder}/tractor-i/{brick[:3]}/tractor-i-{brick}.fits"


def tractor_i_checksum_path(release, region, brick):
    """Return the path of the sha256sum file of the tractor-i folder that holds a brick.

    Parameters
    ----------
    release, region, brick : str
        As for `coadd_paths`.

    Returns
    -------
    str

    Examples
    --------
    >>> from astroquery_lis.survey.layout import tractor_i_checksum_path
    >>> print(tractor_i_checksum_path('dr10', 'south', '1901p012'))
    dr10/south/tractor-i/190/legacysurvey_dr10_south_tractor-i_190.sha256sum
    """
    tree = get_tree(release, region)
    name = _checksum_name(tree.folder, "tractor-i", brick[:3])
    return f"{tree.folder}/tractor-i/{brick[:3]}/{name}"


def metrics_path(release, region, brick, kind):
    """Return the path of one of the files of a brick in the metrics folder.

    Parameters
    ----------
    release, region, brick : str
        As for `coadd_paths`.
    kind : str
        A name of `METRICS`.

    Returns
    -------
    str

    Examples
    --------
    >>> from astroquery_lis.survey.layout import metrics_path
    >>> print(metrics_path('dr10', 'south', '1901p012', 'blobs'))
    dr10/south/metrics/190/blobs-1901p012.fits.gz
    """
    tree = get_tree(release, region)
    return f"{tree.folder}/metrics/{brick[:3]}/{kind}-{brick}{METRICS[kind]}"


def metrics_checksum_path(release, region, brick):
    """Return the path of the sha256sum file of the metrics folder that holds a brick.

    Parameters
    ----------
    release, region, brick : str
        As for `coadd_paths`.

    Returns
    -------
    str

    Examples
    --------
    >>> from astroquery_lis.survey.layout import metrics_checksum_path
    >>> print(metrics_checksum_path('dr10', 'south', '1901p012'))
    dr10/south/metrics/190/legacysurvey_dr10_south_metrics_190.sha256sum
    """
    tree = get_tree(release, region)
    name = _checksum_name(tree.folder, "metrics", brick[:3])
    return f"{tree.folder}/metrics/{brick[:3]}/{name}"
