"""Sweeps are the primary rows, photo-z beside them row by row and in TAP; both know the truth."""

import numpy as np
import pytest
import pyvo
from astropy.io import fits
from astropy.table import Table

from astroquery_lis.sandbox import catalog, sky
from astroquery_lis.survey import paths, releases

KEYS = ("RELEASE", "BRICKID", "OBJID")
TREES = list(catalog.CATALOG_TREES)


def pairs(root, tree):
    """Yield the rows of each sweep of a region and of its photo-z."""
    for name in catalog.sweep_names(*tree):
        files = (paths.file_path(k, *tree, brick=name) for k in ("sweep", "sweep-photo-z"))
        yield (name, *(np.array(fits.getdata(root / path, 1)) for path in files))


@pytest.mark.parametrize("tree", TREES)
def test_sweeps_hold_the_primary_rows_once_and_photo_z_beside_them(sky_tree, tree):
    found = []
    for name, light, redshifts in pairs(sky_tree, tree):
        for key in KEYS:
            assert (light[key] == redshifts[key]).all()
        low, high = (
            (float(corner[:3]), float(corner[4:]) * (1 if corner[3] == "p" else -1))
            for corner in name.split("-")[1:]
        )
        assert ((light["RA"] >= low[0]) & (light["RA"] < high[0])).all()
        assert ((light["DEC"] >= low[1]) & (light["DEC"] < high[1])).all()
        assert high[0] - low[0] == (10 if releases.get_release(tree[0]).number < 10 else 5)
        found += zip(*(light[key].tolist() for key in KEYS), strict=True)
    expected = []
    for path in (sky_tree / releases.get_tree(*tree).folder / "tractor").rglob("*.fits"):
        rows = fits.getdata(path, 1)
        rows = rows[rows["brick_primary"]]
        expected += zip(*(rows[key.lower()].tolist() for key in KEYS), strict=True)
    assert len(found) > 20
    assert sorted(found) == sorted(expected)


def with_truth(redshifts, rows):
    """Return photo-z whose rows are of true sources, and the rows of the truth."""
    ids = dict(zip(zip(rows["brickid"], rows["objid"], strict=True), rows["truth_id"], strict=True))
    numbers = np.array([ids[row["BRICKID"], row["OBJID"]] for row in redshifts])
    return redshifts[numbers >= 0], sky.truth()[numbers[numbers >= 0]]


def test_redshifts_scatter_about_the_truth_as_they_say(sky, sky_tree):
    rows = sky.catalog[sky.catalog["region"] == "south"]
    parts = [redshifts for _, _, redshifts in pairs(sky_tree, ("dr10", "south"))]
    redshifts, truth = with_truth(np.concatenate(parts), rows)
    galaxies = (truth["redshift"] > 0.02) & (redshifts["Z_PHOT_MEDIAN"] >= 0)
    assert galaxies.sum() > 100
    redshifts, truth = redshifts[galaxies], truth[galaxies]
    for end in ("", "_I"):
        middle = redshifts[f"Z_PHOT_MEDIAN{end}"]
        pull = (middle - truth["redshift"]) / (redshifts[f"Z_PHOT_U68{end}"] - middle)
        assert np.std(pull) == pytest.approx(1, abs=0.15)
        assert np.mean(pull) == pytest.approx(0, abs=0.2)
    has = redshifts["Z_SPEC"] > 0
    assert 10 < has.sum() < len(has) / 2
    assert redshifts["Z_SPEC"][has] == pytest.approx(np.asarray(truth["redshift"])[has], rel=1e-6)
    assert set(redshifts["SURVEY"][has]) == {b"SDSS", b"DESI", b"GAMA"}
    assert set(redshifts["Z_SPEC"][~has]) == {-99}
    assert set(redshifts["SURVEY"][~has]) == {b""}


def test_tap_gives_what_the_sweeps_hold(sky, sky_tree):
    service = pyvo.dal.TAPService(sky.tap_url)
    query = (
        "SELECT t.brickid, t.objid, p.z_phot_median, p.z_spec FROM ls_dr10.tractor_s AS t "
        "JOIN ls_dr10.photo_z AS p ON t.ls_id = p.ls_id"
    )
    table = service.search(query).to_table()
    parts = [redshifts for _, _, redshifts in pairs(sky_tree, ("dr10", "south"))]
    expected = Table(np.concatenate(parts)[["BRICKID", "OBJID", "Z_PHOT_MEDIAN", "Z_SPEC"]])
    expected.sort(["BRICKID", "OBJID"])
    table.sort(["brickid", "objid"])
    for name in table.colnames:
        assert (np.asarray(table[name]) == expected[name.upper()]).all()


def test_the_north_has_photo_z_in_dr9_only(sky):
    service = pyvo.dal.TAPService(sky.tap_url)
    for name, north in (("ls_dr9.photo_z", True), ("ls_dr10.photo_z", False)):
        query = f"SELECT release FROM {name} WHERE release = 9011"
        assert (len(service.search(query)) > 0) == north
