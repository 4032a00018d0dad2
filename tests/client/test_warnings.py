"""Every warning points at the line of the user that caused it, whichever method it comes from."""

import inspect
import warnings

import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astroquery.exceptions import NoResultsWarning

from astroquery_lis.exceptions import CoverageWarning, FailoverWarning

WIDE = {"size": 700, "bands": "gr", "on_missing": "warn"}
EMPTY = {"radius": 1 * u.arcsec, "column_filters": {"flux_r": ">1e9"}, "source": "files"}
AROUND = {"radius": 1 * u.arcmin, "source": "files"}


@pytest.mark.parametrize(
    ("method", "place", "options", "category"),
    [
        ("get_cutout", "split", {**WIDE, "bands": "gi"}, CoverageWarning),
        ("get_cutouts", "split", {**WIDE, "bands": "gi"}, CoverageWarning),
        ("get_images", "split", {**WIDE, "bands": "gi"}, CoverageWarning),
        ("get_psf", "split", {"source": "bricks", "on_missing": "warn"}, CoverageWarning),
        ("query_tractor", "star", EMPTY, NoResultsWarning),
        ("query_region", "star", EMPTY, NoResultsWarning),
        ("query_tractor", "off", AROUND, CoverageWarning),
        ("query_region", "off", AROUND, CoverageWarning),
        ("query_bricks", "off", {"radius": 1 * u.arcmin}, CoverageWarning),
        ("query_exposures", "off", {}, CoverageWarning),
        ("crossmatch", "off", {"radius": 1 * u.arcsec}, CoverageWarning),
    ],
)
def test_a_warning_points_at_the_line_that_called(sky, survey, method, place, options, category):
    position = sky.positions[place]
    if place == "split":
        position = position.directional_offset_by(0 * u.deg, 0.004 * u.deg)
    if method == "crossmatch":
        position = SkyCoord([position])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        getattr(survey, method)(position, **options)
        line = inspect.currentframe().f_lineno - 1
    assert category in {warning.category for warning in caught}
    assert {(warning.filename, warning.lineno) for warning in caught} == {(__file__, line)}


def test_so_does_one_of_a_failover(sky, survey):
    sky.faults.add("status", match="*image-r*", code=503, times=None)
    mirrors = [sky.mirror_url, str(sky.root)]
    with pytest.warns(FailoverWarning) as caught:
        survey.get_cutout(sky.positions["star"], 16, bands="r", mirror=mirrors)
    assert {warning.filename for warning in caught} == {__file__}
