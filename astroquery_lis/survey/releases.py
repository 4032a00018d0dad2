"""The data releases DR5 to DR11: regions, bands, products, where each lives, and users' names."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from ..exceptions import meant, refuse

if TYPE_CHECKING:
    from .layers import Layer

__all__ = ["RELEASES", "DataRelease", "Tree", "get_release", "get_tree"]

R = TypeVar("R", bound=str)

PIXEL_SCALE_ARCSEC = 0.262
"""Pixel scale of every optical coadd, arcsec (legacypipe ``get_brick_wcs``)."""

REGIONS = ("north", "south")

WISE_BANDS = ("W1", "W2", "W3", "W4")
"""Bands of the WISE coadds, which came with DR8."""

WISE_PRODUCTS = ("image", "invvar", "model")

_BASE_PRODUCTS = ("image", "invvar", "model", "chi2", "depth", "galdepth", "nexp")
_DR7_PRODUCTS = (*_BASE_PRODUCTS, "maskbits")
_DR8_PRODUCTS = (*_DR7_PRODUCTS, "psfsize")
_DR9_PRODUCTS = (*_DR8_PRODUCTS, "blobmodel")

DERIVED = {
    "resid": ("image", "model"),
    "snr": ("image", "invvar"),
    "sigma": ("invvar",),
}
"""Planes made of others: image - model, image sqrt(invvar), 1 / sqrt(invvar)."""


@dataclass(frozen=True)
class Tree:
    """One region of one release as it lies on disk.

    Attributes
    ----------
    release : str
        Release that the files belong to: the north of ``dr10`` is that of ``dr9``.
    region : str
        ``'north'`` (BASS and MzLS) or ``'south'`` (DECam).
    folder : str
        Folder of the region, relative to the mirror's root, e.g. ``'dr9/north'`` or ``'dr6'``.
    bands : tuple of str
        Optical bands, blue to red.

    Examples
    --------
    >>> from astroquery_lis.survey.releases import RELEASES
    >>> RELEASES['dr10'].trees['north'].folder
    'dr9/north'
    """

    release: str
    region: str
    folder: str
    bands: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class DataRelease:
    """What one data release has.

    Attributes
    ----------
    name : str
        ``'dr5'`` to ``'dr11'``.
    number : int
        The number in the name.
    trees : mapping of str to `Tree`
        The regions that the release has.
    products : tuple of str
        Coadd products with a file per brick.
    suffixes : tuple of str
        File name endings to try, the likeliest first.
    sweep_versions : tuple of str
        Folders of the sweep catalogues, newest last.
    note : str
        What a user should know, one sentence, or empty.

    Examples
    --------
    >>> from astroquery_lis.survey.releases import RELEASES
    >>> RELEASES['dr10'].bands, RELEASES['dr10'].is_split
    (('g', 'r', 'i', 'z'), True)
    """

    name: str
    number: int
    trees: Mapping[str, Tree]
    products: tuple[str, ...]
    suffixes: tuple[str, ...]
    sweep_versions: tuple[str, ...]
    note: str

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return get_release, (self.name,)

    @cached_property
    def regions(self) -> tuple[str, ...]:
        """Regions of the release, north first."""
        return tuple(region for region in REGIONS if region in self.trees)

    def regions_of(self, region: str) -> tuple[str, ...]:
        """Return the regions that a choice means.

        Parameters
        ----------
        region : {'auto', 'north', 'south'}
            ``'auto'`` means all that the release has, north first.

        Returns
        -------
        tuple of str

        Examples
        --------
        >>> from astroquery_lis.survey.releases import get_release
        >>> get_release('dr10').regions_of('auto')
        ('north', 'south')
        """
        return self.regions if region == "auto" else (region,)

    @cached_property
    def bands(self) -> tuple[str, ...]:
        """Every optical band that some region of the release has, blue to red."""
        present = {band for tree in self.trees.values() for band in tree.bands}
        return tuple(band for band in "griz" if band in present)

    @cached_property
    def bands_in(self) -> Mapping[str, tuple[str, ...]]:
        """The optical bands of each region; of ``'auto'`` those that either has."""
        return {"auto": self.bands, **{name: tree.bands for name, tree in self.trees.items()}}

    @cached_property
    def wise_bands(self) -> tuple[str, ...]:
        """The WISE bands, if the release has them."""
        return WISE_BANDS if self.number >= 8 else ()

    @cached_property
    def mask_planes(self) -> tuple[str, ...]:
        """The planes that lie beside MASKBITS in its file."""
        return ("wisem1", "wisem2") if self.number >= 8 else ()

    @property
    def is_split(self) -> bool:
        """Whether the release has a north and a south, told apart by ``bricks.is_north``."""
        return len(self.trees) == 2


# Number, folder and bands of each region, products, folders of the sweeps, what users should know.
# A folder begins with the release that its files belong to.
_ROWS: tuple[tuple[int, dict[str, tuple[str, str]], tuple[str, ...], tuple[str, ...], str], ...] = (
    (5, {"south": ("dr5", "grz")}, _BASE_PRODUCTS, ("5.0",), "South only; no maskbits."),
    (6, {"north": ("dr6", "grz")}, _BASE_PRODUCTS, ("6.0",), "North only; no maskbits."),
    (7, {"south": ("dr7", "grz")}, _DR7_PRODUCTS, ("7.0", "7.1"), "South only."),
    (
        8,
        {"north": ("dr8/north", "grz"), "south": ("dr8/south", "grz")},
        *(_DR8_PRODUCTS, ("8.0",), ""),
    ),
    (
        9,
        {"north": ("dr9/north", "grz"), "south": ("dr9/south", "grz")},
        *(_DR9_PRODUCTS, ("9.0",)),
        "blobmodel files are not compressed, whatever their name says.",
    ),
    (
        10,
        {"north": ("dr9/north", "grz"), "south": ("dr10/south", "griz")},
        *(_DR9_PRODUCTS, ("10.0", "10.1")),
        "DR10 has no north of its own: its north is that of DR9, without i.",
    ),
    (
        11,
        {"north": ("dr11/north", "grz"), "south": ("dr11/south", "griz")},
        *(_DR9_PRODUCTS, ("11.0",), "The north has no i band."),
    ),
)

# Which names an early release really used was only ever seen for DR6 (.fits.fz, against its own
# documentation), so the documented endings stay as second choices.
_EARLY_SUFFIXES = (".fits.fz", ".fits", ".fits.gz")


def _releases() -> Iterator[DataRelease]:
    for number, folders, products, sweep_versions, note in _ROWS:
        trees = {
            region: Tree(folder.partition("/")[0], region, folder, tuple(bands))
            for region, (folder, bands) in folders.items()
        }
        suffixes = _EARLY_SUFFIXES if number < 8 else (".fits.fz",)
        about = MappingProxyType(trees), products, suffixes, sweep_versions, note
        yield DataRelease(f"dr{number}", number, *about)


RELEASES = MappingProxyType({release.name: release for release in _releases()})


def get_release(name: str | int) -> DataRelease:
    """Return the `DataRelease` called ``name``.

    Parameters
    ----------
    name : str or int
        ``'dr10'``, ``'DR10'``, ``'10'`` or ``10``.

    Returns
    -------
    DataRelease

    Raises
    ------
    InvalidRequestError
        If there is no such release.

    Examples
    --------
    >>> from astroquery_lis.survey.releases import get_release
    >>> get_release('DR10').bands
    ('g', 'r', 'i', 'z')
    """
    key = str(name).strip().lower()
    key = key if key.startswith("dr") else f"dr{key}"
    if isinstance(name, (str, int)) and not isinstance(name, bool) and key in RELEASES:
        return RELEASES[key]
    refuse("release", name, f"is not a data release; allowed: {', '.join(RELEASES)}.")


def get_tree(release: str | int, region: str) -> Tree:
    """Return the `Tree` that holds a region of a release.

    Parameters
    ----------
    release : str or int
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
    >>> from astroquery_lis.survey.releases import get_tree
    >>> get_tree('dr10', 'north').folder
    'dr9/north'
    """
    data = get_release(release)
    if not isinstance(region, str) or region not in data.trees:
        allowed = ", ".join(("auto", *data.regions))
        refuse("region", region, f"is not in {data.name}; allowed: {allowed}.")
    return data.trees[region]


# ---- words of users -----------------------------------------------------------------------------


def as_region(region: R, release: str) -> R:
    """Return a region that the release has, or ``'auto'``."""
    if isinstance(region, str) and region == "auto":
        return region
    regions = get_release(release).regions
    region = cast("R", spelled(region, ("auto", *regions)))
    if not isinstance(region, str) or region != "auto":
        get_tree(release, region)
    return region


def listed(value: object, allowed: Sequence[str] = ()) -> list[str]:
    """Return the names of text with commas or spaces, or of a sequence, as the survey spells them.

    The list is empty if the value is neither.
    """
    if isinstance(value, str):
        value = value.replace(",", " ").split()
    try:
        names = list(value)  # type: ignore[call-overload]
    except TypeError:
        return []
    if not all(isinstance(name, str) for name in names):
        return []
    if isinstance(value, Set):
        # A set has no order of its own, and that of Python's differs from run to run.
        names.sort(key=lambda name: ([*allowed, name].index(spelled(name, allowed)), name))
    if not set(names).issubset(allowed):
        names = [spelled(name, allowed) for name in names]
    return list(dict.fromkeys(names))


def spelled(name: str, allowed: Sequence[str]) -> str:
    """Return a name as the survey spells it, if case alone tells them apart from one of them."""
    if not isinstance(name, str) or name in allowed:
        return name
    text = name.strip().lower()
    same = [word for word in allowed if word.lower() == text]
    return same[0] if len(same) == 1 else name


def band_names(bands: object, allowed: Sequence[str]) -> list[str]:
    """Return the bands of ``'grz'``, ``'g,W1'``, ``'grW1'`` or a sequence; empty if there are none.

    Without a list of what is allowed, words of several letters are bands.
    """
    words = listed(bands, allowed)
    if not isinstance(bands, str) or (not allowed and len(words) > 1):
        return words
    names = []
    for word in words:
        parts = [word] if word in allowed else re.findall(r"[Ww][1-4]|.", word)
        names += [spelled(part, allowed) for part in parts]
    return names


def checked_bands(
    bands: object,
    allowed: Sequence[str],
    whose: str,
    *,
    others: Callable[[str], Sequence[str]] = lambda name: (),
) -> tuple[str, ...]:
    """Return bands without repeats; refuse those that are not allowed, with who has them."""
    hint = f"bands of {whose} are: {', '.join(allowed) or 'not known'}."
    names = band_names(bands, allowed)
    if not names:
        refuse("bands", bands, f"names no band; {hint}")
    for name in names:
        if allowed and name not in allowed:
            where = ", ".join(others(name))
            near = f" {where} has {name}." if where else ""
            refuse("bands", bands, f"has {name!r}; {hint}{near}")
    return tuple(dict.fromkeys(names))


def as_bands(
    bands: Any, release: str, region: str = "auto", *, more: tuple[str, ...] = ()
) -> tuple[str, ...] | None:
    """Return bands of a region, or of ``more``, as a tuple without repeats; `None` stays."""
    if bands is None:
        return None
    data = get_release(release)
    whose = data.name if region == "auto" else f"{data.name} {region}"
    return checked_bands(bands, (*data.bands_in[region], *more), whose)


def as_products(products: Any, release: str, *, planes: bool = False) -> tuple[str, ...]:
    """Return names of coadd products, and of mask planes if asked, as a tuple without repeats."""
    data = get_release(release)
    allowed = (*data.products, *data.mask_planes) if planes else data.products
    names = tuple(listed(products, allowed))
    _check_products(products, names, allowed, data)
    return names


_SYNONYMS = {"ivar": "invvar", "weight": "invvar", "mask": "maskbits", "residual": "resid"}


def _check_products(
    products: Any, names: Collection[str], allowed: tuple[str, ...], release: DataRelease
) -> None:
    """Refuse names that are not allowed, or none."""
    if not names:
        refuse("products", products, f"names no product; allowed: {', '.join(allowed)}.")
    for name in names:
        if name not in allowed:
            is_old = name in _DR9_PRODUCTS
            reason = f"is not in {release.name}" if is_old else "is not a product"
            near = meant(_SYNONYMS.get(name, name), allowed)
            refuse("products", name, f"{reason}; allowed: {', '.join(allowed)}.{near}")


# ---- planes of a cutout, named and resolved ------------------------------------------------------


class NamedPlanes(NamedTuple):
    """What is asked of each pixel, and of whom."""

    products: tuple[str, ...]
    bands: tuple[str, ...] | None
    release: DataRelease | None
    region: str
    layer: Layer | None = None


def sources_of(products: tuple[str, ...]) -> tuple[str, ...]:
    """Return the products of files that planes are made of."""
    return tuple(dict.fromkeys(base for name in products for base in DERIVED.get(name, (name,))))


def wise_products(products: tuple[str, ...]) -> tuple[str, ...]:
    """Return the planes that WISE bands have; refuse where they have none."""
    names = tuple(name for name in products if name in WISE_PRODUCTS or name in DERIVED)
    if not names:
        must = f": the WISE bands have {', '.join((*WISE_PRODUCTS, *DERIVED))}."
        refuse("products", products, must)
    return names


# Calls in a loop name the same.
@lru_cache(maxsize=128, typed=True)
def planes_of_release(release: Any, region: Any, bands: Any, products: Any) -> NamedPlanes:
    """Return what the names of a release, a region, bands and products mean."""
    data = get_release(release)
    region = as_region(region, data.name)
    bands = as_bands(bands, data.name, region, more=data.wise_bands)
    return NamedPlanes(_cutout_products(products, data), bands, data, region)


def _cutout_products(products: Any, release: DataRelease) -> tuple[str, ...]:
    """Return names of planes of a cutout: of files, made of those, and PSFs."""
    files = (*release.products, *release.mask_planes)
    allowed = (*files, *DERIVED, "psf")
    names = listed(products, (*allowed, "all"))
    if "all" in names:
        # Everything of the survey's own, and the residuals beside the model.
        after, at = files.index("model") + 1, names.index("all")
        every = (*files[:after], "resid", *files[after:])
        names = list(dict.fromkeys((*names[:at], *every, *names[at + 1 :])))
    needed = [base for name in names for base in (name, *DERIVED.get(name, ()))]
    _check_products(products, needed, allowed, release)
    # A PSF goes with planes; alone it is asked by `psf_request`.
    return ("image", "psf") if names == ["psf"] else tuple(names)
