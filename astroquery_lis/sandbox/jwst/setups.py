"""The detectors, the filters, and what the exposures of a mode share, in plain numpy.

The chain of the pipeline's ``assign_wcs`` step is written out here a second time, from the
definitions of the V2V3 frame and of its keywords, so that agreement between the two means
something.  Pixels are counted from 0 at the centre of the first pixel of the full detector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from astropy.table import Table
from scipy.special import erf

if TYPE_CHECKING:
    from astropy.modeling import Model

DETECTOR_PIX = 2048
_CENTRE_PIX = (DETECTOR_PIX - 1) / 2
# Pixels by which the row is bent at one pixel squared from the centre: 1 pixel at the edge.
_BEND = 1e-6


def v2v3_matrix(angle_deg: float) -> np.ndarray:
    """Return the matrix from a detector's x and y to (V2, V3), shape (2, 2); V2 runs against x."""
    cos, sin = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    return np.array([[-cos, sin], [sin, cos]])


def affine_model(matrix: np.ndarray, centre: Sequence[float]) -> Model:
    """Return the model that takes the origin to a centre."""
    from astropy.modeling.models import AffineTransformation2D

    back = np.linalg.inv(matrix)
    model = AffineTransformation2D(matrix=matrix, translation=centre)
    model.inverse = AffineTransformation2D(matrix=back, translation=-back @ centre)
    return model


@dataclass(frozen=True, slots=True)
class Detector:
    """One detector: its names and how its pixels lie in the V2V3 frame."""

    name: str
    channel: str
    module: str
    scale_arcsec: float
    v2_arcsec: float
    v3_arcsec: float
    angle_deg: float
    sca_number: int

    def matrix(self) -> np.ndarray:
        """Return the matrix from straightened pixels to arcsec of (V2, V3), shape (2, 2)."""
        return self.scale_arcsec * v2v3_matrix(self.angle_deg)

    def to_v2v3(
        self, x_pix: float | np.ndarray, y_pix: float | np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return V2 and V3 (arcsec) of pixels of the full detector."""
        x, y = np.asarray(x_pix) - _CENTRE_PIX, np.asarray(y_pix) - _CENTRE_PIX
        y = y + _BEND * x**2
        (a, b), (c, d) = self.matrix()
        return self.v2_arcsec + a * x + b * y, self.v3_arcsec + c * x + d * y

    def from_v2v3(
        self, v2_arcsec: np.ndarray, v3_arcsec: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return x and y in pixels of the full detector."""
        east, up = np.asarray(v2_arcsec) - self.v2_arcsec, np.asarray(v3_arcsec) - self.v3_arcsec
        (a, b), (c, d) = np.linalg.inv(self.matrix())
        x, y = a * east + b * up, c * east + d * up
        return x + _CENTRE_PIX, y - _BEND * x**2 + _CENTRE_PIX

    def transform(self, shift_arcsec: float = 0.0) -> Model:
        """Return the same as an `~astropy.modeling.Model`."""
        from astropy.modeling.models import Identity, Mapping, Polynomial2D, Shift

        def bend(sign: float) -> Model:
            row = Polynomial2D(2, c0_1=1.0, c2_0=sign * _BEND)
            model = Mapping((0, 0, 1)) | Identity(1) & row
            model.inverse = None
            return model

        to_origin = Shift(-_CENTRE_PIX) & Shift(-_CENTRE_PIX)
        affine = affine_model(self.matrix(), [self.v2_arcsec + shift_arcsec, self.v3_arcsec])
        model = to_origin | bend(1) | affine
        model.inverse = affine.inverse | bend(-1) | Shift(_CENTRE_PIX) & Shift(_CENTRE_PIX)
        return model


# The detectors that are simulated, by name.
DETECTORS = MappingProxyType(
    {
        "NRCALONG": Detector("NRCALONG", "LONG", "A", 0.0629, 86.10, -493.23, -0.08, 485),
        "NRCA1": Detector("NRCA1", "SHORT", "A", 0.0311, 120.67, -527.39, -0.56, 481),
        "MIRIMAGE": Detector("MIRIMAGE", "", "", 0.1108, -453.56, -373.81, 4.84, 493),
        "NIS": Detector("NIS", "", "", 0.0656, -289.97, -697.72, 0.57, 496),
    }
)


def _rotation(axis: str, angle_deg: float) -> np.ndarray:
    cos, sin = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    first, second = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = cos
    matrix[first, second], matrix[second, first] = -sin, sin
    return matrix


def _to_vector(longitude_deg: float | np.ndarray, latitude_deg: float | np.ndarray) -> np.ndarray:
    longitude, latitude = np.radians(longitude_deg), np.radians(latitude_deg)
    cos = np.cos(latitude)
    return np.stack([cos * np.cos(longitude), cos * np.sin(longitude), np.sin(latitude)])


def _to_angles(vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    longitude = np.degrees(np.arctan2(vector[1], vector[0])) % 360.0
    return longitude, np.degrees(np.arctan2(vector[2], np.hypot(vector[0], vector[1])))


@dataclass(frozen=True, slots=True)
class Pointing:
    """Where a point of the V2V3 frame is in the sky, and which way V3 runs there."""

    v2_arcsec: float
    v3_arcsec: float
    ra_deg: float
    dec_deg: float
    roll_deg: float

    def matrix(self) -> np.ndarray:
        """Return the matrix from unit vectors of (V2, V3) to those of (RA, Dec)."""
        return (
            _rotation("z", self.ra_deg)
            @ _rotation("y", -self.dec_deg)
            @ _rotation("x", -self.roll_deg)
            @ _rotation("y", self.v3_arcsec / 3600)
            @ _rotation("z", -self.v2_arcsec / 3600)
        )

    def to_sky(
        self, v2_arcsec: float | np.ndarray, v3_arcsec: float | np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return RA and Dec in degrees."""
        vector = _to_vector(np.asarray(v2_arcsec) / 3600, np.asarray(v3_arcsec) / 3600)
        return _to_angles(np.tensordot(self.matrix(), vector, 1))

    def from_sky(self, ra_deg: np.ndarray, dec_deg: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return V2 and V3 in arcsec."""
        vector = _to_vector(np.asarray(ra_deg, float), np.asarray(dec_deg, float))
        v2, v3 = _to_angles(np.tensordot(self.matrix().T, vector, 1))
        return ((v2 + 180) % 360 - 180) * 3600, v3 * 3600


def offset_position(
    ra_deg: float, dec_deg: float, east_arcsec: float, north_arcsec: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the RA and Dec of a place some arcsec away, along great circles."""
    vector = _to_vector(east_arcsec / 3600, north_arcsec / 3600)
    return _to_angles(_rotation("z", ra_deg) @ _rotation("y", -dec_deg) @ vector)


_SEED = 19900424
# Width of the frame of reference pixels of a full frame.
BORDER_PIX = 4

# Counts, with the bias, from which a pixel is called saturated.
SATURATION_DN = 56000.0

_FULL_WELL_DN = 60000.0
_BIAS_DN = 12000.0
_AMPLIFIERS = 4


@dataclass(frozen=True, slots=True)
class Electronics:
    """Numbers of one detector: electrons per DN, read noise (electrons), dark (electrons/s)."""

    gain: float
    read_noise_e: float
    dark_e_s: float
    linearity: float


ELECTRONICS = MappingProxyType(
    {
        "NRCALONG": Electronics(1.82, 9.0, 0.034, 9e-7),
        "NRCA1": Electronics(2.05, 10.5, 0.004, 7e-7),
        # Of whatever detector, where pixels do not differ.
        "modes": Electronics(gain=5.5, read_noise_e=14.0, dark_e_s=0.0, linearity=4e-7),
    }
)

# Names of square frames up to each size in pixels; the real ones have just these sizes.
SUBARRAYS = MappingProxyType({64: "SUB64P", 160: "SUB160", 320: "SUB320", 640: "SUB640"})


@dataclass(frozen=True, slots=True)
class Maps:
    """The true calibration of a frame; every image has shape (size, size)."""

    bias_dn: np.ndarray
    dark_dn_s: np.ndarray
    flat: np.ndarray
    linearity: np.ndarray
    bad: np.ndarray
    reference: np.ndarray


@lru_cache(maxsize=2)
def detector_maps(detector: str, size: int) -> Maps:
    """Return the true calibration of a frame in the middle of a detector."""
    parts = ELECTRONICS[detector]
    rng = np.random.default_rng([_SEED, DETECTORS[detector].sca_number, size])
    shape = (size, size)
    y, x = np.mgrid[:size, :size] / size - 0.5
    bias = _BIAS_DN + rng.normal(0, 120, shape) + 60 * np.sin(9 * x)
    bias += rng.normal(0, 20, size)[None, :]
    dark = parts.dark_e_s / parts.gain * rng.gamma(4, 0.25, shape)
    flat = 1 + 0.03 * x - 0.04 * y**2 + rng.normal(0, 0.008, shape)
    linearity = parts.linearity * (1 + rng.normal(0, 0.02, shape))
    bad = rng.uniform(size=shape) < 4e-4
    reference = np.zeros(shape, bool)
    if size == DETECTOR_PIX:
        reference[:] = True
        reference[BORDER_PIX:-BORDER_PIX, BORDER_PIX:-BORDER_PIX] = False
    bad &= ~reference
    # They see nothing, and so no dark current either.
    dark[reference] = 0
    flat /= np.median(flat)
    images = [image.astype(np.float32) for image in (bias, dark, flat, linearity)]
    return Maps(images[0], images[1], images[2], images[3], bad, reference)


def _counted(linear_dn: np.ndarray, maps: Maps) -> np.ndarray:
    """Return the counts, with the bias, of a charge; the linearity reference turns it back."""
    square = maps.linearity
    return (np.sqrt(1 + 4 * square * linear_dn) - 1) / (2 * square) + maps.bias_dn


def saturates(rate_dn_s: np.ndarray, maps: Maps, time_s: float) -> np.ndarray:
    """Return which pixels the light alone saturates."""
    charge_dn = np.maximum(rate_dn_s, 0) * time_s
    return (_counted(charge_dn, maps) >= SATURATION_DN) & ~maps.reference & ~maps.bad


# Charge that comes at once: the group it is first seen in, x, y and electrons.
Event = tuple[int, np.ndarray, np.ndarray, np.ndarray]


def make_ramp(
    rate_dn_s: np.ndarray,
    maps: Maps,
    electronics: Electronics,
    group_times_s: np.ndarray,
    rng: np.random.Generator,
    *,
    events: Sequence[Event] = (),
    rows_e: np.ndarray | None = None,
) -> np.ndarray:
    """Return the counts of one integration, as the detector would send them."""
    gain, n_groups = electronics.gain, len(group_times_s)
    lit = ~maps.reference
    rate_e = np.where(lit & ~maps.bad, np.maximum(rate_dn_s, 0) * gain, 0.0)
    dark_e = maps.dark_dn_s * gain
    charge = np.zeros(rate_dn_s.shape)
    counts = np.empty((n_groups, *rate_dn_s.shape), np.uint16)
    steps = np.diff(group_times_s, prepend=0.0)
    quarter = rate_dn_s.shape[1] // _AMPLIFIERS
    for group in range(n_groups):
        charge += rng.poisson((rate_e + dark_e) * steps[group])
        for first, x, y, electrons in events:
            if first == group:
                np.add.at(charge, (y, x), electrons)
        measured = np.minimum(_counted(charge / gain, maps), _FULL_WELL_DN)
        measured += rng.normal(0, electronics.read_noise_e / gain, measured.shape)
        if rows_e is not None:
            measured += rows_e[group][:, None] / gain
        if maps.reference.any():
            drifts = rng.normal(0, 15, _AMPLIFIERS)
            measured += np.repeat(drifts, quarter)[None, :]
        counts[group] = np.clip(np.rint(measured), 0, 65535)
    return counts


TARGET_DEG = (190.0, 1.2)
ROLL_DEG = 24.0
FRAME_TIME_S = 10.73677
READPATT = "RAPID"


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter and the detector behind it."""

    detector: str
    wavelength_um: float
    fwhm_arcsec: float
    photmjsr: float
    abvega: float

    @property
    def sigma_arcsec(self) -> float:
        """Sigma of the PSF, which is a Gaussian."""
        return self.fwhm_arcsec / np.sqrt(8 * np.log(2))


# The filters that are simulated; each belongs to one detector.
FILTERS = MappingProxyType(
    {
        "F115W": Filter("NRCA1", 1.154, 0.067, 3.40, -0.76),
        "F150W": Filter("NRCA1", 1.501, 0.068, 2.30, -1.20),
        "F200W": Filter("NRCA1", 1.990, 0.070, 1.90, -1.68),
        "F277W": Filter("NRCALONG", 2.786, 0.134, 0.42, -2.32),
        "F356W": Filter("NRCALONG", 3.563, 0.137, 0.40, -2.77),
        "F444W": Filter("NRCALONG", 4.421, 0.148, 0.43, -3.21),
    }
)


def box(centre: float, half: float, size: int) -> tuple[int, int]:
    """Return the range of pixels within `half` of `centre` that are inside the image."""
    first = max(int(np.ceil(centre - half)), 0)
    return first, max(min(int(np.floor(centre + half)) + 1, size), first)


def add_star(image: np.ndarray, x: float, y: float, rate: float, sigma: float) -> None:
    """Add a round Gaussian, integrated over each pixel."""
    half = 7 * sigma + 1
    x0, x1 = box(x, half, image.shape[1])
    y0, y1 = box(y, half, image.shape[0])
    parts = []
    for centre, first, last in ((x, x0, x1), (y, y0, y1)):
        edges = (np.arange(first, last + 1) - 0.5 - centre) / (np.sqrt(2) * sigma)
        parts.append(np.diff(erf(edges)) / 2)
    image[y0:y1, x0:x1] += rate * np.outer(parts[1], parts[0])


@dataclass(frozen=True, slots=True)
class Setup:
    """What the exposures of a mode share.

    ``instrument`` are the keywords of ``meta.instrument``; ``keywords`` are others, by their place
    below ``meta``.  The frame has ``shape`` and begins at ``corner_pix`` (x, y, from 0) of the
    detector, by default where it is in the middle.  Stars are ``sigma_pix`` wide, and ``photmjsr``
    is the MJy/sr of a DN/s.  Where it ``is_uneven`` pixels have a dark current, a bias and a
    linearity of their own.
    """

    exp_type: str
    instrument: Mapping[str, str]
    detector: Detector
    shape: tuple[int, int]
    subarray: str
    photmjsr: float
    sigma_pix: float = 1.0
    exposure_s: float = 111.0
    n_groups: int = 40
    read_noise_dn_s: float = 0.02
    electronics: Electronics = ELECTRONICS["modes"]
    abvega: float = -4.4
    sky_ring_pix: tuple[float, float] = (5.0, 7.0)
    fastaxis: int = 1
    is_uneven: bool = False
    corner_pix: tuple[int, int] | None = None
    keywords: Mapping[str, object] = field(default_factory=dict)

    @property
    def of_detector(self) -> dict[str, str]:
        """Those keywords of the instrument that are the same in all filters."""
        names = ("name", "detector", "channel", "module")
        return {name: self.instrument[name] for name in names if name in self.instrument}

    @property
    def first_pix(self) -> tuple[int, int]:
        """Column and row of the detector, from 0, where the frame begins."""
        ny, nx = self.shape
        return self.corner_pix or ((DETECTOR_PIX - nx) // 2, (DETECTOR_PIX - ny) // 2)

    @property
    def pixel_sr(self) -> float:
        """Solid angle of a pixel."""
        return float(np.radians(self.detector.scale_arcsec / 3600) ** 2)

    @property
    def dn_per_jansky(self) -> float:
        """DN/s of a source of 1 Jy."""
        return 1e-6 / (self.pixel_sr * self.photmjsr)

    def pointing(self, place_deg: Sequence[float | np.ndarray], roll_deg: float) -> Pointing:
        """Return the pointing that brings a place of the sky to the middle of the frame."""
        (x, y), (ny, nx) = self.first_pix, self.shape
        v2, v3 = self.detector.to_v2v3(x + (nx - 1) / 2, y + (ny - 1) / 2)
        ra, dec = map(float, place_deg)
        return Pointing(float(v2), float(v3), ra, dec, roll_deg)

    def dithered(
        self, dither: tuple[float, float], target_deg: tuple[float, float] = TARGET_DEG
    ) -> Pointing:
        """Return the pointing some arcsec (east, north) from a target."""
        return self.pointing(offset_position(*target_deg, *dither), ROLL_DEG)

    def to_sky(self, pointing: Pointing, x_pix: float, y_pix: float) -> tuple[float, float]:
        """Return RA and Dec (deg) of a pixel of the frame, from 0."""
        v2v3 = self.detector.to_v2v3(x_pix + self.first_pix[0], y_pix + self.first_pix[1])
        ra, dec = pointing.to_sky(*v2v3)
        return float(ra), float(dec)

    def to_pixel(
        self, pointing: Pointing, ra_deg: float | np.ndarray, dec_deg: float | np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return x and y in pixels of the frame, from 0."""
        x, y = self.detector.from_v2v3(*pointing.from_sky(np.asarray(ra_deg), np.asarray(dec_deg)))
        return x - self.first_pix[0], y - self.first_pix[1]

    def corners_deg(self, pointing: Pointing) -> list[tuple[float, float]]:
        """Return RA and Dec of the corners of the frame."""
        x, y = self.shape[1] - 1, self.shape[0] - 1
        return [self.to_sky(pointing, *corner) for corner in ((0, 0), (x, 0), (x, y), (0, y))]

    def flat(self) -> np.ndarray:
        """Return the response of the pixels."""
        ny, nx = self.shape
        y, x = np.mgrid[:ny, :nx]
        return 1 + 0.05 * (x / nx - 0.5) + 0.04 * (y / ny - 0.5) ** 2

    def maps(self) -> Maps:
        """Return the calibration of the frame."""
        if self.is_uneven:
            return detector_maps(self.detector.name, self.shape[0])
        nothing, nowhere = np.zeros(self.shape), np.zeros(self.shape, bool)
        linearity = np.full(self.shape, self.electronics.linearity)
        return Maps(nothing, nothing, self.flat(), linearity, bad=nowhere, reference=nowhere)

    def image(self, pointing: Pointing, stars: Table, sky_mjysr: float | np.ndarray) -> np.ndarray:
        """Return the DN/s that the pixels see of stars and sky."""
        light = np.full(self.shape, sky_mjysr / self.photmjsr)
        self.add_stars(light, pointing, stars)
        return light * self.flat()

    def add_stars(self, light: np.ndarray, pointing: Pointing, stars: Table) -> None:
        """Add the DN/s of stars, ``ra`` and ``dec`` (deg) and ``flux`` (Jy), to a frame."""
        x, y = self.to_pixel(pointing, stars["ra"], stars["dec"])
        rates = np.array(stars["flux"]) * self.dn_per_jansky
        for column, row, rate in zip(x, y, rates, strict=True):
            add_star(light, column, row, rate, self.sigma_pix)


def sky_setup(filter_name: str, size: int, groups: int, integrations: int = 1) -> Setup:
    """Return the set-up of images of the embedded sky, in the middle of NIRCam's detector."""
    row = FILTERS[filter_name]
    detector = DETECTORS[row.detector]
    is_full = size == DETECTOR_PIX
    subarray = "FULL" if is_full else SUBARRAYS[min(side for side in SUBARRAYS if side >= size)]
    aperture = "A5" if detector.name == "NRCALONG" else detector.name.removeprefix("NRC")
    return Setup(
        exp_type="NRC_IMAGE",
        instrument={
            "name": "NIRCAM", "detector": detector.name, "channel": detector.channel,
            "module": detector.module, "filter": filter_name, "pupil": "CLEAR",
        },
        detector=detector,
        shape=(size, size),
        subarray=subarray,
        photmjsr=row.photmjsr,
        sigma_pix=row.sigma_arcsec / detector.scale_arcsec,
        exposure_s=integrations * groups * FRAME_TIME_S,
        n_groups=groups,
        electronics=ELECTRONICS[detector.name],
        abvega=row.abvega,
        sky_ring_pix=(12.0, 16.0),
        fastaxis=-1,
        is_uneven=True,
        keywords={
            "exposure.readpatt": READPATT,
            "exposure.noutputs": 4 if is_full else 1,
            "exposure.sca_num": detector.sca_number,
            "instrument.pupil_imaging_lens": False,
            "aperture.name": f"NRC{aperture}_{subarray}",
            "aperture.pps_name": f"NRC{aperture}_{subarray}",
        },
    )  # fmt: skip


def frame_keywords(setup: Setup) -> dict[str, object]:
    """Return the keywords that say which part of the detector is read."""
    (x, y), (ny, nx) = setup.first_pix, setup.shape
    return {
        "name": setup.subarray, "xstart": x + 1, "ystart": y + 1, "xsize": nx, "ysize": ny,
        "fastaxis": setup.fastaxis, "slowaxis": 2,
    }  # fmt: skip
