"""Magnitudes, extinction, depths, shapes: against published numbers and other people's formulas."""

import astropy.units as u
import numpy as np
import pytest
from astropy.table import MaskedColumn, QTable, Table

from astroquery_lis.exceptions import InvalidRequestError
from astroquery_lis.survey.photometry import (
    EXTINCTION,
    ab_magnitude,
    add_magnitudes,
    asinh_magnitude,
    deredden,
    limiting_magnitude,
    ps1_to_survey,
    transmission,
    vega_to_ab,
    wise_image_to_ab,
)
from astroquery_lis.survey.tractor import axis_ratio_and_angle, ellipticity


def test_magnitudes_are_those_of_astropy():
    flux = np.array([0.01, 1.0, 100.0, 3.5e4])
    # A maggy is the flux of AB magnitude 0.
    expected = (flux * u.nmgy).to(u.ABmag, u.zero_point_flux(u.ABflux)).value
    np.testing.assert_allclose(ab_magnitude(flux).value, expected, atol=1e-12)
    np.testing.assert_allclose(ab_magnitude(flux * u.nmgy).value, expected, atol=1e-12)
    np.testing.assert_allclose(ab_magnitude(flux / 1e9 * u.mgy).value, expected, atol=1e-12)


def test_errors_are_the_spread_of_noisy_magnitudes():
    rng = np.random.default_rng(2)
    flux, ivar = 50.0, 4.0
    noisy = flux + rng.normal(0, ivar**-0.5, 200_000)
    _, error = ab_magnitude(flux, ivar)
    assert error.value == pytest.approx(ab_magnitude(noisy).value.std(), rel=0.01)
    _, error = asinh_magnitude(0.1, ivar, softening=0.5)
    noisy = 0.1 + rng.normal(0, 0.02, 200_000)
    spread = asinh_magnitude(noisy, softening=0.5).value.std() * 0.5 / 0.02
    assert error.value == pytest.approx(spread, rel=0.01)


def test_what_has_no_value_is_nan():
    flux = MaskedColumn([10.0, -1.0, 0.0, 5.0, 7.0], mask=[0, 0, 0, 1, 0], unit="nmgy")
    magnitude, error = ab_magnitude(flux, [1, 1, 1, 1, 0])
    assert list(np.isfinite(magnitude)) == [True, False, False, False, True]
    assert list(np.isfinite(error)) == [True, False, False, False, False]
    assert np.isfinite(limiting_magnitude([1.0, 0.0])).tolist() == [True, False]


@pytest.mark.parametrize(
    ("b", "magnitude"),
    # Softening and magnitude of zero flux of u, g, r, i, z of the SDSS (Stoughton et al. 2002,
    # AJ 123, 485, table 21).
    [(1.4e-10, 24.63), (0.9e-10, 25.11), (1.2e-10, 24.80), (1.8e-10, 24.36), (7.4e-10, 22.83)],
)
def test_asinh_magnitudes_are_those_of_the_sdss(b, magnitude):
    assert asinh_magnitude(0.0, softening=b * 1e9).value == pytest.approx(magnitude, abs=0.006)
    bright = asinh_magnitude(1000.0, softening=b * 1e9)
    assert bright.value == pytest.approx(ab_magnitude(1000.0).value, abs=1e-6)
    assert asinh_magnitude(-1.0, softening=b * 1e9) > asinh_magnitude(0.0, softening=b * 1e9)
    with pytest.raises(InvalidRequestError, match="softening"):
        asinh_magnitude(1.0, softening=0)


def test_transmission_is_what_the_catalogue_has():
    # EBV and mw_transmission of rows of the DR9 catalogue follow these coefficients; 0.05 mag:
    for band, expected in (("g", 0.862423), ("r", 0.905107), ("z", 0.945757), ("w1", 0.991562)):
        assert transmission(0.05, band) == pytest.approx(expected, abs=2e-6)
    assert list(EXTINCTION.values())[1:5] == [3.214, 2.165, 1.592, 1.211]
    by_ebv = deredden(10.0, ebv=0.05, band="g")
    assert by_ebv.unit == u.nmgy
    assert by_ebv.value == pytest.approx(10 / 0.862423, rel=1e-5)
    assert deredden(10.0, 0.862423).value == pytest.approx(by_ebv.value, rel=1e-5)
    # Brighter by A_g = 3.214 E(B-V).
    change = ab_magnitude(10.0) - ab_magnitude(by_ebv)
    assert change.value == pytest.approx(3.214 * 0.05)
    for wrong in ({}, {"mw_transmission": 1.0, "ebv": 0.1}):
        with pytest.raises(InvalidRequestError, match="mw_transmission"):
            deredden(10.0, **wrong)
    with pytest.raises(InvalidRequestError, match="band"):
        transmission(0.05, "q")


def test_depths_are_as_the_survey_defines_them():
    depth = np.array([100.0, 2500.0])
    expected = -2.5 * (np.log10(5 / np.sqrt(depth)) - 9)
    np.testing.assert_allclose(limiting_magnitude(depth).value, expected)
    np.testing.assert_allclose(limiting_magnitude(depth * u.nmgy**-2).value, expected)
    limit = limiting_magnitude(100.0, 3, flux=[-1.0, 0.2])
    np.testing.assert_allclose(limit.value, 22.5 - 2.5 * np.log10([0.3, 0.5]))


def test_wise_images_are_vega():
    # The description page: W1 fluxes times 0.083253 are AB.
    assert wise_image_to_ab(1.0, "w1") == pytest.approx(0.083253, rel=1e-5)
    assert vega_to_ab(15.0, "w4").value == pytest.approx(21.62)
    with pytest.raises(InvalidRequestError, match="band"):
        vega_to_ab(15.0, "g")


def test_shapes():
    ratio, angle = axis_ratio_and_angle([0.0, 1 / 3, 0.0, -0.2], [0.0, 0.0, 0.5, 0.0])
    np.testing.assert_allclose(ratio, [1, 0.5, 1 / 3, 2 / 3])
    np.testing.assert_allclose(angle.deg if hasattr(angle, "deg") else angle.value, [0, 0, 45, 90])
    rng = np.random.default_rng(3)
    ratio, angle = rng.uniform(0.05, 0.99, 50), rng.uniform(0, 180, 50) * u.deg
    again = axis_ratio_and_angle(*ellipticity(ratio, angle))
    np.testing.assert_allclose(again[0], ratio)
    np.testing.assert_allclose(again[1].value, angle.value)


def test_pan_starrs_stars_in_the_surveys_filters():
    # At g-i = 1 the cubic is the sum of its coefficients.
    assert ps1_to_survey(20.0, 1.0, "g").value == pytest.approx(20.04081, abs=1e-5)
    assert ps1_to_survey(20.0, 1.0, "z", "mosaic").value == pytest.approx(19.95834, abs=1e-5)
    assert ps1_to_survey(20.0, 2.0, "r").value == pytest.approx(
        20 + 0.00495 - 2 * 0.08435 + 4 * 0.03222 - 8 * 0.01140
    )
    assert np.isnan(ps1_to_survey([20.0] * 3, [0.39, 2.71, np.nan], "g")).all()
    with pytest.raises(InvalidRequestError, match="90prime g"):
        ps1_to_survey(20.0, 1.0, "z", "90prime")


def test_a_table_gets_magnitudes():
    table = Table(
        {
            "flux_g": np.array([100.0, -1.0], np.float32),
            "flux_ivar_g": np.array([4.0, 4.0], np.float32),
            "mw_transmission_g": np.array([0.5, 0.5], np.float32),
            "flux_w1": np.array([10.0, 10.0], np.float32),
        }
    )
    plain = add_magnitudes(table)
    assert plain.colnames[4:] == ["mag_g", "mag_err_g", "mag_w1"]
    assert plain["mag_g"][0] == pytest.approx(17.5)
    assert plain["mag_g"].unit == u.mag
    assert np.isnan(plain["mag_g"][1])
    assert table.colnames == ["flux_g", "flux_ivar_g", "mw_transmission_g", "flux_w1"]
    dereddened = add_magnitudes(table, ["g"], dereddened=True)
    assert dereddened["dered_mag_g"][0] == pytest.approx(17.5 - 2.5 * np.log10(2))
    # The relative error of the flux, and so that of the magnitude, does not change.
    assert dereddened["mag_err_g"][0] == pytest.approx(plain["mag_err_g"][0])
    with_units = QTable(table)
    with_units["flux_g"] = with_units["flux_g"] * u.nmgy
    soft = add_magnitudes(with_units, ["g"], softening=0.5)
    assert np.isfinite(soft["mag_g"]).all()
    with pytest.raises(InvalidRequestError, match="mw_transmission_w1"):
        add_magnitudes(table, ["w1"], dereddened=True)
