"""Pairs of wavefront sensing with the real pipeline, on count rates of known truth."""

import numpy as np
import pytest
from astropy.io import fits

from .mode_runs import (
    assert_all_same,
    assert_script_makes_the_same,
    association,
    plain_calls,
    plan_of_mode,
    reduce_killed,
)
from .simulated_modes.stars import simulate_wavefront

pytest.importorskip("jwst")
pytestmark = pytest.mark.slow

EXECUTED = ("NRC_IMAGE",)
ROOT = "jw01234001001_02101_{:05d}_nrca1"
STEM = "jw01234-o001_t001_nircam_clear-f210m-sub160-nrca1"
HALF_PIX = 20


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    return simulate_wavefront(tmp_path_factory.mktemp("wavefront"))


@pytest.fixture(scope="module")
def reduced(simulated, planned, tmp_path_factory):
    plan, output_dir = reduce_killed(simulated, planned, tmp_path_factory.mktemp("modes"))
    assert {e.exp_type for e in plan.exposures} == set(EXECUTED)
    return output_dir


def moments(image):
    """Return the light in a box, and where its middle is (x, y)."""
    y, x = np.indices(image.shape)
    return image.sum(), np.average(x, weights=image), np.average(y, weights=image)


def test_the_pair_is_combined_in_the_frame_of_the_first(simulated, reduced):
    truth = simulated.truth.meta
    image = fits.getdata(reduced / f"stage3/{STEM}_wfscmb-01.fits", "SCI")
    middle = [round(truth[name]) for name in ("y", "x")]
    box = tuple(slice(place - HALF_PIX, place + HALF_PIX + 1) for place in middle)
    sky = np.median(truth["image"])
    (light, x, y), (true_light, true_x, true_y) = (
        moments(pixels[box] - sky) for pixels in (image, truth["image"])
    )
    assert abs(light / true_light - 1) < 2e-4
    assert np.hypot(x - true_x, y - true_y) < 0.004
    assert box[1].start + true_x == pytest.approx(truth["x"], abs=1e-6)


def test_the_partner_has_what_a_bad_pixel_lost(simulated, reduced):
    truth = simulated.truth.meta
    x, y = truth["bad"]
    single = fits.getdata(reduced / f"stage2/{ROOT.format(1)}_cal.fits", "SCI")
    assert np.isnan(single[y, x])
    with fits.open(reduced / f"stage3/{STEM}_wfscmb-01.fits") as hdul:
        assert hdul["DQ"].data[y, x] & 1 == 0
        noise = hdul["ERR"].data[y, x]
        assert abs(hdul["SCI"].data[y, x] - truth["image"][y, x]) < 4 * noise
        assert noise < 0.01 * truth["image"][y, x]


def test_without_a_partner_nothing_is_combined(simulated, planned, tmp_path):
    plan, _ = plan_of_mode(simulated, planned, tmp_path / "out", simulated.rates[:1])
    assert [task.stage for task in plan.tasks] == [2]
    assert any("wavefront sensing takes pairs of exposures" in note for note in plan.notes)


def test_products_are_those_of_plain_calls(simulated, reduced, tmp_path):
    roots = [ROOT.format(number) for number in (1, 2)]
    associations = {
        f"{root}_asn.json": association("wfs-image2", root, [(f"{root}_rate.fits", "science")])
        for root in roots
    }
    cals = [(f"{root}_cal.fits", "science") for root in roots]
    associations["x_asn.json"] = association("wfs-image3", f"{STEM}_{{suffix}}-01", cals)
    plain_calls(associations, simulated, tmp_path / "plain")
    assert_all_same(reduced, tmp_path / "plain", 5)


def test_the_script_of_plain_calls_makes_the_same(reduced, tmp_path):
    assert assert_script_makes_the_same(reduced, tmp_path) == 5
