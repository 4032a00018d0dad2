"""What every file of the survey is called: one table of templates, and which files a request means.

The folder ``{aaa}`` is the first three letters of the brick's name (not the integer part of its
RA, which differs for 40 bricks).  Names as documented in the releases' file pages and seen in the
DR10.1 list of re-released files.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from ..exceptions import meant, refuse
from .bricks import brick_edges, brick_id, name_of, parse_brick_name, region_of_brick
from .releases import (
    RELEASES,
    WISE_BANDS,
    WISE_PRODUCTS,
    DataRelease,
    Tree,
    as_bands,
    get_release,
    get_tree,
    listed,
)

NAN = float("nan")
_PATH = re.compile(r"[\w.+,/-]+", re.ASCII)
_SWEEP = re.compile(r"sweep(-\d{3}[pm]\d{3}){2}", re.ASCII)
IVAR_UNIT = "1/nanomaggy^2"


class CoaddProduct(NamedTuple):
    """One kind of image that every brick has."""

    name: str
    per_band: bool
    unit: str  # as the survey writes BUNIT; empty for pure numbers
    interpolated: bool  # whether a neighbour's pixels are interpolated smoothly, not the nearest
    no_value: float  # what a pixel holds where no brick file covers the sky
    description: str
    dtype: str = "float32"  # of its pixels; the widest, if releases differ


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
            ("nexp", True, "", False, 0, "number of good exposures", "int16"),
            ("psfsize", True, "arcsec", False, NAN, "weighted PSF FWHM"),
            ("maskbits", False, "", False, 1, "bit mask; NPRIMARY where no brick is", "int32"),
        )
    }
)
"""Every coadd product that has files of its own, by name."""

MASK_PLANES = MappingProxyType(
    {
        name: (hdu, CoaddProduct(name, False, "", False, 0, f"bright-star mask of {band}", "uint8"))
        for name, hdu, band in (("wisem1", 2, "W1"), ("wisem2", 3, "W2"))
    }
)
"""Planes beside MASKBITS in the same file, from DR8 on: HDU, and what they are."""


IMAGE_PRODUCTS = MappingProxyType(
    {**COADD_PRODUCTS, **{name: product for name, (_, product) in MASK_PLANES.items()}}
)
"""Every plane that a brick's files have, by name."""


class FileProduct(NamedTuple):
    """One kind of file."""

    name: str
    per: str  # what there is one of: "brick", "sweep", "region" or "release"
    since: int  # number of the first release that has it
    template: str  # one that ends in a slash means the list of checksums of that folder
    is_listed: bool  # whether its folder has a list of checksums
    description: str
    until: int = 99  # number of the last release that has it


N_RANDOMS = 20

RELEASE_WORDS = {
    "dr6": {"ccds": "dr6plus"},
    "dr9": {"randoms": "dr9-randoms-0.48.0", "matches": "dr9"},
    "dr10": {"randoms": "dr10.1-randoms-2.6.0", "matches": "dr10.1"},
}
"""What stands in names of files where it is not the release."""

_BEGINNINGS = {
    "{stem}": "{folder}/coadd/{aaa}/{brick}/legacysurvey-{brick}-",
    "{metrics}": "{folder}/metrics/{aaa}/",
    "{match}": "{folder}/external/survey-{matches}-{region}-",
}
# From the releases' file pages; what has no name here can be asked for by its path.  Name, what
# there is one of, first release (and last), whether listed, template, description.  The number
# sign stands for 0 to 19.
_TABLE = """
ccds-table brick 5 + {stem}ccds.fits CCDs that went into the coadds
depth-table brick 5 + {stem}depth.fits histogram of depths
image-jpg brick 5 + {stem}image.jpg JPEG picture of the image
model-jpg brick 5 + {stem}model.jpg JPEG picture of the model
resid-jpg brick 5 + {stem}resid.jpg JPEG picture of the resid
blobmodel-jpg brick 9 + {stem}blobmodel.jpg JPEG picture of the blobmodel
wise-jpg brick 8 + {stem}wise.jpg JPEG picture of the wise
wisemodel-jpg brick 8 + {stem}wisemodel.jpg JPEG picture of the wisemodel
wiseresid-jpg brick 10 + {stem}wiseresid.jpg JPEG picture of the wiseresid
tractor brick 5 + {folder}/tractor/{aaa}/tractor-{brick}.fits Tractor catalogue
tractor-i brick 5 + {folder}/tractor-i/{aaa}/tractor-i-{brick}.fits intermediate Tractor catalogue
all-models brick 8 + {metrics}all-models-{brick}.fits from the metrics folder
reference brick 8 + {metrics}reference-{brick}.fits from the metrics folder
blobs brick 8 + {metrics}blobs-{brick}.fits.gz from the metrics folder
outlier-mask brick 8 + {metrics}outlier-mask-{brick}.fits.fz from the metrics folder
outliers-pre brick 8 + {metrics}outliers-pre-{brick}.jpg from the metrics folder
outliers-post brick 8 + {metrics}outliers-post-{brick}.jpg from the metrics folder
outliers-masked-pos brick 8 + {metrics}outliers-masked-pos-{brick}.jpg from the metrics folder
outliers-masked-neg brick 8 + {metrics}outliers-masked-neg-{brick}.jpg from the metrics folder
coadd-checksums brick 8 - {folder}/coadd/{aaa}/{brick}/ sha256 list of the coadd folder
tractor-checksums brick 8 - {folder}/tractor/{aaa}/ sha256 list of the tractor folder
tractor-i-checksums brick 8 - {folder}/tractor-i/{aaa}/ sha256 list of the tractor-i folder
metrics-checksums brick 8 - {folder}/metrics/{aaa}/ sha256 list of the metrics folder
sweep sweep 5 + {folder}/sweep/{version}/{brick}.fits light catalogue of a box of some degrees
sweep-photo-z sweep 8 + {folder}/sweep/{redshifts}-photo-z/{brick}-pz.fits redshifts of a sweep
sweep-extra sweep 9 + {folder}/sweep/{version}-extra/{brick}-ex.fits more columns
sweep-lightcurves sweep 9 + {folder}/sweep/{version}-lightcurves/{brick}-lc.fits WISE light curves
region-bricks region 5 - {folder}/survey-bricks-{tree}.fits.gz table of the bricks of a region
survey-bricks release 5 - {release}/{name}.fits.gz table of all bricks
region-depth region 5 + {folder}/{tree}-depth.fits.gz histograms of depth of all bricks
region-depth-summary region 5 + {folder}/{tree}-depth-summary.fits.gz sum of those of all bricks
survey-ccds-90prime release 8 - {release}/{name}-{release}.fits.gz table of the CCDs
ccds-annotated-90prime release 8 - {release}/{name}-{release}.fits.gz CCDs with more columns
survey-ccds-90prime-kd release 8-9 - {release}/survey-ccds-90prime-{release}.kd.fits CCDs as a tree
survey-ccds-mosaic release 8 - {release}/{name}-{release}.fits.gz table of the CCDs
ccds-annotated-mosaic release 8 - {release}/{name}-{release}.fits.gz CCDs with more columns
survey-ccds-mosaic-kd release 8-9 - {release}/survey-ccds-mosaic-{release}.kd.fits CCDs as a tree
survey-ccds-decam release 8 - {release}/{name}-{release}.fits.gz table of the CCDs
ccds-annotated-decam release 8 - {release}/{name}-{release}.fits.gz CCDs with more columns
survey-ccds-decam-kd release 8-10 - {release}/survey-ccds-decam-{release}.kd.fits CCDs as a tree
survey-ccds release 7-7 - {release}/{name}-{release}.fits.gz table of the CCDs
ccds-annotated release 7-7 - {release}/{name}-{release}.fits.gz CCDs with more columns
survey-ccds-kd release 5-7 - {release}/survey-ccds-{ccds}.kd.fits CCDs as a tree
survey-ccds-nocuts release 5-5 - {release}/{name}.fits.gz table of all CCDs
randoms-1-# release 9 + {release}/randoms/{name}.fits random points
randoms-outside-1-# release 9 + {release}/randoms/{name}.fits random points outside the footprint
randoms-allsky-1-# release 9 + {release}/randoms/{name}.fits random points all over the sky
randoms-region-1-# region 9-10 + {folder}/randoms/randoms-{region}-1-#.fits randoms of a region
randoms-bricks release 9-10 + {release}/randoms/survey-bricks-{randoms}.fits bricks of the randoms
match-specObj-dr16 region 9-10 + {match}specObj-dr16.fits matches of specObj-dr16
match-dr16Q-v4 region 10-10 + {match}dr16Q-v4.fits matches of dr16Q-v4
match-superset-dr16Q-v3 region 10-10 + {match}superset-dr16Q-v3.fits matches of superset-dr16Q-v3
match-dr12Q region 10-10 + {match}dr12Q.fits matches of dr12Q
match-superset-dr12Q region 10-10 + {match}superset-dr12Q.fits matches of superset-dr12Q
match-dr7Q region 10-10 + {match}dr7Q.fits matches of dr7Q
gaia-mask release 9-10 + {release}/masking/{name}-{release}.fits.gz stars that are masked
"""


def _coadd_products() -> Iterator[FileProduct]:
    for name, product in COADD_PRODUCTS.items():
        template = _BEGINNINGS["{stem}"] + name + ("-{band}" if product.per_band else "")
        yield FileProduct(name, "brick", 5, template + "{ending}", True, product.description)


def _products_of(line: str) -> Iterator[FileProduct]:
    """Yield the kinds of files of a line of the table: one, or one for each set of randoms."""
    name, per, releases, listed, template, description = line.split(maxsplit=5)
    since, _, until = releases.partition("-")
    for beginning, text in _BEGINNINGS.items():
        template = template.replace(beginning, text)
    for number in map(str, range(N_RANDOMS if "#" in name else 1)):
        kind, last = name.replace("#", number), int(until or 99)
        path = template.replace("{name}", kind).replace("#", number)
        yield FileProduct(kind, per, int(since), path, listed == "+", description, last)


_LINES = _TABLE.strip().split("\n")
FILE_PRODUCTS = MappingProxyType(
    {kind.name: kind for kind in itertools.chain(_coadd_products(), *map(_products_of, _LINES))}
)
"""Every kind of file, by name."""


@lru_cache(maxsize=4096)
def file_paths(
    kind: str, release: str, region: str = "", *, brick: str = "", band: str | None = ""
) -> tuple[str, ...]:
    """Return the names that a file may have, the likeliest first; `brick` may be a sweep."""
    product = FILE_PRODUCTS[kind]
    data = get_release(release)
    words = {"release": data.name, "brick": brick, "aaa": brick[:3], "band": band}
    words |= {"ccds": data.name, "region": region}
    if product.per != "release":
        tree = get_tree(release, region)
        data = get_release(tree.release)
        words |= {"folder": tree.folder, "tree": tree.folder.replace("/", "-")}
        words["version"] = data.sweep_versions[-1]
        # The photometric redshifts of DR9 were made anew for the same sweeps.
        words["redshifts"] = "9.1" if data.name == "dr9" else data.sweep_versions[-1]
    words |= RELEASE_WORDS.get(data.name, {})
    template = product.template
    if template.endswith("/"):
        return (checksum_path(template.format(**words).rstrip("/")),)
    endings = data.suffixes if "{ending}" in template else ("",)
    return tuple(template.format(ending=ending, **words) for ending in endings)


def file_path(
    kind: str, release: str, region: str = "", *, brick: str = "", band: str | None = ""
) -> str:
    """Return the likeliest of `file_paths`.

    >>> from astroquery_lis.survey.paths import file_path
    >>> file_path('image', 'dr10', 'south', brick='1901p012', band='r')
    'dr10/south/coadd/190/1901p012/legacysurvey-1901p012-image-r.fits.fz'
    >>> file_path('region-bricks', 'dr10', 'south')
    'dr10/south/survey-bricks-dr10-south.fits.gz'
    """
    return file_paths(kind, release, region, brick=brick, band=band)[0]


# Many cutouts of a job are of few bricks.
@lru_cache(maxsize=4096)
def tree_of_brick(release: DataRelease, region: str, brick: int) -> Tree:
    """Return the tree that a brick's files are in; in ``'auto'`` of its official region."""
    name = str(region_of_brick(brick, release.name)) if region == "auto" else region
    return release.trees[name]


@lru_cache(maxsize=8192)
def plane_file(
    tree: Tree, brick: str, product: str, band: str | None
) -> tuple[tuple[str, ...], int | None] | None:
    """Return paths and HDU of a plane (`None`: the first); `None` if its tree has no such file."""
    release = RELEASES[tree.release]
    if band not in (None, *tree.bands, *WISE_BANDS):
        return None
    if product not in (*release.products, *release.mask_planes):
        return None
    hdu = MASK_PLANES[product][0] if product in MASK_PLANES else None
    file = "maskbits" if hdu else product
    return file_paths(file, tree.release, tree.region, brick=brick, band=band), hdu


def checksum_path(folder: str) -> str:
    """Return the path of the list of checksums of a folder."""
    return f"{folder}/legacysurvey_{folder.replace('/', '_')}.sha256sum"


@dataclass(frozen=True)
class SurveyFile:
    """One file that is meant."""

    paths: tuple[str, ...]  # likeliest name first; empty if the release cannot have it
    checksum_path: str | None
    release: str
    region: str  # empty for a file of the whole release
    brick: str  # brick or sweep; empty for a file of a whole region or release
    product: str
    band: str = ""


def has_product(release: DataRelease, name: str) -> bool:
    """Return True if a release has a kind of file."""
    if name in COADD_PRODUCTS:
        return name in release.products
    return FILE_PRODUCTS[name].since <= release.number <= FILE_PRODUCTS[name].until


def as_file_products(products: str | Iterable[str], release: str) -> tuple[str, ...]:
    """Return names of `FILE_PRODUCTS` that a release has, as a tuple without repeats."""
    data = get_release(release)
    allowed = [name for name in FILE_PRODUCTS if has_product(data, name)]
    names = tuple(listed(products, allowed))
    hint = f"allowed: {_with_families(allowed)}."
    if not names:
        refuse("products", products, f"names no product; {hint}")
    for name in names:
        if name not in allowed:
            reason = f"is not in {release}" if name in FILE_PRODUCTS else "is not a product"
            refuse("products", name, f"{reason}; {hint}{meant(name, allowed)}")
    return names


def _with_families(kinds: list[str]) -> str:
    """Return kinds of files in a line, those of the randoms as one."""
    families = dict.fromkeys(kind.rpartition("-")[0] for kind in kinds if "-1-" in kind)
    ranges = (f"{family}-0 to {family}-{N_RANDOMS - 1}" for family in families)
    return ", ".join((*(kind for kind in kinds if "-1-" not in kind), *ranges))


def as_file_bands(
    bands: str | Iterable[str] | None, products: Iterable[str], release: str, region: str = "auto"
) -> tuple[str, ...] | None:
    """Return bands (``'grz'``, ``'g,W1'``, a list) as a tuple without repeats; `None` stays."""
    has_wise = not set(products).isdisjoint(WISE_PRODUCTS)
    return as_bands(bands, release, region, more=get_release(release).wise_bands * has_wise)


def plan_files(
    bricks: np.ndarray | list[int],
    *,
    products: tuple[str, ...],
    bands: tuple[str, ...] | None,
    release: str,
    region: str,
    sweeps: Iterable[str] = (),
    positions: Iterable[tuple[float, float]] | None = None,
) -> list[SurveyFile]:
    """Return the files that brick ids (or sweeps), products and bands mean, each once.

    Where positions are known, a sweep is meant that holds one; else each that a brick touches.

    The bands `None` are the optical ones of the region; the region ``'auto'`` is the one that is
    official for each brick.
    """
    all_regions = get_release(release).regions_of(region)
    ids = np.asarray(bricks, np.int64)
    regions = _regions_of(ids, release, region)
    places = {
        "release": [("", "")],
        "region": list(itertools.product(all_regions, ("",))),
        "brick": list(zip(regions, name_of(ids).tolist(), strict=True)),
    }
    if any(FILE_PRODUCTS[name].per == "sweep" for name in products):
        named = [(each, sweep) for sweep, each in itertools.product(sweeps, all_regions)]
        touched = _sweeps_of(zip(regions, ids.tolist(), strict=True), release)
        if positions is not None:
            touched = _sweeps_at(positions, release, region)
        places["sweep"] = [*named, *touched]
    files: list[SurveyFile] = []
    for name in products:
        of_kind = places[FILE_PRODUCTS[name].per]
        if not of_kind:
            refuse("products", name, "needs bricks or coordinates.")
        files += [
            _survey_file(name, release, each, brick_or_sweep, band)
            for each, brick_or_sweep in of_kind
            for band in _file_bands(name, release, each, bands)
        ]
    return list(dict.fromkeys(files))


def _regions_of(ids: np.ndarray, release: str, region: str) -> list[str]:
    """Return the region of each brick."""
    regions = region_of_brick(ids, release) if region == "auto" else np.full(len(ids), region)
    return regions.tolist()


def _sweeps_of(bricks: Iterable[tuple[str, int]], release: str) -> Iterator[tuple[str, str]]:
    """Yield the region of each brick, with each sweep that it touches."""
    for region, brick in bricks:
        for sweep in sweep_names(release, region, brick):
            yield region, sweep


def _sweeps_at(
    positions: Iterable[tuple[float, float]], release: str, region: str
) -> Iterator[tuple[str, str]]:
    """Yield the region of each position, and its sweep."""
    for ra_deg, dec_deg in positions:
        each = region
        if region == "auto":
            each = str(region_of_brick(brick_id(ra_deg, dec_deg), release))
        yield each, sweep_at(release, each, ra_deg, dec_deg)


def file_at_path(path: str) -> SurveyFile:
    """Return the file of a path in the survey's tree."""
    parts = path.strip().removeprefix("/").split("/")
    is_path = len(parts) > 1 and all(part.strip(". ") for part in parts)
    if not is_path or not _PATH.fullmatch(path.strip()):
        must = "must be a file's path in the survey's tree, such as 'dr9/survey-bricks.fits.gz'."
        refuse("path", path, must)
    folder = "/".join(parts[:-1])
    region = parts[1] if parts[1] in ("north", "south") else ""
    lists = checksum_path(folder) if not path.endswith(".sha256sum") else None
    return SurveyFile(("/".join(parts),), lists, parts[0], region, "", "")


def _file_bands(
    name: str, release: str, region: str, bands: tuple[str, ...] | None
) -> Iterator[str]:
    """Yield the bands that a product of a brick is asked in; nothing but ``''`` without bands."""
    if "{band}" not in FILE_PRODUCTS[name].template:
        yield ""
        return
    for band in get_tree(release, region).bands if bands is None else bands:
        if band not in WISE_BANDS or name in WISE_PRODUCTS:
            yield band


def _survey_file(
    name: str, release: str, region: str, brick: str = "", band: str = ""
) -> SurveyFile:
    """Return one file, without any path if its region lacks the band."""
    product = FILE_PRODUCTS[name]
    names = file_paths(name, release, region, brick=brick, band=band)
    listed = checksum_path(names[0].rpartition("/")[0]) if product.is_listed else None
    owner = get_release(release).name
    if region:
        tree = get_tree(release, region)
        owner = tree.release
        if band and band not in (*tree.bands, *WISE_BANDS):
            names = ()
    return SurveyFile(names, listed, owner, region, brick, name, band)


# ---- sweeps, each called after the box in RA and Dec of which it has the rows --------------------


def sweep_names(release: str, region: str, brick: str | int) -> tuple[str, ...]:
    """Return the names of the sweep files whose boxes a brick touches, without the ending.

    The boxes are 5 degrees high, and 10 degrees wide up to DR9, 5 degrees from DR10 on.
    """
    number = parse_brick_name(brick) if isinstance(brick, str) else brick
    ra1, ra2, dec1, dec2 = (float(edge) for edge in brick_edges(number))
    width, tiny = _sweep_width(release, region), 1e-9
    return tuple(
        _sweep_name(row, column, width)
        for row in range(int((dec1 + 90 + tiny) // 5), int((dec2 + 90 - tiny) // 5) + 1)
        for column in range(int((ra1 + tiny) // width), int((ra2 - tiny) // width) + 1)
    )


def sweep_at(release: str, region: str, ra_deg: float, dec_deg: float) -> str:
    """Return the name of the sweep file that has the rows at a position."""
    width = _sweep_width(release, region)
    row = min(int((dec_deg + 90) // 5), 35)
    return _sweep_name(row, int(ra_deg % 360 // width), width)


def _sweep_width(release: str, region: str) -> int:
    return 10 if get_release(get_tree(release, region).release).number < 10 else 5


def _sweep_name(row: int, column: int, width: int) -> str:
    dec, ra = row * 5 - 90, column * width
    return f"sweep-{_sweep_corner(ra, dec)}-{_sweep_corner(ra + width, dec + 5)}"


def _sweep_corner(ra_deg: int, dec_deg: int) -> str:
    return f"{ra_deg:03d}{'m' if dec_deg < 0 else 'p'}{abs(dec_deg):03d}"


def sweep_box(name: str) -> tuple[float, float, float, float]:
    """Return (RA, RA, Dec, Dec), degrees, between which a sweep has the rows."""
    low, high = name.removesuffix(".fits").split("-")[1:3]
    ra1, ra2 = int(low[:3]), int(high[:3])
    dec1, dec2 = (int(corner[4:]) * (-1 if corner[3] == "m" else 1) for corner in (low, high))
    return ra1, ra2, dec1, dec2


def is_sweep_name(text: object) -> bool:
    """Return True if a string is the name of a sweep file, such as ``'sweep-190p000-195p005'``."""
    return _SWEEP.fullmatch(str(text).strip().removesuffix(".fits")) is not None
