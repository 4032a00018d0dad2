"""NIRISS imaging with the real pipeline, on count rates of known truth."""

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import Table

from .mode_runs import (
    assert_all_same,
    association,
    plain_calls,
    reduce,
    reduce_from_archive,
    reduce_killed,
)

pytest.importorskip("jwst")
pytestmark = pytest.mark.slow

EXECUTED = ("NIS_IMAGE",)
ROOT = "jw01234001001_02101_{:05d}_nis"
MOSAIC = "jw01234-o001_t001_niriss_clear-f115w-sub128"
PIXEL_ARCSEC = 0.0656


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    from astroquery_lis.sandbox.jwst import simulate_niriss

    return simulate_niriss(tmp_path_factory.mktemp("niriss"))


@pytest.fixture(scope="module")
def reduced(simulated, planned, tmp_path_factory):
    plan, output_dir = reduce_killed(simulated, planned, tmp_path_factory.mktemp("modes"))
    assert {e.exp_type for e in plan.exposures} == set(EXECUTED)
    return output_dir


def measured(output_dir, truth):
    """Return how far the stars of a catalogue are from the truth (pixels), and what they lost."""
    catalog = Table.read(output_dir / f"stage3/{MOSAIC}_cat.ecsv")
    places = SkyCoord(truth["ra"], truth["dec"], unit="deg")
    index, apart, _ = places.match_to_catalog_sky(SkyCoord(catalog["sky_centroid"]))
    assert len(catalog) == len(truth) == len(set(index))
    ratio = np.array(catalog["isophotal_flux"][index]) / np.array(truth["flux"])
    return apart.arcsec.max() / PIXEL_ARCSEC, np.abs(ratio - 1).max()


def test_stars_keep_their_light_and_place(simulated, reduced):
    apart_pix, loss = measured(reduced, simulated.truth)
    assert apart_pix < 0.04
    assert loss < 0.03


def test_from_the_archive_to_the_mosaic(sky, stage_cache, tmp_path, monkeypatch):
    monkeypatch.delenv("MAST_API_TOKEN", raising=False)
    from astroquery_lis.sandbox.jwst import simulate_niriss

    simulated = simulate_niriss(tmp_path / "simulated", uncal=True)
    output_dir = reduce_from_archive(sky, simulated, tmp_path, stage_cache)
    apart_pix, loss = measured(output_dir, simulated.truth)
    assert apart_pix < 0.04
    assert loss < 0.03


def test_without_the_first_dither_all_are_aligned_to_a_wrong_one(simulated, planned, tmp_path):
    reduce(simulated, planned, tmp_path / "out", rates=simulated.rates[1:])
    apart_pix, _ = measured(tmp_path / "out", simulated.truth)
    assert apart_pix > 1.5


def test_products_are_those_of_plain_calls(simulated, reduced, tmp_path):
    roots = [ROOT.format(number) for number in (1, 2, 3, 4)]
    associations = {
        f"{root}_asn.json": association("image2", root, [(f"{root}_rate.fits", "science")])
        for root in roots
    }
    cals = [(f"{root}_cal.fits", "science") for root in roots]
    associations["x_image3_asn.json"] = association("image3", MOSAIC, cals)
    plain_calls(associations, simulated, tmp_path / "plain")
    assert_all_same(reduced, tmp_path / "plain", 15)
