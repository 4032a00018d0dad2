"""Cutouts in the forms that other programs take: CCDData, and the input files of GALFIT."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, InverseVariance
from astropy.table import Table
from astropy.wcs import WCS

from .._packages import package_version
from ..exceptions import InvalidRequestError, refuse
from ..survey.bitmasks import maskbits, maskbits_value
from .cutout_hdus import FLUX_PRODUCTS, as_cutout, flux_planes, mask_release, pixel_side_arcsec

if TYPE_CHECKING:
    from .._typing import FilePath

__all__ = ["galfit_inputs", "to_ccddata"]

ZERO_POINT = 22.5
"""AB magnitude of one nanomaggy."""

MASKED_SIGMA = 1e10
_SAME_SCALE = 1e-3
_ALIGNED_DEG = 1.0


def to_ccddata(
    hdul: fits.HDUList | FilePath,
    band: str,
    *,
    product: str = "image",
    mask_bits: Sequence[str] | None = None,
) -> CCDData:
    """Return one band of a cutout with its noise, mask, WCS and PSF.

    Parameters
    ----------
    hdul : `~astropy.io.fits.HDUList`, str or path-like
        As `~astroquery_lis.LegacySurveyClass.get_cutout` returns it; or the FITS file of one, or
        of the viewer's ``cutout.fits``, whose inverse variance the viewer adds up where images of
        bricks overlap: it is divided by their number, as if none of them was missing.
    band : str
        One band.
    product : {'image', 'model', 'blobmodel', 'resid'}, optional
        Whose pixels.
    mask_bits : sequence of str, optional
        Bits of ``MASKBITS`` that make a pixel bad; by default saturation in this band and pixels
        that are bad in every exposure of this band.  An empty one takes none.

    Returns
    -------
    `~astropy.nddata.CCDData`
        In nanomaggies, if the cutout is.  ``uncertainty`` is the inverse variance, if the cutout
        has it.  ``mask`` is `True` where the value is not finite, the inverse variance is 0, or
        one of the bits is set.  ``flags`` is the whole of ``MASKBITS`` and ``psf`` the PSF, if the
        cutout has them.

    Raises
    ------
    InvalidRequestError
        If an argument is wrong or names what the cutout does not have.

    Examples
    --------
    >>> from astroquery_lis import LegacySurvey, sandbox
    >>> from astroquery_lis.images.analysis import to_ccddata
    >>> with sandbox.serve() as sky:
    ...     hdul = LegacySurvey.get_cutout(sky.positions["star"], 32, bands="r",
    ...                                    products=("image", "invvar", "maskbits"))
    >>> ccd = to_ccddata(hdul, "r")
    >>> ccd.unit, ccd.uncertainty.uncertainty_type
    (Unit("nmgy"), 'ivar')
    """
    hdul = as_cutout(hdul)
    image = _plane(hdul, band, product)
    bad = ~np.isfinite(image.data)
    uncertainty = flags = psf = None
    unit = u.nmgy if _is_nanomaggy(image) else u.dimensionless_unscaled
    invvar = _beside(hdul, f"INVVAR_{band}", image)
    if invvar is not None:
        bad |= ~(invvar.data > 0)
        uncertainty = InverseVariance(invvar.data.copy(), unit=unit**-2)
    mask = _beside(hdul, "MASKBITS", image)
    value = _mask_value(hdul, band, mask, mask_bits)
    if mask is not None:
        bad |= (mask.data & value) != 0
        flags = mask.data.copy()
    if f"PSF_{band}".upper() in hdul:
        psf = hdul[f"PSF_{band}"].data.copy()
    return CCDData(
        image.data.copy(),
        unit=unit,
        uncertainty=uncertainty,
        mask=bad,
        flags=flags,
        wcs=WCS(image.header),
        meta=image.header.copy(),
        psf=psf,
    )


def _plane(hdul: fits.HDUList, band: str, product: str) -> fits.ImageHDU:
    if product not in FLUX_PRODUCTS:
        refuse("product", product, f"must be one of {', '.join(FLUX_PRODUCTS)}.")
    hdus = flux_planes(hdul, band, product)
    if band is None or len(hdus) > 1:
        refuse("band", band, "must be one band, such as 'r'.")
    return next(iter(hdus.values()))


def _is_nanomaggy(image: fits.ImageHDU) -> bool:
    return str(image.header.get("BUNIT", "")).strip() == "nanomaggy"


def _beside(hdul: fits.HDUList, name: str, image: fits.ImageHDU) -> fits.ImageHDU | None:
    """Return the HDU of that name, `None` if there is none on the grid of the image."""
    if name.upper() not in hdul or hdul[name].shape != image.shape:
        return None
    return hdul[name]


def _mask_value(
    hdul: fits.HDUList, band: str, mask: fits.ImageHDU | None, names: Sequence[str] | None
) -> int:
    """Return the number that has the bits set that make a pixel of the band bad."""
    if names is not None:
        names = [names] if isinstance(names, str) else list(names)
        if names and mask is None:
            refuse("mask_bits", names, ": the cutout has no MASKBITS on the grid of the image.")
    if mask is None or names == []:
        return 0
    release = mask_release(hdul)
    if names is not None:
        return maskbits_value(names, release)
    known = maskbits(release)
    usual = (f"SATUR_{band}".upper(), f"ALLMASK_{band}".upper())
    return sum(1 << known[name] for name in usual if name in known)


def galfit_inputs(
    hdul: fits.HDUList | FilePath,
    path: FilePath,
    *,
    bands: str | Sequence[str] | None = None,
    mask_bits: Sequence[str] | None = None,
) -> Table:
    """Write the files that GALFIT needs to fit the target of a cutout.

    Parameters
    ----------
    hdul : `~astropy.io.fits.HDUList`, str or path-like
        A cutout, or the FITS file of one, of ``image``, ``invvar`` and ``psf``, and of ``maskbits``
        if they shall count, as from
        ``get_cutout(..., products=('image', 'invvar', 'maskbits', 'psf'))``.
    path : str or `~pathlib.Path`
        Folder, made if it is not there; files of the same names are replaced.
    bands : str or sequence of str, optional
        By default those of the cutout.
    mask_bits : sequence of str, optional
        As for `to_ccddata`.

    Returns
    -------
    `~astropy.table.Table`
        One row per band: the paths ``image``, ``sigma``, ``mask``, ``psf`` and ``feedme``; the size
        ``nx``, ``ny``; ``x``, ``y``, the target's pixel, from 1; ``zero_point`` (AB);
        ``pixel_scale``; ``psf_size``; and the first guesses ``mag`` and ``radius`` in pixels.

    Raises
    ------
    InvalidRequestError
        If an argument is wrong, the cutout lacks something, its pixels are not nanomaggies per
        pixel, or the PSF is not on its grid.

    Notes
    -----
    ``sigma`` is 1 / sqrt(invvar).  In ``mask`` 1 is bad, as in `to_ccddata`; there ``image`` is 0
    if it had no value.  ``feedme`` starts from one Sérsic profile at the target and a flat sky,
    whose magnitude and radius come from the flux in a circle of a quarter of the box.  GALFIT has
    to be run in the folder, because the names in it have no path.

    Examples
    --------
    >>> import tempfile
    >>> from astroquery_lis import LegacySurvey, sandbox
    >>> from astroquery_lis.images.analysis import galfit_inputs
    >>> with sandbox.serve() as sky:
    ...     hdul = LegacySurvey.get_cutout(sky.positions['field'], 64, bands='r',
    ...                                    products=('image', 'invvar', 'psf'))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table = galfit_inputs(hdul, folder)
    >>> int(table['nx'][0]), int(table['psf_size'][0])
    (64, 63)
    """
    hdul = as_cutout(hdul)
    hdus = flux_planes(hdul, bands, "image")
    ready = [_GalfitBand(hdul, band, mask_bits) for band in hdus]
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    table = Table(rows=[band.write(folder) for band in ready])
    table["pixel_scale"].unit = u.arcsec / u.pix
    table["zero_point"].unit = table["mag"].unit = u.ABmag
    table["radius"].unit = u.pix
    return table


class _GalfitBand:
    """One band, checked, before anything is written."""

    def __init__(self, hdul: fits.HDUList, band: str, mask_bits: Sequence[str] | None) -> None:
        self._band = band
        self._ccd = ccd = to_ccddata(hdul, band, mask_bits=mask_bits)
        header = ccd.meta
        self._check_planes()
        self.side = pixel_side_arcsec(header)
        self._check_unit(float(header.get("FLUXPIX", 0)) or self.side)
        self._check_psf(hdul[f"PSF_{band}"].header)
        self.x, self.y = self._target(hdul[0].header)
        self._good = ~ccd.mask
        self.mag, self.radius = self._guess()

    def _check_planes(self) -> None:
        parts = {"invvar": self._ccd.uncertainty, "psf": self._ccd.psf}
        lacking = [name for name, part in parts.items() if part is None]
        if lacking:
            msg = (
                f"The cutout has no {' and no '.join(lacking)} in {self._band}: ask for "
                "products=('image', 'invvar', 'maskbits', 'psf')."
            )
            raise InvalidRequestError(msg, parameter="hdul", value=lacking)

    def _check_unit(self, flux_pixel_arcsec: float) -> None:
        is_nanomaggy = self._ccd.unit == u.nmgy
        if is_nanomaggy and abs(flux_pixel_arcsec / self.side - 1) <= _SAME_SCALE:
            return
        msg = f"IMAGE_{self._band.upper()} is not in nanomaggies per pixel"
        msg += "; leave convert_flux=False out." if is_nanomaggy else "."
        raise InvalidRequestError(msg, parameter="hdul", value=self._band)

    def _target(self, header: fits.Header) -> tuple[float, float]:
        """Return the pixel of the target, from 0; the middle of a cutout that does not tell it."""
        ny, nx = self._ccd.shape
        if "RA" not in header or "DEC" not in header:
            return (nx - 1) / 2, (ny - 1) / 2
        x, y = self._ccd.wcs.world_to_pixel_values(header["RA"], header["DEC"])
        return float(x), float(y)

    def _check_psf(self, header: fits.Header) -> None:
        scale = float(header.get("PIXSCALE", 0))
        matrix = self._ccd.wcs.pixel_scale_matrix
        turned = np.degrees(np.arctan2(matrix[0, 1], matrix[1, 1]))
        reason = ""
        if abs(scale / self.side - 1) > _SAME_SCALE:
            reason = f"has pixels of {scale:g} arcsec and the image of {self.side:g}"
        elif header.get("ORIENT") != "SKY":
            reason = "is on the axes of the CCD; ask for to_sky=True"
        elif abs(turned) > _ALIGNED_DEG and "PSFMODEL" not in header:
            reason = f"is north up and the image turned by {turned:.1f} degrees"
        if reason:
            msg = f"PSF_{self._band.upper()} {reason}."
            raise InvalidRequestError(msg, parameter="hdul", value=self._band)

    def _guess(self) -> tuple[float, float]:
        """Return the magnitude and half-light radius, pixels, of what lies round the target."""
        data = np.where(self._good, self._ccd.data, 0).astype(float)
        y, x = np.indices(data.shape)
        distance = np.hypot(x - self.x, y - self.y)
        inside = (distance <= min(data.shape) / 4) & self._good
        variance = 1 / self._ccd.uncertainty.array[inside].astype(float)
        flux = max(data[inside].sum(), 5 * np.sqrt(variance.sum()), 1e-3)
        order = np.argsort(distance[inside])
        grown = np.cumsum(data[inside][order])
        half = np.searchsorted(np.maximum.accumulate(grown), flux / 2) if inside.any() else 0
        half = min(half, max(len(order) - 1, 0))
        radius = distance[inside][order][half] if inside.any() else 1.0
        return float(ZERO_POINT - 2.5 * np.log10(flux)), float(max(radius, 1.0))

    def write(self, folder: Path) -> dict[str, object]:
        """Write the files and return the row of the table."""
        ccd, good = self._ccd, self._good
        header = ccd.wcs.to_header()
        header["EXPTIME"] = (1.0, "so that the zero point is that of the pixels")
        header["MAGZERO"] = (ZERO_POINT, "AB magnitude of 1 nanomaggy")
        header["BAND"] = self._band
        header["CREATOR"] = f"astroquery_lis {package_version()}"
        invvar = np.where(good, ccd.uncertainty.array, 1)
        planes = {
            "image": np.where(np.isfinite(ccd.data), ccd.data, 0).astype(np.float32),
            "sigma": np.where(good, 1 / np.sqrt(invvar), MASKED_SIGMA).astype(np.float32),
            "mask": (~good).astype(np.int16),
            "psf": ccd.psf.astype(np.float32),
        }
        units = {"image": "nanomaggy", "sigma": "nanomaggy"}
        row: dict[str, object] = {"band": self._band}
        for name, data in planes.items():
            file = folder / f"{name}_{self._band}.fits"
            hdu = fits.PrimaryHDU(data, fits.Header() if name == "psf" else header.copy())
            hdu.header["BUNIT"] = units.get(name, "")
            hdu.writeto(file, overwrite=True)
            row[name] = str(file)
        feedme = folder / f"galfit_{self._band}.feedme"
        feedme.write_text(self._feedme(), encoding="ascii")
        ny, nx = ccd.shape
        row |= {"feedme": str(feedme), "nx": nx, "ny": ny, "x": self.x + 1, "y": self.y + 1}
        row |= {"zero_point": ZERO_POINT, "pixel_scale": round(self.side, 6)}
        return row | {"psf_size": ccd.psf.shape[0], "mag": self.mag, "radius": self.radius}

    def _feedme(self) -> str:
        template = files(__package__).joinpath("data/galfit.feedme").read_text("ascii")
        (ny, nx), (psf_ny, psf_nx) = self._ccd.shape, self._ccd.psf.shape
        values = {"band": self._band, "nx": nx, "ny": ny, "psf_nx": psf_nx, "psf_ny": psf_ny}
        values |= {"x": self.x + 1, "y": self.y + 1, "side": self.side, "zero_point": ZERO_POINT}
        return template.format(**values, mag=self.mag, radius=self.radius)
