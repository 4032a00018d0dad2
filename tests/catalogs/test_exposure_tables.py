"""Which exposures cover a position: astropy's WCS of every CCD is the oracle."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from astropy.time import Time
from astropy.wcs import WCS

from astroquery_lis.exceptions import (
    CoverageWarning,
    InvalidRequestError,
    NoCoverageError,
    UnexpectedContentError,
)

PATH = "{}/coadd/{}/{}/legacysurvey-{}-ccds.fits"


def _wcs(row):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = row["crval1"], row["crval2"]
    wcs.wcs.crpix = row["crpix1"], row["crpix2"]
    wcs.wcs.cd = [[row["cd1_1"], row["cd1_2"]], [row["cd2_1"], row["cd2_2"]]]
    return wcs


@pytest.mark.parametrize(
    ("name", "folder", "brick"),
    [
        ("star", "dr10/south", "0451p000"),
        ("corner", "dr10/south", "0453p002"),
        ("split", "dr9/north", "1801p325"),
        ("ra0", "dr10/south", "0001p000"),
    ],
)
def test_the_ccds_are_those_whose_wcs_holds_the_position(local, sky, name, folder, brick):
    place = sky.positions[name]
    found = local.query_exposures(place)
    with fits.open(sky.root / PATH.format(folder, brick[:3], brick, brick)) as hdus:
        rows = Table(hdus[1].data)
    expected = {}
    for row in rows:
        x, y = _wcs(row).world_to_pixel(place)
        if -0.5 < x < row["width"] - 0.5 and -0.5 < y < row["height"] - 0.5:
            expected[int(row["expnum"]), row["ccdname"].strip()] = float(x), float(y)
    got = {(int(r["expnum"]), r["ccdname"]): (r["x"], r["y"]) for r in found}
    assert set(got) == set(expected)
    assert len(got) >= 3
    for key, pixel in expected.items():
        # The table holds its matrix in single precision, as the oracle does.
        np.testing.assert_allclose(got[key], pixel, atol=1e-3)
    assert found.meta["region"] == folder.split("/")[1]


def test_columns_and_units(local, sky):
    table = local.query_exposures(sky.positions["star"])
    assert list(dict.fromkeys(table["filter"])) == ["g", "r", "i", "z"]
    assert table["exptime"].unit == u.s
    assert table["seeing"].unit == u.arcsec
    assert ((table["seeing"] > 0.5) & (table["seeing"] < 3)).all()
    assert (table["psfdepth"] > table["galdepth"]).all()
    assert ((table["psfdepth"] > 20) & (table["psfdepth"] < 28)).all()
    np.testing.assert_allclose(Time(table["date_obs"]).mjd, table["mjd_obs"], atol=1e-7)
    reds = local.query_exposures(sky.positions["star"], bands="rz")
    assert set(reds["filter"]) == {"r", "z"}
    assert len(reds) == np.isin(table["filter"], ["r", "z"]).sum()


def test_what_is_refused_or_not_there(local, sky, tmp_path):
    with pytest.raises(InvalidRequestError, match="bands"):
        local.query_exposures(sky.positions["star"], bands="q")
    off = SkyCoord(95.0, -30.0, unit="deg")
    with pytest.warns(CoverageWarning, match="no exposures there"):
        empty = local.query_exposures(off)
    assert len(empty) == 0
    with pytest.raises(NoCoverageError):
        local.query_exposures(off, on_missing="raise")
    payload = local.query_exposures(sky.positions["star"], get_query_payload=True)
    path = sky.root / PATH.format("dr10/south", "045", "0451p000", "0451p000")
    assert payload["urls"] == [str(path)]
    path = tmp_path / PATH.format("dr10/south", "045", "0451p000", "0451p000")
    path.parent.mkdir(parents=True)
    Table({"expnum": [1]}).write(path)
    with pytest.raises(UnexpectedContentError, match="cannot be read as a table of CCDs"):
        local.query_exposures(sky.positions["star"], mirror=tmp_path)


def test_the_table_is_fetched_once(sky, survey):
    first = survey.query_exposures(sky.positions["star"])
    assert len(sky.requests) == 1
    again = survey.query_exposures(sky.positions["field"])
    assert len(sky.requests) == 1
    assert set(first.colnames) == set(again.colnames)
