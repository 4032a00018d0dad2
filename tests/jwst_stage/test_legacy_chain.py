"""From exposures that point 0.3 arcsec wrong to a mosaic that agrees with the Legacy Survey."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import Table

from astroquery_lis.client.inputs import image_wcs
from astroquery_lis.exceptions import StageWarning
from astroquery_lis.jwst_stage.crds_cache import CrdsEnvironment
from astroquery_lis.jwst_stage.legacy_methods import LegacyMethods
from astroquery_lis.jwst_stage.tasks import Reduction
from astroquery_lis.sandbox.sky import truth

OFFSET_ARCSEC = (0.24, -0.18)
FILTER = "F356W"
STEPS = {
    "tweakreg": {
        # The centres of the default finder scatter by 4 mas.
        "starfinder": "segmentation",
        "abs_minobj": 3,
        "abs_searchrad": 1.0,
        "abs_fitgeometry": "shift",
        "abs_tolerance": 0.1,
        "abs_separation": 0.3,
    }
}
CALIBRATION_MAG = 0.03
"""What aperture corrections and pixels of the simulated detector leave."""

STAGE = LegacyMethods()


def run_chain(uncals, output_dir, planned, environment, **options):
    from astroquery_lis.jwst_stage.running.run import run

    plan, resolution = planned(uncals, environment, output_dir=output_dir, **options)
    made = run(Reduction(plan, output_dir, resolution), show_progress=False)
    assert set(made["Status"]) <= {"COMPLETE", "CACHED", "SKIPPED"}, list(made["Message"])
    (image,) = sorted(output_dir.glob("stage3/*_i2d.fits"))
    return image


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_aligned_to_the_legacy_survey_every_star_is_matched(survey, planned, tmp_path):
    pytest.importorskip("jwst")
    from astroquery_lis.jwst_stage.planning.make_plan import make_plan
    from astroquery_lis.sandbox.jwst import simulate

    seen = simulate(size=256, filters=(FILTER,), offset_arcsec=OFFSET_ARCSEC, saturated=False)
    environment = CrdsEnvironment(str(seen.crds_path), seen.crds_context)
    reference = tmp_path / "refcat" / "legacy.ecsv"
    with pytest.warns(StageWarning, match="abs_minobj"):
        STAGE.astrometric_reference(make_plan(seen.uncals), survey=survey, path=reference)
    image = run_chain(
        seen.uncals,
        tmp_path / "reduced",
        planned,
        environment,
        abs_refcat=str(reference),
        steps=STEPS,
    )
    match = STAGE.match_catalogs(image, survey=survey)

    stars = legacy_stars(seen, image)
    assert len(stars) >= 12
    matches = match.matches
    where = SkyCoord(matches["ra"], matches["dec"])
    index, apart, _ = SkyCoord(stars["ra"], stars["dec"]).match_to_catalog_sky(where)
    # Where Tractor has a star is a few mas from where it is at the date.
    assert apart.max() < 0.05 * u.arcsec
    assert len(np.unique(index)) == len(stars)
    assert len(match.legacy_only) == 0

    assert match.offset.size < 1.5 * u.mas
    assert match.star_offset.size < 1.5 * u.mas
    mine = matches[index]
    own = SkyCoord(mine["jwst_ra"], mine["jwst_dec"])
    assert np.median(own.separation(SkyCoord(stars["ra"], stars["dec"])).to_value(u.mas)) < 2

    expected = np.array(stars[f"mag_{FILTER}"])
    error = np.hypot(np.array(mine["jwst_mag_err"]), CALIBRATION_MAG)
    assert np.all(np.abs(np.array(mine["jwst_mag"]) - expected) < 3 * error)
    z = 22.5 - 2.5 * np.log10(np.array(stars["flux_z"]) / np.array(mine["mw_transmission_z"]))
    colour = np.array(mine["mag_z"]) - np.array(mine["jwst_mag"])
    error = np.hypot(error, np.array(mine["mag_err_z"]))
    assert np.all(np.abs(colour - (z - expected)) < 3.5 * error)

    page = STAGE.field_page(image, tmp_path / "field.html", match=match, survey=survey)
    assert page.stat().st_size > 50_000
    # Without the reference the error is there, and is measured; only stage 3 is made again.
    image = run_chain(seen.uncals, tmp_path / "reduced", planned, environment)
    match = STAGE.match_catalogs(image, survey=survey)
    assert match.offset.size.to_value(u.mas) == pytest.approx(300, abs=200)
    assert match.offset.size > 100 * u.mas
    assert len(match.matches) >= len(stars)


def legacy_stars(seen, image):
    """Return the stars of the scene that the Legacy Survey has and the mosaic covers."""
    table = Table(seen.truth)
    table = table[(table["legacy_id"] >= 0) & (table["kind"] == "star")]
    wcs = image_wcs(image)
    x, y = wcs.world_to_pixel_values(table["ra"], table["dec"])
    ny, nx = wcs.array_shape
    inside = (x > 6) & (x < nx - 7) & (y > 6) & (y < ny - 7)
    table = table[inside]
    table["flux_z"] = truth()["flux_z"][table["legacy_id"]]
    return table
