"""Where the files lie that are not one brick's: sweep catalogues, tables of CCDs, random points."""

from types import MappingProxyType

from .bricks import brick_edges, parse_brick_name
from .layout import folder_checksum_path, get_tree
from .releases import get_release

__all__ = [
    "CAMERAS",
    "N_RANDOMS",
    "SWEEP_KINDS",
    "randoms_checksum_path",
    "randoms_path",
    "survey_ccds_path",
    "sweep_checksum_path",
    "sweep_names",
    "sweep_path",
]

SWEEP_KINDS = MappingProxyType(
    {
        "": ("", ""),
        "extra": ("-extra", "-ex"),
        "lightcurves": ("-lightcurves", "-lc"),
        "photo-z": ("-photo-z", "-pz"),
    }
)
"""Kinds of sweep catalogues: what is added to the folder and to the file name."""

CAMERAS = ("90prime", "mosaic", "decam")
N_RANDOMS = 20


def _sweep_folder(tree, kind):
    found = get_release(tree.release)
    version = found.sweep_versions[-1]
    if kind == "photo-z" and found.name == "dr9":
        # The photometric redshifts of DR9 were made anew for the same sweeps.
        version = "9.1"
    return f"{tree.folder}/sweep/{version}{SWEEP_KINDS[kind][0]}"


def sweep_names(release, region, brick):
    """Return the names of the sweep files whose boxes a brick touches.

    The boxes are 5 degrees high, and 10 degrees wide up to DR9, 5 degrees from DR10 on.

    Parameters
    ----------
    release, region, brick : str
        As for `coadd_paths`.

    Returns
    -------
    tuple of str
        Without the ending; mostly one.

    Examples
    --------
    >>> from astroquery_lis.survey.sweeps import sweep_names
    >>> sweep_names('dr10', 'south', '1901p012')
    ('sweep-190p000-195p005',)
    """
    tree = get_tree(release, region)
    width, height = (10 if get_release(tree.release).number < 10 else 5), 5
    ra1, ra2, dec1, dec2 = (float(edge) for edge in brick_edges(parse_brick_name(brick)))
    tiny = 1e-9
    names = []
    for row in range(int((dec1 + 90 + tiny) // height), int((dec2 + 90 - tiny) // height) + 1):
        dec = row * height - 90
        for column in range(int((ra1 + tiny) // width), int((ra2 - tiny) // width) + 1):
            ra = column * width
            low, high = _sweep_corner(ra, dec), _sweep_corner(ra + width, dec + height)
            names.append(f"sweep-{low}-{high}")
    return tuple(names)


def _sweep_corner(ra_deg, dec_deg):
    return f"{ra_deg:03d}{'m' if dec_deg < 0 else 'p'}{abs(dec_deg):03d}"


def sweep_path(release, region, name, kind=""):
    """Return the path of a sweep catalogue.

    Parameters
    ----------
    release, region : str
        For example ``'dr10'``, ``'south'``.
    name : str
        As `sweep_names` gives it.
    kind : str, optional
        A name of `SWEEP_KINDS`.

    Returns
    -------
    str
    """
    tree = get_tree(release, region)
    return f"{_sweep_folder(tree, kind)}/{name}{SWEEP_KINDS[kind][1]}.fits"


def sweep_checksum_path(release, region, kind=""):
    """Return the path of the sha256sum file of a sweep folder.

    Parameters
    ----------
    release, region : str
        For example ``'dr10'``, ``'south'``.
    kind : str, optional
        A name of `SWEEP_KINDS`.

    Returns
    -------
    str
    """
    tree = get_tree(release, region)
    return folder_checksum_path(_sweep_folder(tree, kind))


def survey_ccds_path(release, camera, *, annotated=False):
    """Return the path of the table of the CCDs of one camera.

    Parameters
    ----------
    release : str
        Release name.
    camera : str
        One of `CAMERAS`.
    annotated : bool, optional
        Whether the table with more columns is meant.

    Returns
    -------
    str
    """
    name = get_release(release).name
    return f"{name}/{'ccds-annotated' if annotated else 'survey-ccds'}-{camera}-{name}.fits.gz"


def randoms_path(release, number):
    """Return the path of one of the `N_RANDOMS` catalogues of random points.

    Parameters
    ----------
    release : str
        Release name; DR9 or later.
    number : int
        0 to 19.

    Returns
    -------
    str
    """
    return f"{get_release(release).name}/randoms/randoms-1-{number}.fits"


def randoms_checksum_path(release):
    """Return the path of the sha256sum file of the randoms.

    Parameters
    ----------
    release : str
        Release name.

    Returns
    -------
    str
    """
    return folder_checksum_path(f"{get_release(release).name}/randoms")
