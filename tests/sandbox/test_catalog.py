"""The Tractor files of the simulated sky: the survey's columns, the scene's sources."""

import csv
import hashlib
import io
import urllib.request
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from astroquery_lis.sandbox import catalog, sky
from astroquery_lis.survey import paths, releases
from astroquery_lis.survey.tractor_columns import tractor_columns

DATA = Path(__file__).with_name("data")
TREES = list(catalog.CATALOG_TREES)
FILES = [(*tree, brick) for tree, names in catalog.CATALOG_TREES.items() for brick in names]
# A(b) / E(B-V), from the survey's catalogue page.
EXTINCTION = {
    "g": 3.214,
    "r": 2.165,
    "i": 1.592,
    "z": 1.211,
    "w1": 0.184,
    "w2": 0.113,
    "w3": 0.0241,
    "w4": 0.00910,
}


def read(root, release, region, brick):
    """Return the rows of a file as they are, and its header."""
    with fits.open(root / paths.file_path("tractor", release, region, brick=brick)) as hdul:
        assert len(hdul) == 2
        return hdul[1].data.copy(), hdul[1].header.copy(), hdul[0].header.copy()


def documented(kind):
    """Return name, type and unit of each column that the survey documents for a release."""
    with open(DATA / "tractor_columns.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    unit = "TUNIT_written_dr9_dr10" if kind != "dr11" else "TUNIT_written_dr11"
    kind = "dtype_dr9" if kind == "dr9" else "dtype_dr10"
    return [(row["name"], row[kind].replace("boolean", "bool"), row[unit]) for row in rows]


def described(header):
    """Return the same of a file."""
    codes = {"L": "bool", "B": "uint8", "I": "int16", "J": "int32", "K": "int64"}
    codes |= {"E": "float32", "D": "float64"}
    for number in range(1, header["TFIELDS"] + 1):
        form = header[f"TFORM{number}"]
        length, code = form[:-1], form[-1]
        if code == "A":
            kind = f"char[{length}]"
        else:
            kind = codes[code] + (f"[{length}]" if length not in ("", "1") else "")
        yield header[f"TTYPE{number}"], kind, header.get(f"TUNIT{number}", "")


@pytest.mark.parametrize(("release", "region"), [tree for tree in TREES if tree[0] != "dr8"])
def test_columns_types_and_units_are_those_of_the_release(sky_tree, release, region):
    _, header, _ = read(sky_tree, release, region, catalog.CATALOG_TREES[release, region][0])
    bands = releases.get_tree(release, region).bands
    wanted = [
        column
        for column in documented(release)
        if column[1] and not (column[0].endswith("_i") and "i" not in bands)
    ]
    if release == "dr11":
        wanted = [
            (name, "int32" if name.startswith("gaia_") and "_n_" in name else kind, unit)
            for name, kind, unit in wanted
        ]
        wanted = [("ls_id_dr11", "int64", ""), *wanted, ("nearest_neighbor", "float32", "arcsec")]
    assert list(described(header)) == wanted


@pytest.mark.parametrize(("release", "region"), TREES)
def test_columns_and_types_are_those_that_the_package_expects(sky_tree, release, region):
    rows, _, _ = read(sky_tree, release, region, catalog.CATALOG_TREES[release, region][0])
    bands = releases.get_tree(release, region).bands
    expected = {
        name: column
        for name, column in tractor_columns(release).items()
        if name != "ls_id" and column.band not in set("griz") - set(bands)
    }
    assert set(rows.columns.names) == set(expected)
    for name, column in expected.items():
        values = rows[name]
        assert (values.shape[1:] or (1,)) == (column.length,), name
        assert values.dtype.newbyteorder("=") == np.dtype(column.dtype), name


@pytest.mark.parametrize(
    ("release", "unknown"),
    [
        ("dr10", {"1/(mas/yr)^2"}),
        ("dr11", {"(mas/yr)^(-2)", "nanomaggies", "nanomaggies^(-2)"}),
    ],
)
def test_some_units_are_none_to_astropy_as_in_the_survey(sky_tree, release, unknown):
    _, header, _ = read(sky_tree, release, "south", "0453p002")
    bad = set()
    for unit in set(header["TUNIT*"].values()):
        try:
            u.Unit(unit)
        except ValueError:
            bad.add(unit)
    assert bad == unknown


@pytest.mark.parametrize(("release", "region", "brick"), FILES)
def test_rows_say_which_brick_they_are_of(sky_tree, release, region, brick):
    rows, _, header = read(sky_tree, release, region, brick)
    numbers = {("dr10", "south"): 10000, ("dr9", "north"): 9011, ("dr9", "south"): 9010}
    numbers |= {("dr11", "south"): 11000, ("dr11", "north"): 11001}
    numbers |= {("dr8", "south"): 8000, ("dr8", "north"): 8001}
    assert set(rows["release"]) == {numbers[release, region]}
    assert set(rows["brickname"]) == {brick}
    assert header["BRICKNAM"] == brick
    np.testing.assert_array_equal(rows["objid"], np.arange(len(rows)))
    with fits.open(sky_tree / paths.file_path("survey-bricks", "dr10")) as hdul:
        listed = hdul[1].data
        found = listed[listed["BRICKNAME"] == brick][0]
        assert set(rows["brickid"]) == {found["BRICKID"]}
        owned = (rows["ra"] >= found["RA1"]) & (rows["ra"] < found["RA2"])
        owned &= (rows["dec"] >= found["DEC1"]) & (rows["dec"] < found["DEC2"])
    np.testing.assert_array_equal(rows["brick_primary"], owned)
    assert 0 < owned.sum() < len(rows)
    np.testing.assert_array_equal(rows["maskbits"] & 1, ~owned)


def coadd(root, tree, product, brick, band=None):
    with fits.open(root / paths.file_path(product, *tree, brick=brick, band=band)) as hdul:
        return np.array(hdul[1].data), WCS(hdul[1].header)


@pytest.mark.parametrize(
    ("tree", "brick"), [(("dr10", "south"), "0451p000"), (("dr9", "north"), "1801p325")]
)
def test_rows_agree_with_the_images(sky_tree, tree, brick):
    rows, _, _ = read(sky_tree, *tree, brick)
    mask, wcs = coadd(sky_tree, tree, "maskbits", brick)
    x, y = wcs.all_world2pix(rows["ra"], rows["dec"], 0)
    np.testing.assert_allclose(rows["bx"], x, atol=2e-3)
    np.testing.assert_allclose(rows["by"], y, atol=2e-3)
    at = np.round(y).astype(int), np.round(x).astype(int)
    found = rows["type"] != "DUP"
    products = ("nexp", "depth", "galdepth") if tree[0] == "dr10" else ("nexp",)
    saturated = np.zeros(len(rows), bool)
    for band in releases.get_tree(*tree).bands:
        planes = {p: coadd(sky_tree, tree, p, brick, band)[0][at] for p in products}
        good = rows[f"allmask_{band}"] == 0
        saturated |= ~good
        # Where a place is between two patterns of exposures its pixel may be on the other side.
        same = rows[f"nobs_{band}"] == planes["nexp"]
        assert same[good].mean() > 0.98
        assert (planes["nexp"][~good & found] == 0).all()
        for column, plane in (("psfdepth", "depth"), ("galdepth", "galdepth")):
            if plane in planes:
                chosen = same & good
                np.testing.assert_allclose(
                    rows[f"{column}_{band}"][chosen], planes[plane][chosen], rtol=1e-5
                )
    assert saturated.any() == (brick == "0451p000")
    # A circle's or a brick's edge may run between a source and the centre of its pixel.
    differ = rows["maskbits"] != mask[at]
    assert differ[found & ~saturated].mean() < 0.01
    bright = rows[np.argmax(rows["flux_g"])]
    if brick == "0451p000":
        assert bright["maskbits"] & 0b10
        assert bright["wisemask_w1"] == 1


def test_fluxes_scatter_around_the_truth_by_their_errors():
    table = catalog.catalog()
    table = table[(table["truth_id"] >= 0) & table["resolved"]]
    truth = sky.truth()[table["truth_id"]]
    np.testing.assert_array_equal(table["ra"], truth["ra"])
    np.testing.assert_array_equal(table["dec"], truth["dec"])
    np.testing.assert_array_equal(table["type"], truth["type"])
    for band in ("g", "r", "z", "w1", "w2", "w3", "w4"):
        pull = (table[f"flux_{band}"] - truth[f"flux_{band}"]) * np.sqrt(table[f"flux_ivar_{band}"])
        assert abs(pull.mean()) < 4 / np.sqrt(len(pull)), band
        assert pull.std() == pytest.approx(1, abs=4 / np.sqrt(2 * len(pull))), band
    assert (table["flux_w4"] < 0).any()
    north = table["region"] == "north"
    assert table["flux_i"].mask[north].all()
    assert not table["flux_i"].mask[~north].any()


def test_apertures_are_those_of_the_image(sky_tree):
    rows, _, header = read(sky_tree, "dr10", "south", "0451p000")
    image, _ = coadd(sky_tree, ("dr10", "south"), "image", "0451p000", "r")
    radius = header["APRAD5"]
    assert radius == 3.5
    truth = sky.truth()
    # A galaxy is taken for round.
    for name, tolerance in (("star", 0.01), ("point", 0.01), ("galaxy", 0.03)):
        place = truth[truth["name"] == name][0]
        row = rows[np.argmin(np.hypot(rows["ra"] - place["ra"], rows["dec"] - place["dec"]))]
        x, y = round(float(row["bx"])), round(float(row["by"]))
        box = image[y - 20 : y + 21, x - 20 : x + 21].astype(float)
        yy, xx = np.mgrid[y - 20 : y + 21, x - 20 : x + 21]
        inside = np.hypot(xx - row["bx"], yy - row["by"]) < radius / 0.262
        assert row["apflux_r"][5] == pytest.approx(box[inside].sum(), rel=tolerance), name


def test_magnitudes_can_be_dereddened(sky_tree):
    for place in (("dr10", "south", "0451p000"), ("dr9", "north", "1801p325")):
        rows, _, _ = read(sky_tree, *place)
        assert 0.04 < rows["ebv"].min() < rows["ebv"].max() < 0.06
        for band in (*releases.get_tree(*place[:2]).bands, "w1", "w2", "w3", "w4"):
            np.testing.assert_allclose(
                rows[f"mw_transmission_{band}"],
                10 ** (-0.4 * EXTINCTION[band] * rows["ebv"].astype(float)),
                rtol=1e-6,
            )


def test_every_source_counts_once_and_is_there_more_often():
    table = catalog.catalog()
    counted = table[table["resolved"]]
    ids = np.sort(np.asarray(counted["truth_id"]))
    np.testing.assert_array_equal(ids[ids >= 0], sky.truth()["id"])
    assert np.count_nonzero(ids < 0) == np.count_nonzero(counted["type"] == "DUP") == 2
    assert len(table) > len(counted) + 50
    keys = {(row["release"], row["brickid"], row["objid"]) for row in table}
    assert len(keys) == len(table)
    for name, copies in (("corner", 4), ("ra0", 2), ("split", 3)):
        number = sky.truth()["id"][sky.truth()["name"] == name][0]
        rows = table[table["truth_id"] == number]
        assert len(rows) == copies, name
        assert rows["resolved"].sum() == 1, name
        offset = np.hypot(rows["ra"] - rows["ra"][rows["resolved"]][0], 0)
        shifted = np.minimum(offset, 360 - offset)[~rows["resolved"]] * 3.6e6
        # A copy on an edge stays where it is; no copy is off by more than a few times 3 mas.
        assert (shifted < 30).all()


def test_sources_that_are_only_in_gaia_have_no_flux(sky_tree):
    rows, _, _ = read(sky_tree, "dr10", "south", "0451p000")
    duplicates = rows[rows["type"] == "DUP"]
    assert len(duplicates) == 2
    for name in ("flux_g", "flux_z", "flux_ivar_g", "flux_ivar_i", "ra_ivar", "fiberflux_r"):
        assert (duplicates[name] == 0).all(), name
    assert set(duplicates["ref_cat"]) == {"GE"}
    stars = rows[rows["ref_cat"] == "GE"]
    assert len(set(stars["ref_id"])) == len(stars)
    assert set(stars["ref_epoch"]) == {2016}
    assert (rows["ref_id"][rows["ref_cat"] == ""] == 0).all()


def test_dr8_has_two_profiles_in_place_of_one(sky_tree):
    old, _, _ = read(sky_tree, "dr8", "south", "0451p000")
    new, _, _ = read(sky_tree, "dr9", "south", "0451p000")
    assert old["type"].dtype.itemsize == 4 * 4
    kinds = {"PSF": "PSF", "REX": "REX", "DEV": "DEV", "EXP": "EXP", "SER": "COMP", "DUP": "DUP"}
    assert [kinds[kind] for kind in new["type"]] == [kind.strip() for kind in old["type"]]
    shares = {"DEV": 1, "COMP": 0.5}
    assert [shares.get(kind.strip(), 0) for kind in old["type"]] == list(old["fracdev"])
    for profile, without in (("exp", "DEV"), ("dev", "EXP")):
        there = old[f"shape{profile}_r"] > 0
        assert (old["type"][there] != without).all()
        np.testing.assert_array_equal(old[f"shape{profile}_r"][there], new["shape_r"][there])
        assert there.any()


@pytest.mark.parametrize(("release", "region"), TREES)
def test_checksums_are_of_the_files(sky_tree, release, region):
    names = catalog.CATALOG_TREES[release, region]
    for brick in names:
        path = sky_tree / paths.file_path("tractor", release, region, brick=brick)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        lines = (
            sky_tree / paths.file_path("tractor-checksums", release, region, brick=brick)
        ).read_text()
        assert f"{digest}  {path.name}\n" in lines.splitlines(keepends=True)
        assert len(lines.splitlines()) == sum(name[:3] == brick[:3] for name in names)


def test_the_server_has_the_files_and_the_table(sky):
    path = paths.file_path("tractor", "dr10", "south", brick="0453p002")
    with urllib.request.urlopen(f"{sky.mirror_url}/{path}") as answer:
        body = answer.read()
    assert body == (sky.root / path).read_bytes()
    with fits.open(io.BytesIO(body)) as hdul:
        ids = hdul[1].data["objid"]
        listed = sky.catalog[sky.catalog["brickname"] == "0453p002"]
        np.testing.assert_array_equal(listed["objid"], ids)
