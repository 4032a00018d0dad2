"""Single CCDs from the simulated viewer, against the tables of CCDs and the truth."""

import gzip
import io
import json

import numpy as np
import pytest
import urllib3
from astropy.io import fits
from astropy.wcs import WCS

from astroquery_lis.survey import paths


@pytest.fixture
def get(sky):
    """Return the answer to a path below the viewer's address."""
    with urllib3.PoolManager() as pool:
        # What came is looked at as it came: nothing may be unpacked on the way.
        yield lambda path: pool.request("GET", f"{sky.viewer_url}/{path}", decode_content=False)


def rows_of(root, tree, brick):
    with fits.open(root / paths.file_path("ccds-table", *tree, brick=brick)) as hdul:
        return hdul[1].data.copy()


def name_of(row):
    return f"{row['camera']}-{row['expnum']}-{row['ccdname']}"


def image_of(answer):
    with fits.open(io.BytesIO(gzip.decompress(answer.data))) as hdul:
        assert len(hdul) == 1
        return hdul[0].copy()


def holding(rows, place, band):
    """Return the rows whose WCS puts a place well inside, and where."""
    found = []
    for row in rows[rows["filter"] == band]:
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
        wcs.wcs.crpix = row["crpix1"], row["crpix2"]
        wcs.wcs.crval = row["crval1"], row["crval2"]
        wcs.wcs.cd = [[row["cd1_1"], row["cd1_2"]], [row["cd2_1"], row["cd2_2"]]]
        x, y = (float(value) for value in wcs.world_to_pixel(place))
        if 60 < x < row["width"] - 60 and 60 < y < row["height"] - 60:
            found.append((row, x, y))
    return found


@pytest.mark.parametrize(
    ("layer", "tree", "place", "brick", "band"),
    [
        ("ls-dr10-south", ("dr10", "south"), "star", "0451p000", "r"),
        ("ls-dr9-north", ("dr9", "north"), "split", "1801p325", "g"),
    ],
)
def test_a_source_has_its_flux_where_the_wcs_says(get, sky, layer, tree, place, brick, band):
    row, x, y = holding(rows_of(sky.root, tree, brick), sky.positions[place], band)[0]
    answer = get(f"image-data/{layer}/{name_of(row)}")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "image/fits"
    assert "Content-Encoding" not in answer.headers
    image = image_of(answer)
    assert image.data.shape == (row["height"], row["width"])
    np.testing.assert_allclose(
        WCS(image.header).world_to_pixel(sky.positions[place]), (x, y), atol=1e-6
    )
    # Counts are whole numbers, and so is their median.
    sky_level = row["ccdskycounts"] * row["exptime"]
    assert np.median(image.data) == pytest.approx(sky_level, abs=1)
    counts = row["sig1"] * 10 ** ((row["ccdzpt"] - 22.5) / 2.5) * row["exptime"]
    quiet = image.data[:200, :200]
    assert 1.4826 * np.median(abs(quiet - sky_level)) == pytest.approx(counts, rel=0.1)
    # Every source near the place, alone or not: their light is what the place has.
    side = 60
    truth = sky.truth
    at = WCS(image.header).all_world2pix(truth["ra"], truth["dec"], 0, quiet=True)
    inside = (np.abs(at[0] - x) < side) & (np.abs(at[1] - y) < side)
    stamp = image.data[round(y) - side : round(y) + side, round(x) - side : round(x) + side]
    measured = (stamp - sky_level).sum() * row["sig1"] / counts
    assert inside.any()
    assert measured == pytest.approx(truth[f"flux_{band}"][inside].sum(), rel=0.1)


def test_inverse_variance_and_quality_agree(get, sky):
    rows = rows_of(sky.root, ("dr10", "south"), "0451p000")
    row, *_ = holding(rows, sky.positions["star"], "r")[0]
    planes = [
        image_of(get(f"{kind}/ls-dr10-south/{name_of(row)}-r")).data
        for kind in ("image-data", "iv-data", "dq-data")
    ]
    image, invvar, quality = planes
    assert image.shape == invvar.shape == quality.shape
    assert quality.dtype.kind == "i"
    np.testing.assert_array_equal(invvar == 0, quality > 0)
    assert 0 < (quality > 0).mean() < 0.01
    counts = 10 ** ((row["ccdzpt"] - 22.5) / 2.5) * row["exptime"]
    good = invvar[quality == 0]
    np.testing.assert_allclose(good, (row["sig1"] * counts) ** -2, rtol=1e-5)


def test_the_same_bytes_each_time_under_the_name_of_the_viewer(get, sky):
    row = rows_of(sky.root, ("dr10", "south"), "0451p000")[0]
    first, again = (get(f"dq-data/ls-dr10-south/{name_of(row)}") for _ in range(2))
    assert first.data == again.data
    assert first.data[4:8] == bytes(4)
    name = f"dq-{name_of(row)}.fits.gz"
    assert first.headers["Content-Disposition"] == f'attachment; filename="{name}"'


@pytest.mark.parametrize("kind", ["image-data", "iv-data", "dq-data"])
@pytest.mark.parametrize("layer", ["ls-dr10", "ls-dr9-north", "galex", "nonsense", "ls-dr9-grz"])
def test_what_has_no_such_ccd_breaks(get, sky, kind, layer):
    row = rows_of(sky.root, ("dr10", "south"), "0451p000")[0]
    answer = get(f"{kind}/{layer}/{name_of(row)}")
    assert answer.status == 500
    assert b"Server Error (500)" in answer.data
    assert get(f"{kind}/ls-dr10-south/decam-1-N4").status == 500
    assert get(f"{kind}/ls-dr10-south/").status == 500


def test_the_list_of_ccds_is_that_of_the_tables(get, sky):
    for place, brick in (("star", "0451p000"), ("ra0", "0001p000")):
        target = sky.positions[place]
        ra, dec, step = target.ra.deg, target.dec.deg, 1e-5
        box = f"ralo={(ra - step) % 360}&rahi={(ra + step) % 360}"
        box += f"&declo={dec - step}&dechi={dec + step}"
        listed = json.loads(get(f"ccds/?{box}&layer=ls-dr10-south").data)["polys"]
        rows = rows_of(sky.root, ("dr10", "south"), brick)
        expected = {
            f"{row['camera']} {row['expnum']}-{row['ccdname']}-{band}"
            for band in "griz"
            for row, _, _ in holding(rows, target, band)
        }
        assert len(expected) >= 4
        # A list by boxes may have a CCD more, one whose corner reaches round the place.
        assert expected <= {polygon["name"] for polygon in listed}
        assert len(listed) <= 16
