import numpy as np
import pytest
from scipy.special import gammaincinv

from astroquery_lis.sandbox import sky
from astroquery_lis.survey.pixel_grids import TangentGrid

GRID = TangentGrid(45.1, 20.0, 600.0, 600.0, 0.262 / 3600)


def one_source(**values):
    table = sky.truth()[:1]
    table["type"] = table["type"].astype("U8")
    defaults = {"ra": 45.1, "dec": 20.0, "type": "PSF", "flux_r": 10.0}
    for name, value in (defaults | values).items():
        table[name][0] = value
    return table


@pytest.mark.parametrize("index", [1.0, 1.5, 2.5, 4.0])
def test_gaussians_follow_the_sersic_profile(index):
    weights, sigma = np.array(sky.sersic_components(index)).T
    assert (weights > 0).all()
    assert weights.sum() == pytest.approx(1)
    radius = np.geomspace(0.1, 4, 50)
    profile = (weights / sigma**2 * np.exp(-0.5 * (radius[:, None] / sigma) ** 2)).sum(axis=1)
    b = gammaincinv(2 * index, 0.5)
    expected = np.exp(-b * (radius ** (1 / index) - 1))
    ratio = profile / expected
    assert np.ptp(ratio / np.median(ratio)) < 0.25
    inside = weights @ (1 - np.exp(-0.5 / sigma**2))
    assert inside == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"ra": 45.10003, "dec": 20.00002},
        {"type": "EXP", "sersic": 1.0, "shape_r": 0.3, "shape_e1": 0.3, "shape_e2": -0.4},
        {"type": "DEV", "sersic": 4.0, "shape_r": 2.0, "shape_e1": -0.1, "shape_e2": 0.2},
    ],
)
def test_pixels_add_up_to_the_flux(values):
    image = sky.render(one_source(**values), "r", GRID, shape=(1201, 1201))
    assert image.sum() == pytest.approx(10.0, rel=1e-6)
    y, x = np.mgrid[:1201, :1201]
    expected = GRID.to_pixel(values.get("ra", 45.1), values.get("dec", 20.0))
    assert np.allclose([(image * x).sum() / 10, (image * y).sum() / 10], expected, atol=1e-4)


def test_position_angle_runs_from_north_to_east():
    # Position angle 30 degrees: the long axis points north and a little east, which is left.
    angle, size = np.radians(30), 0.5
    source = one_source(
        type="EXP",
        sersic=1.0,
        shape_r=4.0,
        shape_e1=size * np.cos(2 * angle),
        shape_e2=size * np.sin(2 * angle),
    )
    image = sky.render(source, "r", GRID, shape=(1201, 1201))
    y, x = np.mgrid[-600:601, -600:601]
    xx, xy, yy = ((image * term).sum() / 10 for term in (x * x, x * y, y * y))
    assert np.degrees(0.5 * np.arctan2(-2 * xy, yy - xx)) == pytest.approx(30, abs=0.5)
    psf = sum(w * (s / 0.262) ** 2 for w, s in sky.psf_components("r"))
    values = np.linalg.eigvalsh([[xx - psf, xy], [xy, yy - psf]])
    assert np.sqrt(values[0] / values[1]) == pytest.approx((1 - size) / (1 + size), abs=0.01)


def test_boxes_of_one_picture_fit_together():
    source = one_source(type="DEV", sersic=4.0, shape_r=2.0)
    whole = sky.render(source, "r", GRID, shape=(1201, 1201))
    part = sky.render(source, "r", GRID, x0=590, y0=610, shape=(50, 40))
    assert np.allclose(part, whole[610:660, 590:630], rtol=0, atol=1e-12)


@pytest.mark.parametrize("band", list("griz"))
def test_psf_width_and_norm(band):
    source = one_source(**{f"flux_{band}": 1.0})
    fine = TangentGrid(45.1, 20.0, 150.0, 150.0, 0.05 / 3600)
    psf = sky.render(source, band, fine, shape=(301, 301))
    half = np.flatnonzero(psf[150] > psf.max() / 2)
    assert 0.05 * len(half) == pytest.approx(sky.psf_fwhm_arcsec(band), abs=0.06)
    assert 1.1 < sky.psf_fwhm_arcsec(band) < 1.6
    coarse = sky.render(source, band, GRID, shape=(1201, 1201))
    assert (coarse**2).sum() == pytest.approx(sky.psf_norm(band, 0.262), rel=1e-5)
    assert sky.galaxy_norm(band, 0.262) < sky.psf_norm(band, 0.262)


def test_no_sources_is_an_empty_picture():
    assert not sky.render(one_source()[:0], "r", GRID, shape=(5, 6)).any()
