"""The simulated exposures: PSFs, the rows of their CCDs, and single CCDs as the viewer gives them.

A CCD is a gzip file of one image.  Its counts are those of a calibrated but not sky-subtracted
exposure: the scene at the CCD's zero point and exposure time, on its sky level, with noise of the
``sig1`` of its row.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from astropy.io import fits
from astropy.time import Time

from ..survey import bricks, releases
from ..survey.bricks import Brick
from ..survey.pixel_grids import Box, TangentGrid
from . import sky

# Where the exposures were guided badly: RA, Dec in degrees.
ELONGATED_DEG = (45.120, 0.065)

_ELONGATED_RADIUS_ARCSEC = 40.0
_AXIS_RATIO = 0.7
_POSITION_ANGLE_DEG = 30.0


@dataclass(frozen=True)
class Camera:
    """How a camera sees the sky, and what its exposures are called."""

    name: str
    pixel_scale_arcsec: float
    size_pix: int  # of the PSF
    axes: tuple
    ccd_pix: tuple[int, int]  # width and height
    ccds: tuple[int, int]  # side by side and above each other
    first_exposure: int
    proposal: str


# A DECam CCD has its rows along the meridian: x runs south, y runs east.
# The Mosaic cameras at Kitt Peak say the same of themselves (DECPANGL 270, RAPANGL 0).
_MERIDIAN = ((0, 1), (-1, 0))
_UPRIGHT = ((-1, 0), (0, 1))
_DECAM = Camera("decam", 0.262, 63, _MERIDIAN, (2046, 4094), (8, 7), 410000, "2014B-0404")
_BOK = Camera("90prime", 0.454, 31, _UPRIGHT, (4032, 4096), (2, 2), 85000, "BOK2015-A")
_MOSAIC = Camera("mosaic", 0.26, 63, _MERIDIAN, (4079, 4054), (2, 2), 110000, "2016A-0453")
# The camera of each region and band.
CAMERAS = {("south", band): _DECAM for band in "griz"}
CAMERAS |= {("north", "g"): _BOK, ("north", "r"): _BOK, ("north", "z"): _MOSAIC}


class CcdGrid:
    """Where positions are on a CCD: a tangent plane, the pixel at its origin and the CD matrix."""

    def __init__(
        self, ra_deg: float, dec_deg: float, first_pix: tuple[float, float], cd: np.ndarray
    ) -> None:
        self.scale_deg = float(np.sqrt(abs(np.linalg.det(cd))))
        self._cd, self._first = cd, np.array(first_pix)
        # A degree per pixel: the pixels are offsets in the tangent plane, x to the west.
        self._plane = TangentGrid(ra_deg, dec_deg, 0.0, 0.0, 1.0)

    def to_pixel(self, ra_deg: np.ndarray, dec_deg: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return pixels counted from 0; NaN on the far side of the sky."""
        west, north = self._plane.to_pixel(ra_deg, dec_deg)
        x, y = np.tensordot(np.linalg.inv(self._cd), np.stack([-west, north]), axes=1)
        return x + self._first[0], y + self._first[1]

    def to_sky(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return RA and Dec, degrees."""
        east, north = self._cd @ np.stack([x - self._first[0], y - self._first[1]])
        return self._plane.to_sky(-east, north)


@dataclass(frozen=True)
class PsfShape:
    """The shape of the PSF on the sky."""

    fwhm_arcsec: float
    axis_ratio: float
    position_angle_deg: float

    @property
    def major_fwhm_arcsec(self) -> float:
        """Full width at half maximum along the major axis."""
        return self.fwhm_arcsec / np.sqrt(self.axis_ratio)

    @property
    def minor_fwhm_arcsec(self) -> float:
        """Full width at half maximum along the minor axis."""
        return self.fwhm_arcsec * np.sqrt(self.axis_ratio)


def psf_shape(ra_deg: float, dec_deg: float, band: str) -> PsfShape:
    """Return the shape of the PSF that the PSF service gives at a place."""
    east = (ra_deg - ELONGATED_DEG[0] + 180) % 360 - 180
    distance = np.hypot(east * np.cos(np.radians(dec_deg)), dec_deg - ELONGATED_DEG[1]) * 3600
    fwhm = sky.psf_fwhm_arcsec(band)
    if distance < _ELONGATED_RADIUS_ARCSEC:
        return PsfShape(fwhm, _AXIS_RATIO, _POSITION_ANGLE_DEG)
    return PsfShape(fwhm, 1.0, 0.0)


def ccd_psf(ra_deg: float, dec_deg: float, region: str, band: str) -> np.ndarray:
    """Return the PSF at a place in the pixels of the CCD."""
    camera = CAMERAS[region, band]
    shape = psf_shape(ra_deg, dec_deg, band)
    angle = np.radians(shape.position_angle_deg)
    # In (east, north), for a PSF with a sigma of 1 arcsec.
    major = np.array([np.sin(angle), np.cos(angle)]) / shape.axis_ratio**0.5
    minor = np.array([np.cos(angle), -np.sin(angle)]) * shape.axis_ratio**0.5
    to_ccd = np.linalg.inv(np.array(camera.axes) * camera.pixel_scale_arcsec)
    spread = to_ccd @ np.column_stack([major, minor])
    unit = np.linalg.inv(spread @ spread.T)
    y, x = np.mgrid[: camera.size_pix, : camera.size_pix] - (camera.size_pix - 1) / 2
    distance2 = unit[0, 0] * x**2 + 2 * unit[0, 1] * x * y + unit[1, 1] * y**2
    psf = sum(
        weight / sigma**2 * np.exp(-0.5 * distance2 / sigma**2)
        for weight, sigma in sky.psf_components(band)
    )
    return (psf / psf.sum()).astype(np.float32)


_PASSES = 2
_ZERO_POINT = {"g": 25.08, "r": 25.29, "i": 25.20, "z": 24.92}
_SKY_MAG = {"g": 22.0, "r": 21.0, "i": 20.2, "z": 19.0}
_EXPTIME_S = {"g": 90.0, "r": 70.0, "i": 90.0, "z": 100.0}

_COLUMNS = """
image_filename S65, image_hdu i2, camera S7, expnum i8, plver S8, procdate S19, plprocid S7,
ccdname S4, object S35, propid S10, filter S1, exptime f4, mjd_obs f8, airmass f4, fwhm f4,
width i2, height i2, ra_bore f8, dec_bore f8, crpix1 f4, crpix2 f4, crval1 f8, crval2 f8,
cd1_1 f4, cd1_2 f4, cd2_1 f4, cd2_2 f4, yshift ?, ra f8, dec f8, skyrms f4, sig1 f4, ccdzpt f4,
zpt f4, ccdraoff f4, ccddecoff f4, ccdskycounts f4, ccdskysb f4, ccdrarms f4, ccddecrms f4,
ccdphrms f4, phrms f4, ccdnastrom i2, ccdnphotom i2, ccd_cuts i8, ccd_x0 i2, ccd_y0 i2,
ccd_x1 i2, ccd_y1 i2, brick_x0 i2, brick_x1 i2, brick_y0 i2, brick_y1 i2, psfnorm f4,
galnorm f4, skyver S8, psfver S20, skyplver S8, psfplver S8
"""


class _Ccd:
    """One CCD of one exposure: a cell of the lattice of a band and pass."""

    def __init__(self, region: str, band: str, number: int, column: int, row: int) -> None:
        self.camera, self.band, self.number = CAMERAS[region, band], band, number
        self.width, self.height = self.camera.ccd_pix
        across, up = self.camera.ccds
        spans = _spans_deg(region, band)
        shift = number / _PASSES
        self.dec_deg = (row + 0.5 + shift) * spans[1]
        step = 360.0 / _columns(spans[0], self.dec_deg)
        self.ra_deg = ((column + 0.5 + shift) * step) % 360.0
        block, place = divmod(column, across), divmod(row, up)
        # One exposure for each block of CCDs; which number it has does not matter.
        unique = (block[0] * 1009 + place[0] * 31) % 9000
        self.exposure = self.camera.first_exposure + unique * 8 + 2 * "griz".index(band)
        self.exposure += number
        self.order = block[1] + across * place[1]
        self.bore_deg = (
            ((block[0] + 0.5) * across * step) % 360.0,
            (place[0] + 0.5) * up * spans[1],
        )
        self.cd = np.array(self.camera.axes, float) * self.camera.pixel_scale_arcsec / 3600
        middle = (self.width - 1) / 2, (self.height - 1) / 2
        self.grid = CcdGrid(self.ra_deg, self.dec_deg, middle, self.cd)

    @property
    def name(self) -> str:
        if self.camera.name != "decam":
            return f"CCD{self.order + 1}"
        return f"S{self.order + 1}" if self.order < 31 else f"N{self.order - 30}"


def _spans_deg(region: str, band: str) -> np.ndarray:
    """Return how wide and how high a CCD is on the sky, degrees."""
    camera = CAMERAS[region, band]
    size = np.diag(camera.ccd_pix) * camera.pixel_scale_arcsec / 3600
    return np.abs(np.array(camera.axes) @ size).max(axis=1)


def _columns(span_deg: float, dec_deg: float) -> int:
    """Return how many CCDs are side by side around the sky."""
    return int(np.ceil(360.0 * np.cos(np.radians(dec_deg)) / span_deg))


def _near(region: str, band: str, brick: Brick) -> Iterator[_Ccd]:
    """Yield the CCDs of the lattice around a brick."""
    across, up = _spans_deg(region, band)
    margin = 0.03
    for number in range(_PASSES):
        shift = number / _PASSES
        rows = np.floor(np.array([brick.dec1_deg - margin, brick.dec2_deg + margin]) / up - shift)
        for row in range(int(rows[0]), int(rows[1]) + 1):
            dec = (row + 0.5 + shift) * up
            count = _columns(across, dec)
            aside = margin / np.cos(np.radians(dec))
            limits = np.array([brick.ra1_deg - aside, brick.ra2_deg + aside])
            columns = np.floor(limits * count / 360.0 - shift)
            for column in range(int(columns[0]), int(columns[1]) + 1):
                yield _Ccd(region, band, number, column % count, row)


@cache
def _ccds_of(release: str, region: str, name: str) -> np.ndarray:
    tree = releases.get_tree(release, region)
    brick = bricks.get_brick(name)
    rows = []
    for band in tree.bands:
        for ccd in _near(region, band, brick):
            boxes = _overlap(ccd, brick)
            if boxes is not None:
                rows.append(_row(ccd, region, boxes))
    return np.concatenate(rows)


def corners(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of the corners of an image: bottom left, and on along its left side."""
    right, top = width - 1, height - 1
    return np.array([0, 0, right, right]), np.array([0, top, top, 0])


def _overlap(ccd: _Ccd, brick: Brick) -> tuple[int, ...] | None:
    """Return the common pixels in the CCD and in the brick, or `None` without any observed."""
    grid = bricks.brick_grid(brick.id)
    x, y = grid.to_pixel(*ccd.grid.to_sky(*corners(ccd.width, ccd.height)))
    if not np.isfinite(x).all():
        return None
    edges = (np.ceil(y.min()), np.floor(y.max()) + 1, np.ceil(x.min()), np.floor(x.max()) + 1)
    common = Box(*map(int, edges)).clipped(bricks.IMAGE_SIZE_PIX, bricks.IMAGE_SIZE_PIX)
    if not any(_meet(common, window) for window in sky.windows_of(brick.name)):
        return None
    x, y = corners(*common.shape[::-1])
    x, y = ccd.grid.to_pixel(*grid.to_sky(x + float(common.x0), y + float(common.y0)))
    limits = np.array([ccd.width, ccd.height] * 2) - 1
    ends = np.clip(np.round([x.min(), y.min(), x.max(), y.max()]), 0, limits).astype(int)
    return (*ends, common.x0, common.x1 - 1, common.y0, common.y1 - 1)


def _meet(box: Box, window: Box) -> bool:
    """Return True if two boxes have a pixel in common."""
    inner = box.moved(-window.y0, -window.x0).clipped(*window.shape)
    return 0 not in inner.shape


def _row(ccd: _Ccd, region: str, boxes: tuple[int, ...]) -> np.ndarray:
    rows = np.zeros(1, [tuple(entry.split()) for entry in _COLUMNS.split(",")])
    scale, band, camera = ccd.camera.pixel_scale_arcsec, ccd.band, ccd.camera.name
    rng = np.random.default_rng([7, ccd.exposure, ccd.order])
    exposed = np.random.default_rng([7, ccd.exposure])
    sig1 = sky.NOISE_SIGMA[band] * scale / releases.PIXEL_SCALE_ARCSEC
    zero_point = _ZERO_POINT[band] + exposed.normal(0, 0.03)
    counts = 10 ** ((zero_point - _SKY_MAG[band]) / 2.5) * scale**2
    values = {
        "image_filename": f"{camera}/CP/SIMULATED/{ccd.exposure}_ooi_{band}.fits.fz",
        "image_hdu": ccd.order + 1,
        "camera": camera,
        "expnum": ccd.exposure,
        "plver": "V0.0",
        "procdate": "2020-01-01T00:00:00",
        "plprocid": "sim0000",
        "ccdname": ccd.name,
        "object": "SIMULATED",
        "propid": ccd.camera.proposal,
        "filter": band,
        "exptime": _EXPTIME_S[band],
        "mjd_obs": (56700.0 if region == "south" else 57400.0) + exposed.uniform(0, 600),
        "airmass": 1.0 + exposed.uniform(0, 0.5),
        "fwhm": sky.psf_fwhm_arcsec(band) / scale,
        "width": ccd.width,
        "height": ccd.height,
        "ra_bore": ccd.bore_deg[0],
        "dec_bore": ccd.bore_deg[1],
        "crpix1": (ccd.width + 1) / 2,
        "crpix2": (ccd.height + 1) / 2,
        "crval1": ccd.ra_deg,
        "crval2": ccd.dec_deg,
        "ra": ccd.ra_deg,
        "dec": ccd.dec_deg,
        "skyrms": np.sqrt(counts / _EXPTIME_S[band]),
        "sig1": sig1,
        "ccdzpt": zero_point + rng.normal(0, 0.005),
        "zpt": zero_point,
        "ccdskycounts": counts,
        "ccdskysb": _SKY_MAG[band],
        "ccdrarms": 0.02,
        "ccddecrms": 0.02,
        "ccdphrms": 0.015,
        "phrms": 0.015,
        "ccdnastrom": rng.integers(100, 300),
        "ccdnphotom": rng.integers(50, 150),
        "psfnorm": np.sqrt(sky.psf_norm(band, scale)),
        "galnorm": np.sqrt(sky.galaxy_norm(band, scale)),
        "skyver": "sim",
        "psfver": "sim",
        "skyplver": "V0.0",
        "psfplver": "V0.0",
    }
    for (i, j), value in np.ndenumerate(ccd.cd):
        values[f"cd{i + 1}_{j + 1}"] = value
    names = "ccd_x0 ccd_y0 ccd_x1 ccd_y1 brick_x0 brick_x1 brick_y0 brick_y1"
    values |= dict(zip(names.split(), boxes, strict=True))
    for name, value in values.items():
        rows[name] = value
    return rows


def ccd_rows(release: str, region: str, brick: str) -> np.ndarray:
    """Return the CCDs that went into the coadds of a brick."""
    return _ccds_of(release, region, brick).copy()


# Values of the data quality plane: a dead column, a saturated pixel.
_BAD, _SATURATED = 1, 2
_BAD_COLUMN_PIX = 700
_SATURATION_COUNTS = 6e4
_KEPT_FILES = 6
_NOISE_PIX = 1 << 20
_WCS = ("crval1", "crval2", "crpix1", "crpix2", "cd1_1", "cd1_2", "cd2_1", "cd2_2")


def ccd_grid(row: np.void) -> CcdGrid:
    """Return where positions are on a CCD, by the WCS of its row."""
    cd = np.array([row[name] for name in _WCS[4:]], float).reshape(2, 2)
    first = float(row["crpix1"]) - 1, float(row["crpix2"]) - 1
    return CcdGrid(float(row["crval1"]), float(row["crval2"]), first, cd)


def layer_ccds(
    tree: tuple[str, str], bricks: Iterable[str], bands: Iterable[str]
) -> dict[tuple[str, int, str], np.void]:
    """Return the CCDs behind some bricks of a tree, each once."""
    return {
        (row["camera"].decode(), int(row["expnum"]), row["ccdname"].decode()): row
        for brick in bricks
        for row in ccd_rows(*tree, brick)
        if row["filter"].decode() in bands
    }


@lru_cache(_KEPT_FILES)
def ccd_file(kind: str, tree: tuple[str, str], key: tuple[str, int, str]) -> bytes:
    """Return the file of a CCD of a tree: its image, inverse variance (iv) or quality (dq)."""
    row = layer_ccds(tree, sky.BRICKS[tree], "griz")[key]
    planes = {"image": _with_noise, "iv": _inverse_variance, "dq": _quality}
    stream = io.BytesIO()
    fits.PrimaryHDU(planes[kind](row, _counts(row)), _header(row)).writeto(stream)
    return gzip.compress(stream.getvalue(), compresslevel=1, mtime=0)


def _per_nanomaggy(row: np.void) -> float:
    """Return how many counts the exposure has for a nanomaggy."""
    return 10 ** ((float(row["ccdzpt"]) - sky.ZERO_POINT) / 2.5) * float(row["exptime"])


def _counts(row: np.void) -> np.ndarray:
    """Return the counts of a CCD without noise."""
    shape = int(row["height"]), int(row["width"])
    band = row["filter"].decode()
    scene = sky.render(sky.truth(), band, ccd_grid(row), shape=shape)
    scene *= _per_nanomaggy(row)
    scene += float(row["ccdskycounts"]) * float(row["exptime"])
    return scene


def _quality(row: np.void, counts: np.ndarray) -> np.ndarray:
    flags = np.where(counts > _SATURATION_COUNTS, _SATURATED, 0).astype(np.int16)
    flags[:, _BAD_COLUMN_PIX] |= _BAD
    return flags


def _inverse_variance(row: np.void, counts: np.ndarray) -> np.ndarray:
    invvar = np.full(counts.shape, 1 / (float(row["sig1"]) * _per_nanomaggy(row)) ** 2)
    invvar[_quality(row, counts) > 0] = 0
    return invvar.astype(np.float32)


def _with_noise(row: np.void, counts: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng([11, int(row["expnum"]), int(row["image_hdu"])])
    # A stretch of noise serves again and again, from another place: it is drawn in no time.
    noise = rng.standard_normal(_NOISE_PIX, dtype=np.float32)
    noise *= float(row["sig1"]) * _per_nanomaggy(row)
    width = counts.shape[1]
    for line, start in zip(counts, rng.integers(0, _NOISE_PIX - width, len(counts)), strict=True):
        line += noise[start : start + width]
    return np.round(np.minimum(counts, _SATURATION_COUNTS)).astype(np.float32)


def _header(row: np.void) -> fits.Header:
    cards = [
        ("EXPNUM", int(row["expnum"])),
        ("CCDNAME", row["ccdname"].decode()),
        ("FILTER", row["filter"].decode()),
        ("EXPTIME", float(row["exptime"])),
        ("MJD-OBS", float(row["mjd_obs"])),
        ("DATE-OBS", Time(float(row["mjd_obs"]), format="mjd").isot),
        ("BUNIT", "electron"),
        ("CTYPE1", "RA---TAN"),
        ("CTYPE2", "DEC--TAN"),
        ("CUNIT1", "deg"),
        ("CUNIT2", "deg"),
    ]
    cards += [(name.upper(), float(row[name])) for name in _WCS]
    return fits.Header(cards)
