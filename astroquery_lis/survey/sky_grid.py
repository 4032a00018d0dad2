"""Any celestial pixel grid, as a cutout may be asked on."""

from functools import cached_property

import numpy as np
from astropy.io.fits import Header
from astropy.wcs import WCS, NoConvergence
from astropy.wcs.utils import proj_plane_pixel_area

from ..exceptions import InvalidRequestError

__all__ = ["SkyGrid", "as_wcs_text", "rotated_wcs_text"]

_SIZE_CARDS = ("NAXIS", "NAXIS1", "NAXIS2")


class SkyGrid:
    """A pixel grid given by a WCS; the counterpart of `~.tangent.TangentGrid`.

    Parameters
    ----------
    text : str
        The WCS as FITS cards (`as_wcs_text`).
    """

    def __init__(self, text):
        self._header = Header.fromstring(text, sep="\n")
        self._wcs = WCS(self._header, naxis=2)

    @cached_property
    def scale_deg(self):
        """Side of a square of the same area as a pixel at the reference point, degrees."""
        return float(np.sqrt(proj_plane_pixel_area(self._wcs)))

    def to_sky(self, x, y):
        """Return RA and Dec, ICRS degrees, of pixels counted from 0."""
        x, y = np.asarray(x, float), np.asarray(y, float)
        frame = self._wcs.wcs.radesys.strip() or "ICRS"
        if frame == "ICRS" and self._wcs.wcs.ctype[0].startswith("RA"):
            ra, dec = self._wcs.all_pix2world(x, y, 0)
        else:
            position = self._wcs.pixel_to_world(x, y).icrs
            ra, dec = position.ra.deg, position.dec.deg
        return ra % 360.0, dec

    def to_pixel(self, ra_deg, dec_deg):
        """Return pixels counted from 0 of ICRS positions in degrees."""
        try:
            return self._wcs.all_world2pix(ra_deg, dec_deg, 0)
        except NoConvergence as error:
            return error.best_solution.T

    def cards(self, *, x0=0, y0=0):
        """Return the FITS cards of the grid; as `~.tangent.TangentGrid.cards`."""
        if (x0, y0) != (0, 0):
            msg = "a given grid begins at its first pixel"
            raise ValueError(msg)
        return [(card.keyword, card.value, card.comment) for card in self._header.cards]

    def wcs(self, area):
        """Return the WCS of a part of the grid, a `~.tangent.Box`."""
        return self._wcs[area.slices]


def as_wcs_text(wcs, *, parameter="wcs"):
    """Return a WCS as text and the size of its image.

    Parameters
    ----------
    wcs : `~astropy.wcs.WCS` or `~astropy.io.fits.Header`
        Two celestial axes, RA first, with the size of the image (``array_shape``, or NAXIS cards).
    parameter : str, optional
        Name of the argument, for messages.

    Returns
    -------
    text : str
        FITS cards, one per line.
    ny, nx : int
        Size.

    Raises
    ------
    InvalidRequestError
        If it is no such WCS or does not tell the size.
    """

    def refuse(must):
        msg = f"{parameter}={wcs!r} {must}"
        raise InvalidRequestError(msg, parameter=parameter, value=wcs)

    given = WCS(wcs) if isinstance(wcs, Header) else wcs
    if not isinstance(given, WCS):
        refuse("must be a WCS or a FITS header.")
    if given.naxis > 2 and given.has_celestial:
        given = given.celestial
    if given.naxis != 2 or not given.is_celestial or given.wcs.lng != 0:
        refuse("must have two celestial axes, the longitude first.")
    shape = given.array_shape
    if shape is None and isinstance(wcs, Header):
        shape = wcs.get("NAXIS2"), wcs.get("NAXIS1")
    if not shape or None in shape:
        refuse("does not tell the size of its image: set its array_shape.")
    header = given.to_header(relax=True)
    for name in _SIZE_CARDS:
        header.remove(name, ignore_missing=True)
    text = "\n".join(str(card).rstrip() for card in header.cards)
    return text, int(shape[0]), int(shape[1])


def rotated_wcs_text(ra_deg, dec_deg, ny, nx, scale_arcsec, rotation_deg):
    """Return, as text, the WCS of a TAN image with its target in the middle.

    Parameters
    ----------
    ra_deg, dec_deg : float
        Target, ICRS.
    ny, nx : int
        Size in pixels.
    scale_arcsec : float
        Pixel size.
    rotation_deg : float
        Angle of the image's y axis, from north towards east.

    Returns
    -------
    str
    """
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
    return "\n".join(str(card).rstrip() for card in header.cards)
