"""The pixels of one simulated brick: every coadd product, as arrays.

Outside the windows that were observed every array is 0, as it is in the survey at the rim of its
footprint.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table
from scipy.ndimage import binary_dilation

from ..survey import bitmasks, bricks, paths, releases
from ..survey.pixel_grids import Box
from . import render, sky

SIZE_PIX = bricks.IMAGE_SIZE_PIX
WHOLE_BRICK = "0451p000"
# Height of the strips in which a whole brick is made, which bounds the memory.
_STRIP_PIX = 450
_BLEED_PIX = 2
_BLOB_THRESHOLD_SIGMA = 0.5


def windows_of(brick: str) -> list[Box]:
    """Return the boxes of a brick that were observed; they do not overlap."""
    if brick == WHOLE_BRICK:
        edges = range(0, SIZE_PIX, _STRIP_PIX)
        return [Box(y0, y0 + _STRIP_PIX, 0, SIZE_PIX) for y0 in edges]
    grid = bricks.brick_grid(bricks.parse_brick_name(brick))
    windows = []
    for ra, dec, half in sky.WINDOWS:
        x, y = grid.to_pixel(ra, dec)
        if np.isfinite(x):
            low = [max(round(float(value)) - half, 0) for value in (x, y)]
            high = [min(round(float(value)) + half, SIZE_PIX) for value in (x, y)]
            if low[0] < high[0] and low[1] < high[1]:
                windows.append(Box(low[1], high[1], low[0], high[0]))
    return windows


class BrickScene:
    """Makes the coadds of one brick in one region."""

    def __init__(self, release: str, region: str, brick: str) -> None:
        self.release = release
        self.region = region
        self.brick = bricks.get_brick(brick)
        self.grid = bricks.brick_grid(self.brick.id)
        self.windows = windows_of(brick)
        self.sources = sky.truth()
        self._bits = bitmasks.maskbits(release)
        self._no_exposure: dict[str, np.ndarray] = {}
        self._saturated: dict[str, np.ndarray] = {}

    def _sky_of(self, window: Box) -> tuple[np.ndarray, np.ndarray]:
        y, x = np.mgrid[window.y0 : window.y1, window.x0 : window.x1]
        return self.grid.to_sky(x, y)

    def band(self, band: str) -> dict[str, np.ndarray]:
        """Return every product of one band."""
        shape = (SIZE_PIX, SIZE_PIX)
        planes = {
            name: np.zeros(shape, np.float32)
            for name in ("image", "invvar", "model", "blobmodel", "chi2", "depth", "galdepth")
        }
        planes |= {"nexp": np.zeros(shape, np.int16), "psfsize": np.zeros(shape, np.float32)}
        saturated = np.zeros(shape, bool)
        seed = (self.region == "north", self.brick.id, "griz".index(band))
        rng = np.random.default_rng([int(part) for part in seed])
        for window in self.windows:
            ra, dec = self._sky_of(window)
            model = render.render(
                self.sources, band, self.grid, x0=window.x0, y0=window.y0, shape=window.shape
            )
            saturated[window.slices] = model > sky.SATURATION
            for name, values in self._make_window(band, model, ra, dec, rng).items():
                planes[name][window.slices] = values
        self._no_exposure[band] = planes["nexp"] == 0
        self._saturated[band] = saturated
        return planes

    def _make_window(
        self,
        band: str,
        model: np.ndarray,
        ra: np.ndarray,
        dec: np.ndarray,
        rng: np.random.Generator,
    ) -> dict[str, np.ndarray]:
        saturated = model > sky.SATURATION
        nexp = sky.exposures(ra, dec, band)
        nexp[saturated] = 0
        background = nexp / sky.NOISE_SIGMA[band] ** 2
        # Only where a source counts: elsewhere the inverse variance is constant, as in the survey.
        poisson = np.where(model > 1e-3, sky.POISSON_NMGY * model, 0.0)
        invvar = background / (1 + poisson / sky.NOISE_SIGMA[band] ** 2)
        invvar *= sky.inverse_variance_texture(ra, dec)
        observed = nexp > 0
        noise = rng.standard_normal(model.shape, dtype=np.float32)
        noise[observed] /= np.sqrt(invvar[observed])
        image = np.where(observed, model + noise, 0.0)
        # A saturated core keeps an interpolated value: only the inverse variance tells.
        image[saturated] = sky.SATURATION
        blob = model > _BLOB_THRESHOLD_SIGMA * sky.NOISE_SIGMA[band]
        scale_arcsec = self.grid.scale_deg * 3600
        return {
            "image": image,
            "invvar": invvar,
            "model": model,
            "blobmodel": np.where(blob, model, 0.0),
            "chi2": (image - model) ** 2 * invvar,
            "depth": background * render.psf_norm(band, scale_arcsec),
            "galdepth": background * render.galaxy_norm(band, scale_arcsec),
            "nexp": nexp,
            "psfsize": np.where(observed, render.psf_fwhm_arcsec(band), 0.0),
        }

    def masks(self, bands: Iterable[str]) -> dict[str, np.ndarray]:
        """Return the three mask planes; every band has to be made before."""
        mask = np.zeros((SIZE_PIX, SIZE_PIX), np.int32)
        wise = np.zeros((SIZE_PIX, SIZE_PIX), np.uint8)
        self._set(mask, "NPRIMARY", ~self.primary())
        y, x = np.ogrid[:SIZE_PIX, :SIZE_PIX]
        for bit, ra, dec, radius_arcsec in sky.mask_circles(self.sources):
            x0, y0 = self.grid.to_pixel(ra, dec)
            radius = radius_arcsec / (self.grid.scale_deg * 3600)
            # The far side of the sky has no pixel; comparisons with NaN are false.
            inside = (x - x0) ** 2 + (y - y0) ** 2 < radius**2
            self._set(mask, bit, inside)
            if bit == "BRIGHT":
                wise[inside] |= 1 << bitmasks.WISEMASK_BITS["BRIGHT"]
        for bit in ("WISEM1", "WISEM2"):
            self._set(mask, bit, wise > 0)
        for band in bands:
            self._set(mask, f"ALLMASK_{band.upper()}", self._no_exposure[band])
            core = self._saturated[band]
            if core.any():
                core = binary_dilation(core, iterations=_BLEED_PIX)
            self._set(mask, f"SATUR_{band.upper()}", core)
        kind = np.int32 if int(self.release[2:]) >= 10 else np.int16
        return {"MASKBITS": mask.astype(kind), "WISEM1": wise, "WISEM2": wise.copy()}

    def _set(self, mask: np.ndarray, bit: str, where: np.ndarray) -> None:
        mask[where] |= 1 << self._bits[bit]

    def primary(self) -> np.ndarray:
        """Return which pixels are in the box that the brick owns."""
        inside = np.ones((SIZE_PIX, SIZE_PIX), bool)
        # The margins are 82 to 102 pixels wide; further in, every pixel is the brick's own.
        rim = 130
        end = SIZE_PIX - rim
        frame = (
            Box(0, rim, 0, SIZE_PIX),
            Box(end, SIZE_PIX, 0, SIZE_PIX),
            Box(rim, end, 0, rim),
            Box(rim, end, end, SIZE_PIX),
        )
        for window in frame:
            inside[window.slices] = bricks.brick_id(*self._sky_of(window)) == self.brick.id
        return inside


# By release, region and brick: what the table of bricks says.
Summaries = dict[tuple[str, str, str], dict[str, float]]
_EBV = 0.05
_EXTINCTION = {"g": 3.214, "r": 2.165, "i": 1.592, "z": 1.211}
_NOTE = "SIMULATED survey: only the bricks of the scene are listed."


def summarise_band(
    planes: dict[str, np.ndarray], primary: np.ndarray, band: str
) -> dict[str, float]:
    """Return what the table of bricks says about one band of a brick."""
    observed = primary & (planes["nexp"] > 0)

    def median(product: str) -> float:
        return float(np.median(planes[product][observed])) if observed.any() else 0.0

    summary = {f"nexp_{band}": int(median("nexp")), f"psfsize_{band}": median("psfsize")}
    for name, product in (("psfdepth", "depth"), ("galdepth", "galdepth")):
        # 5-sigma AB magnitude, 0 where there is no depth.
        ivar = median(product)
        summary[f"{name}_{band}"] = 22.5 - 2.5 * np.log10(5 / np.sqrt(ivar)) if ivar > 0 else 0.0
    return summary


def write_brick_tables(root: Path, summaries: Summaries) -> None:
    """Write ``survey-bricks`` and the table of each region."""
    names = sorted({name for _, _, name in summaries})
    for release in ("dr9", "dr10"):
        _write(root / paths.file_path("survey-bricks", release), _all_bricks(names))
    for release, region in sky.BRICKS:
        rows = {key[2]: value for key, value in summaries.items() if key[:2] == (release, region)}
        _write(
            root / paths.file_path("region-bricks", release, region),
            _region_bricks(release, region, rows),
        )


def _write(path: Path, table: Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    hdu = fits.BinTableHDU(table)
    hdu.header["OBJECT"] = ("SIMULATED", "these rows are not data")
    hdu.header["COMMENT"] = _NOTE
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)


def _ids(names: Iterable[str]) -> np.ndarray:
    return np.array(sorted(bricks.parse_brick_name(name) for name in names))


def _all_bricks(names: Iterable[str]) -> Table:
    ids = _ids(names)
    row, column = bricks.brick_row_column(ids)
    ra, dec = bricks.brick_center(ids)
    ra1, ra2, dec1, dec2 = bricks.brick_edges(ids)
    table = Table()
    table["BRICKNAME"] = bricks.name_of(ids)
    table["BRICKID"] = ids.astype(np.int32)
    table["BRICKQ"] = bricks.brick_quadrant(ids).astype(np.int16)
    table["BRICKROW"], table["BRICKCOL"] = row.astype(np.int32), column.astype(np.int32)
    table["RA"], table["DEC"] = ra, dec
    table["RA1"], table["RA2"], table["DEC1"], table["DEC2"] = ra1, ra2, dec1, dec2
    return table


def _region_bricks(release: str, region: str, rows: dict[str, dict[str, float]]) -> Table:
    ids = _ids(rows)
    names = bricks.name_of(ids)
    bands = releases.get_tree(release, region).bands
    ra, dec = bricks.brick_center(ids)
    ra1, ra2, dec1, dec2 = bricks.brick_edges(ids)
    table = Table()
    table["brickname"], table["ra"], table["dec"] = names, ra, dec
    for band in bands:
        key = f"nexp_{band}"
        table[key] = np.array([rows[name][key] for name in names], np.int16)
    for column, values in _count_sources(ids).items():
        table[column] = values.astype(np.int32)
    for quantity in ("psfsize", "psfdepth", "galdepth"):
        for band in bands:
            key = f"{quantity}_{band}"
            table[key] = np.array([rows[name][key] for name in names], np.float32)
    table["ebv"] = np.full(len(ids), _EBV, np.float32)
    for band in bands:
        transmission = 10 ** (-0.4 * _EXTINCTION[band] * _EBV)
        table[f"trans_{band}"] = np.full(len(ids), transmission, np.float32)
    table["brickid"] = ids.astype(np.int32)
    table["ra1"], table["ra2"], table["dec1"], table["dec2"] = ra1, ra2, dec1, dec2
    height = np.degrees(np.sin(np.radians(dec2)) - np.sin(np.radians(dec1)))
    table["area"] = ((ra2 - ra1) * height).astype(np.float32)
    official = releases.get_tree("dr10", region).folder == f"{release}/{region}"
    table["survey_primary"] = official & (bricks.region_of_brick(ids, "dr10") == region)
    table["in_desi"] = table["survey_primary"].copy()
    return table


def _count_sources(ids: np.ndarray) -> dict[str, np.ndarray]:
    """Return how many sources of each type each brick owns."""
    sources = sky.truth()
    owner = bricks.brick_id(sources["ra"], sources["dec"])
    kinds = {"npsf": "PSF", "nrex": "REX", "nexp": "EXP", "ndev": "DEV", "nser": "SER"}
    counts = {"nobjs": np.array([(owner == brick).sum() for brick in ids])}
    for column, kind in kinds.items():
        counts[column] = np.array([((owner == b) & (sources["type"] == kind)).sum() for b in ids])
    return counts
