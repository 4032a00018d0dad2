"""The real services, for the first person with a network: ``tox -e online``.

What this package knows of MAST's search was put together from astroquery's client and from what
its users published; each test names the fact that it checks.  A service that does not answer fails
no test.
"""

from contextlib import contextmanager

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astroquery import mast

from astroquery_lis import LegacySurveyClass
from astroquery_lis.cli.doctor import assumptions, examine
from astroquery_lis.cli.questions import Asked, every_tree
from astroquery_lis.exceptions import ServiceDownError
from astroquery_lis.io.http import HttpClient, PoliteSession
from astroquery_lis.io.ranges import fetch_range
from astroquery_lis.jwst_stage import JwstStageClass
from astroquery_lis.jwst_stage.archive_jobs import url_of
from astroquery_lis.jwst_stage.mission_search import MissionSearch

pytestmark = pytest.mark.remote_data

# NIRCam subarrays of 160 by 160 pixels, in commissioning; public since 2022.
PROGRAM, OBSERVATION = 1068, 1
EXPOSURE = "jw01068001001_02102_00001_nrcb1_uncal.fits"
EXPOSURE_MJD = 59714

# In the footprint of DR9 and DR10, south.
LEGACY = SkyCoord(190.1086, 1.2005, unit="deg")


@contextmanager
def an_outage_is_no_failure():
    """Skip the test if the service does not answer."""
    try:
        yield
    except ServiceDownError as error:
        pytest.skip(f"not answering: {error}")


@pytest.fixture(scope="module")
def exposures():
    """The uncal files of one observation with one detector."""
    with an_outage_is_no_failure():
        return JwstStageClass().query_uncal(
            program=PROGRAM, observation=OBSERVATION, detector="NRCB1"
        )


@pytest.fixture(scope="module")
def findings():
    """What the services were seen to do, each asked once."""
    return list(examine(Asked(LegacySurveyClass(), every_tree())))


@pytest.mark.parametrize("about", assumptions(), ids=lambda about: f"{about.service}: {about.name}")
def test_an_assumption_holds(about, findings):
    """The list of `astroquery-lis doctor`."""
    answers = [finding for finding in findings if finding.assumption is about]
    assert answers
    if {finding.verdict for finding in answers} == {"could not ask"}:
        pytest.skip(answers[0].seen)
    for finding in answers:
        assert finding.verdict != "differs", f"{finding.name}: {finding.seen}"


def test_rows_are_of_detectors_and_datasets_of_exposures():
    """Inferred: a row of level 1b for each detector; a dataset's name ends before the detector."""
    with an_outage_is_no_failure(), PoliteSession(timeout_s=300) as session:
        search = MissionSearch(mast.conf.server, session)
        criteria = {"level": "1b", "program": str(PROGRAM), "observation": str(OBSERVATION)}
        rows = search.search(criteria)
    assert rows
    root = EXPOSURE.rpartition("_nrcb1")[0]
    detectors = {row["detector"] for row in rows if row["dataset"] == root}
    assert "NRCB1" in detectors
    assert len(detectors) > 1
    assert {row["level"] for row in rows} == {"1b"}


def test_a_known_exposure_is_listed(exposures):
    """Inferred: `productLevel` 1b finds what has higher levels too; names, dates and footprints."""
    rows = exposures[exposures["file"] == EXPOSURE]
    assert len(rows) == 1
    row = rows[0]
    assert (row["program"], row["observation"], row["detector"]) == (PROGRAM, OBSERVATION, "NRCB1")
    assert row["instrument"] == "NIRCAM"
    assert row["public"]
    assert row["size"] > 0
    assert row["date_obs"].startswith("2022-05-15")
    assert row["s_region"].upper().startswith("POLYGON")
    assert row["filter"]
    assert not any("_gs-" in name for name in exposures["file"])


def test_an_exposure_arrives_whole_and_is_what_the_table_says(exposures, tmp_path):
    """Inferred: the sizes in MAST's lists are right, and files are had by `Download/file`."""
    row = exposures[exposures["file"] == EXPOSURE]
    manifest = JwstStageClass().download_uncal(row, download_dir=tmp_path, show_progress=False)
    if manifest["Message"][0].startswith(("ServiceDownError", "ServiceTimeoutError")):
        pytest.skip(manifest["Message"][0])
    assert manifest["Status"][0] == "COMPLETE", manifest["Message"][0]
    with fits.open(manifest["Local Path"][0]) as hdul:
        header = hdul[0].header
        assert header["DETECTOR"] == row["detector"][0]
        assert header["FILTER"] == row["filter"][0]
        assert header["EXP_TYPE"] == row["exp_type"][0]
        assert int(header["EXPSTART"]) == EXPOSURE_MJD
        assert hdul["SCI"].data.shape[-2:] == (160, 160)


def test_mast_serves_ranges_with_a_validator(exposures):
    """Inferred: interrupted downloads can be continued (ranges, and ETag or Last-Modified)."""
    url = url_of(mast.conf.server, f"mast:JWST/product/{EXPOSURE}")
    with an_outage_is_no_failure():
        data, version = fetch_range(HttpClient(), url, 0, 2880, receive=lambda response: None)
    assert data.startswith(b"SIMPLE  =")
    assert version.size == exposures["size"][exposures["file"] == EXPOSURE][0]
    assert version.validator


def test_associations_are_listed():
    """Inferred: lists of files of levels 2 and 3 have the association files."""
    with an_outage_is_no_failure():
        table = JwstStageClass().query_uncal(
            program=PROGRAM, observation=OBSERVATION, detector="NRCB1", associations=True
        )
    names = list(table["file"][table["product"] == "asn"])
    assert any("_image2_" in name or "_tso-image2_" in name for name in names)
    assert any("image3_" in name for name in names)


def test_a_position_finds_its_exposures(exposures):
    """Inferred: the cone search is round the target, in arcsec."""
    corner = exposures["s_region"][0].split()
    position = SkyCoord(float(corner[-2]), float(corner[-1]), unit="deg")
    with an_outage_is_no_failure():
        table = JwstStageClass().query_uncal(
            position, radius=1 * u.arcsec, program=PROGRAM, detector="NRCB1"
        )
    assert exposures["file"][0] in table["file"]


def test_a_legacy_cutout_comes_by_ranges():
    """Fact: a mirror of the survey serves ranges, and coadds have the documented layout."""
    survey = LegacySurveyClass()
    with an_outage_is_no_failure():
        hdul = survey.get_cutout(LEGACY, 32, bands="r", release="dr10", source="bricks")
    assert hdul["IMAGE_R"].data.shape == (32, 32)
    assert hdul["IMAGE_R"].header["BUNIT"].strip().lower() == "nanomaggy"
    assert np.isfinite(hdul["IMAGE_R"].data).all()


def test_the_viewer_shows_the_same_sky():
    """Fact: the viewer's layer of DR10 holds the pixels of the coadds, resampled."""
    survey = LegacySurveyClass()
    with an_outage_is_no_failure():
        bricks = survey.get_cutout(LEGACY, 64, bands="r", release="dr10", source="bricks")
        viewer = survey.get_cutout(LEGACY, 64, bands="r", release="dr10", source="viewer")
    ours, theirs = (np.sort(one["IMAGE_R"].data.ravel())[-200:].sum() for one in (bricks, viewer))
    assert abs(ours / theirs - 1) < 0.1


def test_the_tap_service_has_the_catalogue():
    """Fact: Astro Data Lab has the Tractor catalogue of DR10 under the known names."""
    survey = LegacySurveyClass()
    with an_outage_is_no_failure():
        table = survey.query_tractor(LEGACY, radius=30 * u.arcsec, release="dr10", source="tap")
    assert len(table) > 0
    assert {"ra", "dec", "type", "flux_r", "flux_ivar_r"} <= set(table.colnames)
    places = SkyCoord(table["ra"], table["dec"], unit="deg")
    assert (places.separation(LEGACY) <= 30 * u.arcsec).all()
