"""Random queries of every source against brute force over the files, as astropy reads them."""

import os
import warnings
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord, SkyOffsetFrame
from astropy.io import fits
from astropy.table import Table, vstack
from astroquery.exceptions import NoResultsWarning

from astroquery_lis import conf
from astroquery_lis.exceptions import CoverageWarning

N_QUERIES = int(os.environ.get("ASTROQUERY_LIS_RANDOM_QUERIES", "60"))
SOURCES = ("files", "tap", "viewer", "sweeps")
CENTERS = SkyCoord([45.125, 45.25, 0.0, 180.15], [0.0, 0.125, 0.02, 32.375], unit="deg")
RAW = (
    *("release", "brickid", "objid", "ra", "dec", "type", "ref_cat", "ref_id", "maskbits"),
    *("flux_g", "flux_r", "flux_i", "flux_z", "flux_w1", "flux_ivar_r", "mw_transmission_g"),
    *("nobs_r", "nobs_i", "pmra", "parallax", "psfsize_r", "shape_r", "ra_ivar", "sersic"),
    *("gaia_duplicated_source", "brick_primary"),
)


@pytest.fixture(scope="module")
def scene(served_sky):
    """Every primary row of DR10, the official one where both regions have it, by column."""
    tables = []
    for path in sorted(Path(served_sky.root).glob("dr*/*/tractor/*/tractor-*.fits")):
        region = path.relative_to(served_sky.root).parts[:2]
        if region not in (("dr10", "south"), ("dr9", "north")):
            continue
        with fits.open(path) as hdus:
            rows = Table(hdus[1].data)
        names = {name.lower(): name for name in rows.colnames}
        part = Table({name: rows[names[name]] for name in RAW if name in names})
        for name in set(RAW) - set(names):
            part[name] = np.full(len(rows), np.nan)
        places = SkyCoord(rows["ra"], rows["dec"], unit="deg")
        north = (rows["dec"] >= 32.375) & (places.galactic.b > 0)
        is_official = north == (region[1] == "north")
        tables.append(part[is_official & np.asarray(part["brick_primary"], bool)])
    table = vstack(tables, metadata_conflicts="silent")
    scene = {}
    for name in RAW:
        values = np.asarray(table[name])
        if values.dtype.kind in "SU":
            values = np.char.rstrip(values.astype(str))
        scene[name] = values.astype(float) if values.dtype.kind == "f" else values
    with np.errstate(divide="ignore", invalid="ignore"):
        for band in ("g", "r", "i", "z", "w1"):
            flux = np.where(scene[f"flux_{band}"] > 0, scene[f"flux_{band}"], np.nan)
            scene[f"mag_{band}"] = 22.5 - 2.5 * np.log10(flux)
        scene["g_r"] = scene["mag_g"] - scene["mag_r"]
        scene["z_w1"] = scene["mag_z"] - scene["mag_w1"]
        extinction = 2.5 * np.log10(scene["mw_transmission_g"])
        scene["dered_mag_g"] = scene["mag_g"] + extinction
        scene["snr_r"] = scene["flux_r"] * np.sqrt(scene["flux_ivar_r"])
        scene["ra_err"] = np.where(scene["ra_ivar"] > 0, scene["ra_ivar"] ** -0.5, np.nan)
        scene["mag_err_r"] = (
            2.5
            / np.log(10)
            / np.where(
                np.isfinite(scene["mag_r"]) & (scene["flux_ivar_r"] > 0), scene["snr_r"], np.nan
            )
        )
    for name in ("mag_r", "g_r", "z_w1", "dered_mag_g", "snr_r", "ra_err", "mag_err_r", "mag_i"):
        # As the columns hold them.
        scene[name] = scene[name].astype(np.float32).astype(float)
    scene["place"] = SkyCoord(scene["ra"], scene["dec"], unit="deg")
    return scene


def _region(rng, scene):
    """Return arguments that say where, and which rows are there."""
    center = CENTERS[rng.integers(len(CENTERS))]
    angle, distance = rng.uniform(0, 360) * u.deg, rng.uniform(0, 90) * u.arcsec
    center = center.directional_offset_by(angle, distance)
    kind = rng.choice(["cone", "box", "polygon"])
    if kind == "cone":
        radius = rng.uniform(20, 120) * u.arcsec
        inside = scene["place"].separation(center) <= radius
        return {"coordinates": center, "radius": radius}, inside
    offset = scene["place"].transform_to(SkyOffsetFrame(origin=center))
    x, y = offset.lon.wrap_at(180 * u.deg), offset.lat
    if kind == "box":
        width, height = rng.uniform(60, 240, 2) * u.arcsec
        inside = (np.abs(x) <= width / 2) & (np.abs(y) <= height / 2)
        return {"coordinates": center, "width": width, "height": height}, inside
    angles = np.sort(rng.uniform(0, 360, 3)) + np.arange(3)
    corners = center.directional_offset_by(angles * u.deg, rng.uniform(60, 120, 3) * u.arcsec)
    vectors, points = (c.cartesian.xyz.value.T for c in (corners, scene["place"]))
    sides = [np.cross(vectors[k], vectors[(k + 1) % 3]) @ points.T for k in range(3)]
    signs = np.sign(sides).sum(axis=0)
    near = scene["place"].separation(center) < 1 * u.deg
    return {"polygon": corners}, (np.abs(signs) == 3) & near


def _number_filter(rng, values, unit, other_unit):
    """Return a condition on numbers, and its test."""
    known = values[np.isfinite(values)]
    low, high = (float(v) for v in np.sort(rng.choice(known, 2)))
    third = float(rng.choice(known))
    factor = 1.0 if other_unit is None else unit.to(other_unit, equivalencies=AB)
    options = [
        (f">{low!r}", lambda v: v > low),
        (f">= {low!r}", lambda v: v >= low),
        (f"<{high!r}", lambda v: v < high),
        (f"{low!r}..{high!r}", lambda v: (v >= low) & (v <= high)),
        (f"{low!r}..", lambda v: v >= low),
        ((low, high), lambda v: (v >= low) & (v <= high)),
        ((None, high), lambda v: v <= high),
        (f">{low!r} & <={high!r}", lambda v: (v > low) & (v <= high)),
        (f"<{low!r} | >{high!r}", lambda v: (v < low) | (v > high)),
        (f"{third!r}, {low!r}..{high!r}", lambda v: (v == third) | ((v >= low) & (v <= high))),
        ([low, third], lambda v: (v == low) | (v == third)),
        (f"!={third!r}", lambda v: np.isfinite(v) & (v != third)),
        (f"{low!r} | {third!r}", lambda v: (v == low) | (v == third)),
    ]
    if other_unit is not None:
        # Not on a value of the table, which a conversion may miss by a bit.
        between = (low + high) / 2 * (1 + 1e-7) + 1e-12
        options += 3 * [
            (f"> {between * factor!r} {other_unit}", lambda v: v > between),
            ((between * factor * other_unit, None), lambda v: v >= between),
        ]
    return options[rng.integers(len(options))]


AB = u.zero_point_flux(1 * u.AB)
NUMBERS = {
    "flux_r": (u.nmgy, u.uJy),
    "flux_i": (u.nmgy, u.Jy),
    "pmra": (u.mas / u.yr, u.arcsec / u.yr),
    "parallax": (u.mas, u.arcsec),
    "psfsize_r": (u.arcsec, u.arcmin),
    "shape_r": (u.arcsec, u.deg),
    "ra_err": (u.deg, u.arcsec),
    "dec": (u.deg, u.arcmin),
    **dict.fromkeys(("mag_r", "mag_i", "g_r", "z_w1", "dered_mag_g", "mag_err_r"), (u.mag, None)),
    **dict.fromkeys(("snr_r", "sersic", "maskbits", "nobs_r", "objid"), (None, None)),
}
TEXTS = {
    "type": [
        ("PSF", lambda v: v == "PSF"),
        ("!=PSF", lambda v: v != "PSF"),
        ("PSF|REX", lambda v: np.isin(v, ["PSF", "REX"])),
        ("PSF, EXP", lambda v: np.isin(v, ["PSF", "EXP"])),
        ("!=PSF, REX", lambda v: ~np.isin(v, ["PSF", "REX"])),
        (["DEV", "SER "], lambda v: np.isin(v, ["DEV", "SER"])),
        ("~*E*", lambda v: np.char.find(v, "E") >= 0),
        ("!~?EX", lambda v: ~np.isin(v, ["REX", "DEX"])),
    ],
    "ref_cat": [
        ("", lambda v: v == ""),
        ("!=", lambda v: v != ""),
        (["", "L3"], lambda v: np.isin(v, ["", "L3"])),
        ("~G*", lambda v: np.char.startswith(v, "G")),
        ("!~G*", lambda v: ~np.char.startswith(v, "G")),
        ("!=GE", lambda v: v != "GE"),
        ("~L_", lambda v: v == "L_"),
        ("O'Neil", lambda v: v == "O'Neil"),
    ],
    "gaia_duplicated_source": [
        (True, lambda v: v.astype(bool)),
        ("false", lambda v: ~v.astype(bool)),
        ("!=1", lambda v: ~v.astype(bool)),
    ],
}


def _filters(rng, scene):
    """Return column filters, and which rows meet them."""
    names = rng.choice([*NUMBERS, *TEXTS], rng.choice([0, 1, 1, 2, 3]), replace=False)
    filters, met = {}, np.ones(len(scene["ra"]), bool)
    for name in map(str, names):
        if name in TEXTS:
            filters[name], test = TEXTS[name][rng.integers(len(TEXTS[name]))]
        else:
            filters[name], test = _number_filter(rng, scene[name], *NUMBERS[name])
            if scene[name].dtype.kind != "f" and isinstance(filters[name], list):
                filters[name] = [int(value) for value in filters[name]]
        met &= test(scene[name])
    return filters, met


def _same_rows(rows, scene, expected):
    keys = ("release", "brickid", "objid")
    answer = sorted(zip(*(rows[name].tolist() for name in keys), strict=True))
    due = sorted(zip(*(scene[name][expected].tolist() for name in keys), strict=True))
    assert answer == due
    order = np.lexsort([np.asarray(rows[name]) for name in reversed(keys)])
    brute = np.lexsort([scene[name][expected] for name in reversed(keys)])
    for name in set(rows.colnames) & set(scene) - set(keys):
        mask = np.ma.getmaskarray(rows[name])[order]
        values = np.ma.getdata(rows[name])[order]
        right = scene[name][expected][brute]
        if right.dtype.kind == "f":
            assert np.isnan(right[mask]).all()
            np.testing.assert_allclose(values[~mask], right[~mask], rtol=3e-6, atol=3e-6)
        else:
            assert not mask.any()
            assert np.array_equal(values, right)


@pytest.mark.parametrize("n_queries", [20, pytest.param(N_QUERIES, marks=pytest.mark.slow)])
@pytest.mark.parametrize("source", SOURCES)
def test_random_queries_are_what_brute_force_finds(sky, survey, scene, source, n_queries):
    rng = np.random.default_rng(SOURCES.index(source))
    n_met = 0
    with conf.set_temp("tap_url", sky.tap_url), conf.set_temp("viewer_url", sky.viewer_url):
        for _ in range(n_queries):
            where, inside = _region(rng, scene)
            filters, met = _filters(rng, scene)
            expected = np.asarray(inside) & met
            ask = {"drop_duplicates": bool(rng.integers(2))}
            if ask["drop_duplicates"]:
                expected &= scene["type"] != "DUP"
            if rng.integers(2):
                ask["maskbits"] = ["BRIGHT", "MEDIUM"]
                expected &= (scene["maskbits"] & (2 | 2048)) == 0
            columns = ["release", "brickid", "objid"]
            columns += map(str, rng.choice([*NUMBERS, *TEXTS], rng.integers(1, 6), replace=False))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CoverageWarning)
                warnings.simplefilter("ignore", NoResultsWarning)
                rows = survey.query_tractor(
                    **where, **ask, columns=columns, column_filters=filters, source=source
                )
            try:
                _same_rows(rows, scene, expected)
            except AssertionError as error:
                error.add_note(f"{where} {ask} {columns} {filters}")
                raise
            n_met += len(rows)
    # Not all of them are empty.
    assert n_met > 3 * n_queries
