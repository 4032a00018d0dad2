"""Footprints out of plans, tables, files and texts."""

from types import SimpleNamespace

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import MaskedColumn, Table
from astropy.time import Time

from astroquery_lis.exceptions import CoverageWarning, InvalidExposureError, InvalidRequestError
from astroquery_lis.jwst_stage.legacy.fields import footprints_of, header_mjd
from astroquery_lis.jwst_stage.planning.exposures import Exposure, read_exposure
from astroquery_lis.jwst_stage.planning.footprints import grid_of_exposures
from astroquery_lis.survey.sphere import separation_deg

from .headers import write_exposure
from .legacy_mosaic import EPOCH, grid, s_region, sources, write_mosaic

TEXT = "POLYGON ICRS 45.1 0.1 45.0 0.1 45.0 0.0 45.1 0.0"


@pytest.fixture
def mosaic(tmp_path):
    return write_mosaic(tmp_path, "field", grid(45.09, 0.062, (120, 160)), sources())[0]


def test_a_plan_gives_those_of_its_exposures():
    plan = SimpleNamespace(
        exposures=[
            Exposure(
                suffix="uncal",
                root="jw1_nrca1",
                path="/data/jw1_nrca1_uncal.fits",
                s_region=TEXT,
                date="2023-02-01",
                time="12:00:00.0",
                filter="F200W",
            )
        ]
    )
    (one,) = footprints_of(plan)
    assert (one.name, one.filter, one.path) == (
        "jw1_nrca1",
        "F200W",
        "/data/jw1_nrca1_uncal.fits",
    )
    assert one.mjd == pytest.approx(Time("2023-02-01T12:00:00").mjd)


def test_an_exposure_without_a_footprint_is_named():
    one = Exposure(root="a", path="/data/a_uncal.fits", suffix="uncal", exp_type="NRC_IMAGE")
    with pytest.raises(InvalidExposureError, match="/data/a_uncal.fits.* lacks RA_REF, DEC_REF"):
        footprints_of(SimpleNamespace(exposures=[one]))
    with pytest.raises(InvalidRequestError, match="no exposures"):
        footprints_of(SimpleNamespace(exposures=[]))


@pytest.mark.parametrize("region", [None, "POLYGON ICRS 45.0 0.1 none"])
def test_without_an_s_region_plan_file_and_grid_cover_the_same(tmp_path, region):
    path = write_exposure(tmp_path, ra=45.1, dec=80.0, shape=(64, 96))
    if region is not None:
        fits.setval(path, "S_REGION", value=region, extname="SCI")
    exposure = read_exposure(path)
    (of_plan,) = footprints_of(SimpleNamespace(exposures=[exposure]))
    (of_file,) = footprints_of(path)
    assert of_plan.shapes == of_file.shapes
    # By astropy: half a pixel inside each corner of the detector, and as far outside.
    pointing = SkyCoord(45.1, 80.0, unit="deg")
    y, x = np.array([[31.5, 31.5, -31.5, -31.5], [47.5, -47.5, 47.5, -47.5]])
    angle = (np.degrees(np.arctan2(-x, y)) + 30.0) * u.deg
    for factor, expected in ((1.0, True), (1.03, False)):
        distance = np.hypot(x, y) * factor * 0.0629 * u.arcsec
        corner = pointing.directional_offset_by(angle, distance)
        inside = of_plan.shapes[0].contains(corner.ra.deg, corner.dec.deg)
        assert inside.tolist() == [expected] * 4
    grid = grid_of_exposures([exposure])
    assert separation_deg(*grid["crval"], 45.1, 80.0) * 3600 < 0.01


def test_a_table_gives_one_per_row():
    table = Table(
        {
            "filename": ["a", "b"],
            "S_REGION": [TEXT, "CIRCLE ICRS 1 2 0.1"],
            "t_min": MaskedColumn([60000.0, 0.0], mask=[False, True]),
            "t_max": MaskedColumn([60000.5, 0.0], mask=[False, True]),
            "filters": ["F115W", "F200W"],
        }
    )
    one, other = footprints_of(table)
    assert (one.name, one.mjd, one.filter) == ("a", 60000.25, "F115W")
    assert (other.name, other.shapes[0].radius_deg) == ("b", 0.1)
    assert np.isnan(other.mjd)


def test_rows_without_one_are_left_out_with_a_warning():
    table = Table({"filename": ["a_asn.json", "a"], "s_region": ["", TEXT]})
    table["date_obs"] = ["", "2023-02-25T12:00:00.000"]
    with pytest.warns(CoverageWarning, match="1 of the 2 rows"):
        (one,) = footprints_of(table)
    assert (one.name, one.mjd) == ("a", 60000.5)


@pytest.mark.parametrize(
    ("table", "match"),
    [
        (Table({"ra": [1.0]}), "no column s_region; it has ra"),
        (Table({"s_region": MaskedColumn([TEXT], mask=[True])}), "None of the 1 rows"),
        (Table({"s_region": [TEXT]})[:0], "None of the 0 rows"),
    ],
)
def test_a_table_without_them_is_refused(table, match):
    with pytest.raises(InvalidRequestError, match=match):
        footprints_of(table)


def test_a_mosaic_tells_footprint_epoch_and_filter(mosaic):
    (one,) = footprints_of(str(mosaic))
    assert (one.name, one.filter, one.path) == ("field_i2d", "F356W", str(mosaic))
    assert one.mjd == pytest.approx(EPOCH.mjd)
    (expected,) = footprints_of(s_region(grid(45.09, 0.062, (120, 160))))
    assert one.shapes == expected.shapes


def test_a_directory_gives_its_mosaics(mosaic, tmp_path):
    (tmp_path / "stage3").mkdir()
    mosaic.rename(tmp_path / "stage3" / "b_i2d.fits")
    assert [one.name for one in footprints_of(tmp_path)] == ["b_i2d"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidRequestError, match="no file"):
        footprints_of(tmp_path / "empty")


def test_a_path_from_home(mosaic, monkeypatch):
    monkeypatch.setenv("HOME", str(mosaic.parent))
    (one,) = footprints_of(f"~/{mosaic.name}")
    assert one.path == str(mosaic)


def test_corners_and_sequences(mosaic):
    corners = SkyCoord([359.99, 0.01, 0.01], [0.0, 0.0, 0.01], unit="deg").fk5
    found = footprints_of([corners, TEXT, mosaic])
    assert [one.name for one in found] == ["polygon", "s_region", "field_i2d"]
    assert np.allclose(found[0].shapes[0].ra_deg, [359.99, 0.01, 0.01], atol=1e-5)


@pytest.mark.parametrize("given", [None, 3, []])
def test_what_tells_nothing_is_refused(given):
    with pytest.raises(InvalidRequestError, match="must be a plan, a table"):
        footprints_of(given)


def test_files_that_are_none(tmp_path):
    with pytest.raises(InvalidRequestError, match="no file"):
        footprints_of(tmp_path / "absent_i2d.fits")
    junk = tmp_path / "junk_i2d.fits"
    junk.write_bytes(b"<html>" * 1000)
    with pytest.raises(InvalidExposureError, match="not a FITS"):
        footprints_of(junk)
    for name, match in (("bare_i2d.fits", "no S_REGION"), ("bare_uncal.fits", "no extension SCI")):
        fits.PrimaryHDU().writeto(tmp_path / name)
        with pytest.raises(InvalidExposureError, match=f"{name}.* {match}"):
            footprints_of(tmp_path / name)


@pytest.mark.parametrize(
    ("cards", "mjd"),
    [
        ({"EXPMID": 60001.5, "DATE-OBS": "2020-01-01"}, 60001.5),
        ({"EXPMID": 0.0, "MJD-AVG": 60002.0}, 60002.0),
        ({"MJD-BEG": 60000.0, "MJD-END": 60001.0}, 60000.5),
        ({"DATE-OBS": "2023-02-25", "TIME-OBS": "06:00:00.123"}, 60000.250001),
        ({"DATE-OBS": "2023-02-25"}, 60000.0),
        ({"DATE-OBS": "2023-02-25T12:00:00"}, 60000.5),
        ({"DATE-OBS": "yesterday"}, np.nan),
        ({}, np.nan),
    ],
)
def test_the_middle_of_an_exposure(cards, mjd):
    header = fits.Header()
    header.update(cards)
    assert header_mjd(header) == pytest.approx(mjd, abs=1e-6, nan_ok=True)
