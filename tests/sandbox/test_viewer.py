"""What the simulated viewer draws is the scene, and its traps are those of the real one."""

import io
import json
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import urllib3
from astropy.io import fits
from astropy.wcs import WCS

from astroquery_lis.sandbox import sky as scene
from astroquery_lis.sandbox.viewer_pictures import LAYERS, NO_DATA
from astroquery_lis.survey import bricks, layers, paths
from astroquery_lis.survey.pixel_grids import TangentGrid

NATIVE = 0.262


@pytest.fixture(scope="module")
def pool():
    with urllib3.PoolManager(retries=False, timeout=60, maxsize=8) as manager:
        yield manager


@pytest.fixture
def ask(sky, pool):
    """Return an answer of the viewer."""

    def request(path, method="GET", **fields):
        return pool.request_encode_url(method, f"{sky.viewer_url}/{path}", fields=fields)

    return request


@pytest.fixture
def cutout(ask, sky):
    """Return the HDUs of a FITS cutout."""

    def request(place, path="cutout.fits", **fields):
        if isinstance(place, str):
            place = sky.positions[place].ra.deg, sky.positions[place].dec.deg
        answer = ask(path, ra=place[0], dec=place[1], **fields)
        assert answer.status == 200
        with fits.open(io.BytesIO(answer.data)) as hdul:
            # Read before the file is closed.
            return [(hdu.data, hdu.header) for hdu in hdul]

    return request


def source(sky, name):
    return sky.truth[sky.truth["name"] == name][0]


def centroid(image, x, y, radius=6):
    x0, y0 = round(float(x)), round(float(y))
    box = image[y0 - radius : y0 + radius + 1, x0 - radius : x0 + radius + 1]
    dy, dx = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return x0 + (box * dx).sum() / box.sum(), y0 + (box * dy).sum() / box.sum()


def test_header(cutout):
    (_, header), (_, second) = cutout("star", layer="ls-dr10", size=65, bands="gz", invvar="")
    cards = {
        "SURVEY": "LegacySurvey",
        "VERSION": "DR10",
        "IMAGETYP": "IMAGE",
        "BANDS": "gz",
        "BAND0": "g",
        "BAND1": "z",
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CRVAL1": 45.1312,
        "CRVAL2": 0.0047,
        "CRPIX1": 33.0,
        "CRPIX2": 33.0,
        "CD1_1": -NATIVE / 3600,
        "CD1_2": 0.0,
        "CD2_1": 0.0,
        "CD2_2": NATIVE / 3600,
        "IMAGEW": 65,
        "IMAGEH": 65,
    }
    structural = {"SIMPLE", "XTENSION", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "NAXIS3"}
    structural |= {"EXTEND", "PCOUNT", "GCOUNT"}
    for given, kind in ((header, "IMAGE"), (second, "INVVAR")):
        found = {name: given[name] for name in given if name not in structural}
        assert found == pytest.approx(cards | {"IMAGETYP": kind})


def test_native_pixels_where_the_grids_agree(cutout, sky):
    # The middle of a brick is between pixels, as that of an even cutout is.
    (drawn, _), *_ = cutout((45.125, 0.0), layer="ls-dr10-south", size=64, bands="r")
    path = sky.root / paths.file_path("image", "dr10", "south", brick="0451p000", band="r")
    with fits.open(path) as hdul:
        pixels = hdul[1].section[1800 - 32 : 1800 + 32, 1800 - 32 : 1800 + 32]
    np.testing.assert_allclose(drawn, pixels, atol=1e-5)


def test_subimage_is_the_file(cutout, sky):
    place = source(sky, "point")["ra"] + 0.0001, source(sky, "point")["dec"]
    hdus = cutout(place, layer="ls-dr10", size=31, bands="r", subimage="")
    assert [header["IMAGETYP"] for _, header in hdus] == ["image", "image", "invvar"]
    for data, header in hdus[1:]:
        path = paths.file_path(header["IMAGETYP"], "dr10", "south", brick=header["BRICK"], band="r")
        x0, y0 = header["BRICK_X0"], header["BRICK_Y0"]
        with fits.open(sky.root / path) as hdul:
            expected = hdul[1].section[y0 : y0 + 31, x0 : x0 + 31]
            whole = WCS(hdul[1].header)
        np.testing.assert_array_equal(data, expected)
        assert header["BAND"] == "r"
        assert isinstance(header["IMAGEW"], float)
        np.testing.assert_allclose(
            WCS(header).wcs_pix2world(10, 20, 0), whole.wcs_pix2world(x0 + 10, y0 + 20, 0)
        )
        x, y = WCS(header).wcs_world2pix(*place, 0)
        assert max(abs(x - 15), abs(y - 15)) <= 0.501


def test_subimage_is_clipped_at_the_edge_of_a_brick(cutout):
    hdus = cutout((44.995, 0.1), layer="ls-dr10", size=100, bands="g", subimage="")
    shape = hdus[1][0].shape
    assert shape[0] == 100
    assert 50 < shape[1] < 100


@pytest.mark.parametrize("scale", [0.131, 0.262, 0.5, 0.6, 1.1])
@pytest.mark.parametrize("name", ["point", "star"])
def test_flux_is_per_native_pixel_and_positions_are_right(cutout, sky, name, scale):
    star = source(sky, name)
    size = round(17 / scale) // 2 * 2 + 1
    place = star["ra"] + 0.0003, star["dec"] - 0.0002
    ((image, header),) = cutout(place, layer="ls-dr10", size=size, bands="r", pixscale=scale)
    y, x = np.mgrid[:size, :size]
    at = WCS(header).wcs_world2pix(star["ra"], star["dec"], 0)
    inside = np.hypot(x - at[0], y - at[1]) * scale < 7
    flux = image[inside].sum() * (scale / NATIVE) ** 2
    # Seven arcsec hold all but the wings that binning smoothed out further.
    assert flux == pytest.approx(star["flux_r"], rel=0.02)
    found = centroid(image, *at, radius=max(round(1.5 / scale), 2))
    assert np.hypot(*(np.array(found) - at)) * scale < 0.1 * NATIVE


@pytest.mark.parametrize("band", ["g", "z"])
@pytest.mark.parametrize(
    ("place", "layer"),
    [("field", "ls-dr10-model"), ("ra0", "ls-dr9-model"), ("split", "ls-dr9-north-model")],
)
def test_model_is_the_scene_on_the_grid_of_the_header(cutout, sky, place, layer, band):
    at = sky.positions[place]
    ra, dec = at.ra.deg + 3e-5, at.dec.deg + 0.0023
    ((model, header),) = cutout((ra, dec), layer=layer, size=80, bands=band)
    middle = header["CRPIX1"] - 1
    grid = TangentGrid(header["CRVAL1"], header["CRVAL2"], middle, middle, NATIVE / 3600)
    truth = scene.render(sky.truth, band, grid, shape=(80, 80))
    y, x = np.indices(truth.shape)
    shown = (grid.to_sky(x, y)[1] >= 32.375) | ("north" not in layer)
    assert truth[shown].max() > 0.3
    np.testing.assert_allclose(model, np.where(shown, truth, 0), atol=0.01 * truth.max())


def test_rotated_cutout_has_the_right_wcs(cutout, sky):
    star = source(sky, "star")
    place = star["ra"] + 0.002, star["dec"] + 0.001
    for angle in (0, 30, -100):
        ((image, header),) = cutout(place, layer="ls-dr10-south", size=90, bands="r", rotate=angle)
        wcs = WCS(header)
        x, y = wcs.wcs_world2pix(star["ra"], star["dec"], 0)
        assert np.hypot(*(np.array(centroid(image, x, y)) - (x, y))) < 0.1
        assert np.linalg.det(wcs.wcs.cd) < 0
        if angle == 30:
            # Recorded from the real one.
            assert (header["CD1_2"], header["CD2_1"]) == pytest.approx((-3.639e-5,) * 2, abs=1e-8)
    # Straight down and to the right without a rotation.
    assert abs(header["CD1_1"]) < abs(header["CD1_2"])


def test_invvar_is_doubled_where_bricks_overlap(cutout):
    place, fields = (45.25, 0.0), {"layer": "ls-dr10", "size": 40, "bands": "r"}
    (image, _), (invvar, _) = cutout(place, **fields, invvar="")
    _, (first, _), (first_invvar, _), (second, _), (second_invvar, _) = cutout(
        place, **fields, subimage=""
    )
    assert invvar.mean() == pytest.approx(first_invvar.mean() + second_invvar.mean(), rel=0.05)
    both = (first.std() + second.std()) / 2
    assert image.max() < 1.2 * max(first.max(), second.max())
    assert image.std() == pytest.approx(both, rel=0.3)


def test_maskbits_come_from_the_last_brick(cutout):
    _, (mask, header) = cutout((45.25, 0.0), layer="ls-dr10", size=40, bands="r", maskbits="")
    ra = WCS(header).wcs_pix2world(np.arange(40), np.full(40, 20), 0)[0]
    # 0453p000 does not own what is west of its edge.
    np.testing.assert_array_equal(mask[20] & 1, ra < 45.25)


def test_invvar_and_maskbits_are_dropped_above_twice_the_native_scale(cutout):
    fields = {"layer": "ls-dr10", "size": 20, "bands": "r", "invvar": "False", "maskbits": ""}
    assert len(cutout("star", pixscale=0.524, **fields)) == 3
    assert len(cutout("star", pixscale=0.525, **fields)) == 1


def test_across_the_split(cutout):
    fields = {"size": 128, "bands": "griz", "invvar": "", "maskbits": ""}
    (image, header), (invvar, _), (mask, _) = cutout("split", layer="ls-dr10", **fields)
    assert header["BANDS"] == "griz"
    assert mask.dtype == np.dtype(">f4")
    dec = WCS(header, naxis=2).wcs_pix2world(np.full(128, 64), np.arange(128), 0)[1]
    north = dec >= 32.375
    assert 0 < north.sum() < 128
    for planes in (image, invvar):
        assert (planes[2, north] == 0).all()
        assert (planes[2, ~north] != 0).all()
    for part, layer in ((north, "ls-dr9-north"), (~north, "ls-dr10-south")):
        (alone, _), *_ = cutout("split", layer=layer, size=128, bands="grz")
        np.testing.assert_array_equal(image[[0, 1, 3]][:, part], alone[:, part])
    (_, _), (_, _), (mask, _) = cutout("star", layer="ls-dr10", **fields)
    assert mask.dtype == np.dtype(">i4")


def test_model_is_the_scene_and_not_averaged(cutout, sky):
    # Two bricks: each shows what it owns.
    place, size = (45.25, 0.0), 64
    ((model, header),) = cutout(place, layer="ls-dr10-model", size=size, bands="r")
    brick = bricks.brick_grid(bricks.parse_brick_name("0451p000"))
    x0, y0 = (round(float(value)) - 40 for value in brick.to_pixel(*place))
    truth = scene.render(sky.truth, "r", brick, x0=x0, y0=y0, shape=(80, 80))
    assert model.sum() == pytest.approx(truth[8:-8, 8:-8].sum(), rel=0.02)
    peak = np.unravel_index(model.argmax(), model.shape)[::-1]
    ra, dec = WCS(header).wcs_pix2world(*peak, 0)
    x, y = brick.to_pixel(ra, dec)
    brightest = np.unravel_index(truth.argmax(), truth.shape)
    assert np.hypot(x - x0 - brightest[1], y - y0 - brightest[0]) < 1


def test_resid_has_no_invvar(cutout, sky):
    star = source(sky, "star")
    place, fields = (star["ra"], star["dec"]), {"size": 50, "bands": "r"}
    (resid, _), (invvar, _), (mask, _) = cutout(
        place, layer="ls-dr10-resid", invvar="", maskbits="", **fields
    )
    ((image, _),) = cutout(place, layer="ls-dr10", **fields)
    ((model, _),) = cutout(place, layer="ls-dr10-model", **fields)
    np.testing.assert_allclose(resid, image - model, atol=1e-3)
    np.testing.assert_array_equal(invvar, resid)
    assert mask.dtype == np.dtype(">i4")
    (_, (joined, _), _) = cutout(place, layer="ls-dr10-resid", subimage="", **fields)
    (_, (apart, _), (same, _)) = cutout(place, layer="ls-dr10-south-resid", subimage="", **fields)
    assert joined.max() > 20 * apart.max()
    np.testing.assert_array_equal(apart, same)


def test_sizes_are_cut(cutout):
    ((image, header),) = cutout("star", layer="ls-dr10", width=5000, height=2, bands="r")
    assert image.shape == (2, 3000)
    assert header["CRPIX1"] == 1500.5


@pytest.mark.parametrize(
    "fields",
    [
        {"size": "64.0"},
        {"size": -5},
        {"height": ""},
        {"pixscale": -1},
        {"pixscale": "inf"},
        {"zoom": "14.5"},
        {"zoom": -5000},
        {"rotate": "abc"},
        {"bands": ""},
        {"ra": "nan"},
    ],
)
def test_what_breaks_the_viewer(ask, fields):
    good = {"ra": 45.2, "dec": 0.1, "layer": "ls-dr10-south", "size": 16}
    assert ask("cutout.fits", **good).status == 200
    assert ask("cutout.fits", **(good | fields)).status == 500


@pytest.mark.parametrize("fields", [{"ra": 45.2}, {"dec": 0.1}, {"ra": "", "dec": 0.1}])
def test_position_is_needed(ask, fields):
    answer = ask("cutout.fits", layer="ls-dr10", **fields)
    assert (answer.status, answer.data) == (400, b"Need ra,dec keywords")
    # What is no layer is found out first.
    assert ask("cutout.fits", layer="nosuch", **fields).data == b"no such layer"


def test_methods(ask):
    fields = {"ra": 45.2, "dec": 0.1, "size": 16}
    assert ask("cutout.fits", method="POST", **fields).status == 403
    head = ask("cutout.fits", method="HEAD", **fields)
    whole = ask("cutout.fits", **fields)
    assert (head.status, head.data) == (200, b"")
    assert head.headers["Content-Length"] == str(len(whole.data))
    assert {"Expires", "Last-Modified"} <= set(whole.headers)
    assert not {"ETag", "Accept-Ranges", "Cache-Control"} & set(whole.headers)


def test_answers_to_the_same_request_are_the_same(ask):
    fields = {"ra": 45.16, "dec": -0.068, "layer": "ls-dr10", "size": 48, "invvar": ""}
    assert ask("cutout.fits", **fields).data == ask("cutout.fits", **fields).data


def test_many_clients_at_once(ask):
    fields = [
        {"ra": 45.10 + 0.01 * number, "dec": 0.02, "layer": "ls-dr10", "size": 50, "bands": "gz"}
        for number in range(12)
    ]
    alone = [ask("cutout.fits", **each).data for each in fields]
    with ThreadPoolExecutor(8) as executor:
        together = executor.map(lambda each: ask("cutout.fits", **each).data, 2 * fields)
        assert list(together) == 2 * alone


def test_every_public_layer_is_there(ask, cutout):
    assert set(layers.LAYERS) <= set(LAYERS) | NO_DATA
    assert not set(LAYERS) & NO_DATA
    for name, layer in layers.LAYERS.items():
        place = (180.15, 32.5) if layer.region == "north" else (45.2, 0.1)
        if name in NO_DATA:
            # The exceptions: layers of other surveys, whose data the sandbox lacks.
            assert ask("cutout.fits", ra=45.2, dec=0.1, layer=name, size=4).status == 500
            continue
        ((image, header),) = cutout(place, layer=name, size=4)
        assert header["BANDS"] == "".join(layer.default_bands)
        assert image.shape == (len(layer.bands), 4, 4)
        # There is no source at that place, so that a model has next to nothing there.
        assert (np.abs(image).max() < 1e-3) == (layer.product == "model")


def test_exceptions_are_the_layers_of_other_surveys():
    others = {name for name, layer in layers.LAYERS.items() if layer.survey != "Legacy Surveys"}
    assert others == NO_DATA - {"ls-dr10-segmentation"}


def test_old_names(ask):
    fields = {"ra": 45.2, "dec": 0.1, "size": 8}
    assert (
        ask("cutout.fits", layer="dr8-south", **fields).data
        == ask("cutout.fits", layer="ls-dr8-south", **fields).data
    )
    for name in ("hsc2", "sdssco", "vlass"):
        assert ask("cutout.fits", layer=name, **fields).status == 500
    for name in ("LS-DR10", "ls-dr11-griz", "dr9", "dr10-deep"):
        assert ask("cutout.fits", layer=name, **fields).data == b"no such layer"


def test_pictures_are_north_up_and_east_left(ask, sky):
    images = pytest.importorskip("PIL.Image")
    star = source(sky, "star")
    # The star is to the north and to the west of the middle.
    fields = {"ra": star["ra"] + 0.001, "dec": star["dec"] - 0.001, "size": 64}
    answer = ask("cutout.jpg", layer="ls-dr9", **fields)
    with images.open(io.BytesIO(answer.data)) as picture:
        brightness = np.asarray(picture).sum(axis=2)
    rows, columns = np.nonzero(brightness > 700)
    shift = 0.001 * 3600 / NATIVE
    assert columns.mean() == pytest.approx(31.5 + shift, abs=1)
    assert rows.mean() == pytest.approx(31.5 - shift, abs=1)


def test_pictures_need_pillow(ask, monkeypatch):
    # As on a machine without it: the import fails.
    monkeypatch.setitem(sys.modules, "PIL", None)
    answer = ask("cutout.jpg", ra=45.2, dec=0.1, size=8)
    assert answer.status == 500
    assert b"[plot]'" in answer.data


def test_pictures_of_nothing_are_grey(ask):
    images = pytest.importorskip("PIL.Image")
    for layer in ("ls-dr10", "ls-dr9", "ls-dr11-south"):
        answer = ask("cutout.jpg", ra=95, dec=-30, layer=layer, size=20)
        assert answer.status == 200
        with images.open(io.BytesIO(answer.data)) as picture:
            assert np.unique(np.asarray(picture)).tolist() == [32]


def test_bricks_are_cut_at_400(ask):
    answer = ask("bricks/", ralo=10, rahi=30, declo=0, dechi=10)
    assert len(json.loads(answer.data)["polys"]) == 400
    names = [
        [poly["name"] for poly in json.loads(ask("bricks/", **box).data)["polys"]]
        for box in (
            {"ralo": 359.8, "rahi": 0.2, "declo": -0.1, "dechi": 0.1, "layer": "ls-dr10"},
            {"ralo": 0.0, "rahi": 0.2, "declo": -0.1, "dechi": 0.1, "layer": "ls-dr10"},
            {"ralo": 180.1, "rahi": 180.2, "declo": 32.4, "dechi": 32.5, "layer": "ls-dr10"},
        )
    ]
    # The joined layer has the bricks of both its halves.
    assert names == [["0001p000", "3598p000"], ["0001p000"], ["1801p325", "1801p325"]]
    assert ask("bricks/", ralo=10, rahi=30, declo=0).status == 500


def test_the_north_is_painted_in_the_colours_of_three_bands(ask):
    pytest.importorskip("PIL.Image")
    north = {"ra": 180.15, "dec": 32.5, "size": 64}
    pictures = [ask("cutout.jpg", layer=layer, **north).data for layer in ("ls-dr9", "ls-dr10")]
    assert (
        pictures[0] == pictures[1] == ask("cutout.jpg", layer="ls-dr10", bands="grz", **north).data
    )
    south = {"ra": 180.15, "dec": 32.36, "size": 16}
    pictures = [ask("cutout.jpg", layer=layer, **south).data for layer in ("ls-dr9", "ls-dr10")]
    assert pictures[0] != pictures[1]
