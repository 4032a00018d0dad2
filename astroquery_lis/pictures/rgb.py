"""Colour pictures of cutouts: the survey's own arcsinh colours, and Lupton's.

The survey's stretch (legacypipe and viewer, ``sdss_rgb``): each band is brought to a common level
by a gain, their mean ``I`` is stretched to ``arcsinh(20 I) / sqrt(20)``, and every band is scaled
by the same ratio, so that colours do not depend on brightness.
"""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.stats import mad_std

from .._packages import import_optional
from ..exceptions import OptionalDependencyError, refuse
from ..images.cutout_hdus import as_cutout, flux_planes, side_arcsec, sky_matrix
from ..images.plain import PlainCutout
from ..survey.releases import PIXEL_SCALE_ARCSEC
from ..survey.request import as_choice

if TYPE_CHECKING:
    from astropy.io import fits

    from .._typing import Bands, FilePath
    from ..images.array_files import Facts
    from ..images.cutting import Answer

NO_DATA_COLOUR = (74, 76, 84)
"""Red, green and blue of pixels without a value: a grey that empty sky, (32, 32, 32), is not."""

_GAINS = {"u": 6.0, "g": 6.0, "r": 3.4, "i": 3.0, "z": 2.2, "Y": 2.2}
_LUPTON_GAINS = {"u": 9.0, "g": 9.0, "r": 6.0, "i": 5.0, "z": 4.0, "Y": 4.0}

_GRIZ_GAIN = 1.5
_GRIZ = {
    "g": (0.0, 0.0, 0.75),
    "r": (0.0, 0.5, 0.25),
    "i": (0.25, 0.5, 0.0),
    "z": (0.75, 0.0, 0.0),
}
"""Share of each band in red, green and blue, as in the viewer's DR10."""

_OFFSET = 0.03
_SOFTENING = 20.0
_LUPTON = {"stretch": 0.3, "Q": 8}

_NOISE_LEVEL = 0.02
"""What the noise of a band of unknown unit is brought to: about that of g in the survey."""

_ROWS_AT_ONCE = 512

_GREY_RANGE = (-2.0, 80.0)
"""Black and white, in units of the noise."""

_GREY_SOFTENING = 3.0
_NO_VALUE_LEVEL = 0.5


def rgb(
    hdul: fits.HDUList | FilePath,
    *,
    stretch: str = "survey",
    bands: Bands | None = None,
    product: str | None = None,
    brightness: float = 1.0,
) -> np.ndarray:
    """Return a colour picture of a cutout.

    Parameters
    ----------
    hdul : `~astropy.io.fits.HDUList`, str or path-like
        As `~astroquery_lis.LegacySurveyClass.get_cutout` returns it; or the FITS file of one, or
        of the viewer's ``cutout.fits``.
    stretch : {'survey', 'lupton'}, optional
        The colours of the survey and its viewer, or those of Lupton et al. (2004, PASP 116, 133).
    bands : str or sequence of str, optional
        Bands to show, such as ``'grz'``; by default the optical ones that the cutout has.  One
        gives a grey picture.
    product : {'image', 'model', 'blobmodel', 'resid'}, optional
        What to show; by default the first of these that the cutout has.
    brightness : float, optional
        Factor on the flux; more than 1 shows fainter things.

    Returns
    -------
    `~numpy.ndarray` of uint8, shape (ny, nx, 3)
        Red, green, blue.  The first row is the northernmost, the first column the easternmost, as
        far as flips bring that about.  Pixels without a value, or of an image that is exactly 0 in
        every band, which says that it was not observed, are of ``NO_DATA_COLOUR``.

    Raises
    ------
    InvalidRequestError
        If an argument is wrong or names what the cutout does not have.

    Notes
    -----
    Three bands are blue, green and red in order of wavelength.  The four bands g, r, i, z are
    shared out as in the viewer's layer ``ls-dr10``; ``bands='grz'`` gives the colours of DR9 and of
    ``ls-dr10-grz``.  Where a band has no value, the others share its part.  Flux is taken per
    native pixel, so that a cutout of another pixel scale looks the same.

    Examples
    --------
    >>> from astroquery_lis import LegacySurvey, sandbox
    >>> from astroquery_lis import pictures
    >>> with sandbox.serve() as sky:
    ...     hdul = LegacySurvey.get_cutout(sky.positions["field"], 64)
    >>> pictures.rgb(hdul).shape
    (64, 64, 3)
    """
    picture, matrix = colours(
        hdul, stretch=stretch, bands=bands, product=product, brightness=brightness
    )
    return north_up(picture, matrix)


def colours(
    hdul: fits.HDUList | FilePath,
    *,
    stretch: str = "survey",
    bands: Bands | None = None,
    product: str | None = None,
    brightness: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the picture in the order of the pixels, and how they lie on the sky (`sky_matrix`)."""
    as_choice("stretch", stretch, _STRETCHES)
    _check_brightness(brightness)
    hdus = flux_planes(as_cutout(hdul), bands, product)
    gains, mix, griz_gain = _STRETCHES[stretch]
    is_griz = set(hdus) == set(_GRIZ)
    matrix = sky_matrix(next(iter(hdus.values())).header)
    factor = brightness * (griz_gain if is_griz else 1)
    levels = [_level(band, hdu, gains, side_arcsec(matrix)) for band, hdu in hdus.items()]
    scales, zeros = np.array(levels, float).T[:, :, None, None]
    scales = (scales * factor).astype(np.float32)
    shares = np.array([_GRIZ[band] for band in hdus] if is_griz else _shares(len(hdus)))
    shows_image = all(hdu.name.startswith("IMAGE") for hdu in hdus.values())
    planes = [hdu.data for hdu in hdus.values()]
    picture = np.empty((*planes[0].shape, 3), np.uint8)
    for start in range(0, len(picture), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        block = np.stack([plane[rows] for plane in planes]).astype(np.float32)
        has = np.isfinite(block)
        block[~has] = 0
        is_empty = ~has.any(axis=0) | (shows_image & ~block.any(axis=0))
        picture[rows] = mix((block - zeros.astype(np.float32)) * scales, has, shares)
        picture[rows][is_empty] = NO_DATA_COLOUR
    return picture, matrix


def _check_brightness(brightness: float) -> None:
    is_number = isinstance(brightness, Real) and not isinstance(brightness, bool)
    if not is_number or not 0 < brightness < np.inf:
        refuse("brightness", brightness, "must be a number above 0.")


def _level(
    band: str, hdu: fits.ImageHDU, gains: dict[str, float], side: float
) -> tuple[float, float]:
    """Return the factor on a band's flux, and the flux that is shown as none."""
    if band in gains and str(hdu.header.get("BUNIT", "nanomaggy")).strip() == "nanomaggy":
        side = float(hdu.header.get("FLUXPIX", 0)) or side
        return gains[band] * (PIXEL_SCALE_ARCSEC / side) ** 2, 0.0
    sample = hdu.data[:: max(1, hdu.data.shape[0] // 1000), :: max(1, hdu.data.shape[1] // 1000)]
    sample = sample[np.isfinite(sample)].astype(float)
    if not sample.size:
        return 1.0, 0.0
    noise = mad_std(sample) or np.ptp(sample) / 10
    return _NOISE_LEVEL / (noise or 1.0), float(np.median(sample))


def _shares(n: int) -> np.ndarray:
    """Return the shares of n bands, blue to red, in red, green and blue, as rows."""
    place = np.linspace(0, 1, n) if n > 1 else np.array([0.5])
    shares = np.stack([2 * place - 1, 1 - np.abs(2 * place - 1), 1 - 2 * place], axis=1)
    shares = np.clip(shares, 0, None)
    total = shares.sum(axis=0)
    return shares / np.where(total > 0, total, 1)


def _mixed(planes: np.ndarray, has: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Mix bands to channels; where a channel has none of its bands, it is their mean."""
    count = has.sum(axis=0)
    mean = np.where(has, planes, 0).sum(axis=0) / np.maximum(count, 1)
    picture = np.empty((*mean.shape, 3), np.float32)
    for channel in range(3):
        weight = shares[:, channel, None, None] * has
        total = weight.sum(axis=0)
        mixed = (weight * planes).sum(axis=0)
        picture[..., channel] = np.where(total > 0, mixed / np.where(total > 0, total, 1), mean)
    return picture


def _survey(planes: np.ndarray, has: np.ndarray, shares: np.ndarray) -> np.ndarray:
    planes = planes + np.float32(_OFFSET)
    brightness = np.where(has, np.maximum(planes, 0), 0).sum(axis=0)
    brightness /= np.maximum(has.sum(axis=0), 1)
    stretched = np.arcsinh(_SOFTENING * brightness) / np.sqrt(_SOFTENING)
    planes = np.clip(planes * (stretched / np.maximum(brightness, 1e-6)), 0, 1)
    return (_mixed(planes, has, shares) * 255).astype(np.uint8)


def _lupton(planes: np.ndarray, has: np.ndarray, shares: np.ndarray) -> np.ndarray:
    # It imports matplotlib where that is installed.
    from astropy.visualization import make_lupton_rgb

    return make_lupton_rgb(*np.moveaxis(_mixed(planes, has, shares), -1, 0), **_LUPTON)


_STRETCHES = {"survey": (_GAINS, _survey, _GRIZ_GAIN), "lupton": (_LUPTON_GAINS, _lupton, 1.0)}
"""Gains of the bands, what mixes them, and a factor where all four are mixed."""


def grey_levels(data: np.ndarray, good: np.ndarray | None = None) -> np.ndarray:
    """Return an image as levels from 0 to 1 by arcsinh of the noise, 0.5 where there is no value.

    Only good pixels decide on the levels.
    """
    has = np.isfinite(data)
    values = data[has if good is None or not (has & good).any() else has & good]
    if not values.size:
        return np.full(data.shape, _NO_VALUE_LEVEL)
    noise = mad_std(values) or np.ptp(values) / 1000 or 1.0
    low, high = np.arcsinh(np.array(_GREY_RANGE) / _GREY_SOFTENING)
    scaled = np.arcsinh((np.where(has, data, 0) - np.median(values)) / noise / _GREY_SOFTENING)
    return np.where(has, np.clip((scaled - low) / (high - low), 0, 1), _NO_VALUE_LEVEL)


def north_up(array: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return a view with the northern row and the eastern column first, by flips."""
    rows, columns = flips(matrix)
    return array[::rows, ::columns]


def flips(matrix: np.ndarray) -> tuple[int, int]:
    """Return the steps of `north_up` along rows and columns: -1 where it flips."""
    # Of a grid turned by more than 45 degrees only the handedness can be mended.
    if abs(matrix[1, 1]) < abs(matrix[1, 0]):
        matrix = np.diag([np.sign(np.linalg.det(matrix)), 1.0])
    return -1 if matrix[1, 1] > 0 else 1, -1 if matrix[0, 0] > 0 else 1


# ---- files ---------------------------------------------------------------------------------------

_SUFFIXES = {"png": ".png", "jpeg": ".jpg"}


@dataclass(frozen=True)
class PictureEncoding:
    """How a cutout becomes a picture in the survey's colours, and what a file of one tells."""

    kind: str

    @property
    def suffix(self) -> str:
        """Ending of the files' names."""
        return _SUFFIXES[self.kind]

    def encode(self, answer: Answer, key: str, facts: Facts) -> bytes:
        """Return a file; its comment has the key of the request and the facts, as JSON."""
        picture = rgb(answer.to_hdus() if isinstance(answer, PlainCutout) else answer)
        text = json.dumps({"request": key, **facts})
        options: dict[str, Any] = {"comment": text}
        if self.kind == "png":
            info = import_optional("PIL.PngImagePlugin", "plot", "PNG").PngInfo()
            info.add_text("Comment", text)
            options = {"pnginfo": info}
        return picture_bytes(picture, self.kind, f"output={self.kind!r}", **options)

    def decode(self, data: bytes) -> tuple[str, Facts]:
        """Return the key of the request and the facts; raise OSError if it is no such file."""
        pillow: Any = import_optional("PIL.Image", "plot", f"output={self.kind!r}")
        with pillow.open(io.BytesIO(data)) as image:
            image.load()
            comment = image.info.get("Comment", image.info.get("comment", ""))
        try:
            facts = json.loads(comment)
            return facts.pop("request"), facts
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            msg = "The picture has no comment of ours."
            raise OSError(msg) from error


_JPEG = {"quality": 95, "subsampling": 0}


def png_bytes(picture: np.ndarray) -> bytes:
    """Return a picture of uint8, shape (ny, nx, 3) or (ny, nx), first row on top, as a PNG file."""
    picture = np.ascontiguousarray(picture, np.uint8)
    ny, nx = picture.shape[:2]
    rows = picture.reshape(ny, -1)
    # Filter 2 of PNG: each row as its difference from the one above.
    lines = np.empty((ny, rows.shape[1] + 1), np.uint8)
    lines[:, 0] = 2
    lines[:, 1:] = rows
    lines[1:, 1:] -= rows[:-1]
    kind = 2 if picture.ndim == 3 else 0
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", nx, ny, 8, kind, 0, 0, 0)),
        (b"IDAT", zlib.compress(lines.tobytes(), 6)),
        (b"IEND", b""),
    )
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def picture_bytes(picture: np.ndarray, kind: str, purpose: str, **options: Any) -> bytes:
    """Return a picture as a file of pillow's: ``'jpeg'`` or ``'png'``, first row on top."""
    pillow = import_optional("PIL.Image", "plot", purpose)
    stream = io.BytesIO()
    options = (_JPEG if kind == "jpeg" else {}) | options
    pillow.fromarray(np.ascontiguousarray(picture)).save(stream, kind, **options)
    return stream.getvalue()


def data_uri(picture: np.ndarray | bytes, *, lossless: bool = False) -> str:
    """Return a picture as an address that holds it: a JPEG where pillow is there, or a PNG."""
    kind = "png"
    if isinstance(picture, bytes):
        data = picture
    elif lossless:
        data = png_bytes(picture)
    else:
        try:
            data = picture_bytes(picture, "jpeg", "A JPEG", quality=90, optimize=True)
            kind = "jpeg"
        except OptionalDependencyError:
            data = png_bytes(picture)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def thumbnail(picture: np.ndarray, size: int, *, enlarge: bool = False) -> np.ndarray:
    """Return a picture that fits into a square, by averaging or repeating whole pixels."""
    ny, nx = picture.shape[:2]
    factor = -(-max(ny, nx) // size)
    if factor == 1:
        times = size // max(ny, nx) if enlarge else 1
        return picture.repeat(times, axis=0).repeat(times, axis=1)
    # The last block is filled up by repeating the edge, so that no pixel is lost.
    pad = [(0, -ny % factor), (0, -nx % factor)] + [(0, 0)] * (picture.ndim - 2)
    blocks = np.pad(picture, pad, mode="edge")
    shape = (blocks.shape[0] // factor, factor, blocks.shape[1] // factor, factor)
    return blocks.reshape(*shape, *picture.shape[2:]).mean(axis=(1, 3)).astype(np.uint8)
