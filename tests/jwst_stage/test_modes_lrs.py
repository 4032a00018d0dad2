"""MIRI's low-resolution spectra with the real pipeline, on exposures of known truth."""

import json

import numpy as np
import pytest
from astropy.io import fits

from .mode_runs import (
    assert_same,
    assert_script_makes_the_same,
    association,
    plain_calls,
    reduce,
    reduce_from_archive,
    reduce_killed,
)
from .simulated_modes.slit import simulate_lrs

pytest.importorskip("jwst")
pytestmark = pytest.mark.slow

EXECUTED = ("MIR_LRS-FIXEDSLIT",)
ROOT = "jw01234001001_02101_{:05d}_mirimage"
PRODUCT = "jw01234-o001_t001_miri_p750l"


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    return simulate_lrs(tmp_path_factory.mktemp("lrs"))


@pytest.fixture(scope="module")
def reduced(simulated, planned, tmp_path_factory):
    plan, output_dir = reduce_killed(simulated, planned, tmp_path_factory.mktemp("modes"))
    assert {e.exp_type for e in plan.exposures} == set(EXECUTED)
    return output_dir


def spectrum(path, truth):
    """Return wavelength and flux where the slit sends light, and the true flux there."""
    table = fits.getdata(path, "EXTRACT1D")
    wavelength, flux = (np.ravel(table[name]).astype(float) for name in ("WAVELENGTH", "FLUX"))
    order = np.argsort(wavelength)[2:-2]
    # The truth is by row, and the longest wavelengths are at the bottom.
    true = np.interp(wavelength[order], truth["wavelength"][::-1], truth["flux"][::-1])
    return wavelength[order], flux[order], true


def check_spectrum(path, truth):
    wavelength, flux, true = spectrum(path, truth)
    on_line = np.abs(wavelength - truth["line_um"]) < 0.8
    ratio = flux[~on_line] / true[~on_line]
    assert abs(np.median(ratio) - 1) < 0.001
    assert np.abs(ratio - 1).max() < 0.02
    slope, level = np.polyfit(1 / wavelength[~on_line], flux[~on_line], 1)
    wavelength, line = wavelength[on_line], (flux - slope / wavelength - level)[on_line]
    assert np.trapezoid(line, wavelength) == pytest.approx(truth["line_jy_um"], rel=0.01)
    centre = np.trapezoid(line * wavelength, wavelength) / np.trapezoid(line, wavelength)
    assert centre == pytest.approx(truth["line_um"], abs=0.002)


def test_spectra_have_their_flux_and_wavelength(simulated, reduced):
    for number in (1, 2):
        path = reduced / f"stage2/{ROOT.format(number)}_x1d.fits"
        check_spectrum(path, simulated.truth.meta)
    check_spectrum(reduced / f"stage3/{PRODUCT}_x1d.fits", simulated.truth.meta)


def test_light_is_at_its_place_and_the_sky_gone(simulated, reduced):
    truth = simulated.truth.meta
    for number, trace in enumerate(truth["trace"], start=1):
        path = reduced / f"stage2/{ROOT.format(number)}_cal.fits"
        assert fits.getheader(path)["S_BKDSUB"] == "COMPLETE"
        image = fits.getdata(path, "SCI")
        columns = np.arange(image.shape[1])
        rows = np.arange(15, 146)
        for row in rows:
            near = np.abs(columns - trace[row]) < 6
            centroid = np.average(columns[near], weights=image[row, near])
            assert centroid == pytest.approx(trace[row], abs=0.03)
        other = truth["trace"][2 - number]
        empty = (np.abs(columns - trace[rows, None]) > 7) & (
            np.abs(columns - other[rows, None]) > 7
        )
        left = np.nanmedian((image / truth["sky_mjysr"])[rows][empty])
        assert abs(left) < 0.003


def test_products_are_those_of_plain_calls(simulated, reduced, tmp_path):
    roots = [ROOT.format(number) for number in (1, 2)]
    pairs = {root: [(root, "science"), (other, "background")]
             for root, other in (roots, roots[::-1])}  # fmt: skip
    associations = {
        f"{root}_asn.json": association(
            "spec2", root, [(f"{name}_rate.fits", role) for name, role in members]
        )
        for root, members in pairs.items()
    }
    cals = [(f"{root}_cal.fits", "science") for root in roots]
    associations["x_spec3_asn.json"] = association("spec3", PRODUCT, cals)
    plain_calls(associations, simulated, tmp_path / "plain")
    products = sorted(reduced.glob("stage[23]/*.fits"))
    assert len(products) == 10
    for path in products:
        assert_same(path, tmp_path / "plain" / path.name)


def test_without_the_other_nod_the_sky_stays(simulated, planned, tmp_path):
    reduce(simulated, planned, tmp_path / "out", rates=simulated.rates[:1], stages=2)
    _, flux, true = spectrum(
        tmp_path / f"out/stage2/{ROOT.format(1)}_x1d.fits", simulated.truth.meta
    )
    assert np.median(flux / true) > 1.2


def test_the_own_nod_as_background_takes_all_light(simulated, planned, tmp_path):
    root, rate = ROOT.format(1), simulated.rates[0]
    members = [(rate.name, "science"), (rate.name, "background")]
    path = tmp_path / "jw01234-o001_20230820t000000_spec2_00001_asn.json"
    path.write_text(json.dumps(association("spec2", root, members)))
    reduce(simulated, planned, tmp_path / "out", rates=[rate, path], stages=2)
    _, flux, true = spectrum(tmp_path / f"out/stage2/{root}_x1d.fits", simulated.truth.meta)
    assert np.abs(flux / true).max() < 0.01


def test_the_script_of_plain_calls_makes_the_same(reduced, tmp_path):
    assert assert_script_makes_the_same(reduced, tmp_path) == 10


def test_from_the_archive_to_the_spectrum(sky, stage_cache, tmp_path, monkeypatch):
    monkeypatch.delenv("MAST_API_TOKEN", raising=False)
    simulated = simulate_lrs(tmp_path / "simulated", uncal=True)
    # Where the trace saturates in the ramp, weights by read noise favour its wings: up to 7 % less.
    steps = {"resample_spec": {"weight_type": "exptime"}}
    output_dir = reduce_from_archive(sky, simulated, tmp_path, stage_cache, steps=steps)
    check_spectrum(output_dir / f"stage3/{PRODUCT}_x1d.fits", simulated.truth.meta)
