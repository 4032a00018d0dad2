"""What a fit would find for each source of the scene, and the columns of the Tractor files.

Positions are the true ones; fluxes and shapes scatter by their errors.  Where blends, apertures and
depths count, every galaxy is taken for round.

The units are those that the files carry, which is not what the catalogue pages list: some columns
have none, and some spellings are no unit to astropy.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from ..survey import bitmasks, releases, sphere
from ..survey.releases import PIXEL_SCALE_ARCSEC
from ..survey.tractor_columns import OPTICAL_BANDS, WISE_BANDS
from ..survey.tractor_columns import tractor_columns as survey_columns
from . import sky
from .sky import Components

_SEED = 27182
APERTURES_ARCSEC = (0.5, 0.75, 1.0, 1.5, 2.0, 3.5, 5.0, 7.0)
WISE_APERTURES_ARCSEC = (3.0, 5.0, 7.0, 9.0, 11.0)
_FIBER_RADIUS_ARCSEC = 0.75
_FIBER_SIGMA_ARCSEC = 1.0 / 2.3548
_WISE_SIGMA_ARCSEC = {"w1": 2.59, "w2": 2.72, "w3": 2.76, "w4": 5.10}
_WISE_DEPTH_MAG = {"w1": 20.7, "w2": 20.0, "w3": 16.7, "w4": 14.5}
_NEIGHBOUR_ARCSEC = 12.0
# Galaxies in whose cores Gaia has a source: kept in the catalogue without optical flux.
_DUPLICATED = ("field", "large")


def names_of(rows: np.ndarray) -> tuple[str, ...]:
    """Return the names of the columns."""
    return rows.dtype.names or ()


@cache
def sources() -> dict[str, np.ndarray]:
    """Return the true sources as a dict of arrays; at the end those that are only in Gaia."""
    truth = sky.truth()
    values = {name: np.asarray(truth[name]) for name in truth.colnames}
    galaxy = values["type"] != "PSF"
    copies = [
        np.argmax(np.where(galaxy & (values["name"] == name), values["flux_r"], -np.inf))
        for name in _DUPLICATED
    ]
    extra = {name: column[copies].copy() for name, column in values.items()}
    extra["dec"] += 0.4 / 3600
    extra["id"][:] = -1
    extra["type"][:] = "DUP"
    for name in extra:
        if name.startswith(("flux_", "shape_", "sersic")):
            extra[name][:] = 0
    return {name: np.concatenate([values[name], extra[name]]) for name in values}


def noise_of(*key: int) -> np.ndarray:
    """Return standard normal numbers that each source keeps, shape (N, 64)."""
    rng = np.random.default_rng([_SEED, *key])
    return rng.standard_normal((len(sources()["ra"]), 64))


@cache
def neighbours() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return pairs of different sources close together: first, second, arcsec apart."""
    ra, dec = sources()["ra"], sources()["dec"]
    apart = sphere.separation_deg(ra[:, None], dec[:, None], ra, dec) * 3600
    first, second = np.nonzero((apart < _NEIGHBOUR_ARCSEC) & ~np.eye(len(ra), dtype=bool))
    return first, second, apart[first, second]


def _profiles(psf: Components) -> tuple[np.ndarray, np.ndarray]:
    """Return weights and sigmas (arcsec) of every source behind a PSF, shapes (N, K)."""
    true = sources()
    profiles = []
    for row in range(len(true["ra"])):
        profile = [(1.0, 0.0)]
        if true["sersic"][row] > 0:
            size = np.hypot(true["shape_e1"][row], true["shape_e2"][row])
            round_arcsec = true["shape_r"][row] * np.sqrt((1 - size) / (1 + size))
            profile = [
                (weight, sigma * round_arcsec)
                for weight, sigma in sky.sersic_components(float(true["sersic"][row]))
            ]
        profiles.append([(w * pw, np.hypot(s, ps)) for w, s in profile for pw, ps in psf])
    longest = max(map(len, profiles))
    padded = np.array([parts + [(0.0, 1.0)] * (longest - len(parts)) for parts in profiles])
    return padded[..., 0], padded[..., 1]


def _inside(weights: np.ndarray, sigmas: np.ndarray, radius_arcsec: float) -> np.ndarray:
    """Return which part of each profile's light is inside a radius."""
    return (weights * (1 - np.exp(-0.5 * (radius_arcsec / sigmas) ** 2))).sum(axis=1)


def _overlap(
    weights: np.ndarray,
    sigmas: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    apart_arcsec: np.ndarray,
) -> np.ndarray:
    """Return the integral of the product of pairs of profiles, per arcsec^2."""
    total = np.zeros(len(first))
    for left in range(weights.shape[1]):
        square = sigmas[first, left, None] ** 2 + sigmas[second] ** 2
        gauss = np.exp(-0.5 * apart_arcsec[:, None] ** 2 / square) / (2 * np.pi * square)
        total += weights[first, left] * (weights[second] * gauss).sum(axis=1)
    return total


def _blending(
    weights: np.ndarray, sigmas: np.ndarray, flux: np.ndarray, own: np.ndarray
) -> np.ndarray:
    """Return the neighbours' flux under each profile over the source's own."""
    first, second, apart = neighbours()
    share = _overlap(weights, sigmas, first, second, apart) / own[first] * flux[second]
    total = np.bincount(first, share, minlength=len(flux))
    return np.divide(total, flux, out=np.zeros(len(flux)), where=flux > 0)


@cache
def optical(band: str) -> dict[str, np.ndarray]:
    """Return what does not depend on the region, for one optical band: a dict of arrays."""
    true = sources()
    flux = true[f"flux_{band}"].astype(float)
    everyone = np.arange(len(flux))
    weights, sigmas = _profiles(sky.psf_components(band))
    own = _overlap(weights, sigmas, everyone, everyone, np.zeros(len(flux)))
    nexp = sky.exposures(true["ra"], true["dec"], band).astype(float)
    pixel_ivar = nexp / sky.NOISE_SIGMA[band] ** 2
    area = PIXEL_SCALE_ARCSEC**2
    depth = pixel_ivar * sky.psf_norm(band, PIXEL_SCALE_ARCSEC)
    variance = 1 / (pixel_ivar * own * area) + sky.POISSON_NMGY * flux
    fiber_weights, fiber_sigmas = _profiles(((1.0, _FIBER_SIGMA_ARCSEC),))
    fiber = flux * _inside(fiber_weights, fiber_sigmas, _FIBER_RADIUS_ARCSEC)
    first, second, apart = neighbours()
    there = (
        fiber_weights[second]
        * np.exp(-0.5 * (apart[:, None] / fiber_sigmas[second]) ** 2)
        / (2 * np.pi * fiber_sigmas[second] ** 2)
    ).sum(axis=1)
    light = there * flux[second] * np.pi * _FIBER_RADIUS_ARCSEC**2
    total = fiber + np.bincount(first, light, minlength=len(flux))
    apertures = [_inside(weights, sigmas, radius) for radius in APERTURES_ARCSEC]
    pixels = np.pi * np.square(APERTURES_ARCSEC) / area
    peak = flux * (weights / (2 * np.pi * sigmas**2)).sum(axis=1) * area
    return {
        "flux": flux,
        "ivar": np.where(true["type"] == "DUP", 0.0, 1 / variance),
        "fiberflux": fiber,
        "fibertotflux": total,
        "apflux": flux[:, None] * np.stack(apertures, axis=1),
        "apflux_ivar": pixel_ivar[:, None] / pixels,
        "nobs": nexp.astype(np.int16),
        "psfdepth": depth,
        "galdepth": pixel_ivar * sky.galaxy_norm(band, PIXEL_SCALE_ARCSEC),
        "nea": 1 / own,
        "fracflux": _blending(weights, sigmas, flux, own),
        "saturated": peak > sky.SATURATION,
    }


@cache
def infrared(band: str) -> dict[str, np.ndarray]:
    """Return the same for one WISE band."""
    flux = sources()[f"flux_{band}"].astype(float)
    everyone = np.arange(len(flux))
    weights, sigmas = _profiles(((1.0, _WISE_SIGMA_ARCSEC[band]),))
    own = _overlap(weights, sigmas, everyone, everyone, np.zeros(len(flux)))
    point = 1 / (4 * np.pi * _WISE_SIGMA_ARCSEC[band] ** 2)
    depth = (5 / sky.flux(_WISE_DEPTH_MAG[band])) ** 2
    apertures = [_inside(weights, sigmas, radius) for radius in WISE_APERTURES_ARCSEC]
    square = np.pi * np.square(WISE_APERTURES_ARCSEC) * point
    return {
        "flux": flux,
        "ivar": 1 / (1 / (depth * own / point) + 1e-4 * flux),
        "apflux": flux[:, None] * np.stack(apertures, axis=1),
        "apflux_ivar": np.tile(depth / square, (len(flux), 1)),
        "psfdepth": np.full(len(flux), depth),
        "fracflux": _blending(weights, sigmas, flux, own),
    }


# By unit: the spelling in the files, and that from DR11 on.  Other units they do not write.
_SPELLINGS = {
    "deg": ("deg", "deg"),
    "mag": ("mag", "mag"),
    "mas": ("mas", "mas"),
    "mas / yr": ("mas/yr", "mas/yr"),
    "arcsec": ("arcsec", "arcsec"),
    "nmgy": ("nanomaggy", "nanomaggies"),
    "1 / nmgy2": ("1/nanomaggy^2", "nanomaggies^(-2)"),
    "1 / deg2": ("1/deg^2", "deg^(-2)"),
    "yr2 / mas2": ("1/(mas/yr)^2", "(mas/yr)^(-2)"),
    "1 / mas2": ("1/mas^2", "mas^(-2)"),
    "1 / arcsec2": ("1/arcsec^2", "arcsec^(-2)"),
}
_WITHOUT_UNIT = ("gaia_a_g_val", "gaia_e_bp_min_rp_val", "gaia_astrometric_sigma5d_max")


class FileColumn(NamedTuple):
    """One column of a file."""

    name: str
    kind: str  # of one value, in numpy's notation
    length: int  # values per row
    unit: str  # the file's TUNIT; empty where there is none


@cache
def tractor_columns(release: str, region: str) -> tuple[FileColumn, ...]:
    """Return the columns of the Tractor files of a region, in their order."""
    tree = releases.get_tree(release, region)
    is_new = int(tree.release[2:]) >= 11
    columns = []
    for column in survey_columns(tree.release).values():
        if column.name == "ls_id" or (
            column.band in OPTICAL_BANDS and column.band not in tree.bands
        ):
            continue
        unit = "" if column.name in _WITHOUT_UNIT else str(column.unit)
        spelling = _SPELLINGS.get(unit, ("", ""))[is_new]
        kind = column.dtype.replace("U", "S")
        columns.append(FileColumn(column.name, kind, column.length, spelling))
    # The survey's pages list it among the other columns.
    columns.sort(key=lambda column: column.name == "nearest_neighbor")
    return tuple(columns)


def tractor_dtype(release: str, region: str) -> np.dtype:
    """Return the same as a numpy type."""
    columns = tractor_columns(release, region)
    return np.dtype([(c.name, c.kind, (c.length,) if c.length > 1 else ()) for c in columns])


_WISE_NOBS = {"w1": 128, "w2": 128, "w3": 12, "w4": 12}
_GAIA_LIMIT_MAG = 20.5


def release_number(release: str, region: str) -> int:
    """Return what a region's rows have in their column ``release``."""
    tree = releases.get_tree(release, region)
    number = int(tree.release[2:])
    base = {9: 9010}.get(number, 1000 * number)
    return base + (tree.region == "north")


def _ebv(ra_deg: np.ndarray, dec_deg: np.ndarray) -> np.ndarray:
    """Return a reddening that varies slowly, mag; 0.05 in the mean."""
    return 0.05 + 0.004 * np.sin(np.radians(ra_deg) * 90) + 0.003 * np.sin(np.radians(dec_deg) * 70)


def _add_bits(rows: np.ndarray, release: str, bands: tuple[str, ...]) -> None:
    """Set the bits of the masks, but for NPRIMARY, and of the fits."""
    true, bits, fits = sources(), bitmasks.maskbits(release), bitmasks.FITBITS
    bright = np.zeros(len(rows), bool)
    for bit, ra, dec, radius_arcsec in sky.mask_circles(sky.truth()):
        east = (true["ra"] - ra + 180) % 360 - 180
        apart = np.hypot(east * np.cos(np.radians(dec)), true["dec"] - dec) * 3600
        inside = apart < radius_arcsec
        rows["maskbits"][inside] |= 1 << bits[bit]
        bright |= inside & (bit == "BRIGHT")
    for number in (1, 2):
        rows["maskbits"][bright] |= 1 << bits[f"WISEM{number}"]
        rows[f"wisemask_w{number}"] = bright * (1 << bitmasks.WISEMASK_BITS["BRIGHT"])
    for band in bands:
        saturated = rows[f"allmask_{band}"] > 0
        for name in ("ALLMASK", "SATUR"):
            rows["maskbits"][saturated] |= 1 << bits[f"{name}_{band.upper()}"]
    gaia = np.char.startswith(rows["ref_cat"], b"G")
    rows["fitbits"][gaia] |= 1 << fits["GAIA"]
    rows["fitbits"][gaia & (rows["type"] == b"PSF")] |= 1 << fits["GAIA_POINTSOURCE"]
    rows["fitbits"][np.char.startswith(rows["ref_cat"], b"L")] |= 1 << fits["LARGEGALAXY"]


def _add_gaia(rows: np.ndarray, release: str) -> None:
    true = sources()
    noise = noise_of(0)
    duplicated = true["type"] == "DUP"
    magnitude = sky.magnitudes(np.where(duplicated, 10.0, true["flux_r"]))
    in_gaia = ((true["type"] == "PSF") & (magnitude < _GAIA_LIMIT_MAG)) | duplicated
    red, green = (np.where(duplicated, 1.0, true[f"flux_{band}"]) for band in "rg")
    colour = np.where(duplicated, 1.0, 2.5 * np.log10(red / green))
    number = int(release[2:])
    rows["ref_cat"][in_gaia] = {9: "G2", 10: "GE"}.get(number, "G3")
    gaia_id = 4_000_000_000_000_000_000 + 7_000_000_000_001 * np.arange(len(in_gaia))
    rows["ref_id"][in_gaia] = gaia_id[in_gaia]
    rows["ref_epoch"][in_gaia] = 2015.5 if number == 9 else 2016.0
    large = np.argmax(np.where(true["type"] == "PSF", 0, true["shape_r"]))
    rows["ref_cat"][large] = {9: "L3", 10: "L3"}.get(number, "L4")
    rows["ref_id"][large] = 1_234_567
    error = 0.05 * 10 ** (0.2 * np.clip(magnitude - 15, 0, None))
    parallax = 10 ** (0.2 * (10 - magnitude) + 0.15 * noise[:, 0])
    motions = {"parallax": parallax}
    motions |= {name: 12 * parallax * noise[:, n] for n, name in ((1, "pmra"), (2, "pmdec"))}
    motions |= {f"{name}_ivar": error**-2 for name in motions}
    values = {name: np.where(duplicated, 0.0, column) for name, column in motions.items()}
    values |= {
        "gaia_phot_bp_rp_excess_factor": 1.2 + 0.01 * noise[:, 3],
        "gaia_astrometric_excess_noise": 0.1 * np.abs(noise[:, 4]),
        "gaia_astrometric_excess_noise_sig": np.abs(noise[:, 5]),
        "gaia_astrometric_n_obs_al": 200 + 10 * noise[:, 6],
        "gaia_astrometric_n_good_obs_al": 190 + 10 * noise[:, 6],
        "gaia_astrometric_weight_al": 10 ** (2 - 0.2 * np.clip(magnitude - 15, 0, None)),
        "gaia_astrometric_sigma5d_max": error,
        "gaia_astrometric_params_solved": np.where(duplicated, 3, 31),
        "gaia_phot_variable_flag": noise[:, 7] > 1.8,
        "gaia_duplicated_source": noise[:, 8] > 1.8,
    }
    # From r: G is near it, BP bluer and RP redder by half of the colour each.
    for band, shift in (("g", 0.0), ("bp", 0.5), ("rp", -0.6)):
        mean = magnitude + shift * colour
        values[f"gaia_phot_{band}_mean_mag"] = mean
        values[f"gaia_phot_{band}_mean_flux_over_error"] = 10 ** (0.2 * (30 - mean))
        values[f"gaia_phot_{band}_n_obs"] = (20 if band != "g" else 180) + 3 * noise[:, 9]
    for name, column in values.items():
        rows[name][in_gaia] = column[in_gaia]


def _add_optical(rows: np.ndarray, band: str, noise: np.ndarray) -> None:
    light, column = optical(band), OPTICAL_BANDS.index(band)
    dup = sources()["type"] == "DUP"
    flux = light["flux"] + noise[:, column] / np.sqrt(np.where(dup, 1.0, light["ivar"]))
    rows[f"flux_{band}"] = np.where(dup, 0.0, flux)
    rows[f"flux_ivar_{band}"] = light["ivar"]
    scale = np.divide(flux, light["flux"], out=np.zeros(len(flux)), where=~dup)
    for name in ("fiberflux", "fibertotflux"):
        rows[f"{name}_{band}"] = light[name] * np.where(dup, 1.0, scale)
    rows[f"fibertotflux_{band}"] = np.maximum(
        rows[f"fibertotflux_{band}"], rows[f"fiberflux_{band}"]
    )
    rows[f"apflux_blobresid_{band}"] = _add_apertures(rows, band, light, noise)
    rows[f"apflux_masked_{band}"] = light["saturated"][:, None]
    rows[f"nobs_{band}"] = light["nobs"]
    rows[f"rchisq_{band}"] = np.where(dup, 0.0, 1 + 0.03 * noise[:, 30 + column])
    rows[f"fracflux_{band}"] = light["fracflux"]
    rows[f"fracin_{band}"] = np.where(dup, 0.0, 0.998)
    rows[f"fracmasked_{band}"] = np.where(light["saturated"], 0.4, 0.0)
    if f"ngood_{band}" in names_of(rows):
        rows[f"ngood_{band}"] = np.where(light["saturated"], 0, light["nobs"])
    saturated = np.where(light["saturated"], 1 << bitmasks.ALLMASK_BITS["SATUR"], 0)
    rows[f"anymask_{band}"] = rows[f"allmask_{band}"] = saturated
    rows[f"psfsize_{band}"] = sky.psf_fwhm_arcsec(band)
    for name in ("psfdepth", "galdepth", "nea"):
        rows[f"{name}_{band}"] = light[name]
    rows[f"blob_nea_{band}"] = light["nea"] * (1 + light["fracflux"])


def _add_apertures(
    rows: np.ndarray, band: str, light: dict[str, np.ndarray], noise: np.ndarray
) -> np.ndarray:
    """Add the fluxes in apertures; return their errors."""
    ivar = light["apflux_ivar"]
    residual = noise[:, 20 : 20 + ivar.shape[1]] / np.sqrt(ivar)
    rows[f"apflux_{band}"] = light["apflux"] + residual
    rows[f"apflux_resid_{band}"] = residual
    rows[f"apflux_ivar_{band}"] = ivar
    return residual


def _add_infrared(rows: np.ndarray, band: str, noise: np.ndarray) -> None:
    light, column = infrared(band), 4 + WISE_BANDS.index(band)
    rows[f"flux_{band}"] = light["flux"] + noise[:, column] / np.sqrt(light["ivar"])
    rows[f"flux_ivar_{band}"] = light["ivar"]
    _add_apertures(rows, band, light, noise)
    rows[f"nobs_{band}"] = _WISE_NOBS[band]
    rows[f"rchisq_{band}"] = 1 + 0.03 * noise[:, 30 + column]
    rows[f"fracflux_{band}"] = light["fracflux"]
    rows[f"psfdepth_{band}"] = light["psfdepth"]
    if f"lc_flux_{band}" not in names_of(rows):
        return
    epochs = rows[f"lc_flux_{band}"].shape[1]
    # The last two epochs were not observed, and are 0.
    observed = np.arange(epochs) < epochs - 2
    ivar = light["ivar"][:, None] / epochs
    spread = noise[:, 40 : 40 + epochs] / np.sqrt(ivar)
    rows[f"lc_flux_{band}"] = np.where(observed, light["flux"][:, None] + spread, 0)
    rows[f"lc_flux_ivar_{band}"] = np.where(observed, ivar, 0)
    rows[f"lc_nobs_{band}"] = np.where(observed, 12, 0)
    rows[f"lc_fracflux_{band}"] = np.where(observed, light["fracflux"][:, None], 0)
    rows[f"lc_rchisq_{band}"] = np.where(observed, 1.0, 0)
    rows[f"lc_mjd_{band}"] = np.where(observed, 55200.0 + 182.6 * np.arange(epochs), 0)
    rows[f"lc_epoch_index_{band}"] = np.where(observed, np.arange(epochs), 0)


def _add_tiles(rows: np.ndarray) -> None:
    """Set where in a WISE tile of 2048 pixels of 2.75 arcsec about a whole degree a source is."""
    ra, dec = sources()["ra"], sources()["dec"]
    whole_ra, whole_dec = np.round(ra), np.round(dec)
    rows["wise_coadd_id"] = [
        f"{round(x * 10) % 3600:04d}{'p' if y >= 0 else 'm'}{abs(round(y * 10)):03d}"
        for x, y in zip(whole_ra, whole_dec, strict=True)
    ]
    rows["wise_x"] = 1023.5 - (ra - whole_ra) * np.cos(np.radians(dec)) * 3600 / 2.75
    rows["wise_y"] = 1023.5 + (dec - whole_dec) * 3600 / 2.75


@cache
def measurements(release: str, region: str) -> np.ndarray:
    """Return a row for every source of the scene, without what depends on the brick."""
    tree = releases.get_tree(release, region)
    if tree.release == "dr8":
        return _as_dr8(measurements("dr9", region), region)
    true = sources()
    rows = np.zeros(len(true["ra"]), tractor_dtype(release, region))
    noise = noise_of(1 + (tree.region == "north"), int(tree.release[2:]))
    rows["release"] = release_number(release, region)
    for name in ("ra", "dec", "type"):
        rows[name] = true[name]
    rows["ebv"] = _ebv(true["ra"], true["dec"])
    for band in (*tree.bands, *WISE_BANDS):
        rows[f"mw_transmission_{band}"] = 10 ** (-0.4 * sky.EXTINCTION[band] * rows["ebv"])
    for band in tree.bands:
        _add_optical(rows, band, noise)
    for band in WISE_BANDS:
        _add_infrared(rows, band, noise)
    _add_shape(rows, noise)
    _add_gaia(rows, tree.release)
    _add_bits(rows, tree.release, tree.bands)
    _add_tiles(rows)
    first = 56700.0 if tree.region == "south" else 57400.0
    rows["mjd_min"] = first + 10 * np.abs(noise[:, 60])
    rows["mjd_max"] = rows["mjd_min"] + 600 + 100 * np.abs(noise[:, 61])
    _add_neighbours(rows)
    return rows


def _add_neighbours(rows: np.ndarray) -> None:
    """Set how far the nearest neighbour is, arcsec, from DR11 on."""
    if "nearest_neighbor" not in names_of(rows):
        return
    pair, _, apart = neighbours()
    nearest = np.full(len(rows), np.inf)
    np.minimum.at(nearest, pair, apart)
    rows["nearest_neighbor"] = np.where(np.isfinite(nearest), nearest, 0.0)


def _add_shape(rows: np.ndarray, noise: np.ndarray) -> None:
    true = sources()
    snr = rows["flux_r"] * np.sqrt(rows["flux_ivar_r"].astype(float))
    snr = np.clip(snr, 1.0, None)
    fitted = true["type"] != "DUP"
    centre_deg = sky.psf_fwhm_arcsec("r") / 2.3548 / snr / 3600
    rows["ra_ivar"] = rows["dec_ivar"] = np.where(fitted, centre_deg**-2, 0.0)
    # As if each model improved the fit by what it is like the true one.
    closeness = {"PSF": 1.0, "REX": 0.96, "DEV": 0.9, "EXP": 0.94, "SER": 0.97, "DUP": 0.0}
    for index, kind in enumerate(("PSF", "REX", "DEV", "EXP", "SER")):
        like = np.where(true["type"] == kind, 1.0, closeness[kind] - 0.02)
        rows["dchisq"][:, index] = np.where(fitted, snr**2 * like, 0.0)
    extended = fitted & (true["type"] != "PSF")
    rows["sersic"] = true["sersic"]
    free = true["type"] == "SER"
    rows["sersic_ivar"] = np.where(free, (snr / 10) ** 2, 0.0)
    rows["sersic"] += np.where(free, noise[:, 12] * 10 / snr, 0.0)
    rows["sersic"] = np.where(free, np.clip(rows["sersic"], 0.5, 6.0), rows["sersic"])
    radius = np.where(extended, true["shape_r"], 1.0)
    error = radius * 2 / snr
    rows["shape_r"] = np.where(extended, np.abs(radius + noise[:, 13] * error), 0.0)
    rows["shape_r_ivar"] = np.where(extended, error**-2, 0.0)
    tilted = extended & (true["type"] != "REX")
    for number, name in enumerate(("shape_e1", "shape_e2")):
        shifted = np.clip(true[name] + noise[:, 14 + number] * 2 / snr, -0.7, 0.7)
        rows[name] = np.where(tilted, shifted, 0.0)
        rows[f"{name}_ivar"] = np.where(tilted, (snr / 2) ** 2, 0.0)


def _as_dr8(rows: np.ndarray, region: str) -> np.ndarray:
    """Return rows of DR9 as DR8 has them: the same fits, with two profiles instead of one."""
    older = np.zeros(len(rows), tractor_dtype("dr8", region))
    for name in set(names_of(older)) & set(names_of(rows)):
        values = rows[name]
        older[name] = values if values.ndim == 1 else values[:, : older[name].shape[1]]
    older["release"] = release_number("dr8", region)
    kind = np.where(rows["type"] == b"SER", b"COMP", rows["type"])
    older["type"] = np.char.ljust(kind, 4)
    older["ref_cat"][rows["ref_cat"] == b"L3"] = "L2"
    older["gaia_pointsource"] = (rows["ref_cat"] == b"G2") & (rows["type"] == b"PSF")
    older["brightblob"] = (rows["maskbits"] >> bitmasks.maskbits("dr8")["BRIGHT"]) & 1
    older["fracdev"] = np.select([kind == b"DEV", kind == b"COMP"], [1.0, 0.5], 0.0)
    older["fracdev_ivar"] = np.where(kind == b"COMP", 100.0, 0.0)
    for profile, types in (("exp", (b"EXP", b"REX", b"COMP")), ("dev", (b"DEV", b"COMP"))):
        has = np.isin(kind, types)
        for part in ("r", "e1", "e2", "r_ivar", "e1_ivar", "e2_ivar"):
            older[f"shape{profile}_{part}"] = np.where(has, rows[f"shape_{part}"], 0.0)
    return older
