"""The numerical parts of the corrections: arrays in, arrays out, no pipeline."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from astroquery_lis.exceptions import TaskError
from astroquery_lis.jwst_stage.corrections.flat import divided
from astroquery_lis.jwst_stage.corrections.flicker import line_offsets, stripes
from astroquery_lis.jwst_stage.corrections.masks import clipped, smooth_background, source_mask
from astroquery_lis.jwst_stage.corrections.models import amplifier_bounds, is_fast_along_x
from astroquery_lis.jwst_stage.corrections.sky import mode_of, surface
from astroquery_lis.jwst_stage.corrections.wisp import filled, fit_scale

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


# Row medians.


@given(
    data=hnp.arrays(
        float,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12),
        elements=st.floats(-1e6, 1e6) | st.just(np.nan),
    ),
    min_pixels=st.integers(1, 6),
)
@QUICK
def test_offsets_are_finite_constant_along_rows_and_of_median_zero(data, min_pixels):
    ignore = np.zeros(data.shape, bool)
    offsets, bare = line_offsets(data, ignore, min_pixels=min_pixels)
    assert np.isfinite(offsets).all()
    assert (offsets == offsets[:, :1]).all()
    enough = np.isfinite(data).sum(axis=1) >= min_pixels
    assert bare == (~enough).sum()
    assert (offsets[~enough] == 0).all()
    if enough.any():
        assert np.median(offsets[enough, 0]) == pytest.approx(0, abs=1e-6)


@given(
    rows=hnp.arrays(float, 10, elements=st.floats(-100, 100)),
    level=st.floats(-1e3, 1e3),
    columns=st.integers(3, 15),
)
@QUICK
def test_pure_stripes_are_found_whole_whatever_the_sky(rows, level, columns):
    data = level + np.repeat(rows[:, None], columns, axis=1)
    ignore = np.zeros(data.shape, bool)
    offsets, _ = line_offsets(data, ignore, min_pixels=1)
    left = data - offsets
    assert np.ptp(left) == pytest.approx(0, abs=1e-9)
    assert left.mean() == pytest.approx(level + np.median(rows), abs=1e-9)


def test_what_is_ignored_does_not_count_even_where_it_is_nan():
    rng = np.random.default_rng(0)
    rows = rng.normal(0, 5, 20)
    data = np.repeat(rows[:, None], 30, axis=1)
    ignore = rng.random(data.shape) < 0.4
    spoilt = np.where(ignore, np.where(rng.random(data.shape) < 0.5, np.nan, 1e9), data)
    expected, _ = line_offsets(data, np.zeros(data.shape, bool))
    assert np.array_equal(line_offsets(spoilt, ignore)[0], expected)


def test_each_amplifier_has_offsets_of_its_own():
    rng = np.random.default_rng(4)
    left, right = rng.normal(0, 1, (2, 40))
    data = np.hstack([np.repeat(left[:, None], 20, 1), np.repeat(right[:, None], 28, 1)])
    ignore = np.zeros(data.shape, bool)
    offsets, _ = line_offsets(data, ignore, bounds=[0, 20, 48])
    assert np.ptp((data - offsets)[:, :20]) < 1e-12
    assert np.ptp((data - offsets)[:, 20:]) < 1e-12
    assert np.ptp(data - line_offsets(data, ignore)[0]) > 1


def test_a_part_without_pixels_takes_the_offset_of_its_row():
    rows = np.arange(10.0)
    data = np.repeat(rows[:, None], 40, axis=1)
    ignore = np.zeros(data.shape, bool)
    ignore[3, :20] = True
    offsets, bare = line_offsets(data, ignore, bounds=[0, 20, 40])
    assert bare == 1
    assert offsets[3, 0] == offsets[3, 39] == 3 - 4.5


@pytest.mark.parametrize("along_x", [True, False])
def test_stripes_go_and_stars_stay(along_x):
    rng, light, noise = field()
    rows = rng.normal(0, 0.5, SIZE)
    pattern = np.repeat(rows[:, None], SIZE, axis=1)
    pattern = pattern if along_x else pattern.T
    found, masked, bare = stripes(light + noise + pattern, NOTHING, along_x=along_x)
    left = (pattern - found) - np.median(pattern - found)
    assert pattern.std() > 15 * left.std()
    assert left.std() < 2 * 1.2533 * 0.1 / np.sqrt(SIZE)
    assert bare == 0
    assert 0 < masked.mean() < 0.5
    assert np.ptp(found, axis=1 if along_x else 0).max() == 0


def test_both_directions_take_columns_too():
    rng, light, noise = field(2)
    pattern = rng.normal(0, 0.4, SIZE)[:, None] + rng.normal(0, 0.4, SIZE)[None, :]
    found, _, _ = stripes(light + noise + pattern, NOTHING, both=True)
    assert (pattern - found).std() < 0.1 * pattern.std()
    found, _, _ = stripes(light + noise + pattern, NOTHING)
    assert (pattern - found).std() > 0.5 * pattern.std()


def test_a_sky_that_changes_over_boxes_is_left_in():
    _, light, noise = field(3)
    sky = np.repeat(np.linspace(0, 2, SIZE)[:, None], SIZE, axis=1)
    taken, _, _ = stripes(light + noise + sky, NOTHING)
    kept, _, _ = stripes(light + noise + sky, NOTHING, background_pix=16)
    assert taken.std() > 0.8 * sky.std()
    assert kept.std() < 0.1 * sky.std()


def model(shape=(2048, 2048), fast=-1, start=(1, 1), outputs=4):
    return SimpleNamespace(
        data=np.zeros(shape, np.int8),
        meta=SimpleNamespace(
            subarray=SimpleNamespace(fastaxis=fast, xstart=start[0], ystart=start[1]),
            exposure=SimpleNamespace(noutputs=outputs),
        ),
    )


@pytest.mark.parametrize(
    ("given", "along_x", "bounds"),
    [
        # NIRCam: rows are read along x by four amplifiers; NIRISS along y.
        (model(), True, [0, 512, 1024, 1536, 2048]),
        (model(fast=1, outputs=1), True, [0, 2048]),
        (model(fast=-2), False, [0, 512, 1024, 1536, 2048]),
        (model((64, 2048), start=(1, 900)), True, [0, 512, 1024, 1536, 2048]),
        (model((640, 640), start=(701, 701)), True, [0, 324, 640]),
        (model((640, 300), fast=2, start=(3, 1001)), False, [0, 24, 536, 640]),
        (model((2, 32, 32), start=(100, 100)), True, [0, 32]),
    ],
)
def test_lines_and_amplifiers_are_those_of_the_detector(given, along_x, bounds):
    assert is_fast_along_x(given) == along_x
    assert amplifier_bounds(given, along_x) == bounds


@pytest.mark.parametrize("axis", [None, 0, 3])
def test_without_a_fast_axis_the_direction_is_asked_for(axis):
    with pytest.raises(TaskError, match="give 'rows' or 'columns'"):
        is_fast_along_x(model((4, 4), fast=axis))


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
    assert not np.isnan(smooth_background(data, mask, 4)).any()
    pattern, _, _ = stripes(data, ignore, min_pixels=2)
    assert np.isfinite(pattern).all()
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
    divisor, bad = divided(values, flags)
    assert (divisor > 0).all()
    assert np.isfinite(divisor).all()
    assert (divisor[bad] == 1).all()
    fine = np.isfinite(values) & (values > 0) & ((flags & (1 | 1 << 18)) == 0)
    assert np.array_equal(bad, ~fine)
    assert np.array_equal(divisor[~bad], values[~bad])
