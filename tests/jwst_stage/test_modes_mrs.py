"""MIRI's integral field unit with the real pipeline, on count rates of known truth."""

import numpy as np
import pytest
from astropy.io import fits

from .mode_runs import assert_same, association, plain_calls, reduce, reduce_killed
from .simulated_modes.field_unit import simulate_mrs

pytest.importorskip("jwst")
pytestmark = [
    pytest.mark.slow,
    # The background target's own product has one exposure, and nothing to compare it with.
    pytest.mark.filterwarnings("ignore:stage3/.*S_OUTLIR = FAILED"),
]

EXECUTED = ("MIR_MRS",)
ROOTS = [
    "jw01234001001_02101_00001_mirifushort",
    "jw01234001001_02101_00002_mirifushort",
    "jw01234002001_02101_00003_mirifushort",
]
PRODUCT = "jw01234-c1002_t001_miri"
# Of the aperture, and of the star as widened by pixels, slices and spaxels.
APERTURE_ARCSEC, SIGMA_ARCSEC, WIDTHS_ARCSEC = 1.0, 0.3, (0.196, 0.23, 0.15)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    return simulate_mrs(tmp_path_factory.mktemp("mrs"))


@pytest.fixture(scope="module")
def reduced(simulated, planned, tmp_path_factory):
    folder = tmp_path_factory.mktemp("modes")
    plan, output_dir = reduce_killed(simulated, planned, folder)
    assert {e.exp_type for e in plan.exposures} == set(EXECUTED)
    return output_dir


def enclosed():
    """Return the share of a star's light within the aperture."""
    variance = SIGMA_ARCSEC**2 + sum(width**2 for width in WIDTHS_ARCSEC) / 12
    return 1 - np.exp(-0.5 * APERTURE_ARCSEC**2 / variance)


def spectrum(path):
    """Return wavelength, flux and background, but for the edges that no pixel covers wholly."""
    table = fits.getdata(path, "EXTRACT1D")
    return [table[name][2:-2].astype(float) for name in ("WAVELENGTH", "FLUX", "BACKGROUND")]


def test_the_star_has_its_spectrum_and_the_background_is_gone(simulated, reduced):
    truth = simulated.truth.meta
    for channel, line in enumerate(truth["lines"], start=1):
        path = reduced / f"stage3/{PRODUCT}_ch{channel}-short_x1d.fits"
        assert fits.getheader(path)["S_MSBSUB"] == "COMPLETE"
        wavelength, flux, background = spectrum(path)
        flux /= enclosed()
        assert np.abs(background).max() < 0.01 * truth["sky_mjysr"]
        apart = (wavelength - line["center_um"]) / line["sigma_um"]
        ratio = flux[np.abs(apart) > 5] / truth["continuum_jy"]
        assert np.median(ratio) == pytest.approx(1, abs=0.005)
        assert np.abs(ratio - 1).max() < 0.02
        on_line = np.abs(apart) < 4
        light = (flux - truth["continuum_jy"] * np.median(ratio))[on_line]
        total = light.sum() * np.diff(wavelength).mean()
        area = line["peak_jy"] * line["sigma_um"] * np.sqrt(2 * np.pi)
        assert total == pytest.approx(area, rel=0.01)
        centre = np.average(wavelength[on_line], weights=light)
        assert centre == pytest.approx(line["center_um"], abs=0.001)


def test_the_star_is_at_its_place_in_both_cubes(simulated, reduced):
    from stdatamodels.jwst import datamodels

    for channel in (1, 2):
        path = reduced / f"stage3/{PRODUCT}_ch{channel}-short_s3d.fits"
        with datamodels.open(str(path)) as cube:
            x, y, _ = cube.meta.wcs.invert(
                simulated.truth["ra"][0], simulated.truth["dec"][0], cube.meta.wcsinfo.crval3
            )
            image = np.mean(cube.data[20:30], axis=0)
        rows, columns = np.indices(image.shape)
        near = np.hypot(columns - x, rows - y) < 6
        light = image[near]
        assert np.average(columns[near] - x, weights=light) == pytest.approx(0, abs=0.03)
        assert np.average(rows[near] - y, weights=light) == pytest.approx(0, abs=0.03)


def test_products_are_those_of_plain_calls(simulated, reduced, tmp_path):
    sky = (f"{ROOTS[2]}_rate.fits", "background")
    members = {root: [(f"{root}_rate.fits", "science"), sky] for root in ROOTS[:2]}
    members[ROOTS[2]] = [(f"{ROOTS[2]}_rate.fits", "science")]
    associations = {
        f"{root}_asn.json": association("spec2", root, listed) for root, listed in members.items()
    }
    cals = [(f"{root}_cal.fits", "science") for root in ROOTS[:2]]
    document = association("spec3", PRODUCT, [*cals, (f"{ROOTS[2]}_x1d.fits", "background")])
    associations["x_spec3_asn.json"] = {**document, "asn_id": "c1002"}
    plain_calls(associations, simulated, tmp_path / "plain")
    products = sorted((tmp_path / "plain").glob("*_[csx][a-z0-9]*.fits"))
    assert len(products) == 15
    for path in products:
        stage = "stage3" if "c1002" in path.name else "stage2"
        assert_same(reduced / stage / path.name, path)


def test_without_the_background_it_stays(simulated, planned, reduced, tmp_path):
    cals = [reduced / f"stage2/{root}_cal.fits" for root in ROOTS[:2]]
    plan = reduce(simulated, planned, tmp_path / "out", rates=cals, start="cal")
    (task,) = plan.tasks
    assert {member.exptype for member in task.members} == {"science"}
    (path,) = (tmp_path / "out/stage3").glob("*_ch1-short_x1d.fits")
    _, _, background = spectrum(path)
    assert np.median(background) == pytest.approx(simulated.truth.meta["sky_mjysr"], rel=0.1)
