"""The tables of CCDs agree with the coadds they stand for."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from astroquery_lis.sandbox import sky
from astroquery_lis.survey import paths, releases

FILES = [(tree, brick) for tree, names in sky.BRICKS.items() for brick in names]
OF_THE_BRICK = 45


def read(root, tree, brick):
    with fits.open(root / paths.file_path("ccds-table", *tree, brick=brick)) as hdul:
        return hdul[1].data.copy()


def pixels(row, ra, dec):
    """Return where positions are on a CCD, by the WCS in the table."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crpix = row["crpix1"], row["crpix2"]
    wcs.wcs.crval = row["crval1"], row["crval2"]
    wcs.wcs.cd = [[row["cd1_1"], row["cd1_2"]], [row["cd2_1"], row["cd2_2"]]]
    x, y = wcs.all_world2pix(ra, dec, 0)
    inside = (x > -0.5) & (x < row["width"] - 0.5) & (y > -0.5) & (y < row["height"] - 0.5)
    return x, y, inside


@pytest.mark.parametrize(("tree", "brick"), FILES)
def test_every_exposure_of_a_pixel_is_listed(sky_tree, tree, brick):
    table = read(sky_tree, tree, brick)
    rng = np.random.default_rng(3)
    for band in releases.get_tree(*tree).bands:
        with fits.open(sky_tree / paths.file_path("nexp", *tree, brick=brick, band=band)) as hdul:
            nexp, wcs = np.array(hdul[1].data), WCS(hdul[1].header)
        y, x = (values[rng.integers(0, len(values), 60)] for values in np.nonzero(nexp))
        ra, dec = wcs.all_pix2world(x, y, 0)
        covered = np.zeros(60, int)
        for row in table[table["filter"] == band]:
            ccd_x, ccd_y, inside = pixels(row, ra, dec)
            covered += inside
            assert (ccd_x[inside] > row["ccd_x0"] - 1.5).all()
            assert (ccd_x[inside] < row["ccd_x1"] + 1.5).all()
            assert (ccd_y[inside] > row["ccd_y0"] - 1.5).all()
            assert (ccd_y[inside] < row["ccd_y1"] + 1.5).all()
            assert (x[inside] >= row["brick_x0"] - 1).all()
            assert (x[inside] <= row["brick_x1"] + 1).all()
            assert (y[inside] >= row["brick_y0"] - 1).all()
            assert (y[inside] <= row["brick_y1"] + 1).all()
        assert (covered >= nexp[y, x]).all()
        assert covered.max() <= 4


def test_a_ccd_is_the_same_in_every_brick(sky_tree):
    seen = {}
    for tree, brick in FILES:
        table = read(sky_tree, tree, brick)
        names = table.columns.names[:OF_THE_BRICK]
        assert names[-1] == "ccd_cuts"
        keys = [(row["camera"], row["expnum"], row["ccdname"]) for row in table]
        assert len(set(keys)) == len(keys)
        for key, row in zip(keys, table, strict=True):
            values = [row[name] for name in names]
            assert seen.setdefault(key, values) == values
    exposures = {}
    for (_, number, _), values in seen.items():
        # Of one exposure: filter, exposure time, date, airmass.
        exposures.setdefault(number, values[10:14])
        assert exposures[number] == values[10:14]


def test_both_sides_of_ra_0_and_of_a_corner_name_the_same_ccds(sky_tree):
    groups = {"ra0": ("0001p000", "3598p000"), "corner": ("0451p000", "0453p000", "0451p002")}
    for place, names in groups.items():
        ra, dec = sky.POSITIONS_DEG[place]
        found = []
        for brick in names:
            rows = read(sky_tree, ("dr10", "south"), brick)
            found.append(
                {(row["expnum"], row["ccdname"]) for row in rows if pixels(row, ra, dec)[2]}
            )
        assert len(found[0]) >= 8
        assert all(other == found[0] for other in found)


def test_depths_are_those_of_the_exposures(sky_tree):
    table = read(sky_tree, ("dr10", "south"), "0451p000")
    folder = ("dr10", "south")
    for band in "griz":
        row = table[table["filter"] == band][0]
        for product, norm in (("depth", "psfnorm"), ("galdepth", "galnorm")):
            values = []
            for name in (product, "nexp"):
                with fits.open(
                    sky_tree / paths.file_path(name, *folder, brick="0451p000", band=band)
                ) as hdul:
                    values.append(hdul[1].section[1000:1200, 1000:1200].astype(float))
            assert np.median(values[0] / values[1]) == pytest.approx(
                (row[norm] / row["sig1"]) ** 2, rel=1e-4
            )


def test_cameras_are_those_of_the_regions(sky_tree):
    south = read(sky_tree, ("dr10", "south"), "1801p325")
    north = read(sky_tree, ("dr9", "north"), "1801p325")
    assert set(south["camera"]) == {"decam"}
    assert {row["camera"] for row in north if row["filter"] in "gr"} == {"90prime"}
    assert {row["camera"] for row in north if row["filter"] == "z"} == {"mosaic"}
    assert set(south["filter"]) == set("griz")
    assert set(north["filter"]) == set("grz")
