"""Which files a list of bricks, products and bands means, and which list has their checksums."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from ..exceptions import InvalidRequestError
from . import layout
from . import sweeps as boxes
from .bricks import name_of, region_of_brick
from .releases import get_release

__all__ = [
    "FILE_PRODUCTS",
    "FileProduct",
    "SurveyFile",
    "as_file_bands",
    "as_file_products",
    "has_product",
    "is_sweep_name",
    "plan_files",
]


class FileProduct(NamedTuple):
    """One kind of file.

    Attributes
    ----------
    name : str
        What to ask for.
    per : str
        What there is one of: ``'brick'``, ``'sweep'``, ``'region'`` or ``'release'``.
    since : int
        Number of the first release that has it.
    kind : str
        The part of the name that its path is made of.
    description : str
        One line.
    """

    name: str
    per: str
    since: int
    kind: str
    description: str


def _products():
    """Yield every `FileProduct`."""
    for product in layout.COADD_PRODUCTS.values():
        yield FileProduct(product.name, "brick", 5, product.name, product.description)
    tables = {"ccds": "CCDs that went into the coadds", "depth": "histogram of depths"}
    for kind, text in tables.items():
        yield FileProduct(f"{kind}-table", "brick", 5, kind, text)
    since = {"blobmodel": 9, "wise": 8, "wisemodel": 8, "wiseresid": 10}
    for kind in layout.BRICK_PICTURES:
        text = f"JPEG picture of the {kind}"
        yield FileProduct(f"{kind}-jpg", "brick", since.get(kind, 5), kind, text)
    yield FileProduct("tractor", "brick", 5, "tractor", "Tractor catalogue")
    yield FileProduct("tractor-i", "brick", 5, "tractor-i", "intermediate Tractor catalogue")
    for kind in layout.METRICS:
        yield FileProduct(kind, "brick", 8, kind, "from the metrics folder")
    for kind in ("coadd", "tractor", "tractor-i", "metrics"):
        text = f"sha256 list of the {kind} folder"
        yield FileProduct(f"{kind}-checksums", "brick", 8, kind, text)
    first = {"": 5, "photo-z": 8, "extra": 9, "lightcurves": 9}
    for kind, number in first.items():
        name = f"sweep-{kind}" if kind else "sweep"
        yield FileProduct(name, "sweep", number, kind, "light catalogue of a box of some degrees")
    yield FileProduct("region-bricks", "region", 5, "", "table of the bricks of a region")
    yield FileProduct("survey-bricks", "release", 5, "", "table of all bricks")
    for camera in boxes.CAMERAS:
        yield FileProduct(f"survey-ccds-{camera}", "release", 8, camera, "table of the CCDs")
        name, text = f"ccds-annotated-{camera}", "table of the CCDs with more columns"
        yield FileProduct(name, "release", 8, camera, text)
    for number in range(boxes.N_RANDOMS):
        yield FileProduct(f"randoms-1-{number}", "release", 9, str(number), "random points")


FILE_PRODUCTS = MappingProxyType({product.name: product for product in _products()})
"""Every kind of file, by name."""


@dataclass(frozen=True)
class SurveyFile:
    """One file that is meant.

    Attributes
    ----------
    paths : tuple of str
        Names that it may have, relative to the survey's root, the likeliest first; empty if the
        release cannot have it.
    checksum_path : str or None
        The list that has its sha256; `None` if there is none.
    release, region : str
        Where it lies; the region is empty for a file of the whole release.
    brick : str
        Name of the brick or of the sweep; empty for a file of a whole region or release.
    product, band : str
        A name of `FILE_PRODUCTS`, and the band or nothing.
    """

    paths: tuple
    checksum_path: str | None
    release: str
    region: str
    brick: str
    product: str
    band: str = ""


def as_file_products(products, release):
    """Return names of products as a tuple without repeats.

    Parameters
    ----------
    products : str or iterable of str
        Names of `FILE_PRODUCTS`.
    release : str
        Release that must have them.

    Returns
    -------
    tuple of str

    Raises
    ------
    InvalidRequestError
    """
    found = get_release(release)
    allowed = [name for name in FILE_PRODUCTS if has_product(found, name)]
    try:
        names = (products,) if isinstance(products, str) else tuple(dict.fromkeys(products))
    except TypeError:
        names = ()
    hint = f"allowed: {', '.join(n for n in allowed if not n.startswith('randoms'))}"
    hint += f", randoms-1-0 to randoms-1-{boxes.N_RANDOMS - 1}." if found.number >= 9 else "."
    if not names:
        msg = f"products={products!r} names no product; {hint}"
        raise InvalidRequestError(msg, parameter="products", value=products)
    for name in names:
        if name not in allowed:
            reason = f"is not in {release}" if name in FILE_PRODUCTS else "is not a product"
            msg = f"products={name!r} {reason}; {hint}"
            raise InvalidRequestError(msg, parameter="products", value=name)
    return names


def has_product(release, name):
    """Tell whether a release has a kind of file.

    Parameters
    ----------
    release : `~.releases.DataRelease`
        The release.
    name : str
        A name of `FILE_PRODUCTS`.

    Returns
    -------
    bool
    """
    if name in layout.COADD_PRODUCTS:
        return name in release.products
    return release.number >= FILE_PRODUCTS[name].since


def as_file_bands(bands, products, release, region="auto"):
    """Return bands as a tuple without repeats, or `None`.

    Parameters
    ----------
    bands : str, iterable of str, or None
        ``'grz'``, ``'g,r,z,W1'`` or ``['g', 'W1']``; `None` stays.
    products : tuple of str
        Products, of which at least one must come in each band.
    release, region : str
        What must have the optical bands.

    Returns
    -------
    tuple of str or None

    Raises
    ------
    InvalidRequestError
    """
    if bands is None:
        return None
    found = get_release(release)
    allowed = found.bands if region == "auto" else layout.get_tree(release, region).bands
    if found.number >= 8 and any(name in layout.WISE_PRODUCTS for name in products):
        allowed = (*allowed, *layout.WISE_BANDS)
    if isinstance(bands, str):
        names = bands.replace(",", " ").split()
        names = list(names[0]) if len(names) == 1 and names[0] not in allowed else names
    else:
        try:
            names = list(bands)
        except TypeError:
            names = []
    for name in names or [None]:
        if name not in allowed:
            where = release if region == "auto" else f"{release} {region}"
            listed = ", ".join(allowed)
            msg = f"bands={bands!r} must name bands of {', '.join(products)} in {where}: {listed}."
            raise InvalidRequestError(msg, parameter="bands", value=bands)
    return tuple(dict.fromkeys(names))


def is_sweep_name(text):
    """Tell whether a string is the name of a sweep file, such as ``'sweep-190p000-195p005'``."""
    name = str(text).strip().removesuffix(".fits")
    parts = name.split("-")
    return (
        len(parts) == 3
        and parts[0] == "sweep"
        and all(
            len(part) == 7 and part[3] in "pm" and (part[:3] + part[4:]).isdigit()
            for part in parts[1:]
        )
    )


def plan_files(bricks, *, products, bands, release, region, sweeps=()):
    """Return the files that are meant, each once.

    Parameters
    ----------
    bricks : array_like of int
        Brick ids; may be empty.
    products : tuple of str
        As `as_file_products` returns them.
    bands : tuple of str or None
        As `as_file_bands` returns them; `None` for the optical bands of the region.
    release, region : str
        ``'auto'`` takes the region that is official for each brick.
    sweeps : iterable of str, optional
        Names of sweep files.

    Returns
    -------
    list of SurveyFile

    Raises
    ------
    InvalidRequestError
        If a product needs bricks and there are none.
    """
    found = get_release(release)
    names = np.atleast_1d(name_of(bricks)).tolist() if len(bricks) else []
    if region == "auto":
        regions = [str(r) for r in region_of_brick(bricks, release)] if names else []
        all_regions = found.regions
    else:
        regions, all_regions = [region] * len(names), (region,)
    places = list(zip(names, regions, strict=True))
    files = []
    for name in products:
        product = FILE_PRODUCTS[name]
        if product.per == "release":
            files.append(_release_file(found.name, product))
        elif product.per == "region":
            files += [_region_file(found.name, each) for each in all_regions]
        elif product.per == "sweep" and (places or sweeps):
            files += _sweep_files(found.name, product, places, sweeps, all_regions)
        elif product.per == "brick" and places:
            for brick, where in places:
                files += _brick_files(found.name, where, brick, product, bands)
        else:
            msg = f"products={name!r} needs bricks or coordinates."
            raise InvalidRequestError(msg, parameter="products", value=name)
    return list(dict.fromkeys(files))


def _release_file(release, product):
    checksums = None
    if product.name == "survey-bricks":
        path = layout.survey_bricks_path(release)
    elif product.name.startswith("randoms"):
        path = boxes.randoms_path(release, int(product.kind))
        checksums = boxes.randoms_checksum_path(release)
    else:
        annotated = product.name.startswith("ccds-annotated")
        path = boxes.survey_ccds_path(release, product.kind, annotated=annotated)
    return SurveyFile((path,), checksums, release, "", "", product.name)


def _region_file(release, region):
    path = layout.region_bricks_path(release, region)
    tree = layout.get_tree(release, region)
    return SurveyFile((path,), None, tree.release, region, "", "region-bricks")


def _sweep_files(release, product, places, sweeps, regions):
    wanted = [(name, region) for name in sweeps for region in regions]
    for brick, region in places:
        wanted += [(name, region) for name in boxes.sweep_names(release, region, brick)]
    for name, region in wanted:
        path = boxes.sweep_path(release, region, name, product.kind)
        checksums = boxes.sweep_checksum_path(release, region, product.kind)
        tree = layout.get_tree(release, region)
        yield SurveyFile((path,), checksums, tree.release, region, name, product.name)


_OTHER_FOLDERS = {
    "tractor": (layout.tractor_path, layout.tractor_checksum_path),
    "tractor-i": (layout.tractor_i_path, layout.tractor_i_checksum_path),
}
_CHECKSUMS = {
    "coadd": layout.coadd_checksum_path,
    "tractor": layout.tractor_checksum_path,
    "tractor-i": layout.tractor_i_checksum_path,
    "metrics": layout.metrics_checksum_path,
}


def _brick_files(release, region, brick, product, bands):
    """Yield the files of one product of one brick."""
    tree = layout.get_tree(release, region)
    place = (release, region, brick)
    about = (tree.release, region, brick, product.name)
    name, kind = product.name, product.kind
    if name in layout.COADD_PRODUCTS:
        checksums = layout.coadd_checksum_path(*place)
        if not layout.COADD_PRODUCTS[name].per_band:
            paths = layout.coadd_paths(release, region, name, brick)
            yield SurveyFile(paths, checksums, *about)
            return
        has = (*tree.bands, *layout.WISE_BANDS) if name in layout.WISE_PRODUCTS else tree.bands
        for band in tree.bands if bands is None else bands:
            if band in layout.WISE_BANDS and name not in layout.WISE_PRODUCTS:
                continue
            paths = ()
            if band in has:
                paths = layout.coadd_paths(release, region, name, brick, band)
            yield SurveyFile(paths, checksums, *about, band)
        return
    if name.endswith("-checksums"):
        path, checksums = _CHECKSUMS[kind](*place), None
    elif name in _OTHER_FOLDERS:
        make, make_checksums = _OTHER_FOLDERS[name]
        path, checksums = make(*place), make_checksums(*place)
    elif kind in layout.METRICS:
        path = layout.metrics_path(*place, kind)
        checksums = layout.metrics_checksum_path(*place)
    else:
        make = layout.brick_picture_path if name.endswith("-jpg") else layout.brick_table_path
        path, checksums = make(*place, kind), layout.coadd_checksum_path(*place)
    yield SurveyFile((path,), checksums, *about)
