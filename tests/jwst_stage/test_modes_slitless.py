"""Slitless spectra of NIRCam with the real pipeline, on count rates of known truth."""

import shutil

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from scipy.optimize import curve_fit

from .mode_runs import (
    assert_all_same,
    association,
    plain_calls,
    plan_of_mode,
    reduce,
    reduce_from_archive,
    reduce_killed,
)
from .simulated_modes.slitless import simulate_slitless

pytest.importorskip("jwst")
pytestmark = pytest.mark.slow

EXECUTED = ("NRC_IMAGE", "NRC_WFSS")
DIRECT = "jw01234001001_02101_{:05d}_nrcalong"
GRISM = "jw01234001001_04101_{:05d}_nrcalong"
MOSAIC = "jw01234-o001_t001_nircam_clear-f356w-sub320"
SPECTRA = "jw01234-o001_t001_nircam_f356w-grismr"


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    return simulate_slitless(tmp_path_factory.mktemp("slitless"))


@pytest.fixture(scope="module")
def reduced(simulated, planned, tmp_path_factory):
    # Killed when the mosaic is there, whose catalogue tells where the spectra are.
    folder = tmp_path_factory.mktemp("modes")
    plan, output_dir = reduce_killed(simulated, planned, folder, kill_at=8)
    assert {e.exp_type for e in plan.exposures} == set(EXECUTED)
    return output_dir


def spectra_of(path):
    """Return ra, dec, wavelength, flux and its error of all spectra in a product of stage 3."""
    spectra = []
    with fits.open(path) as hdul:
        for row in [row for hdu in hdul if hdu.name == "EXTRACT1D" for row in hdu.data]:
            good = slice(0, int(row["N_ALONGDISP"]))
            arrays = [np.array(row[name][good]) for name in ("WAVELENGTH", "FLUX", "FLUX_ERROR")]
            spectra.append((row["SOURCE_RA"], row["SOURCE_DEC"], *arrays))
    return spectra


def continuum_and_line(wavelength, level, slope, line, line_um, sigma_um):
    apart = (wavelength - line_um) / sigma_um
    profile = np.exp(-0.5 * apart**2) / np.sqrt(2 * np.pi) / sigma_um
    return level * (1 + slope * (wavelength - 3.55)) + line * profile


def test_each_source_has_its_spectrum_and_its_line(simulated, reduced):
    check_spectra(reduced, simulated.truth)


def test_from_the_archive_to_the_spectra(sky, stage_cache, tmp_path, monkeypatch):
    monkeypatch.delenv("MAST_API_TOKEN", raising=False)
    simulated = simulate_slitless(tmp_path / "simulated", uncal=True)
    output_dir = reduce_from_archive(sky, simulated, tmp_path, stage_cache)
    check_spectra(output_dir, simulated.truth)


def check_spectra(output_dir, truth):
    places = SkyCoord(truth["ra"], truth["dec"], unit="deg")
    spectra = spectra_of(output_dir / f"stage3/{SPECTRA}_x1d.fits")
    assert len(spectra) == 2 * len(truth)
    matched = []
    for ra, dec, wavelength, flux, error in spectra:
        index, apart, _ = SkyCoord(ra, dec, unit="deg").match_to_catalog_sky(places)
        assert apart.arcsec < 0.005
        matched.append(int(index))
        source = truth[index]
        inside = np.isfinite(flux) & (wavelength > 3.2) & (wavelength < 3.9)
        guess = (source["flux"], 0.0, source["line"], source["line_um"], 0.022)
        fit, _ = curve_fit(
            continuum_and_line, wavelength[inside], flux[inside], p0=guess, sigma=error[inside]
        )
        assert fit[0] == pytest.approx(source["flux"], rel=0.005)
        assert fit[1] == pytest.approx(source["slope"], abs=0.025)
        assert fit[2] == pytest.approx(source["line"], rel=0.02)
        assert fit[3] == pytest.approx(source["line_um"], abs=3e-4)
        # The line is as wide as it is, and as the source is along the spectrum.
        assert 1 < fit[4] / truth.meta["sigma_um"] < 1.2
    assert sorted(matched) == sorted(2 * list(range(len(truth))))


def test_without_the_background_the_sky_is_in_the_spectra(simulated, reduced, planned, tmp_path):
    # The mosaic and its catalogue are there from an earlier run.
    output_dir = shutil.copytree(reduced, tmp_path / "out")
    name = f"{GRISM.format(1)}_x1d.fits"
    rates = [simulated.rates[0], simulated.rates[3]]
    steps = {"bkg_subtract": {"skip": True}}
    plan = reduce(simulated, planned, output_dir, rates, stages=2, steps=steps)
    assert [member.exptype for member in plan.tasks[-1].members] == [
        "science", "direct_image", "sourcecat", "segmap"
    ]  # fmt: skip
    clean, dirty = (
        np.nanmedian([np.nanmedian(flux) for *_, flux, _ in spectra_of(folder / "stage2" / name)])
        for folder in (reduced, output_dir)
    )
    assert dirty > 1.2 * clean


def test_without_direct_images_no_spectrum_is_promised(simulated, planned, tmp_path):
    plan, _ = plan_of_mode(simulated, planned, tmp_path / "out", simulated.rates[3:], stages=2)
    assert not plan.tasks
    assert "slitless spectra need one or more direct images" in plan.notes[0]


def test_products_are_those_of_plain_calls(simulated, reduced, tmp_path):
    associations = {}
    for number in (1, 2, 3):
        root = DIRECT.format(number)
        members = [(f"{root}_rate.fits", "science")]
        associations[f"{root}_asn.json"] = association("image2", root, members)
    cals = [(f"{DIRECT.format(number)}_cal.fits", "science") for number in (1, 2, 3)]
    associations["x_image3_asn.json"] = association("image3", MOSAIC, cals)
    for number in (1, 2):
        root = GRISM.format(number)
        members = [
            (f"{root}_rate.fits", "science"),
            (f"{MOSAIC}_i2d.fits", "direct_image"),
            (f"{MOSAIC}_cat.ecsv", "sourcecat"),
            (f"{MOSAIC}_segm.fits", "segmap"),
        ]
        associations[f"{root}_asn.json"] = association("spec2", root, members)
    cals = [(f"{GRISM.format(number)}_cal.fits", "science") for number in (1, 2)]
    associations["x_spec3_asn.json"] = association("spec3", SPECTRA, cals)
    plain_calls(associations, simulated, tmp_path / "plain")
    assert_all_same(reduced, tmp_path / "plain", 18)
