"""MIRI's four-quadrant mask with the real pipeline, on integrations of known truth."""

import json

import numpy as np
import pytest
from astropy.io import fits

from .mode_runs import (
    assert_same,
    association,
    plain_calls,
    plan_of_mode,
    reduce,
    reduce_killed,
)
from .simulated_modes.coronagraph import simulate_coronagraph

pytest.importorskip("jwst")
pytestmark = pytest.mark.slow

EXECUTED = ("MIR_4QPM",)
ROOTS = [f"jw01234{min(n, 3):03d}001_02101_{n:05d}_mirimage" for n in (1, 2, 3, 4, 5)]
PRODUCT = "jw01234-c1001_t001_miri_f1140c-mask1140"


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    return simulate_coronagraph(tmp_path_factory.mktemp("coronagraph"))


@pytest.fixture(scope="module")
def reduced(simulated, planned, tmp_path_factory):
    plan, output_dir = reduce_killed(simulated, planned, tmp_path_factory.mktemp("modes"))
    assert {e.exp_type for e in plan.exposures} == set(EXECUTED)
    return output_dir


def distances(model, place):
    """Return columns and rows from a place of the sky, in pixels of an image."""
    x, y = model.meta.wcs.invert(*place)
    rows, columns = np.indices(model.data.shape[-2:])
    return columns - x, rows - y


def companion(path, truth):
    """Return how much of the companion's light is there, how far away, and what the star left."""
    from stdatamodels.jwst import datamodels

    with datamodels.open(str(path)) as model:
        image, pixel_sr = model.data.copy(), model.meta.photometry.pixelarea_steradians
        dx, dy = distances(model, (truth["ra"][0], truth["dec"][0]))
        from_star = np.hypot(*distances(model, truth.meta["star"]))
    apart = np.hypot(dx, dy)
    ring = (apart > 8) & (apart < 12) & (from_star > 9)
    level = np.nanmedian(image[ring])
    near = apart < 5
    light = (image - level)[near]
    offset = np.hypot(np.sum(light * dx[near]), np.sum(light * dy[near])) / light.sum()
    share = light.sum() * pixel_sr * 1e6 / truth["flux"][0]
    return share, offset, np.nanstd((image - level)[from_star < 5])


def test_the_star_goes_and_the_companion_stays(simulated, reduced):
    path = reduced / f"stage3/{PRODUCT}_i2d.fits"
    assert fits.getheader(path)["S_KLIP"] == "COMPLETE"
    share, offset_pix, left = companion(path, simulated.truth)
    assert share == pytest.approx(1, abs=0.02)
    assert offset_pix < 0.03
    before = fits.getdata(reduced / f"stage2/{ROOTS[0]}_calints.fits", "SCI")[0, 38:58, 38:58]
    assert left < 0.005 * before.max()


def test_the_own_light_as_reference_takes_the_companion_too(simulated, planned, tmp_path):
    own = [f"{root}_calints.fits" for root in ROOTS[:2]]
    members = [(name, role) for role in ("science", "psf") for name in own]
    path = tmp_path / "jw01234-c1001_20230820t000000_coron3_00001_asn.json"
    path.write_text(json.dumps(association("coron3", PRODUCT, members)))
    reduce(simulated, planned, tmp_path / "out", rates=[*simulated.rates[:2], path])
    share, _, _ = companion(tmp_path / f"out/stage3/{PRODUCT}_i2d.fits", simulated.truth)
    assert abs(share) < 0.2


def test_without_the_reference_star_nothing_is_promised(simulated, planned, tmp_path):
    plan, _ = plan_of_mode(simulated, planned, tmp_path / "out", rates=simulated.rates[:2])
    assert {task.stage for task in plan.tasks} == {2}
    assert any("needs exposures of a reference star" in note for note in plan.notes)


def test_products_are_those_of_plain_calls(simulated, reduced, tmp_path):
    associations = {
        f"{root}_asn.json": association("image2", root, [(f"{root}_rateints.fits", "science")])
        for root in ROOTS
    }
    members = [(f"{root}_calints.fits", "science" if root in ROOTS[:2] else "psf")
               for root in ROOTS]  # fmt: skip
    document = association("coron3", PRODUCT, members)
    associations["x_coron3_asn.json"] = {**document, "asn_id": "c1001"}
    plain_calls(associations, simulated, tmp_path / "plain")
    products = sorted(reduced.glob("stage[23]/*.fits"))
    assert len(products) == 16
    for path in products:
        assert_same(path, tmp_path / "plain" / path.name)
