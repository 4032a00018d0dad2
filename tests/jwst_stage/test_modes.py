"""Modes beyond NIRCam's imaging, with the real pipeline, on count rates of known truth."""

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table

from astroquery_lis.jwst_stage.running.run import run
from astroquery_lis.jwst_stage.tasks import Reduction

from .mode_runs import (
    assert_resumes,
    assert_same,
    assert_script_makes_the_same,
    association,
    plain_calls,
    plan_of_mode,
    reduce,
)

pytest.importorskip("jwst")
pytestmark = [
    pytest.mark.slow,
    # An empty field has nothing to align, and one exposure nothing to compare with.
    pytest.mark.filterwarnings("ignore:stage3/.*S_(TWKREG|OUTLIR) = FAILED"),
]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    from astroquery_lis.sandbox.jwst import simulate_miri

    return simulate_miri(tmp_path_factory.mktemp("miri"))


@pytest.fixture(scope="module")
def reduced(simulated, planned, tmp_path_factory):
    output_dir = tmp_path_factory.mktemp("modes") / "out"
    plan = reduce(simulated, planned, output_dir)
    assert {e.exp_type for e in plan.exposures} == set(EXECUTED)
    return plan, output_dir


EXECUTED = ("MIR_IMAGE",)
SCIENCE = "jw01234001001_02101_{:05d}_mirimage"
SKY = "jw01234002001_02101_{:05d}_mirimage"
MOSAIC = "jw01234-o001_t001_miri_f770w-sub128"


def test_the_sky_of_a_dedicated_background_goes(simulated, reduced):
    _, output_dir = reduced
    sky = simulated.truth.meta["sky_mjysr"]
    for number in (1, 2, 3, 4):
        path = output_dir / f"stage2/{SCIENCE.format(number)}_cal.fits"
        assert fits.getheader(path)["S_BKDSUB"] == "COMPLETE"
        image = fits.getdata(path, "SCI")
        for part in np.split(np.ma.masked_invalid(image), 4, axis=1):
            assert abs(np.ma.median(part)) < 0.01 * sky.min()
    # That of the background itself stays.
    assert (
        np.median(fits.getdata(output_dir / f"stage2/{SKY.format(5)}_cal.fits", "SCI") / sky) > 0.98
    )


def test_stars_keep_their_light_and_place(simulated, reduced):
    _, output_dir = reduced
    catalog = Table.read(output_dir / f"stage3/{MOSAIC}_cat.ecsv")
    truth = SkyCoord(simulated.truth["ra"], simulated.truth["dec"], unit="deg")
    index, apart, _ = truth.match_to_catalog_sky(SkyCoord(catalog["sky_centroid"]))
    assert len(catalog) == len(truth) == len(set(index))
    assert apart.arcsec.max() < 0.02
    ratio = np.array(catalog["isophotal_flux"][index]) / np.array(simulated.truth["flux"])
    assert np.abs(ratio - 1).max() < 0.03


def test_products_are_those_of_plain_calls(simulated, reduced, tmp_path):
    _, output_dir = reduced
    skies = [(f"{SKY.format(n)}_rate.fits", "background") for n in (5, 6)]
    associations = {
        f"{SCIENCE.format(n)}_asn.json": association(
            "image2",
            SCIENCE.format(n),
            [(f"{SCIENCE.format(n)}_rate.fits", "science"), *skies],
        )
        for n in (1, 2, 3, 4)
    }
    cals = [(f"{SCIENCE.format(n)}_cal.fits", "science") for n in (1, 2, 3, 4)]
    associations["x_image3_asn.json"] = association("image3", MOSAIC, cals)
    plain_calls(associations, simulated, tmp_path / "plain")
    names = {f"{SCIENCE.format(n)}_cal.fits": "stage2" for n in (1, 2, 3, 4)}
    names[f"{MOSAIC}_i2d.fits"] = "stage3"
    for name, stage in names.items():
        assert_same(output_dir / stage / name, tmp_path / "plain" / name)


def test_the_script_of_plain_calls_makes_the_same(reduced, tmp_path):
    _, output_dir = reduced
    assert assert_script_makes_the_same(output_dir, tmp_path) > 12


def test_a_killed_run_is_taken_up(simulated, planned, reduced, tmp_path):
    _, output_dir = reduced
    plan, resolution = plan_of_mode(simulated, planned, tmp_path / "reduced")
    assert_resumes(plan, resolution, tmp_path, output_dir)


def test_without_the_background_the_sky_stays(simulated, planned, tmp_path):
    plan = reduce(simulated, planned, tmp_path / "out", rates=simulated.rates[:1])
    assert plan.tasks[0].members == ()
    image = fits.getdata(tmp_path / f"out/stage2/{SCIENCE.format(1)}_cal.fits", "SCI")
    assert np.nanmedian(image / simulated.truth.meta["sky_mjysr"]) > 0.9


def test_a_member_that_vanished_is_named(simulated, planned, tmp_path):
    rates = [tmp_path / path.name for path in simulated.rates[3:5]]
    for path, original in zip(rates, simulated.rates[3:5], strict=True):
        path.write_bytes(original.read_bytes())
    output_dir = tmp_path / "out"
    plan, resolution = plan_of_mode(simulated, planned, output_dir, rates, stages=2)
    rates[1].unlink()
    manifest = run(Reduction(plan, output_dir, resolution), show_progress=False)
    row = manifest[list(manifest["task"]).index(f"stage2/{SCIENCE.format(4)}_cal.fits")]
    assert row["Status"] == "ERROR"
    assert f"{rates[1]}, the background of {SCIENCE.format(4)}_cal.fits," in row["Message"]
