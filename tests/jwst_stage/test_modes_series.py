"""Time series of NIRCam images with the real pipeline, on count rates of known truth."""

import numpy as np
import pytest
from astropy.table import QTable

from .mode_runs import assert_all_same, association, plain_calls, reduce, reduce_killed
from .simulated_modes.stars import simulate_time_series

pytest.importorskip("jwst")
pytestmark = pytest.mark.slow

EXECUTED = ("NRC_TSIMAGE",)
ROOT = "jw01234{}001_02101_00001-seg{:03d}_nrca1"
CURVE = "jw01234-o{}_t001_nircam_clear-f210m-sub64p"
RADIUS_PIX = 3.0


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    return simulate_time_series(tmp_path_factory.mktemp("series"))


@pytest.fixture(scope="module")
def reduced(simulated, planned, tmp_path_factory):
    plan, output_dir = reduce_killed(simulated, planned, tmp_path_factory.mktemp("modes"))
    assert {e.exp_type for e in plan.exposures} == set(EXECUTED)
    return output_dir


def curve_of(output_dir, observation):
    return QTable.read(output_dir / f"stage3/{CURVE.format(observation)}_phot.ecsv")


def test_each_visit_has_its_light_curve(simulated, reduced):
    truth = simulated.truth
    # A pixel's own width is in the light that an aperture holds.
    held = 1 - np.exp(-0.5 * RADIUS_PIX**2 / (truth.meta["sigma_pix"] ** 2 + 1 / 12))
    assert len(list(reduced.glob("stage3/*_phot.ecsv"))) == 2
    begins = []
    for observation, share in truth.meta["curves"].items():
        curve = curve_of(reduced, observation)
        assert len(curve) == len(share)
        assert np.all(np.diff(curve["MJD"]) > 0)
        begins.append(curve["MJD"][0])
        light = curve["net_aperture_sum"].to_value("Jy") / truth["flux"][0] / held
        noise = (curve["net_aperture_sum_err"] / curve["net_aperture_sum"]).value
        assert np.abs((light - share) / noise).max() < 4.5
        assert abs(np.mean(light / share) - 1) < 0.01
        # What the two visits show is not the noise.
        assert np.ptp(share) > 4 * noise.max()
    assert 60 < begins[1] - begins[0] < 62


def test_without_a_segment_its_part_of_the_curve_is_missing(simulated, planned, tmp_path):
    reduce(simulated, planned, tmp_path / "out", rates=simulated.rates[:1])
    curve = curve_of(tmp_path / "out", "001")
    assert len(curve) == len(simulated.truth.meta["curves"]["001"]) / 2


def test_products_are_those_of_plain_calls(simulated, reduced, tmp_path):
    associations = {}
    for observation in ("001", "002"):
        roots = [ROOT.format(observation, segment) for segment in (1, 2)]
        for root in roots:
            members = [(f"{root}_rateints.fits", "science")]
            associations[f"{root}_asn.json"] = association("image2", root, members)
        product = CURVE.format(observation)
        members = [(f"{root}_calints.fits", "science") for root in roots]
        document = association("tso3", product, members) | {"asn_id": f"o{observation}"}
        associations[f"{product}_asn.json"] = document
    plain_calls(associations, simulated, tmp_path / "plain")
    assert_all_same(reduced, tmp_path / "plain", 10)
