"""What the user asked of the images, checked and brought to one form.

A request is frozen and hashable, and knows no mirror: the same question has the same key wherever
the answer comes from.  Names are resolved here; inside travel the release and the layer themselves.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from inspect import signature
from numbers import Integral
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from astropy import units as u

from ..exceptions import refuse
from .layers import Layer, get_layer, layers_with
from .paths import COADD_PRODUCTS
from .pixel_grids import SkyGrid, as_wcs_text, cards_text, rotated_wcs_text
from .placement import WISE, place
from .releases import (
    PIXEL_SCALE_ARCSEC,
    WISE_BANDS,
    WISE_PRODUCTS,
    DataRelease,
    band_names,
    get_release,
    get_tree,
    listed,
    spelled,
)

if TYPE_CHECKING:
    from astropy.io.fits import Header
    from astropy.wcs import WCS

DEFAULT_SIZE = 256
R = TypeVar("R", bound=str)

MAX_SIZE_PIX = 10_000
"""Largest width or height of a cutout, pixels: 0.73 degrees at the survey's scale."""

UNWISE_BANDS = ("1", "2")
"""What the layers of unWISE call W1 and W2."""

LAYER_PRODUCTS = ("image", "invvar", "maskbits")
"""What a layer of the viewer can be asked for; ``image`` is whatever the layer shows."""

_SYMBOLS = {'"': "arcsec", "″": "arcsec", "''": "arcsec", "'": "arcmin", "′": "arcmin", "°": "deg"}
_UNITS = {
    "arcsec": r"arc[ -]?sec(?:ond)?s?|asec",
    "arcmin": r"arc[ -]?min(?:ute)?s?|amin",
    "deg": r"deg(?:ree)?s?",
    "pix": r"pix(?:el)?s?|px",
}
_PARTS = re.compile(
    r"(?:(\d+\.?\d*)\s*[d°])?\s*(?:(\d+\.?\d*)\s*[m'′])?\s*(?:(\d+\.?\d*)\s*(?:s|''|[\"″]))?"
)

DERIVED = {
    "resid": ("image", "model"),
    "snr": ("image", "invvar"),
    "sigma": ("invvar",),
}
"""Planes made of others: image - model, image sqrt(invvar), 1 / sqrt(invvar)."""


@dataclass(frozen=True)
class CutoutRequest:
    """One cutout: where, on which pixels, and which planes."""

    ra_deg: float
    dec_deg: float
    ny: int
    nx: int
    products: tuple[str, ...]  # files, derived planes, and psf
    bands: tuple[str, ...] | None  # None for those that the target's brick, or the layer, has
    release: DataRelease | None  # None for a layer of another survey
    region: str = "auto"
    layer: Layer | None = None
    pixel_scale_arcsec: float = PIXEL_SCALE_ARCSEC
    wcs: str = ""  # grid of the result as FITS cards, where it was given or is rotated
    wise_grid: str = "native"
    convert_flux: bool | None = None  # whether the viewer's fluxes are per pixel of the result
    rotation_deg: float = 0.0  # of the grid, which then goes with the position
    to_sky: bool = True  # whether PSFs are turned from the axes of the CCD
    fallback: CutoutRequest | None = None  # what is asked where the layer has nothing

    def at(self, ra_deg: float, dec_deg: float) -> CutoutRequest:
        """Return the same request for another position."""
        wcs, shape = self.wcs, (self.ny, self.nx)
        if self.rotation_deg:
            scale_arcsec = self.pixel_scale_arcsec
            wcs = rotated_wcs_text(ra_deg, dec_deg, *shape, scale_arcsec, self.rotation_deg)
        fallback = self.fallback and self.fallback.at(ra_deg, dec_deg)
        return replace(self, ra_deg=ra_deg, dec_deg=dec_deg, wcs=wcs, fallback=fallback)

    @property
    def layers(self) -> list[Layer]:
        """The layers that are asked, in order."""
        own = [] if self.layer is None else [self.layer]
        return own + (self.fallback.layers if self.fallback is not None else [])

    @cached_property
    def key(self) -> str:
        """Sha256 of the request in canonical form, hexadecimal."""
        values = {
            **{field.name: getattr(self, field.name) for field in fields(self)},
            "release": self.release and self.release.name,
            "layer": self.layer and self.layer.name,
            "fallback": self.fallback and self.fallback.key,
        }
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def is_native(self) -> bool:
        """Whether the pixels are those of the bricks, or of the layer."""
        native = self.layer.pixel_scale_arcsec if self.layer else PIXEL_SCALE_ARCSEC
        return not self.wcs and self.pixel_scale_arcsec == native

    @property
    def is_wise(self) -> bool:
        """Whether it is for planes of WISE bands alone."""
        return bool(self.bands) and all(band in WISE_BANDS for band in self.bands or ())

    def file_parts(self) -> list[CutoutRequest]:
        """Return the requests for planes that files have: of the optical bands, and of WISE."""
        wise = tuple(band for band in self.bands or () if band in WISE_BANDS)
        is_of_files = not any(name == "psf" or name in DERIVED for name in self.products)
        if self.layer is not None or (is_of_files and not wise):
            return [self]
        names = tuple(name for name in self.products if name != "psf")
        optical = self.bands and tuple(band for band in self.bands if band not in wise)
        if "psf" in self.products and optical == ():
            refuse("products", self.products, ": psf goes with optical bands.")
        parts = []
        if optical != ():
            parts.append(replace(self, products=_sources_of(names), bands=optical))
        if wise:
            parts.append(self._wise_part(names, wise))
        return parts

    def _wise_part(self, names: tuple[str, ...], bands: tuple[str, ...]) -> CutoutRequest:
        """Return the request for WISE bands, on their own pixels or on the optical ones."""
        names = tuple(name for name in names if name in WISE_PRODUCTS or name in DERIVED)
        if not names:
            must = f": the WISE bands have {', '.join((*WISE_PRODUCTS, *DERIVED))}."
            refuse("products", self.products, must)
        part = replace(self, products=_sources_of(names), bands=bands, convert_flux=None)
        if self.wcs or self.wise_grid == "optical":
            return replace(part, wcs=self.wcs or self._grid_text())
        ratio = self.pixel_scale_arcsec / WISE.scale_arcsec
        ny, nx = (max(round(n * ratio), 1) for n in (self.ny, self.nx))
        if max(ny, nx) > MAX_SIZE_PIX:
            must = f"is {ny} x {nx} pixels of WISE; {MAX_SIZE_PIX} each way are allowed at most."
            refuse("size", (self.ny, self.nx), must)
        return replace(part, ny=ny, nx=nx, pixel_scale_arcsec=PIXEL_SCALE_ARCSEC)

    def _grid_text(self) -> str:
        """Return the grid of the optical planes as text."""
        if not self.is_native:
            return self.north_up_text()
        placement = place(self.ra_deg, self.dec_deg, self.ny, self.nx)
        return cards_text(placement.grid.cards(x0=placement.box.x0, y0=placement.box.y0))

    def north_up_text(self) -> str:
        """Return, as text, a grid with the target in the middle and north up."""
        shape = self.ny, self.nx
        return rotated_wcs_text(self.ra_deg, self.dec_deg, *shape, self.pixel_scale_arcsec, 0.0)


def plane_name(product: str, band: str | None = None) -> str:
    """Return the name of the HDU of a plane."""
    return f"{product}_{band}".upper() if band else product.upper()


def _sources_of(names: Iterable[str]) -> tuple[str, ...]:
    """Return the products of files that planes are made of."""
    return tuple(dict.fromkeys(base for name in names for base in DERIVED.get(name, (name,))))


def cutout_request(
    position: tuple[float, float] | None,
    size: Any = DEFAULT_SIZE,
    *,
    bands: Any = None,
    products: Any = ("image",),
    release: Any = None,
    default_release: str = "",
    region: str = "auto",
    layer: Any = None,
    allow_unknown_layer: bool = False,
    pixel_scale: Any = None,
    wcs: WCS | Header | None = None,
    rotation: Any = None,
    wise_grid: str = "native",
    convert_flux: bool | None = None,
) -> CutoutRequest:
    """Return the request of arguments as users give them, checked.

    A position of `None` is the middle of ``wcs``; of several layers the first is asked, and each
    is the fallback of the one before.
    """
    as_choice("wise_grid", wise_grid, ("native", "optical"))
    options = {
        "bands": bands,
        "products": products,
        "pixel_scale": pixel_scale,
        "wcs": wcs,
        "rotation": rotation,
        "wise_grid": wise_grid,
        "convert_flux": convert_flux,
    }
    if layer is not None and not isinstance(layer, Layer):
        refuse_beside_layer(release, region)
        request = None
        for shown in reversed(_layers(layer, allow_unknown_layer)):
            before = cutout_request(position, size, layer=shown, **options)
            request = replace(before, fallback=request)
        assert request is not None
        return request
    data: DataRelease | None = None
    if layer is None:
        names_given = (default_release if release is None else release, region, bands, products)
        try:
            data, region, bands, names = _resolved(*names_given)
        except TypeError:  # a list is no key
            data, region, bands, names = _resolved.__wrapped__(*names_given)
        native_arcsec = PIXEL_SCALE_ARCSEC
    else:
        names = _layer_products(products)
        bands = as_layer_bands(bands, layer.bands, layer.name)
        data = None if layer.release is None else get_release(layer.release)
        region = layer.region or "auto"
        native_arcsec = layer.pixel_scale_arcsec
    scale_arcsec = native_arcsec
    if pixel_scale is not None:
        scale_arcsec = as_pixel_scale(pixel_scale, native_arcsec=native_arcsec)
    angle_deg = 0.0
    if wcs is not None:
        grid, ny, nx = _given_grid(wcs, size, pixel_scale, rotation)
        if position is None:
            ra, dec = SkyGrid(grid).to_sky((nx - 1) / 2, (ny - 1) / 2)
            position = float(ra), float(dec)
    else:
        ny, nx = as_size(size, pixel_scale_arcsec=scale_arcsec)
        assert position is not None
        angle_deg = 0.0 if rotation is None else as_rotation(rotation)
        grid = ""
        if angle_deg:
            grid = rotated_wcs_text(*position, ny, nx, scale_arcsec, angle_deg)
    assert position is not None
    return CutoutRequest(
        *position,
        ny,
        nx,
        names,
        bands,
        data,
        region,
        layer,
        scale_arcsec,
        grid,
        wise_grid,
        convert_flux,
        angle_deg,
    )


CUTOUT_OPTIONS = tuple(signature(cutout_request).parameters)


# Calls in a loop name the same.
@lru_cache(maxsize=128, typed=True)
def _resolved(
    release: Any, region: str, bands: Any, products: Any
) -> tuple[DataRelease, str, tuple[str, ...] | None, tuple[str, ...]]:
    """Return what the names of a release, a region, bands and products mean."""
    data = get_release(release)
    if not isinstance(region, str) or region != "auto":
        region = as_region(region, data.name)
    if bands is not None:
        bands = _survey_bands(bands, data, region, data.wise_bands)
    names = _checked_products(products, data, planes=True, derived=True)
    if names == ("psf",):
        names = ("image", "psf")  # a PSF goes with planes; alone it is asked by `psf_request`
    return data, region, bands, names


def psf_request(
    position: tuple[float, float],
    *,
    bands: Any = None,
    release: Any = None,
    default_release: str = "",
    region: str = "auto",
    to_sky: bool = False,
) -> CutoutRequest:
    """Return the request for the PSFs at a position and nothing else."""
    data = get_release(default_release if release is None else release)
    region = as_region(region, data.name)
    bands = as_bands(bands, data.name, region)
    return CutoutRequest(*position, 1, 1, ("psf",), bands, data, region, to_sky=to_sky)


def _layers(layer: Any, allow_unknown: bool) -> list[Layer]:
    """Return the layers that are named, each once, in order of preference."""
    try:
        names = [layer] if isinstance(layer, str) else list(layer)
    except TypeError:
        names = []
    if not names:
        refuse("layer", layer, "must be the name of a layer, or a sequence of names.")
    return list(dict.fromkeys(get_layer(name, allow_unknown=allow_unknown) for name in names))


def _layer_products(products: Any) -> tuple[str, ...]:
    """Return what is asked of a layer; refuse what no layer has."""
    names = tuple(listed(products, LAYER_PRODUCTS))
    if not names or not set(names) <= set(LAYER_PRODUCTS):
        must = (
            f": a layer has {', '.join(LAYER_PRODUCTS)}, where image is what it shows; psf goes "
            "with a release."
        )
        refuse("products", products, must)
    return names


def _given_grid(
    wcs: WCS | Header, size: Any, pixel_scale: Any, rotation: Any
) -> tuple[str, int, int]:
    """Return the grid of ``wcs`` as text, and its size; refuse what it excludes."""
    for name, value in (("pixel_scale", pixel_scale), ("rotation", rotation)):
        if value is not None:
            refuse(name, value, "cannot be given beside wcs, which has its own.")
    text, ny, nx = as_wcs_text(wcs)
    as_size((ny, nx), parameter="wcs")
    if size is not DEFAULT_SIZE and as_size(size) != (ny, nx):
        refuse("size", size, f"is not that of wcs, {(ny, nx)}; leave it out.")
    return text, ny, nx


def angle_of_text(value: object) -> object:
    """Return the Quantity of text such as ``'30 arcsec'`` or ``'0d0m30s'``, and all else as it is.

    Text with pixels is a Quantity too, so that what wants an angle can refuse it by its unit.
    """
    if not isinstance(value, str):
        return value
    text = value.strip()
    match = _PARTS.fullmatch(text.lower())
    parts = [part for part in match.groups() if part is not None] if match else []
    if match is not None and len(parts) > 1:
        degrees, minutes, seconds = (float(part or 0) for part in match.groups())
        return (degrees * 3600 + minutes * 60 + seconds) * u.arcsec
    number = re.match(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?", text, re.IGNORECASE)
    if number is None:
        return value
    word = text[number.end() :].strip()
    unit = _SYMBOLS.get(word, word)
    for name, pattern in _UNITS.items():
        if re.fullmatch(pattern, unit, re.IGNORECASE):
            unit = name
    try:
        return u.Quantity(float(number[0]), unit) if unit else value
    except (TypeError, ValueError):
        return value


def as_choice(parameter: str, value: Any, allowed: Iterable[str]) -> str:
    """Return ``value`` if it is one of ``allowed``."""
    allowed = tuple(allowed)
    if not isinstance(value, str) or value not in allowed:
        refuse(parameter, value, f"is not one of: {', '.join(allowed)}.")
    return value


def as_size(
    size: Any, *, parameter: str = "size", pixel_scale_arcsec: float = PIXEL_SCALE_ARCSEC
) -> tuple[int, int]:
    """Return a size as whole pixels."""
    kinds = "must be an int number of pixels or an angle with a unit, one or (ny, nx)"
    if isinstance(size, str):
        size = int(size) if size.strip().isdecimal() else angle_of_text(size)
    if isinstance(size, u.Quantity):
        if size.unit.is_equivalent(u.pix):
            values = size.to_value(u.pix)
            if not np.array_equal(values, np.rint(values)):
                refuse(parameter, size, "must be whole pixels.")
        elif size.unit.is_equivalent(u.arcsec):
            values = size.to_value(u.arcsec) / pixel_scale_arcsec
        else:
            refuse(parameter, size, f"has unit {size.unit}; it {kinds}.")
        values = np.atleast_1d(values).ravel().tolist()
    elif isinstance(size, Integral) and not isinstance(size, bool):
        values = [int(size)]
    elif isinstance(size, (tuple, list, np.ndarray)) and len(size) in (1, 2):
        ny, nx = (
            as_size(item, parameter=parameter, pixel_scale_arcsec=pixel_scale_arcsec)[0]
            for item in (size[0], size[-1])
        )
        return ny, nx
    else:
        refuse(parameter, size, f"{kinds}; a bare number is never an angle.")
    if len(values) not in (1, 2) or not np.isfinite(values).all():
        refuse(parameter, size, f"{kinds}, and finite.")
    if not all(0 < value <= MAX_SIZE_PIX + 0.5 for value in values):
        limit = MAX_SIZE_PIX * pixel_scale_arcsec / 60
        must = f"must be from 1 to {MAX_SIZE_PIX} pixels ({limit:.1f} arcmin) each way"
        must += "; take a coarser pixel_scale, or several cutouts, for more."
        refuse(parameter, size, must)
    ny, nx = (max(round(value), 1) for value in (values * 2)[:2])
    return ny, nx


def as_pixel_scale(pixel_scale: Any, *, native_arcsec: float = PIXEL_SCALE_ARCSEC) -> float:
    """Return a pixel scale in arcsec."""
    if pixel_scale is None:
        return native_arcsec
    value, pixel_scale = np.nan, angle_of_text(pixel_scale)
    if isinstance(pixel_scale, u.Quantity) and pixel_scale.isscalar:
        for unit in (u.arcsec, u.arcsec / u.pix):
            if pixel_scale.unit.is_equivalent(unit):
                value = float(pixel_scale.to_value(unit))
    if not 0 < value <= 3600:
        refuse("pixel_scale", pixel_scale, "must be a positive angle, such as 1 * u.arcsec.")
    return native_arcsec if abs(value / native_arcsec - 1) < 1e-9 else value


def refuse_beside_layer(release: str | None, region: str) -> None:
    """Refuse what a layer of the viewer has of its own."""
    for name, value, default in (("release", release, None), ("region", region, "auto")):
        if not isinstance(value, type(default)) or value != default:
            refuse(name, value, "cannot be given beside layer, which has its own.")


def as_rotation(rotation: Any) -> float:
    """Return a rotation in degrees."""
    if rotation is None:
        return 0.0
    value, rotation = np.nan, angle_of_text(rotation)
    is_one = isinstance(rotation, u.Quantity) and rotation.isscalar
    if is_one and rotation.unit.is_equivalent(u.deg):
        value = float(rotation.to_value(u.deg))
    if not np.isfinite(value):
        refuse("rotation", rotation, "must be an angle, such as 30 * u.deg.")
    return value % 360.0


def as_products(products: Any, release: str, *, planes: bool = False) -> tuple[str, ...]:
    """Return names of coadd products, and of mask planes if asked, as a tuple without repeats."""
    return _checked_products(products, get_release(release), planes=planes)


def _checked_products(
    products: Any, release: DataRelease, *, planes: bool = False, derived: bool = False
) -> tuple[str, ...]:
    files = (*release.products, *release.mask_planes) if planes else release.products
    allowed = (*files, *DERIVED, "psf") if derived else files
    names = products
    if not isinstance(products, tuple) or products != ("image",):
        names = tuple(listed(products, (*allowed, "all")))
    if derived and "all" in names:
        # Everything of the survey's own, and the residuals beside the model.
        after = files.index("model") + 1
        every = (*files[:after], "resid", *files[after:])
        names = tuple(n for name in names for n in (every if name == "all" else (name,)))
        names = tuple(dict.fromkeys(names))
    if not names:
        refuse("products", products, f"names no product; allowed: {', '.join(allowed)}.")
    needed = dict.fromkeys(base for name in names for base in (name, *DERIVED.get(name, ())))
    for name in needed if derived else names:
        if name not in allowed:
            reason = "is not a product"
            if name in COADD_PRODUCTS:
                reason = f"is not in {release.name}"
            refuse("products", name, f"{reason}; allowed: {', '.join(allowed)}.")
    return names


def as_region(region: R, release: str) -> R:
    """Return a region that the release has, or ``'auto'``."""
    if isinstance(region, str) and region == "auto":
        return region
    data = get_release(release)
    if not isinstance(region, str):
        get_tree(data.name, region)
    region = cast("R", spelled(region, ("auto", *data.regions)))
    if region != "auto":
        get_tree(data.name, region)
    return region


def as_bands(bands: Any, release: str, region: str = "auto") -> tuple[str, ...] | None:
    """Return bands as a tuple without repeats, or `None`."""
    if bands is None:
        return None
    return _survey_bands(bands, get_release(release), region)


def _survey_bands(
    bands: Any, release: DataRelease, region: str, more: tuple[str, ...] = ()
) -> tuple[str, ...]:
    whose = release.name if region == "auto" else f"{release.name} {region}"
    return _checked_bands(bands, (*release.bands_in[region], *more), whose)


def as_layer_bands(bands: Any, allowed: tuple[str, ...], layer: str) -> tuple[str, ...] | None:
    """Return bands of a layer of the viewer as a tuple without repeats, or `None`."""
    if bands is None:
        return None
    if allowed == UNWISE_BANDS:
        bands = [name.upper().removeprefix("W") for name in band_names(bands, WISE_BANDS)]
    return _checked_bands(bands, allowed, f"layer {layer}", layer)


def _checked_bands(
    bands: Any, allowed: tuple[str, ...], whose: str, layer: str = ""
) -> tuple[str, ...]:
    hint = f"bands of {whose} are: {', '.join(allowed) or 'not known'}."
    names = band_names(bands, allowed)
    if not names:
        refuse("bands", bands, f"names no band; {hint}")
    for name in names:
        if allowed and name not in allowed:
            others = layers_with(name, layer)
            near = f" {', '.join(others)} has {name}." if others else ""
            refuse("bands", bands, f"has {name!r}; {hint}{near}")
    return tuple(dict.fromkeys(names))
