"""Redshifts of the simulated sources: the true ones, and what the photo-z tables say of them.

Galaxies are the farther the fainter they are, with a scatter that each keeps.  A third of those
brighter than 20 mag have a spectrum, and so a ``z_spec``.
"""

from __future__ import annotations

import numpy as np

from . import sky
from .light import noise_of, sources

# What the tables hold where there is no value.
NO_REDSHIFT = -99.0

_SPECTROSCOPIC_MAG = 20.0
_SURVEYS = ("SDSS", "DESI", "GAMA")
_WIDTHS = {"l68": -1.0, "u68": 1.0, "l95": -2.0, "u95": 2.0}
_STATISTICS = ("mean", "median", "std", *_WIDTHS)


def photo_z_dtype(release: str) -> np.dtype:
    """Return the columns of the photo-z tables, which from DR10 on have a second set with i."""
    sets = ("", "_i") if int(release[2:]) >= 10 else ("",)
    names = [f"z_phot_{name}{end}" for end in sets for name in _STATISTICS]
    return np.dtype(
        [("release", "i2"), ("brickid", "i4"), ("objid", "i4")]
        + [(name, "f4") for name in names]
        + [("z_spec", "f4"), ("survey", "S10"), ("training", "?"), ("kfold", "i2")]
    )


def photo_z(release: str, rows: np.ndarray, truth_id: np.ndarray) -> np.ndarray:
    """Return the photo-z of rows of a Tractor catalogue, whose true sources have these ids."""
    table = np.zeros(len(rows), photo_z_dtype(release))
    for name in ("release", "brickid", "objid"):
        table[name] = rows[name]
    # Sources that are only in Gaia have the id -1, and no light that could be fitted.
    is_true = truth_id >= 0
    number = np.where(is_true, truth_id, 0)
    redshift = np.asarray(sky.truth()["redshift"])[number]
    magnitude = sky.magnitudes(np.asarray(sources()["flux_r"])[number])
    error = np.clip(0.02 * 10 ** (0.2 * (magnitude - 20)), 0.015, 0.2) * (1 + redshift)
    noise = noise_of(5, int(release[2:]))[number]
    for end, bands in (("", "grz"), ("_i", "griz")):
        if f"z_phot_mean{end}" not in (table.dtype.names or ()):
            continue
        was_seen = is_true.copy()
        for band in bands:
            if f"nobs_{band}" in (rows.dtype.names or ()):
                was_seen &= rows[f"nobs_{band}"] > 0
        middle = np.abs(redshift + noise[:, len(bands)] * error)
        values = {"mean": middle + 0.1 * error, "median": middle, "std": 1.1 * error}
        values |= {name: np.maximum(middle + k * error, 0) for name, k in _WIDTHS.items()}
        for name, column in values.items():
            table[f"z_phot_{name}{end}"] = np.where(was_seen, column, NO_REDSHIFT)
    is_galaxy = np.asarray(sky.truth()["type"])[number] != "PSF"
    has_spectrum = is_true & is_galaxy & (magnitude < _SPECTROSCOPIC_MAG) & (number % 3 == 0)
    table["z_spec"] = np.where(has_spectrum, redshift, NO_REDSHIFT)
    table["survey"] = np.where(has_spectrum, np.array(_SURVEYS)[number // 3 % len(_SURVEYS)], "")
    table["training"] = has_spectrum & (number % 2 == 0)
    table["kfold"] = np.where(table["training"], number % 10, -1)
    return table
