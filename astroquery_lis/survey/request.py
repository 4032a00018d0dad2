"""What the user asked of the images, checked and brought to one form.

A request is frozen and hashable, and knows no mirror: the same question has the same key wherever
the answer comes from.  Names are resolved here; inside travel the release and the layer themselves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from inspect import signature
from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from astropy import units as u

from .. import survey
from ..exceptions import refuse
from .layers import Layer, planes_of_layers, refuse_beside_layer
from .pixel_grids import DEFAULT_SIZE
from .placement import WISE, place
from .releases import (
    DERIVED,
    PIXEL_SCALE_ARCSEC,
    WISE_BANDS,
    DataRelease,
    as_bands,
    as_region,
    get_release,
    planes_of_release,
    sources_of,
    wise_products,
)
from .sphere import angle_in, angle_of_text

if TYPE_CHECKING:
    from astropy.io.fits import Header
    from astropy.wcs import WCS

MAX_SIZE_PIX = 10_000
"""Largest width or height of a cutout, pixels: 0.73 degrees at the survey's scale."""

_SIZES = "must be an int number of pixels or an angle with a unit, one or (ny, nx)"
_OTHER_PLANES = frozenset((*DERIVED, "psf"))
"""Planes that no file has."""


_PLACE = "\0"  # in no text of a request


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
        if not self.rotation_deg and self.fallback is None:
            # A tenth of what `replace` takes, for each of a million targets.
            values = {**vars(self), "_texts": self._texts, "ra_deg": ra_deg, "dec_deg": dec_deg}
            values.pop("key", None)
            request = object.__new__(CutoutRequest)
            vars(request).update(values)
            return request
        wcs, shape = self.wcs, (self.ny, self.nx)
        if self.rotation_deg:
            scale_arcsec = self.pixel_scale_arcsec
            wcs = survey.pixel_grids.rotated_wcs_text(
                ra_deg, dec_deg, *shape, scale_arcsec, self.rotation_deg
            )
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
        before, between, after = self._texts
        dec, ra = json.dumps(self.dec_deg), json.dumps(self.ra_deg)
        return hashlib.sha256(f"{before}{dec}{between}{ra}{after}".encode()).hexdigest()

    @cached_property
    def _texts(self) -> list[str]:
        """The canonical form: what is before, between and after Dec and RA."""
        values = {
            **{field.name: getattr(self, field.name) for field in fields(self)},
            "ra_deg": _PLACE,
            "dec_deg": _PLACE,
            "release": self.release and self.release.name,
            "layer": self.layer and self.layer.name,
            "fallback": self.fallback and self.fallback.key,
        }
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return text.split(json.dumps(_PLACE))

    @property
    def is_native(self) -> bool:
        """Whether the pixels are those of the bricks, or of the layer."""
        native = self.layer.pixel_scale_arcsec if self.layer else PIXEL_SCALE_ARCSEC
        return not self.wcs and self.pixel_scale_arcsec == native

    def file_parts(self) -> list[CutoutRequest]:
        """Return the requests for planes that files have: of the optical bands, and of WISE."""
        wise = tuple(band for band in self.bands or () if band in WISE_BANDS)
        if self.layer is not None or not (wise or _OTHER_PLANES.intersection(self.products)):
            return [self]
        return self._apart(wise)

    def _apart(self, wise: tuple[str, ...]) -> list[CutoutRequest]:
        """Return the requests for the optical bands, and for those of WISE."""
        names = tuple(name for name in self.products if name != "psf")
        optical = tuple(band for band in self.bands or () if band not in wise)
        of_wise = [self._wise_part(names, wise)] if wise else []
        if optical or not wise:
            return [replace(self, products=sources_of(names), bands=optical or None), *of_wise]
        if "psf" in self.products:
            refuse("products", self.products, ": psf goes with optical bands.")
        return of_wise

    def _wise_part(self, names: tuple[str, ...], bands: tuple[str, ...]) -> CutoutRequest:
        """Return the request for WISE bands, on their own pixels or on the optical ones."""
        products = sources_of(wise_products(names))
        part = replace(self, products=products, bands=bands, convert_flux=None)
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
        return survey.pixel_grids.cards_text(
            placement.grid.cards(x0=placement.box.x0, y0=placement.box.y0)
        )

    def north_up_text(self) -> str:
        """Return, as text, a grid with the target in the middle and north up."""
        shape = self.ny, self.nx
        return survey.pixel_grids.rotated_wcs_text(
            self.ra_deg, self.dec_deg, *shape, self.pixel_scale_arcsec, 0.0
        )


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
    if layer is None:
        release = default_release if release is None else release
        names = release, region, bands, products
        try:
            choices = [planes_of_release(*names)]
        except TypeError:  # a list is no key of its cache
            choices = [planes_of_release.__wrapped__(*names)]
    else:
        refuse_beside_layer(release, region)
        choices = planes_of_layers(layer, bands, products, allow_unknown=allow_unknown_layer)
    request = None
    for planes in reversed(choices):
        grid = _pixel_grid(position, size, planes.layer, pixel_scale, wcs, rotation)
        request = CutoutRequest(
            **grid._asdict(),
            **planes._asdict(),
            wise_grid=wise_grid,
            convert_flux=convert_flux,
            fallback=request,
        )
    assert request is not None
    return request


CUTOUT_OPTIONS = tuple(signature(cutout_request).parameters)

ANYWHERE = (0.0, 0.0)
"""The position of a request that is moved to its own by `CutoutRequest.at`."""


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


class _PixelGrid(NamedTuple):
    """Where the pixels of a request lie, as its fields of the same names say it."""

    ra_deg: float
    dec_deg: float
    ny: int
    nx: int
    pixel_scale_arcsec: float
    wcs: str = ""
    rotation_deg: float = 0.0


def _pixel_grid(
    position: tuple[float, float] | None,
    size: Any,
    layer: Layer | None,
    pixel_scale: Any,
    wcs: WCS | Header | None,
    rotation: Any,
) -> _PixelGrid:
    """Return the grid of arguments as users give them."""
    native_arcsec = PIXEL_SCALE_ARCSEC if layer is None else layer.pixel_scale_arcsec
    if wcs is not None:
        grid, ny, nx = _given_grid(wcs, size, pixel_scale, rotation)
        if position is None:
            ra, dec = survey.pixel_grids.SkyGrid(grid).to_sky((nx - 1) / 2, (ny - 1) / 2)
            position = float(ra), float(dec)
        return _PixelGrid(*position, ny, nx, native_arcsec, grid)
    assert position is not None
    scale_arcsec, angle_deg, grid = native_arcsec, 0.0, ""
    if pixel_scale is not None:
        scale_arcsec = as_pixel_scale(pixel_scale, native_arcsec=native_arcsec)
    ny, nx = as_size(size, pixel_scale_arcsec=scale_arcsec)
    if rotation is not None and (angle_deg := as_rotation(rotation)):
        grid = survey.pixel_grids.rotated_wcs_text(*position, ny, nx, scale_arcsec, angle_deg)
    return _PixelGrid(*position, ny, nx, scale_arcsec, grid, angle_deg)


def _given_grid(
    wcs: WCS | Header, size: Any, pixel_scale: Any, rotation: Any
) -> tuple[str, int, int]:
    """Return the grid of ``wcs`` as text, and its size; refuse what it excludes."""
    for name, value in (("pixel_scale", pixel_scale), ("rotation", rotation)):
        if value is not None:
            refuse(name, value, "cannot be given beside wcs, which has its own.")
    text, ny, nx = survey.pixel_grids.as_wcs_text(wcs)
    as_size((ny, nx), parameter="wcs")
    if size is not DEFAULT_SIZE and as_size(size) != (ny, nx):
        refuse("size", size, f"is not that of wcs, {(ny, nx)}; leave it out.")
    return text, ny, nx


def as_choice(parameter: str, value: object, allowed: Collection[str]) -> str:
    """Return ``value`` if it is one of ``allowed``."""
    if not isinstance(value, str) or value not in allowed:
        refuse(parameter, value, f"is not one of: {', '.join(allowed)}.")
    return value


def as_count(parameter: str, value: int, minimum: int, unit: str) -> int:
    """Return a whole number that is large enough."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < minimum:
        refuse(parameter, value, f"must be a number of {unit}, {minimum} at least.")
    return int(value)


def as_size(
    size: Any, *, parameter: str = "size", pixel_scale_arcsec: float = PIXEL_SCALE_ARCSEC
) -> tuple[int, int]:
    """Return a size as whole pixels."""
    sides = _sides(size, parameter, pixel_scale_arcsec)
    if len(sides) not in (1, 2) or not np.isfinite(sides).all():
        refuse(parameter, size, f"{_SIZES}, and finite.")
    if not (min(sides) > 0 and max(sides) <= MAX_SIZE_PIX + 0.5):
        limit = MAX_SIZE_PIX * pixel_scale_arcsec / 60
        must = f"must be from 1 to {MAX_SIZE_PIX} pixels ({limit:.1f} arcmin) each way"
        must += "; take a coarser pixel_scale, or several cutouts, for more."
        refuse(parameter, size, must)
    return max(round(sides[0]), 1), max(round(sides[-1]), 1)


def _sides(size: Any, parameter: str, pixel_scale_arcsec: float) -> list[float]:
    """Return the one or two sides of a size, in pixels that need not be whole."""
    if isinstance(size, Integral) and not isinstance(size, bool):
        return [int(size)]
    if isinstance(size, str):
        size = int(size) * u.pix if size.strip().isdecimal() else angle_of_text(size)
    if isinstance(size, u.Quantity):
        return _sides_of_quantity(size, parameter, pixel_scale_arcsec)
    is_list = isinstance(size, (tuple, list, np.ndarray)) and getattr(size, "ndim", 1) == 1
    if not is_list or len(size) not in (1, 2):
        refuse(parameter, size, f"{_SIZES}; a bare number is never an angle.")
    as_side = partial(as_size, parameter=parameter, pixel_scale_arcsec=pixel_scale_arcsec)
    return [as_side(item)[0] for item in size]


def _sides_of_quantity(size: u.Quantity, parameter: str, pixel_scale_arcsec: float) -> list[float]:
    if size.unit.is_equivalent(u.pix):
        sides = size.to_value(u.pix)
        if not np.array_equal(sides, np.rint(sides)):
            refuse(parameter, size, "must be whole pixels.")
    elif size.unit.is_equivalent(u.arcsec):
        sides = size.to_value(u.arcsec) / pixel_scale_arcsec
    else:
        refuse(parameter, size, f"has unit {size.unit}; it {_SIZES}.")
    return np.atleast_1d(sides).ravel().tolist()


def as_pixel_scale(pixel_scale: Any, *, native_arcsec: float = PIXEL_SCALE_ARCSEC) -> float:
    """Return a pixel scale in arcsec."""
    if pixel_scale is None:
        return native_arcsec
    value = angle_in(pixel_scale, u.arcsec, u.arcsec / u.pix) or 0.0
    if not 0 < value <= 3600:
        must = "must be a positive angle, such as 1 * u.arcsec."
        refuse("pixel_scale", angle_of_text(pixel_scale), must)
    return native_arcsec if abs(value / native_arcsec - 1) < 1e-9 else value


def as_rotation(rotation: Any) -> float:
    """Return a rotation in degrees."""
    value = angle_in(rotation, u.deg)
    if value is None or not np.isfinite(value):
        refuse("rotation", angle_of_text(rotation), "must be an angle, such as 30 * u.deg.")
    return value % 360.0
