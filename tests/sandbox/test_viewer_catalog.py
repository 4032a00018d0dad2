"""The simulated viewer's box of catalogue rows, compared with the Tractor files."""

import io

import numpy as np
import pytest
import requests
from astropy.io import fits
from astropy.table import Table

from astroquery_lis.survey import paths


@pytest.fixture
def ask(sky):
    with requests.Session() as session:

        def ask(layer, *box):
            names = ("ralo", "rahi", "declo", "dechi")
            parameters = dict(zip(names, box, strict=False))
            return session.get(f"{sky.viewer_url}/{layer}/cat.fits", params=parameters)

        yield ask


def rows_of(answer):
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "image/fits"
    with fits.open(io.BytesIO(answer.content)) as hdul:
        assert "EXTNAME" not in hdul[1].header
        assert not hdul[1].header["TUNIT*"]
    return Table.read(io.BytesIO(answer.content), character_as_bytes=False)


def file_rows(root, release, region, *names):
    for name in names:
        with fits.open(root / paths.file_path("tractor", release, region, brick=name)) as hdul:
            yield from hdul[1].data


def keys(rows):
    return sorted((row["release"], row["brickid"], row["objid"]) for row in rows)


def test_a_box_over_four_bricks_has_each_source_once(sky, ask):
    names = ("0451p000", "0453p000", "0451p002", "0453p002")
    found = rows_of(ask("ls-dr10", 45.23, 45.27, 0.105, 0.145))
    expected = [
        row
        for row in file_rows(sky.root, "dr10", "south", *names)
        if abs(row["ra"] - 45.25) < 0.02 and abs(row["dec"] - 0.125) < 0.02 and row["brick_primary"]
    ]
    assert keys(found) == keys(expected)
    assert len(set(found["brickname"])) == 4
    assert "cat-ls-dr10.fits" in ask("ls-dr10", 45, 45.2, 0, 0.1).headers["Content-Disposition"]


@pytest.mark.parametrize("west", [359.98, -0.02])
def test_a_box_may_have_ra_0_inside(sky, ask, west):
    found = rows_of(ask("ls-dr10-south", west, 0.02, 0.0, 0.04))
    expected = [
        row
        for row in file_rows(sky.root, "dr10", "south", "0001p000", "3598p000")
        if (row["ra"] < 0.02 or row["ra"] > 359.98)
        and 0 < row["dec"] < 0.04
        and row["brick_primary"]
    ]
    assert keys(found) == keys(expected)
    assert found["ra"].min() < 1 < 359 < found["ra"].max()


def test_joined_layers_fill_what_the_north_lacks_with_0(sky, ask):
    box = (180.13, 180.17, 32.35, 32.40)
    joined = rows_of(ask("ls-dr10", *box))
    north = joined["release"] == 9011
    np.testing.assert_array_equal(north, joined["dec"] >= 32.375)
    assert 0 < north.sum() < len(joined)
    for name in ("flux_i", "flux_ivar_i", "mw_transmission_i", "ngood_g"):
        assert (joined[name][north] == 0).all()
        assert (joined[name][~north] != 0).any()
    assert joined["lc_flux_w1"].shape[1] == 17
    assert (joined["lc_mjd_w1"][north][:, 15:] == 0).all()
    south = rows_of(ask("ls-dr10-south", *box))
    assert set(south["release"]) == {10000}
    assert len(south) == len(joined)
    alone = rows_of(ask("ls-dr9-north", *box))
    assert set(alone["release"]) == {9011}
    assert "flux_i" not in alone.colnames


def test_errors_are_those_of_the_viewer(ask):
    nothing = ask("ls-dr10", 10, 10.1, 5, 5.1)
    assert (nothing.status_code, nothing.text) == (
        200,
        "No catalog sources in layer and RA,Dec box",
    )
    assert ask("ls-dr10-south", 10, 10.1, 5, 5.1).status_code == 500
    assert ask("ls-dr10", 10, 10.1).text == "no ra,dec bbox"
    assert ask("no-such", 10, 10.1, 5, 5.1).text == "no such layer"
    assert ask("ls-dr10", 10, 10.1, 5, "x").status_code == 500
