"""Pictures of the chain."""

import sys

import matplotlib as mpl
import numpy as np
import pytest
from astropy.io import fits

from astroquery_lis.exceptions import InvalidRequestError, OptionalDependencyError
from astroquery_lis.jwst_stage.look import (
    FLAGS,
    dq_counts,
    grey,
    plot_dq,
    plot_ramp,
    plot_stages,
    read_plane,
    read_ramp,
)

mpl.use("Agg")


@pytest.fixture(autouse=True)
def _closed():
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture
def product(tmp_path):
    """A function that writes a product in the layout of jwst."""

    def write(suffix, shape, dq=None, groupdq=None, **cards):
        rng = np.random.default_rng(3)
        data = rng.normal(1, 0.1, shape).astype(np.float32)
        hdus = [fits.PrimaryHDU(), fits.ImageHDU(data, name="SCI")]
        for name, value in cards.items():
            hdus[0].header[name] = value
        hdus[1].header["BUNIT"] = "DN/s"
        if dq is not None:
            hdus.append(fits.ImageHDU(dq.astype(np.uint32), name="DQ"))
        if groupdq is not None:
            hdus.append(fits.ImageHDU(groupdq.astype(np.uint8), name="GROUPDQ"))
        path = tmp_path / f"jw01234_{suffix}.fits"
        fits.HDUList(hdus).writeto(path)
        return path

    return write


@pytest.fixture
def flagged(product):
    dq = np.zeros((20, 30))
    dq[2, 3] = 1 | 4
    dq[5, 5:9] = 4
    dq[7, 7] = 1 << 31
    return product("rate", (20, 30), dq)


def test_flags_have_the_names_and_bits_of_the_pipeline():
    dqflags = pytest.importorskip("stdatamodels.jwst.datamodels.dqflags")
    theirs = {value: set() for value in dqflags.pixel.values()}
    for name, value in dqflags.pixel.items():
        theirs[value].add(name)
    for name, bit in FLAGS.items():
        if 1 << bit in theirs:
            assert name in theirs[1 << bit], bit
    assert {1 << bit for bit in FLAGS.values()} >= set(theirs) - {0}


def test_flags_are_counted_and_drawn(flagged):
    table = dq_counts(flagged)
    assert dict(zip(table["flag"], table["pixels"], strict=True)) == {
        "JUMP_DET": 5,
        "DO_NOT_USE": 1,
        "REFERENCE_PIXEL": 1,
    }
    assert table["share"][0] == 5 / 600
    ax = plot_dq(flagged, ["JUMP_DET", "OUTLIER", "DO_NOT_USE"])
    picture = ax.get_images()[0].get_array()
    assert picture.shape == (20, 30, 3)
    coloured = np.ptp(picture, axis=2) > 0
    assert np.argwhere(coloured).tolist() == [[2, 3], [5, 5], [5, 6], [5, 7], [5, 8]]
    # The last is on top.
    assert picture[2, 3].tolist() != picture[5, 5].tolist()
    told = [text.get_text() for text in ax.get_legend().get_texts()]
    assert told == ["JUMP_DET 5", "DO_NOT_USE 1"]


def test_what_cannot_be_drawn_is_told(product, flagged, tmp_path):
    with pytest.raises(InvalidRequestError, match="'JUMP' is not one of DO_NOT_USE"):
        plot_dq(flagged, "JUMP")
    with pytest.raises(InvalidRequestError, match="has no DQ plane"):
        dq_counts(product("i2d", (4, 5)))
    with pytest.raises(InvalidRequestError, match="has no groups"):
        read_ramp(flagged, 1, 1)
    with pytest.raises(InvalidRequestError, match="has no image to show"):
        read_plane(tmp_path / "nothing.fits")
    with pytest.raises(InvalidRequestError, match="0 were given; 1 to 12"):
        plot_stages([])
    cube = product("rateints", (2, 4, 5))
    with pytest.raises(InvalidRequestError, match="integration=2: jw01234_rateints.fits has 2"):
        read_plane(cube, integration=2)
    uncal = product("uncal", (1, 3, 4, 5))
    for pixel, told in (((5, 0), "x=5 must be .* 0 to 4"), ((0, 1.5), "y=1.5 must be")):
        with pytest.raises(InvalidRequestError, match=told):
            read_ramp(uncal, *pixel)
    with pytest.raises(InvalidRequestError, match="has no pixel x=4, y=3"):
        plot_ramp(uncal, 4, 3, rate=product("rate2", (2, 2)))


def test_without_matplotlib_the_extra_is_named(flagged, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for call in (lambda: plot_dq(flagged), lambda: plot_stages(flagged)):
        with pytest.raises(OptionalDependencyError, match=r"\[plot\]'"):
            call()
    assert len(dq_counts(flagged)) == 3


def test_grey_is_between_0_and_1_and_bad_pixels_do_not_decide():
    image = np.random.default_rng(0).normal(10, 1, (50, 50))
    image[0, 0], image[0, 1] = np.nan, 1e9
    levels = grey(image)
    assert levels.min() >= 0
    assert levels[0, 1] == levels.max() == 1
    assert levels[0, 0] == 0.5
    dq = np.zeros(image.shape, np.uint32)
    dq[:, :40] = 1
    spoilt = np.where(dq == 1, 1e6, image)
    assert np.std(grey(spoilt, dq=dq)[:, 40:]) > 5 * np.std(grey(spoilt)[:, 40:])
    assert (grey(np.full((3, 3), np.nan)) == 0.5).all()
    assert np.isfinite(grey(np.ones((3, 3)))).all()


def test_a_ramp_shows_its_flagged_groups_and_the_slope(product):
    flags = np.zeros((2, 6, 4, 5))
    flags[1, 3, 2, 1], flags[1, 5, 2, 1] = 4, 2
    ramp = product("jump", (2, 6, 4, 5), groupdq=flags, TGROUP=10.0, TFRAME=4.0)
    found = read_ramp(ramp, 1, 2, integration=1)
    assert found.seconds.tolist() == [4, 14, 24, 34, 44, 54]
    assert np.array_equal(found.counts, fits.getdata(ramp, "SCI")[1, :, 2, 1])
    assert found.flags.tolist() == [0, 0, 0, 4, 0, 2]
    rate = product("rate", (4, 5))
    ax = plot_ramp(ramp, 1, 2, integration=1, rate=rate)
    lines = {line.get_label(): line for line in ax.get_lines()}
    assert lines["jump"].get_xdata().tolist() == [34]
    assert lines["saturated"].get_xdata().tolist() == [54]
    slope = fits.getdata(rate, "SCI")[2, 1]
    drawn = lines[f"rate {slope:.4g} DN/s"]
    assert np.diff(drawn.get_ydata())[0] == pytest.approx(10 * slope)
    # It goes through what came before the jump.
    assert np.mean(drawn.get_ydata()[:3]) == pytest.approx(found.counts[:3].mean())
    assert "no flags" in plot_ramp(product("uncal", (1, 3, 4, 5)), 0, 0).get_title()


def test_stages_stand_side_by_side(product, flagged):
    paths = [product("uncal", (1, 5, 20, 30)), flagged, product("cal", (20, 30))]
    figure = plot_stages(paths)
    titles = [ax.get_title().split("\n")[0] for ax in figure.axes]
    assert titles == ["uncal, DN/s", "rate, DN/s", "cal, DN/s"]
    shown = figure.axes[0].get_images()[0].get_array()
    data = fits.getdata(paths[0], "SCI").astype(float)
    assert np.array_equal(shown, grey(data[0, -1] - data[0, 0]))
    assert len(plot_stages([flagged] * 6).axes) == 6


def test_a_cosmic_ray_of_the_chain_is_seen_in_its_pixel(chain):
    from astroquery_lis.jwst_stage.tasks import log_path

    observation = chain.observation
    uncal = observation.uncals[0]
    rate = chain.product("_rate.fits")[0]
    assert log_path(rate.name, rate.parent).exists()
    rays = observation.cosmic_rays[observation.cosmic_rays["file"] == uncal.name]
    flags = read_plane(rate).dq
    ray = max(rays, key=lambda row: row["electrons"])
    assert flags[ray["y"], ray["x"]] & 4
    ramp = read_ramp(uncal, int(ray["x"]), int(ray["y"]))
    assert np.argmax(np.diff(ramp.counts)) == ray["group"] - 1
    ax = plot_ramp(uncal, int(ray["x"]), int(ray["y"]), rate=rate)
    assert len(ax.get_lines()) == 2
    products = [uncal, rate, chain.product("_cal.fits")[0], chain.product("_i2d.fits")[0]]
    figure = plot_stages(products)
    figure.canvas.draw()
    assert [ax.get_title().split(",")[0] for ax in figure.axes] == ["uncal", "rate", "cal", "i2d"]
    assert dq_counts(chain.product("_crf.fits")[0])["pixels"].max() > 0
