"""What a fit would find for each source of the scene, and the columns of the Tractor files.

Positions are the true ones; fluxes and shapes scatter by their errors.

The units are those that the files carry, which is not what the catalogue pages list: some columns
have none, and some spellings are no unit to astropy.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from ..survey import bitmasks, releases
from ..survey.tractor_columns import OPTICAL_BANDS, WISE_BANDS
from ..survey.tractor_columns import tractor_columns as survey_columns
from . import render, sky
from .light import (
    infrared,
    neighbours,
    noise_of,
    optical,
    sources,
)

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


def _mask_values(release: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the mask bits of each source but for NPRIMARY, and which are by a bright star."""
    true = sources()
    bits = bitmasks.maskbits(release)
    mask, bright = np.zeros(len(true["ra"]), np.int32), np.zeros(len(true["ra"]), bool)
    for bit, ra, dec, radius_arcsec in sky.mask_circles(sky.truth()):
        east = (true["ra"] - ra + 180) % 360 - 180
        apart = np.hypot(east * np.cos(np.radians(dec)), true["dec"] - dec) * 3600
        mask[apart < radius_arcsec] |= 1 << bits[bit]
        if bit == "BRIGHT":
            bright |= apart < radius_arcsec
    for bit in ("WISEM1", "WISEM2"):
        mask[bright] |= 1 << bits[bit]
    return mask, bright


def _add_gaia(rows: np.ndarray, release: str) -> None:
    true = sources()
    noise = noise_of(0)
    duplicated = true["type"] == "DUP"
    magnitude = sky.magnitudes(np.where(duplicated, 10.0, true["flux_r"]))
    in_gaia = ((true["type"] == "PSF") & (magnitude < _GAIA_LIMIT_MAG)) | duplicated
    colour = np.where(
        duplicated,
        1.0,
        2.5
        * np.log10(
            np.where(duplicated, 1.0, true["flux_r"]) / np.where(duplicated, 1.0, true["flux_g"])
        ),
    )
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
    values = {
        "parallax": np.where(duplicated, 0.0, parallax),
        "pmra": np.where(duplicated, 0.0, 12 * parallax * noise[:, 1]),
        "pmdec": np.where(duplicated, 0.0, 12 * parallax * noise[:, 2]),
        "parallax_ivar": np.where(duplicated, 0.0, error**-2),
        "pmra_ivar": np.where(duplicated, 0.0, error**-2),
        "pmdec_ivar": np.where(duplicated, 0.0, error**-2),
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


def _add_optical(rows: np.ndarray, band: str, noise: np.ndarray, ngood: bool) -> None:
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
    if ngood:
        rows[f"ngood_{band}"] = np.where(light["saturated"], 0, light["nobs"])
    saturated = np.where(light["saturated"], 1 << bitmasks.ALLMASK_BITS["SATUR"], 0)
    rows[f"anymask_{band}"] = rows[f"allmask_{band}"] = saturated
    rows[f"psfsize_{band}"] = render.psf_fwhm_arcsec(band)
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
    if f"lc_flux_{band}" not in (rows.dtype.names or ()):
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
        _add_optical(rows, band, noise, f"ngood_{band}" in (rows.dtype.names or ()))
    for band in WISE_BANDS:
        _add_infrared(rows, band, noise)
    _add_shape(rows, noise)
    _add_gaia(rows, tree.release)
    rows["maskbits"], bright = _mask_values(tree.release)
    for band in tree.bands:
        saturated = rows[f"allmask_{band}"] > 0
        for bit in (f"ALLMASK_{band.upper()}", f"SATUR_{band.upper()}"):
            rows["maskbits"][saturated] |= 1 << bitmasks.maskbits(tree.release)[bit]
    for band in WISE_BANDS[:2]:
        rows[f"wisemask_{band}"] = bright * (1 << bitmasks.WISEMASK_BITS["BRIGHT"])
    gaia = np.char.startswith(rows["ref_cat"], b"G")
    bits = bitmasks.FITBITS
    rows["fitbits"][gaia] |= 1 << bits["GAIA"]
    rows["fitbits"][gaia & (rows["type"] == b"PSF")] |= 1 << bits["GAIA_POINTSOURCE"]
    rows["fitbits"][np.char.startswith(rows["ref_cat"], b"L")] |= 1 << bits["LARGEGALAXY"]
    first = 56700.0 if tree.region == "south" else 57400.0
    rows["mjd_min"] = first + 10 * np.abs(noise[:, 60])
    rows["mjd_max"] = rows["mjd_min"] + 600 + 100 * np.abs(noise[:, 61])
    rows["wise_coadd_id"] = [
        f"{round(ra * 10) % 3600:04d}{'p' if dec >= 0 else 'm'}{abs(round(dec * 10)):03d}"
        for ra, dec in zip(np.round(true["ra"]), np.round(true["dec"]), strict=True)
    ]
    # Pixels of 2.75 arcsec of a tile of 2048 that is centred on the whole degree.
    east = (true["ra"] - np.round(true["ra"])) * np.cos(np.radians(true["dec"]))
    rows["wise_x"] = 1023.5 - east * 3600 / 2.75
    rows["wise_y"] = 1023.5 + (true["dec"] - np.round(true["dec"])) * 3600 / 2.75
    if "nearest_neighbor" in (rows.dtype.names or ()):
        pair, _, apart = neighbours()
        nearest = np.full(len(rows), np.inf)
        np.minimum.at(nearest, pair, apart)
        rows["nearest_neighbor"] = np.where(np.isfinite(nearest), nearest, 0.0)
    return rows


def _add_shape(rows: np.ndarray, noise: np.ndarray) -> None:
    true = sources()
    snr = rows["flux_r"] * np.sqrt(rows["flux_ivar_r"].astype(float))
    snr = np.clip(snr, 1.0, None)
    fitted = true["type"] != "DUP"
    centre_deg = render.psf_fwhm_arcsec("r") / 2.3548 / snr / 3600
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
    for name in set(older.dtype.names or ()) & set(rows.dtype.names or ()):
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
        for part in ("r", "e1", "e2"):
            for suffix in ("", "_ivar"):
                column = rows[f"shape_{part}{suffix}"]
                older[f"shape{profile}_{part}{suffix}"] = np.where(has, column, 0.0)
    return older
