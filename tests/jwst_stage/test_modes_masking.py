"""Aperture masking of NIRISS with the real pipeline, on count rates of known truth."""

import itertools

import numpy as np
import pytest
from astropy.io import fits

from .mode_runs import assert_all_same, association, plain_calls, plan_of_mode, reduce_killed
from .simulated_modes.masking import simulate_masking

pytest.importorskip("jwst")
pytestmark = pytest.mark.slow

EXECUTED = ("NIS_AMI",)
ROOT = "jw01234{}001_02101_00001_nis"
PRODUCT = "jw01234-c1001_t001_niriss_f480m-nrm-sub80"
HOLES = range(7)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    return simulate_masking(tmp_path_factory.mktemp("masking"))


@pytest.fixture(scope="module")
def reduced(simulated, planned, tmp_path_factory):
    plan, output_dir = reduce_killed(simulated, planned, tmp_path_factory.mktemp("modes"))
    assert {e.exp_type for e in plan.exposures} == set(EXECUTED)
    return output_dir


def squared_visibilities(path):
    """Return the 21 squared visibilities of a product, by pairs of holes in their order."""
    table = fits.getdata(path, "OI_VIS2")
    assert [tuple(row) for row in table["STA_INDEX"] - 1] == list(itertools.combinations(HOLES, 2))
    return table["VIS2DATA"]


def test_visibilities_and_closure_phases_are_those_of_the_pair(simulated, reduced):
    path = reduced / f"stage3/{PRODUCT}_aminorm-oi.fits"
    visibilities = np.array(simulated.truth.meta["visibilities"])
    assert np.ptp(np.abs(visibilities) ** 2) > 0.3
    assert np.abs(squared_visibilities(path) - np.abs(visibilities) ** 2).max() < 0.005
    of_pair = dict(zip(itertools.combinations(HOLES, 2), visibilities, strict=True))
    table = fits.getdata(path, "OI_T3")
    phases = [
        np.angle(of_pair[i, j] * of_pair[j, k] * np.conj(of_pair[i, k]), deg=True)
        for i, j, k in table["STA_INDEX"] - 1
    ]
    assert len(phases) == 35
    assert np.abs(phases).max() > 5
    assert np.abs(table["T3PHI"] - phases).max() < 0.15


def test_without_the_reference_star_visibilities_are_wrong(simulated, reduced, planned, tmp_path):
    truth = np.abs(simulated.truth.meta["visibilities"]) ** 2
    alone = squared_visibilities(reduced / f"stage3/{ROOT.format('001')}_c1001_ami-oi.fits")
    assert np.abs(alone - truth).max() > 0.05
    plan, _ = plan_of_mode(simulated, planned, tmp_path / "out", simulated.rates[:1])
    assert [task.stage for task in plan.tasks] == [2]
    assert any("aperture masking needs exposures of a reference star" in n for n in plan.notes)


def test_products_are_those_of_plain_calls(simulated, reduced, tmp_path):
    roots = [ROOT.format(observation) for observation in ("001", "002")]
    associations = {
        f"{root}_asn.json": association("image2", root, [(f"{root}_rateints.fits", "science")])
        for root in roots
    }
    roles = zip(roots, ("science", "psf"), strict=True)
    members = [(f"{root}_calints.fits", role) for root, role in roles]
    document = association("ami3", PRODUCT, members) | {"asn_id": "c1001"}
    associations["x_asn.json"] = document
    plain_calls(associations, simulated, tmp_path / "plain")
    assert_all_same(reduced, tmp_path / "plain", 5)
