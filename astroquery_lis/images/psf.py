"""Point spread functions: the viewer's, on the CCD's axes or turned to the sky, and a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from astropy.io import fits

from .._packages import package_version
from ..exceptions import (
    CoverageWarning,
    MissingDataError,
    NoCoverageError,
    OptionalDependencyError,
    ServiceDownError,
    TransferError,
    UnexpectedContentError,
    refuse,
    warn,
)
from ..survey.bricks import brick_id
from ..survey.layers import Layer, layer_of
from ..survey.paths import tree_of_brick
from ..survey.releases import PIXEL_SCALE_ARCSEC
from ..survey.request import CutoutRequest
from .assemble import lanczos3
from .coverage import no_data_at
from .plain import plane_name

if TYPE_CHECKING:
    from photutils.psf import ImagePSF

    from .._typing import Payload
    from .sources import BrickFiles
    from .viewer_service import ViewerService

__all__ = ["moffat_psf", "to_photutils", "to_sky"]

MOFFAT_BETA = 3.5
MODEL_SIZE_PIX = 63
CCD_SEARCH_DEG = 0.0025

CAMERAS = {
    ("south", 63): ("DECam", 0.262),
    ("north", 63): ("Mosaic-3", 0.26),
    ("north", 31): ("90Prime", 0.454),
}
"""Camera and pixel scale, arcsec, by region and width of the PSF image (legacypipe ``*.psfex``)."""

NOMINAL_AXES = {
    "decam": ((0.0, 1.0), (-1.0, 0.0)),
    "mosaic": ((0.0, 1.0), (-1.0, 0.0)),
    "90prime": ((-1.0, 0.0), (0.0, 1.0)),
}
"""(east, north) as rows, by CCD (x, y) as columns: how each camera is mounted."""

_NAME = {"DECam": "decam", "Mosaic-3": "mosaic", "90Prime": "90prime"}


@dataclass(frozen=True)
class ViewerPsf:
    """The PSFs of the coadds at a position, from the viewer: of the exposures, averaged."""

    service: Callable[[], ViewerService]
    name: ClassVar[str] = "viewer"

    def fitted(self, request: CutoutRequest) -> CutoutRequest:
        """Return the request with the layer of the region whose exposures make the PSF."""
        assert request.release is not None
        brick = int(brick_id(request.ra_deg, request.dec_deg))
        tree = tree_of_brick(request.release, request.region, brick)
        return replace(request, layer=layer_of(request.release.name, tree.region))

    def payload(self, request: CutoutRequest) -> Payload:
        """Return the viewer's parameters."""
        return {
            "service": f"{self.service().url}/coadd-psf/",
            "params": _parameters(request, _bands(request)),
        }

    def urls(self, request: CutoutRequest) -> list[str]:
        """Return the address of what would be asked."""
        parameters = _parameters(request, _bands(request))
        return [self.service().address("coadd-psf/", **parameters)]

    def answer(self, request: CutoutRequest, on_missing: str) -> fits.HDUList:
        """Return an empty primary HDU, then one HDU per band, ``PSF_G`` and so on, of sum 1."""
        service, bands = self.service(), _bands(request)
        of_band, failures = _psfs_sent(service, request, bands)
        absent = [band for band in bands if band not in of_band]
        if absent:
            msg = f"No PSF in {', '.join(absent)} at this position; there is {', '.join(of_band)}."
            if request.bands is not None and on_missing == "raise":
                missing = MissingDataError(msg, url=self.urls(request)[0])
                raise next(iter(failures.values()), missing)
            warn(msg, CoverageWarning)
        hdus = [of_band[band] for band in bands if band in of_band]
        if request.to_sky:
            hdus = _turned(hdus, service, request)
        return fits.HDUList([_primary(request, service.url, "viewer"), *hdus])


def _psfs_sent(
    service: ViewerService, request: CutoutRequest, bands: tuple[str, ...]
) -> tuple[dict[str, fits.ImageHDU], dict[str, ServiceDownError]]:
    """Return the PSFs by band, and the failures of single bands if others came.

    It answers 500 to a question for several bands as soon as one fails, and where no CCD is.
    """
    layer = _layer(request)
    box, parameters = (request.ra_deg, request.dec_deg, 0.0), _parameters(request, bands)
    try:
        with service.fits("coadd-psf/", box=box, **parameters) as hdul:
            return _psfs_of(hdul, bands, layer, service.address("coadd-psf/", **parameters)), {}
    except ServiceDownError as error:
        if error.status != 500:
            raise
        if not _is_exposed(service, request, bands):
            msg = no_data_at(f"Layer {layer.name}", request.ra_deg, request.dec_deg)
            msg += ": no exposure is there."
            raise NoCoverageError(msg, url=error.url, status=500, cause=error) from error
        if len(bands) > 1:
            sent, failures = _psfs_one_by_one(service, request, bands)
            if sent:
                return sent, failures
        raise


def _psfs_one_by_one(
    service: ViewerService, request: CutoutRequest, bands: tuple[str, ...]
) -> tuple[dict[str, fits.ImageHDU], dict[str, ServiceDownError]]:
    """Return what `_psfs_sent` does, asked for each band by itself."""
    sent: dict[str, fits.ImageHDU] = {}
    failures: dict[str, ServiceDownError] = {}
    for band in bands:
        try:
            with suppress(NoCoverageError):
                sent |= _psfs_sent(service, request, (band,))[0]
        except ServiceDownError as error:
            failures[band] = error
    return sent, failures


def _psfs_of(
    hdul: fits.HDUList, bands: tuple[str, ...], layer: Layer, url: str
) -> dict[str, fits.ImageHDU]:
    """Return the PSFs that an answer holds, by band."""
    of_band = {}
    for hdu in hdul:
        band = str(hdu.header.get("BAND", "")).strip()
        if band in bands and hdu.data is not None and hdu.data.ndim == 2:
            of_band[band] = _ccd_hdu(hdu, band, layer.region, url)
    if not of_band:
        msg = f"{url} sent no PSF of {', '.join(bands)}."
        raise UnexpectedContentError(msg, url=url)
    return of_band


def _is_exposed(service: ViewerService, request: CutoutRequest, bands: tuple[str, ...]) -> bool:
    """Return False if the viewer knows of no CCD there, in any of the bands."""
    try:
        ccds = _ccds(service, request)
    except TransferError:
        return True
    return any(_words(label)[-1] in bands for label, _ in ccds)


def _layer(request: CutoutRequest) -> Layer:
    assert request.layer is not None
    return request.layer


def _bands(request: CutoutRequest) -> tuple[str, ...]:
    return request.bands or _layer(request).bands


def _parameters(request: CutoutRequest, bands: tuple[str, ...]) -> dict[str, str]:
    place = {"ra": repr(request.ra_deg), "dec": repr(request.dec_deg)}
    return {**place, "layer": _layer(request).name, "bands": "".join(bands)}


@dataclass(frozen=True)
class ModelPsf:
    """Round Moffat models with the width of the ``psfsize`` map, from the brick files."""

    files: BrickFiles
    name: ClassVar[str] = "bricks"

    def fitted(self, request: CutoutRequest) -> CutoutRequest:
        """Return the request for the pixel of ``psfsize`` at the position."""
        assert request.release is not None
        if "psfsize" not in request.release.products:
            must = f"has no widths: 'psfsize' is not in {request.release.name}. Take 'viewer'."
            refuse("source", self.name, must)
        return replace(request, ny=1, nx=1, products=("psfsize",), wcs="")

    def payload(self, request: CutoutRequest) -> Payload:
        """Return the addresses of the files."""
        return self.files.payload(request)

    def urls(self, request: CutoutRequest) -> list[str]:
        """Return the addresses of the files."""
        return self.files.urls(request)

    def answer(self, request: CutoutRequest, on_missing: str) -> fits.HDUList:
        """Return HDUs as `ViewerPsf` does, each flagged as a model."""
        return _model_psf(request, self.files.answer(request, on_missing))


def _primary(request: CutoutRequest, mirror: str, source: str) -> fits.PrimaryHDU:
    cards = [
        ("SURVEY", "LegacySurvey", "DESI Legacy Imaging Surveys"),
        ("RELEASE", request.release.name if request.release else "", "data release asked for"),
        ("REGION", request.region, "region asked for"),
        ("SOURCE", source, "what the PSF comes from"),
        ("MIRROR", mirror, "where it comes from"),
        ("RA", request.ra_deg, "[deg] position, ICRS"),
        ("DEC", request.dec_deg, "[deg] position, ICRS"),
        ("CREATOR", f"astroquery_lis {package_version()}", "software"),
    ]
    return fits.PrimaryHDU(header=fits.Header(cards))


def _ccd_hdu(hdu: fits.ImageHDU, band: str, region: str | None, url: str) -> fits.ImageHDU:
    data = hdu.data.astype(np.float64)
    total = data.sum()
    if not np.isfinite(total) or total <= 0 or data.shape[0] != data.shape[1]:
        msg = f"{url} sent a PSF of shape {data.shape} and sum {total:g} in {band}."
        raise UnexpectedContentError(msg, url=url)
    camera, scale = CAMERAS.get((region or "", data.shape[0]), ("", 0.0))
    if not camera:
        msg = f"{url} sent a PSF of {data.shape[0]} pixels, which no camera of the {region} has."
        raise UnexpectedContentError(msg, url=url)
    cards = {"CAMERA": camera, "ORIENT": ("CCD", "axes are those of the CCD, not of the sky")}
    return _psf_hdu((data / total).astype(np.float32), band, scale, cards, url)


def _psf_hdu(
    data: np.ndarray, band: str, scale_arcsec: float, cards: Mapping[str, object], url: str
) -> fits.ImageHDU:
    header = fits.Header()
    header["BAND"] = (band, "filter band")
    header["PIXSCALE"] = (scale_arcsec, "[arcsec] pixel scale")
    header.update(cards)
    header["BUNIT"] = ("", "sum is 1")
    header["URL1"] = url
    return fits.ImageHDU(data, header, name=plane_name("psf", band))


def _ccds(service: ViewerService, request: CutoutRequest) -> list[tuple[str, np.ndarray]]:
    """Return names and corners of the CCDs that touch a small box at a position."""
    place = request.ra_deg, request.dec_deg
    return service.outlines("ccds/", _layer(request).name, *place, CCD_SEARCH_DEG)


def _words(label: str) -> list[str]:
    """Return the parts of a CCD's name: the camera first, the band last."""
    return label.replace("-", " ").split()


def _axes(ccds: list[tuple[str, np.ndarray]], camera: str, band: str) -> tuple[np.ndarray, str]:
    """Return how most CCDs lie, ((east, north) by (x, y)), and where it comes from."""
    turns: Counter[int] = Counter()
    matrices: dict[int, np.ndarray] = {}
    for label, corners in ccds:
        words = _words(label)
        if words[0] != camera or words[-1] != band or corners.shape != (4, 2):
            continue
        matrix = _axes_of(corners)
        turn = round(float(np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))))
        turns[turn] += 1
        matrices.setdefault(turn, matrix)
    if not turns:
        return np.array(NOMINAL_AXES[camera]), "nominal"
    return matrices[turns.most_common(1)[0][0]], "exposures"


def _axes_of(corners: np.ndarray) -> np.ndarray:
    """Return the axes of a CCD from its corners, (1, 1), (1, H), (W, H), (W, 1) in order."""
    ra, dec = corners.T
    east = ((ra - ra[0] + 180) % 360 - 180) * np.cos(np.radians(dec.mean()))
    sky = np.stack([east, dec - dec[0]])
    along_x = (sky[:, 3] - sky[:, 0]) + (sky[:, 2] - sky[:, 1])
    along_y = (sky[:, 1] - sky[:, 0]) + (sky[:, 2] - sky[:, 3])
    return np.stack([along_x / np.hypot(*along_x), along_y / np.hypot(*along_y)], axis=1)


def _turned(
    hdus: list[fits.ImageHDU], service: ViewerService, request: CutoutRequest
) -> list[fits.ImageHDU]:
    """Return PSFs turned to north up, by how the CCDs of the exposures lie."""
    ccds: list[tuple[str, np.ndarray]] = []
    with suppress(TransferError):
        # Else the nominal mounting of the camera serves; the header says which it was.
        ccds = _ccds(service, request)
    return [_sky_hdu(hdu, ccds) for hdu in hdus]


def _sky_hdu(hdu: fits.ImageHDU, ccds: list[tuple[str, np.ndarray]]) -> fits.ImageHDU:
    header = hdu.header.copy()
    matrix, origin = _axes(ccds, _NAME[header["CAMERA"]], header["BAND"])
    data = to_sky(hdu.data, header["PIXSCALE"], matrix)
    header["PIXSCALE"] = (PIXEL_SCALE_ARCSEC, "[arcsec] pixel scale")
    header["ORIENT"] = ("SKY", "north up, east left")
    header["ROTFROM"] = (origin, "where the CCD's orientation comes from")
    for row, part in enumerate("EN"):
        for column, axis in enumerate("XY"):
            header[f"ROT_{part}{axis}"] = (matrix[row, column], f"CCD {axis} to sky {part}")
    return fits.ImageHDU(data, header, name=hdu.name)


def centroid(image: np.ndarray) -> tuple[float, float]:
    """Return the flux-weighted centre (y, x) of an image, in pixels."""
    y, x = np.indices(image.shape)
    weight = np.clip(image, 0, None).astype(float)
    return (weight * y).sum() / weight.sum(), (weight * x).sum() / weight.sum()


def to_sky(
    psf: np.ndarray, pixel_scale_arcsec: float, axes: np.ndarray, *, size: int = MODEL_SIZE_PIX
) -> np.ndarray:
    """Turn a PSF from the axes of its CCD to north up, east left, at the coadds' pixel scale.

    Parameters
    ----------
    psf : `~numpy.ndarray` of float, shape (ny, nx)
        On CCD pixels.
    pixel_scale_arcsec : float
        Of the CCD.
    axes : array_like of float, shape (2, 2)
        Unit vectors: rows east and north, columns CCD x and y.
    size : int, optional
        Width of the result; odd.

    Returns
    -------
    `~numpy.ndarray` of float32, shape (size, size)
        Of sum 1, with its centroid in the middle pixel, on pixels of 0.262 arcsec.

    Examples
    --------
    >>> import numpy as np
    >>> from astroquery_lis.images.psf import moffat_psf, to_sky
    >>> axes = np.array([[0.0, -1.0], [1.0, 0.0]])
    >>> to_sky(moffat_psf(1.2), 0.262, axes, size=31).shape
    (31, 31)
    """
    middle = size // 2
    y, x = (value.ravel() - middle for value in np.indices((size, size)))
    inverse = np.linalg.inv(np.asarray(axes, float))
    ratio = PIXEL_SCALE_ARCSEC / pixel_scale_arcsec
    ccd_x, ccd_y = inverse @ np.stack([-x, y]) * ratio
    center_y, center_x = centroid(psf)
    turned = lanczos3(np.pad(psf, 3), ccd_y + center_y + 3, ccd_x + center_x + 3)
    turned = turned.reshape(size, size)
    return (turned / turned.sum()).astype(np.float32)


def moffat_psf(
    fwhm_arcsec: float, *, size: int = MODEL_SIZE_PIX, beta: float = MOFFAT_BETA
) -> np.ndarray:
    """Return a round Moffat profile on pixels of 0.262 arcsec.

    Parameters
    ----------
    fwhm_arcsec : float
        Full width at half maximum.
    size : int, optional
        Width of the image; odd.
    beta : float, optional
        Slope of the wings; 3.5 lies in the middle of what is seen from the ground (Trujillo et al.
        2001, MNRAS 328, 977).

    Returns
    -------
    `~numpy.ndarray` of float32, shape (size, size)
        Of sum 1, centred on the middle pixel.

    Examples
    --------
    >>> from astroquery_lis.images.psf import moffat_psf
    >>> psf = moffat_psf(1.2, size=31)
    >>> psf.shape, round(float(psf.sum()), 6)
    ((31, 31), 1.0)
    """
    core = fwhm_arcsec / PIXEL_SCALE_ARCSEC / (2 * np.sqrt(2 ** (1 / beta) - 1))
    y, x = np.indices((size, size)) - size // 2
    profile = (1 + (x**2 + y**2) / core**2) ** -beta
    return (profile / profile.sum()).astype(np.float32)


def _model_psf(request: CutoutRequest, psfsize: fits.HDUList) -> fits.HDUList:
    """Build Moffat models from a cutout of psfsize."""
    hdus = [_primary(request, psfsize[0].header["MIRROR"], "bricks")]
    for hdu in psfsize[1:]:
        fwhm = float(hdu.data[hdu.shape[0] // 2, hdu.shape[1] // 2])
        band = hdu.header["BAND"]
        if not fwhm > 0:
            msg = f"The position was not observed in {band}: psfsize is {fwhm:g}."
            warn(msg, CoverageWarning)
            continue
        cards = {
            "ORIENT": ("SKY", "north up, east left"),
            "PSFMODEL": ("MOFFAT", "a model, not a measured PSF"),
            "FWHM": (fwhm, "[arcsec] from the psfsize map"),
            "BETA": (MOFFAT_BETA, "slope of the wings"),
        }
        url = hdu.header.get("URL1", "")
        hdus.append(_psf_hdu(moffat_psf(fwhm), band, PIXEL_SCALE_ARCSEC, cards, url))
    if len(hdus) == 1:
        msg = "The position was not observed in any of the bands asked for."
        raise NoCoverageError(msg)
    return fits.HDUList(hdus)


def to_photutils(hdu: fits.ImageHDU) -> ImagePSF:
    """Return a PSF as a model that photutils can fit.

    Parameters
    ----------
    hdu : `~astropy.io.fits.ImageHDU`
        One of the HDUs that `~astroquery_lis.LegacySurveyClass.get_psf` returns, with
        ``to_sky=True`` for use on a cutout.

    Returns
    -------
    `photutils.psf.ImagePSF`
        In pixels of the HDU.

    Raises
    ------
    OptionalDependencyError
        If photutils is not installed.

    Examples
    --------
    >>> from astroquery_lis import LegacySurvey, sandbox
    >>> from astroquery_lis.images.psf import to_photutils
    >>> with sandbox.serve() as sky:
    ...     psf = LegacySurvey.get_psf(sky.positions['star'], bands='r', to_sky=True)
    >>> model = to_photutils(psf['PSF_R'])  # doctest: +SKIP
    """
    try:
        from photutils.psf import ImagePSF
    except ImportError as error:
        msg = "photutils is not installed; install photutils 2.0 or later."
        raise OptionalDependencyError(msg, cause=error) from error
    return ImagePSF(np.asarray(hdu.data, float), flux=1.0)
