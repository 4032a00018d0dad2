"""The numerical parts of the corrections: arrays in, arrays out, no pipeline."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from astroquery_lis.exceptions import TaskError
from astroquery_lis.jwst_stage.corrections.builtin import (
    clipped,
    divisor_of,
    filled,
    fit_scale,
    flicker,
    mode_of,
    source_mask,
    surface,
)
from astroquery_lis.jwst_stage.corrections.correction import history_of

SIZE = 96
QUICK = settings(max_examples=20, deadline=None)


def stars(rng, number=12, brightest=400.0):
    image = np.zeros((SIZE, SIZE))
    for flux in np.geomspace(3, brightest, number):
        image[tuple(rng.integers(4, SIZE - 4, 2))] += flux
    return ndimage.gaussian_filter(image, 1.3)


def field(seed=1, noise=0.1):
    rng = np.random.default_rng(seed)
    return rng, stars(rng), rng.normal(0.3, noise, (SIZE, SIZE))


NOTHING = np.zeros((SIZE, SIZE), bool)


# Stripes, by the pipeline's own step.


def striped_model(data):
    pytest.importorskip("jwst")
    from stdatamodels.jwst import datamodels

    kind = datamodels.ImageModel if data.ndim == 2 else datamodels.CubeModel
    model = kind(data.astype(np.float32))
    model.dq = np.zeros(data.shape, np.uint32)
    model.meta.exposure.type = "NRC_IMAGE"
    model.meta.instrument.detector = "NRCA3"
    model.meta.subarray.name = "SUB160"
    return model


@pytest.mark.parametrize("along_x", [True, False])
@pytest.mark.parametrize("integrations", [0, 2])
def test_stripes_go_and_stars_stay(along_x, integrations):
    rng, light, noise = field()
    pattern = np.repeat(rng.normal(0, 0.5, SIZE)[:, None], SIZE, axis=1)
    pattern = pattern if along_x else pattern.T
    image = light + noise + pattern
    model = striped_model(np.stack([image] * integrations) if integrations else image)
    model.meta.subarray.fastaxis, model.meta.subarray.slowaxis = (1, 2) if along_x else (2, 1)
    result = flicker(model)
    taken = image - (result.data[0] if integrations else result.data)
    residual = (pattern - taken) - np.median(pattern - taken)
    assert pattern.std() > 15 * residual.std()
    assert residual.std() < 2 * 1.2533 * 0.1 / np.sqrt(SIZE)
    assert np.ptp(taken, axis=1 if along_x else 0).max() < 1e-4
    assert any(line.startswith("flicker: offsets of lines") for line in history_of(result))


def test_a_fit_that_fails_is_told():
    _, light, noise = field(2)
    model = striped_model(light + noise)
    model.dq[:] = 1
    model.meta.subarray.fastaxis, model.meta.subarray.slowaxis = 1, 2
    with pytest.raises(TaskError, match="the step clean_flicker_noise of jwst ended as FAILED"):
        flicker(model, fit_method="fft")


# Sources and sky.


def test_sources_are_masked_and_a_lone_bad_pixel_is_no_galaxy():
    _, light, noise = field(5)
    image = light + noise
    mask = source_mask(image, NOTHING, grow_pix=2)
    assert mask[light > 0.5].all()
    assert mask.mean() < 0.4
    only = np.random.default_rng(6).normal(0, 1, (SIZE, SIZE))
    only[40, 40] = 1e6
    mask = source_mask(only, NOTHING, grow_pix=1)
    assert mask[40, 40]
    assert not mask[40, 50:].all()
    assert mask.mean() < 0.1


@given(
    hnp.arrays(
        float,
        (8, 9),
        elements=st.floats(-1e5, 1e5) | st.just(np.nan) | st.just(0.0),
    )
)
@QUICK
def test_masks_and_skies_are_safe_with_anything(data):
    ignore = np.zeros(data.shape, bool)
    mask = source_mask(data, ignore)
    assert mask.dtype == bool
    sky, _ = surface(data, ignore, order=1)
    assert np.isfinite(sky).all()
    fit = fit_scale(data, np.linspace(0, 1, 72).reshape(8, 9), ignore)
    assert fit.pixels <= 72
    assert np.isnan(fit.scale)


@given(st.floats(-1e3, 1e3), st.floats(0.01, 100))
@QUICK
def test_clipped_moves_with_the_values(level, width):
    values = np.random.default_rng(0).normal(0, 1, 500)
    median, scatter = clipped(values)
    moved = clipped(level + width * values)
    assert moved[0] == pytest.approx(level + width * median, abs=1e-6 * (1 + abs(level)))
    assert moved[1] == pytest.approx(width * scatter, rel=1e-6)


def test_clipped_agrees_with_astropy():
    from astropy.stats import sigma_clipped_stats

    rng = np.random.default_rng(9)
    values = np.concatenate([rng.normal(5, 2, 5000), rng.uniform(50, 900, 400)])
    median, scatter = clipped(values)
    _, theirs, deviation = sigma_clipped_stats(values, sigma=3, stdfunc="mad_std")
    assert median == pytest.approx(theirs, abs=0.02)
    assert scatter == pytest.approx(deviation, rel=0.03)
    assert np.isnan(clipped([np.nan, np.inf])).all()


@pytest.mark.parametrize("order", [0, 1, 2, 3])
@pytest.mark.parametrize("estimator", ["clipped", "mode"])
def test_the_sky_is_found_under_the_sources(order, estimator):
    _, light, noise = field(7)
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    sky = 1.5 + (0.8 * x - 0.5 * y if order else 0) + (0.6 * x * y if order > 1 else 0)
    found, pixels = surface(light + noise + sky, NOTHING, order=order, estimator=estimator)
    # The noise has a mean of its own.
    assert np.abs(found - sky - 0.3).max() < (0.05 if estimator == "clipped" else 0.12)
    assert pixels > 0.5 * SIZE**2


def test_without_pixels_there_is_no_sky():
    sky, pixels = surface(np.ones((SIZE, SIZE)), ~NOTHING)
    assert (sky == 0).all()
    assert pixels == 0


def test_the_mode_is_moved_less_than_the_median_by_a_tail():
    rng = np.random.default_rng(11)
    values = np.concatenate([rng.normal(0, 1, 8000), rng.exponential(6, 4000)])
    assert abs(mode_of(values)) < 0.5 < np.median(values)
    assert mode_of([3.0, np.nan]) == 3.0
    assert np.isnan(mode_of([]))


# Wisps.


def template(seed=0):
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE - 0.5
    return np.exp(-0.5 * ((x + 0.5 * y) / 0.15) ** 2) * (1 + 0.3 * np.sin(30 * x))


@pytest.mark.parametrize("scale", [0.05, 0.4, 5.0])
def test_the_scale_of_a_wisp_is_found_between_the_sources(scale):
    _, light, noise = field(13)
    fit = fit_scale(light + noise + scale * template(), template(), NOTHING)
    assert abs(fit.scale - scale) < 5 * fit.error + 0.02 * scale
    assert fit.error < 0.02
    assert fit.level == pytest.approx(0.3, abs=0.05)


def test_without_a_wisp_the_scale_is_none_within_its_error():
    _, light, noise = field(14)
    fit = fit_scale(light + noise, template(), NOTHING)
    assert abs(fit.scale) < 4 * fit.error


def test_nan_of_the_template_and_the_image_do_not_count():
    _, light, noise = field(15)
    image, shape = light + noise + 0.6 * template(), template()
    holes = np.random.default_rng(16).random(image.shape)
    # As zeros they would pull the scale far down.
    fit = fit_scale(
        np.where(holes < 0.2, np.nan, image), np.where(holes > 0.8, np.nan, shape), NOTHING
    )
    assert fit.scale == pytest.approx(0.6, abs=0.03)
    assert fit.pixels < 0.65 * image.size


@pytest.mark.parametrize("shape", [np.ones((SIZE, SIZE)), np.full((SIZE, SIZE), np.nan)])
def test_a_template_without_a_shape_has_no_scale(shape):
    _, light, noise = field(17)
    assert np.isnan(fit_scale(light + noise, shape, NOTHING).scale)


def test_small_holes_of_a_template_are_filled_and_large_ones_stay():
    shape = template()
    holed = shape.copy()
    holed[20, 20] = holed[50:53, 60] = np.nan
    holed[70:90, 10:30] = np.nan
    whole = filled(holed, 4)
    assert np.abs(whole[20, 20] - shape[20, 20]) < 0.15
    assert np.isfinite(whole[50:53, 60]).all()
    assert np.isnan(whole[80, 20])
    known = np.isfinite(holed)
    assert np.array_equal(whole[known], holed[known])
    assert np.array_equal(filled(holed, 0), holed, equal_nan=True)


# Flats.


@given(
    hnp.arrays(
        np.float32, (5, 6), elements=st.floats(-2, 3, width=32) | st.sampled_from([np.nan, np.inf])
    ),
    hnp.arrays(np.uint32, (5, 6), elements=st.sampled_from([0, 1, 4, 1 << 18])),
)
@QUICK
def test_a_flat_divides_by_positive_numbers_only(values, flags):
    divisor, bad = divisor_of(values, flags)
    assert (divisor > 0).all()
    assert np.isfinite(divisor).all()
    assert (divisor[bad] == 1).all()
    fine = np.isfinite(values) & (values > 0) & ((flags & (1 | 1 << 18)) == 0)
    assert np.array_equal(bad, ~fine)
    assert np.array_equal(divisor[~bad], values[~bad])
