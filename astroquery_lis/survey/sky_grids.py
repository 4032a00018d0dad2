"""Pixel grids that users give: any celestial WCS, as an object and as text."""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import Any, NoReturn, TypeAlias

import numpy as np
from astropy.io.fits import HDUList, Header
from astropy.wcs import WCS, NoConvergence
from astropy.wcs.utils import proj_plane_pixel_area, proj_plane_pixel_scales

from ..exceptions import InvalidExposureError, InvalidRequestError
from .pixel_grids import Box, TangentGrid


class SkyGrid:
    """A pixel grid given by a WCS; the counterpart of `TangentGrid`."""

    def __init__(self, text: str) -> None:
        self._header = Header.fromstring(text, sep="\n")
        self._wcs = WCS(self._header, naxis=2)

    @cached_property
    def scale_deg(self) -> float:
        """Side of a square of the same area as a pixel at the reference point, degrees."""
        return float(np.sqrt(proj_plane_pixel_area(self._wcs)))

    @cached_property
    def side_deg(self) -> float:
        """Longest side of a pixel at the reference point, degrees."""
        return float(proj_plane_pixel_scales(self._wcs).max())

    def to_sky(self, x: float | np.ndarray, y: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return RA and Dec, ICRS degrees, of pixels counted from 0."""
        x, y = np.asarray(x, float), np.asarray(y, float)
        frame = self._wcs.wcs.radesys.strip() or "ICRS"
        if frame == "ICRS" and self._wcs.wcs.ctype[0].startswith("RA"):
            ra, dec = self._wcs.all_pix2world(x, y, 0)
        else:
            position = self._wcs.pixel_to_world(x, y).icrs
            ra, dec = position.ra.deg, position.dec.deg
        return ra % 360.0, dec

    def to_pixel(
        self, ra_deg: float | np.ndarray, dec_deg: float | np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return pixels counted from 0 of ICRS positions in degrees."""
        try:
            return self._wcs.all_world2pix(ra_deg, dec_deg, 0)
        except NoConvergence as error:
            return error.best_solution.T

    def cards(self, *, x0: int = 0, y0: int = 0) -> list[tuple[str, str | float, str]]:
        """Return the FITS cards of the grid."""
        if (x0, y0) != (0, 0):
            msg = "a given grid begins at its first pixel"
            raise ValueError(msg)
        return [(card.keyword, card.value, card.comment) for card in self._header.cards]

    def wcs(self, area: Box) -> WCS:
        """Return the WCS of a part of the grid."""
        return self._wcs[area.slices]


Grid: TypeAlias = TangentGrid | SkyGrid

_SIZE_CARDS = ("NAXIS", "NAXIS1", "NAXIS2")


def cards_text(header: Header | list[tuple[str, str | float, str]]) -> str:
    """Return cards as text, one per line."""
    return "\n".join(str(card).rstrip() for card in Header(header).cards)


_CAL_FILES = "cal files have theirs in the ASDF extension only in part: take an i2d file"


def refuse_grid(
    parameter: str, source: Any, why: str, kind: type[InvalidRequestError] = InvalidRequestError
) -> NoReturn:
    """Refuse what a user gave as a grid, without printing all of it."""
    is_long = isinstance(source, (WCS, Header, HDUList))
    msg = f"{parameter}={type(source).__name__ if is_long else repr(source)} {why}."
    raise kind(msg, parameter=parameter, value=source)


def as_wcs_text(source: Any, *, parameter: str = "wcs") -> tuple[str, int, int]:
    """Return a grid that a user gives as FITS cards, one per line, and its size ``ny, nx``."""
    plane = plane_wcs(source, parameter)
    if plane.naxis != 2 or not plane.is_celestial or plane.wcs.lng != 0:
        refuse_grid(parameter, source, "must have two celestial axes, the longitude first")
    if plane.array_shape is None:
        refuse_grid(parameter, source, "does not tell the size of its image: set its array_shape")
    header = plane.to_header(relax=True)
    for name in _SIZE_CARDS:
        header.remove(name, ignore_missing=True)
    ny, nx = plane.array_shape
    return cards_text(header), int(ny), int(nx)


def plane_wcs(source: Any, parameter: str, *, other: str = "") -> WCS:
    """Return the celestial WCS of a header, an HDUList or a WCS, with its size.

    A refusal names the other kinds that the caller reads.
    """
    given = source
    if isinstance(source, HDUList):
        given = image_header(source, parameter, source)
    if isinstance(given, Header):
        try:
            wcs = _of_header(given)
        except ValueError as error:
            refuse_grid(parameter, source, f"has a WCS that cannot be read: {error}")
    elif isinstance(given, WCS):
        wcs = _celestial(given)
    else:
        refuse_grid(parameter, source, f"must be a WCS, a header, an HDUList{other}")
    if not wcs.has_celestial:
        refuse_grid(parameter, source, f"has no celestial axes; {_CAL_FILES}")
    return wcs


def image_header(hdul: HDUList, parameter: str, source: Any) -> Header:
    """Return the header of the first image with a celestial WCS, that of SCI before others."""
    images = [hdu for hdu in hdul if hdu.is_image and hdu.header.get("NAXIS", 0) >= 2]
    for hdu in sorted(images, key=lambda hdu: hdu.name != "SCI"):
        if _of_header(hdu.header).has_celestial:
            return hdu.header.copy()
    why = f"has no image with a celestial WCS in FITS cards; {_CAL_FILES}"
    return refuse_grid(parameter, source, why, kind=InvalidExposureError)


def _celestial(wcs: WCS) -> WCS:
    return wcs.celestial if wcs.naxis > 2 and wcs.has_celestial else wcs


def _of_header(header: Header) -> WCS:
    """Return the WCS of the image of a header, in the frame of its positions."""
    with warnings.catch_warnings():
        # The time cards of JWST files are put right with a warning each.
        warnings.simplefilter("ignore")
        whole = WCS(header)
    wcs = _celestial(whole)
    if wcs is whole:
        axes = [header.get(f"ZNAXIS{i}", header.get(f"NAXIS{i}")) for i in (2, 1)]
        wcs.array_shape = axes if all(axes) else None
    if _is_of_survey(header):
        # Its headers say EQUINOX 2000 and no RADESYS, which means FK5 by the standard; the
        # positions are Gaia's.
        wcs.wcs.radesys = "ICRS"
    return wcs


def _is_of_survey(header: Header) -> bool:
    """Return True if legacypipe wrote a header, and no frame into it."""
    has_frame = "RADESYS" in header or "RADECSYS" in header
    return not has_frame and any(name in header for name in ("LEGPIPEV", "DRVERSIO", "BRICKNAM"))


def rotated_wcs_text(
    ra_deg: float, dec_deg: float, ny: int, nx: int, scale_arcsec: float, rotation_deg: float
) -> str:
    """Return, as text, the WCS of a TAN image with its target in the middle."""
    scale_deg = scale_arcsec / 3600
    sin, cos = np.sin(np.radians(rotation_deg)), np.cos(np.radians(rotation_deg))
    header = Header(
        [
            ("CTYPE1", "RA---TAN"),
            ("CTYPE2", "DEC--TAN"),
            ("CUNIT1", "deg"),
            ("CUNIT2", "deg"),
            ("CRVAL1", ra_deg),
            ("CRVAL2", dec_deg),
            ("CRPIX1", (nx + 1) / 2),
            ("CRPIX2", (ny + 1) / 2),
            ("CD1_1", -scale_deg * cos),
            ("CD1_2", scale_deg * sin),
            ("CD2_1", scale_deg * sin),
            ("CD2_2", scale_deg * cos),
            ("RADESYS", "ICRS"),
            ("LONPOLE", 180.0),
        ]
    )
    return cards_text(header)
