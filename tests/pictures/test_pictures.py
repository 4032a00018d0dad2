"""Pictures of cutouts: the viewer's colours, the right way up, with overlays where they belong."""

import base64
import io
import re
import sys

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable, Table
from astropy.visualization import make_lupton_rgb
from astropy.wcs import WCS

from astroquery_lis import pictures
from astroquery_lis.exceptions import InvalidRequestError, OptionalDependencyError
from astroquery_lis.pictures.plot import bar_arcsec
from astroquery_lis.pictures.rgb import NO_DATA_COLOUR, data_uri, png_bytes, thumbnail

SKY = (32, 32, 32)


pytestmark = pytest.mark.usefixtures("viewer")


def _cutout(planes, *, cd=(-1, 1), side=0.262, **cards):
    """Return a cutout made of arrays, with the WCS of a grid of that handedness."""
    hdus = [fits.PrimaryHDU()]
    hdus[0].header.update(RELEASE="dr10", RA=10.0, DEC=0.0)
    for name, data in planes.items():
        hdu = fits.ImageHDU(np.asarray(data), name=name)
        if hdu.name.partition("_")[2]:
            hdu.header["BAND"] = name.partition("_")[2]
            hdu.header["BUNIT"] = "nanomaggy"
        hdu.header.update(CTYPE1="RA---TAN", CTYPE2="DEC--TAN", CRVAL1=10.0, CRVAL2=0.0)
        hdu.header.update(CRPIX1=1.0, CRPIX2=1.0, RADESYS="ICRS", CUNIT1="deg", CUNIT2="deg")
        hdu.header.update(CD1_1=cd[0] * side / 3600, CD2_2=cd[1] * side / 3600, **cards)
        hdus.append(hdu)
    return fits.HDUList(hdus)


def _flat(**fluxes):
    return _cutout({f"IMAGE_{b}": np.full((4, 6), f, np.float32) for b, f in fluxes.items()})


# ---- colours ------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["ls-dr10", "ls-dr10-grz"])
@pytest.mark.parametrize("name", ["field", "star"])
def test_colours_are_those_of_the_viewer(sky, survey, layer, name):
    image = pytest.importorskip("PIL.Image")
    jpeg = survey.get_picture(sky.positions[name], 200, layer=layer).astype(int)
    hdul = survey.get_cutout(sky.positions[name], 200, layer=layer, source="viewer")
    picture = pictures.rgb(hdul)
    assert picture.dtype == np.uint8
    # What JPEG itself does to a picture has to be done to this one too.
    stream = io.BytesIO()
    image.fromarray(picture).save(stream, "JPEG", quality=90, subsampling="4:2:0")
    same = np.asarray(image.open(stream)).astype(int)
    assert np.abs(same - jpeg).mean() < 0.5
    assert np.percentile(np.abs(same - jpeg), 99) < 8
    assert np.abs(same[::-1] - jpeg).mean() > 10


def test_pixels_of_the_bricks_look_like_the_viewer(sky, survey):
    pytest.importorskip("PIL")
    jpeg = survey.get_picture(sky.positions["field"], 200, layer="ls-dr10").astype(float)
    picture = pictures.rgb(survey.get_cutout(sky.positions["field"], 200)).astype(float)

    def blocks(array):
        return array.reshape(25, 8, 25, 8, 3).mean(axis=(1, 3))

    # The grids differ by a fraction of a pixel, so the comparison is coarse.
    assert np.abs(blocks(picture) - blocks(jpeg)).mean() < 2.5
    for channel in range(3):
        pair = blocks(picture)[..., channel].ravel(), blocks(jpeg)[..., channel].ravel()
        assert np.corrcoef(*pair)[0, 1] > 0.99


def _published(fluxes, scales, planes):
    """The survey's formula for one pixel, as its pipeline states it."""
    value = [max(0, fluxes[b] * scales[b] + 0.03) for b in fluxes]
    mean = sum(value) / len(value)
    ratio = np.arcsinh(20 * mean) / np.sqrt(20) / mean
    out = np.zeros(3)
    for band, one in zip(fluxes, value, strict=True):
        out += np.array(planes[band]) * np.clip(one * ratio, 0, 1)
    return np.floor(out * 255)


@pytest.mark.parametrize("fluxes", [{"g": 0.01, "r": 0.03, "z": 0.05}, {"g": 2, "r": 0.1, "z": 0}])
def test_three_bands_follow_the_published_formula(fluxes):
    scales = {"g": 6.0, "r": 3.4, "z": 2.2}
    planes = {"g": (0, 0, 1), "r": (0, 1, 0), "z": (1, 0, 0)}
    picture = pictures.rgb(_flat(**fluxes))
    assert picture.shape == (4, 6, 3)
    assert np.abs(picture[0, 0] - _published(fluxes, scales, planes)).max() <= 1


def test_four_bands_follow_the_published_formula():
    fluxes = {"g": 0.3, "r": 0.02, "i": 0.05, "z": 0.09}
    scales = {"g": 9.0, "r": 5.1, "i": 4.5, "z": 3.3}
    planes = {"g": (0, 0, 0.75), "r": (0, 0.5, 0.25), "i": (0.25, 0.5, 0), "z": (0.75, 0, 0)}
    picture = pictures.rgb(_flat(**fluxes))
    assert np.abs(picture[0, 0] - _published(fluxes, scales, planes)).max() <= 1


def test_the_order_of_bands_does_not_matter_and_one_is_grey():
    hdul = _flat(z=0.05, g=0.01, r=0.03)
    picture = pictures.rgb(hdul, bands="zrg")
    assert np.array_equal(picture, pictures.rgb(hdul, bands=["g", "r", "z"]))
    grey = pictures.rgb(hdul, bands="r")
    assert (grey == grey[..., :1]).all()
    two = pictures.rgb(hdul, bands="gz")[0, 0].astype(int)
    assert two[0] > two[1] > two[2]
    assert abs(two[1] - (two[0] + two[2]) / 2) <= 1


def test_lupton_is_astropys():
    hdul = _flat(g=0.01, r=0.03, z=0.05)
    levels = [np.full((4, 6), v) for v in (0.05 * 4, 0.03 * 6, 0.01 * 9)]
    expected = make_lupton_rgb(*levels, stretch=0.3, Q=8)
    assert np.abs(pictures.rgb(hdul, stretch="lupton").astype(int) - expected).max() <= 1


def test_brightness_shows_fainter_things():
    hdul = _flat(g=0.01, r=0.01, z=0.01)
    assert (pictures.rgb(hdul, brightness=4.0) > pictures.rgb(hdul)).all()


def test_no_value_is_neither_sky_nor_source():
    data = np.full((3, 8, 8), 1e-9, np.float32)
    data[:, 0] = np.nan  # all bands
    data[2, 1] = np.nan  # z only
    data[:, 2] = 0  # not observed
    hdul = _cutout(dict(zip(("IMAGE_g", "IMAGE_r", "IMAGE_z"), data, strict=True)))
    picture = pictures.rgb(hdul)[::-1]
    assert (picture[0] == NO_DATA_COLOUR).all()
    assert (picture[2] == NO_DATA_COLOUR).all()
    for row in (1, 3):
        assert (np.abs(picture[row].astype(int) - SKY) <= 1).all()
    assert min(NO_DATA_COLOUR) > max(SKY) + 20


def test_a_band_without_any_value_is_left_out(sky, survey):
    hdul = _flat(g=0.01, r=0.03, z=0.05)
    with_i = _flat(g=0.01, r=0.03, i=np.nan, z=0.05)
    assert np.array_equal(pictures.rgb(with_i), pictures.rgb(hdul))


@pytest.mark.parametrize(
    ("cd", "corner"), [((-1, 1), (-1, 0)), ((-1, -1), (0, 0)), ((1, 1), (-1, -1))]
)
def test_north_is_up_and_east_left_on_any_handedness(cd, corner):
    data = np.full((5, 7), 1e-9, np.float32)
    data[0, 0] = 5.0
    picture = pictures.rgb(_cutout({"IMAGE_r": data}, cd=cd))
    assert picture[corner].min() > 200
    assert (picture.max(axis=2) > 200).sum() == 1


def test_a_star_north_east_of_the_centre_is_top_left(sky, survey):
    position = sky.positions["star"].directional_offset_by(225 * u.deg, 8 * u.arcsec)
    picture = pictures.rgb(survey.get_cutout(position, 96)).sum(axis=2)
    y, x = np.unravel_index(picture.argmax(), picture.shape)
    assert y < 40
    assert x < 40


def test_other_pixel_scales_look_the_same(sky, survey):
    asked = {"bands": "grz", "pixel_scale": 0.4 * u.arcsec, "source": "viewer"}
    whole = survey.get_cutout(sky.positions["star"], 60, convert_flux=True, **asked)
    native = survey.get_cutout(sky.positions["star"], 60, convert_flux=False, **asked)
    assert not np.allclose(whole["IMAGE_R"].data, native["IMAGE_R"].data)
    difference = pictures.rgb(whole).astype(int) - pictures.rgb(native)
    assert np.abs(difference).max() <= 1


def test_bands_of_unknown_unit_are_levelled():
    noise = np.random.default_rng(4).normal(1000, 5, (2, 40, 40)).astype(np.float32)
    noise[:, 20, 20] += 5000
    hdul = _cutout({"IMAGE_W1": noise[0], "IMAGE_W2": noise[1]}, side=2.75)
    for hdu in hdul[1:]:
        hdu.header["BUNIT"] = "Vega nanomaggy"
    picture = pictures.rgb(hdul)
    assert 20 < np.median(picture) < 60
    assert picture[19, 20].min() > 200


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"bands": "u"}, "bands='u': the cutout has image in g, r"),
        ({"bands": ""}, "bands='': the cutout has"),
        ({"product": "model"}, "product='model': the cutout has PRIMARY, IMAGE_G"),
        ({"product": "invvar"}, "product='invvar' is not one of: image"),
        ({"stretch": "log"}, "stretch='log' is not one of: survey, lupton"),
        ({"brightness": 0}, "brightness=0 must be a number above 0"),
    ],
)
def test_wrong_arguments_are_refused(words, message):
    with pytest.raises(InvalidRequestError, match=message):
        pictures.rgb(_flat(g=0.1, r=0.1), **words)


def test_planes_of_other_shapes_are_refused_by_name():
    hdul = _cutout({"IMAGE_g": np.zeros((4, 4)), "IMAGE_W1": np.zeros((2, 2))})
    assert pictures.rgb(hdul).shape == (4, 4, 3)
    with pytest.raises(InvalidRequestError, match="not on one pixel grid"):
        pictures.rgb(hdul, bands=("g", "W1"))


# ---- bytes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 7, 3), (1, 1, 3), (9, 4)])
def test_png_is_read_back_by_pillow(shape):
    image = pytest.importorskip("PIL.Image")
    picture = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    with image.open(io.BytesIO(png_bytes(picture))) as read:
        assert np.array_equal(np.asarray(read), picture)


def test_without_pillow_pictures_are_png(monkeypatch):
    picture = np.zeros((4, 4, 3), np.uint8)
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    head, code = data_uri(picture).split(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(code).startswith(b"\x89PNG")
    hdul = _flat(g=0.1)
    assert pictures.contact_sheet([hdul], labels=False).ndim == 3
    with pytest.raises(OptionalDependencyError, match=r"\[plot\]'"):
        pictures.contact_sheet([hdul])


def test_thumbnails_keep_the_mean_and_fit():
    picture = np.arange(6 * 10 * 3, dtype=np.uint8).reshape(6, 10, 3)
    small = thumbnail(picture, 5)
    assert small.shape == (3, 5, 3)
    assert small[0, 0, 0] == int(picture[:2, :2, 0].mean())
    assert thumbnail(picture, 32).shape == (6, 10, 3)
    assert thumbnail(picture, 32, enlarge=True).shape == (18, 30, 3)
    assert thumbnail(picture, 4).shape == (2, 4, 3)


# ---- plots --------------------------------------------------------------------------------------


@pytest.fixture
def pyplot():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


def _labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()] if ax.get_legend() else []


def test_sources_are_marked_where_they_are_by_type(sky, survey, pyplot):
    position = sky.positions["field"]
    hdul = survey.get_cutout(position, 200, products=("image", "maskbits"))
    catalog = survey.query_tractor(position, radius=1 * u.arcmin, source="files")
    ax = pictures.plot(hdul, catalog=catalog)
    wcs = WCS(hdul["IMAGE_R"].header)
    x, y = wcs.world_to_pixel_values(catalog["ra"], catalog["dec"])
    inside = (x > -0.5) & (x < 199.5) & (y > -0.5) & (y < 199.5)
    types = np.char.strip(np.asarray(catalog["type"]).astype(str))
    drawn = 0
    for kind in np.unique(types[inside]):
        (line,) = [one for one in ax.lines if str(one.get_label()).startswith(f"{kind} (")]
        expected = x[inside & (types == kind)]
        assert line.get_label() == f"{kind} ({len(expected)})"
        assert np.allclose(np.sort(line.get_xdata()), np.sort(expected))
        drawn += len(expected)
    assert 5 < drawn < len(catalog)
    assert len({line.get_marker() for line in ax.lines}) > 2
    assert ax.images[0].get_array().shape == (200, 200, 3)
    assert ax.get_xlim() == (-0.5, 199.5)
    ax.figure.canvas.draw()


def test_columns_with_units_and_without_types(pyplot):
    hdul = _cutout({"IMAGE_r": np.ones((20, 20), np.float32)})
    at = WCS(hdul[1].header).pixel_to_world(7, 5)
    catalog = QTable({"RA": [at.ra.to(u.arcmin)], "DEC": [at.dec.to(u.arcmin)]})
    ax = pictures.plot(hdul, catalog=catalog, scale_bar=False)
    (line,) = ax.lines
    assert np.allclose([line.get_xdata()[0], line.get_ydata()[0]], [7, 5])
    assert _labels(ax) == ["source (1)"]
    with pytest.raises(InvalidRequestError, match="catalog has no column dec; it has ra"):
        pictures.plot(hdul, catalog=Table({"ra": [1.0]}))
    with pytest.raises(InvalidRequestError, match=r"'ra' has shape \(1, 2\)"):
        pictures.plot(hdul, catalog=Table({"ra": [[1.0, 2.0]], "dec": [1.0]}))


def test_masks_are_shaded_by_kind(sky, survey, pyplot):
    position = sky.positions["bright"]
    hdul = survey.get_cutout(position, 300, bands="r", products=("image", "maskbits"))
    bits = hdul["MASKBITS"].data
    ax = pictures.plot(hdul, "r")
    names = _labels(ax)
    assert names[:2] == ["bright star", "saturated"]
    shade = ax.images[1].get_array()
    assert np.array_equal(shade[..., 3] > 0, (bits & (1 << 1 | 1 << 11)) != 0)
    assert np.array_equal(np.asarray(ax.images[0].get_array()), hdul["IMAGE_R"].data)
    only = pictures.plot(hdul, "r", mask="satur_r")
    assert _labels(only) == ["satur_r"]
    assert np.array_equal(only.images[1].get_array()[..., 3] > 0, (bits >> 3 & 1) == 1)
    assert len(pictures.plot(hdul, "r", mask=False).images) == 1
    with pytest.raises(InvalidRequestError, match="maskbits='NOBIT' is not a bit of dr10"):
        pictures.plot(hdul, mask=["NOBIT"])
    with pytest.raises(InvalidRequestError, match="has no MASKBITS; ask for products"):
        pictures.plot(_flat(r=1.0), mask=["BRIGHT"])


@pytest.mark.parametrize(
    ("nx", "side", "text", "arcsec"), [(100, 0.262, "5″", 5), (400, 1, "1′", 60)]
)
def test_the_scale_bar_is_as_long_as_it_says(pyplot, nx, side, text, arcsec):
    hdul = _cutout({"IMAGE_r": np.ones((50, nx), np.float32)}, side=side)
    ax = pictures.plot(hdul)
    (line,) = ax.lines
    assert np.ptp(line.get_xdata()) * side == pytest.approx(arcsec, rel=1e-6)
    assert [item.get_text() for item in ax.texts] == [text]


def test_a_mask_of_a_release_without_bits_of_its_own_is_shaded_too(pyplot):
    mask = np.zeros((20, 20), np.int32)
    mask[4, 5] = 1 << 1
    hdul = _cutout({"IMAGE_r": np.ones((20, 20), np.float32), "MASKBITS": mask})
    hdul[0].header["RELEASE"] = "dr6"
    shade = pictures.plot(hdul).images[1].get_array()
    assert np.argwhere(shade[..., 3] > 0).tolist() == [[4, 5]]


def test_short_bars_are_round_too():
    assert bar_arcsec(2.0) == 0.5
    assert bar_arcsec(3000) == 600


def test_given_axes_are_used_and_others_refused(pyplot):
    hdul = _flat(g=0.1, r=0.1, z=0.2)
    figure = pyplot.figure()
    ax = figure.add_subplot(projection=WCS(hdul["IMAGE_R"].header))
    assert pictures.plot(hdul, ax=ax) is ax
    with pytest.raises(InvalidRequestError, match="must be a WCSAxes"):
        pictures.plot(hdul, ax=pyplot.figure().add_subplot())


def test_a_plane_without_values_can_be_shown(pyplot):
    for value in (np.nan, 0.0):
        ax = pictures.plot(_flat(r=value), "r")
        ax.figure.canvas.draw()


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(OptionalDependencyError, match=r"\[plot\]'"):
        pictures.plot(_flat(r=0.1))


# ---- notebooks ----------------------------------------------------------------------------------


def test_summary_shows_every_plane(sky, survey):
    products = ("image", "invvar", "maskbits")
    hdul = survey.get_cutout(sky.positions["star"], (40, 60), bands="gr", products=products)
    shown = pictures.summary(hdul)
    page = shown._repr_html_()
    titles = re.findall(r'<img alt="(\w+)"', page)
    assert titles == ["colour", "IMAGE_G", "INVVAR_G", "IMAGE_R", "INVVAR_R", "MASKBITS"]
    image = pytest.importorskip("PIL.Image")
    for code in re.findall(r"base64,([^\"]+)", page):
        with image.open(io.BytesIO(base64.b64decode(code))) as read:
            assert read.size in ((60, 40), (120, 80))
    text = str(shown)
    for words in ("RELEASE  dr10", "BANDS    g,r", "IMAGE_G", "40 x 60", "nanomaggy", "MASKBITS"):
        assert words in text
    assert repr(shown) == text
    with pytest.raises(
        InvalidRequestError, match="cutout.fits.*cannot be read as FITS: FileNotFoundError"
    ):
        pictures.summary("cutout.fits")


def test_summary_escapes_what_it_shows():
    hdul = _flat(r=0.1)
    hdul[0].header["LAYER"] = "<script>"
    assert "<script>" not in pictures.summary(hdul)._repr_html_()
