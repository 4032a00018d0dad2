"""The viewer through the client: right data or a typed error for each of its traps."""

import io
from urllib.request import urlopen

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

from astroquery_lis import conf
from astroquery_lis.exceptions import (
    CoverageWarning,
    FailoverWarning,
    InvalidRequestError,
    MissingDataError,
    NoCoverageError,
    ServiceDownError,
    ServiceTimeoutError,
    TruncatedError,
    UnexpectedContentError,
)

from ..io.raw_server import OK, RawServer

NATIVE = {"source": "viewer"}


pytestmark = pytest.mark.usefixtures("viewer")


def _viewer_requests(sky):
    return [record.path for record in sky.requests if record.path.startswith("/viewer")]


@pytest.mark.parametrize("name", ["star", "corner", "ra0", "split"])
def test_native_pixels_are_those_of_the_bricks(sky, survey, name):
    asked = {"bands": "gr", "products": ("image", "invvar")}
    bricks = survey.get_cutout(sky.positions[name], 220, **asked)
    viewer = survey.get_cutout(sky.positions[name], 220, source="viewer", **asked)
    assert [hdu.name for hdu in viewer] == [hdu.name for hdu in bricks]
    assert viewer[0].header["SOURCE"] == "viewer"
    for one, other in zip(bricks[1:], viewer[1:], strict=True):
        assert np.array_equal(one.data, other.data, equal_nan=True), one.name
        assert one.header["CRPIX1"] == other.header["CRPIX1"]


def test_native_model_and_what_the_viewer_lacks(sky, survey):
    position = sky.positions["star"]
    bricks = survey.get_cutout(position, 40, bands="r", products="model")
    viewer = survey.get_cutout(position, 40, bands="r", products="model", source="viewer")
    assert np.array_equal(bricks["MODEL_R"].data, viewer["MODEL_R"].data)
    sky.requests.clear()
    with pytest.raises(InvalidRequestError, match="source='viewer' cannot give chi2"):
        survey.get_cutout(position, 40, bands="r", products="chi2", source="viewer")
    assert len(sky.requests) == 0


def test_native_in_the_north_has_no_i(sky, survey):
    north = SkyCoord(180.15, 32.5, unit="deg")
    with pytest.warns(CoverageWarning, match="No i here"):
        hdul = survey.get_cutout(north, 20, source="viewer")
    assert [hdu.name for hdu in hdul[1:]] == ["IMAGE_G", "IMAGE_R", "IMAGE_Z"]
    with pytest.raises(MissingDataError, match="No image i"):
        survey.get_cutout(north, 20, bands="i", source="viewer")


@pytest.mark.parametrize("n_bytes", [2880, 3000, -2880, None])
def test_an_answer_that_was_cut_off_is_neither_used_nor_kept(sky, survey, n_bytes):
    star, asked = sky.positions["star"], {"bands": "gr", "source": "viewer"}
    right = survey.get_cutout(star, 32, cache=False, **asked)
    with urlopen(survey.get_image_list(star, 32, **asked)[0]) as response:
        whole = response.read()
    with (
        RawServer(OK + b"Connection: close\r\n\r\n" + whole[:n_bytes], at_once=1 << 20) as server,
        conf.set_temp("viewer_url", server.url),
        pytest.raises(TruncatedError, match="may have been cut off"),
    ):
        survey.get_cutout(star, 32, **asked)
    assert not list(survey.cache_location.rglob("*.fits"))
    # One that announces the wrong length is short of bands or bytes, and not kept either.
    body = whole[:n_bytes]
    with (
        RawServer(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body, at_once=1 << 20) as server,
        conf.set_temp("viewer_url", server.url),
    ):
        if n_bytes is None:
            cutout = survey.get_cutout(star, 32, **asked)
            assert np.array_equal(cutout["IMAGE_R"].data, right["IMAGE_R"].data)
        else:
            with pytest.raises((TruncatedError, NoCoverageError, MissingDataError)):
                survey.get_cutout(star, 32, **asked)
    kept = list(survey.cache_location.rglob("*.fits"))
    assert len(kept) == (n_bytes is None)
    for path in kept:
        path.write_bytes(path.read_bytes()[:-2880])
        table = survey.verify_cache(repair=True)
        assert list(table["Status"]) == ["REMOVED"]
        assert not path.exists()


def test_an_answer_of_bands_that_nobody_tells_is_refused(sky, survey):
    star, stream = sky.positions["star"], io.BytesIO()
    image = fits.PrimaryHDU(np.ones((2, 16, 16), np.float32))
    image.header["IMAGETYP"] = "IMAGE"
    image.writeto(stream)
    body = stream.getvalue()
    with (
        RawServer(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body, at_once=1 << 20) as server,
        conf.set_temp("viewer_url", server.url),
        pytest.raises(UnexpectedContentError, match="does not tell its bands"),
    ):
        survey.get_cutout(star, 16, layer="ibis", allow_unknown_layer=True, source="viewer")
    assert not list(survey.cache_location.rglob("*.fits"))


WAYS = {
    "native": lambda s, star: s.get_cutout(star, 32, bands="r", source="viewer"),
    "rendered": lambda s, star: s.get_cutout(star, 32, bands="r", pixel_scale="1 arcsec",
                                             source="viewer"),
    "psf": lambda s, star: s.get_psf(star, bands="r", source="viewer"),
    "catalogue": lambda s, star: s.query_tractor(star, radius="9 arcsec", source="viewer"),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("other", ["0453p000/legacysurvey-0453p000-image-r.fits.fz", None])
def test_a_sound_file_that_was_not_asked_for_is_neither_used_nor_kept(sky, survey, way, other):
    if other is None:
        other = io.BytesIO()
        fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.ones((8, 8)))]).writeto(other)
        fault = {"kind": "body", "content": other.getvalue()}
    else:
        fault = {"kind": "swap", "path": f"/legacysurvey/dr10/south/coadd/045/{other}"}
    star = sky.positions["star"]
    sky.faults.add(match="/viewer/*", times=1, **fault)
    with pytest.raises(UnexpectedContentError, match=r"sent"):
        WAYS[way](survey, star)
    assert len(WAYS[way](survey, star)) > 0
    assert len(sky.requests) == 2


@pytest.mark.parametrize("layer", ["sdss", "decaps2", "hsc-dr3"])
def test_a_layer_of_another_survey_has_nothing_off_its_footprint(sky, survey, layer):
    with pytest.raises(NoCoverageError, match=f"Layer {layer} has no data at"):
        survey.get_cutout(sky.positions["star"], 20, layer=layer)
    # What is on every place of the sky, and fails, is no lack of data.
    with pytest.raises(ServiceDownError):
        survey.get_cutout(sky.positions["star"], 20, layer="galex")


def test_layers_of_unwise_take_the_usual_names_of_bands(sky, survey):
    options = {"layer": "unwise-neo7", "get_query_payload": True}
    star = sky.positions["star"]
    numbered = survey.get_cutout(star, 20, bands="12", **options)
    assert numbered["params"]["bands"] == "12"
    for bands in ("W1,W2", ["w1", "W2"], "w1w2"):
        assert survey.get_cutout(star, 20, bands=bands, **options) == numbered
    with pytest.raises(InvalidRequestError, match="bands of layer vlass1.2 are: 1"):
        survey.get_cutout(star, 20, bands="W1", layer="vlass1.2")


def _flux(hdu, position, radius_arcsec=5.0):
    scale = hdu.header["CD2_2"] * 3600
    x0, y0 = WCS(hdu.header).world_to_pixel(position)
    y, x = np.indices(hdu.shape)
    distance = np.hypot(y - y0, x - x0) * scale
    inside = distance < radius_arcsec
    weight = np.where(distance < 3, hdu.data, 0)
    offset = np.hypot(
        (weight * (x - x0)).sum() / weight.sum(), (weight * (y - y0)).sum() / weight.sum()
    )
    return hdu.data[inside].sum(), offset * scale


@pytest.mark.parametrize("scale", [0.262, 0.131, 0.4, 0.524])
def test_flux_and_place_at_any_scale(sky, survey, scale):
    position = sky.positions["star"]
    truth = survey.get_cutout(position, 64, bands="r")["IMAGE_R"]
    hdul = survey.get_cutout(
        position,
        20 * u.arcsec,
        bands="r",
        layer="ls-dr10-grz",
        source="viewer",
        pixel_scale=scale * u.arcsec,
    )
    assert hdul["IMAGE_R"].shape == (round(20 / scale),) * 2
    assert hdul["IMAGE_R"].header["FLUXPIX"] == pytest.approx(scale)
    expected, _ = _flux(truth, position)
    found, offset = _flux(hdul["IMAGE_R"], position)
    assert found == pytest.approx(expected, rel=0.01)
    assert offset < 0.1 * 0.262


def test_without_conversion_the_header_says_what_flux_is_per(sky, survey):
    asked = {"bands": "r", "pixel_scale": 0.5 * u.arcsec, "products": ("image", "invvar")}
    raw = survey.get_cutout(sky.positions["star"], 40, convert_flux=False, **asked)
    asked["source"] = "viewer"
    converted = survey.get_cutout(sky.positions["star"], 40, **asked)
    assert converted[0].header["SOURCE"] == "viewer"
    factor = (0.5 / 0.262) ** 2
    assert raw["IMAGE_R"].header["FLUXPIX"] == pytest.approx(0.262)
    assert np.allclose(converted["IMAGE_R"].data, raw["IMAGE_R"].data * factor, rtol=1e-5)
    assert np.allclose(converted["INVVAR_R"].data, raw["INVVAR_R"].data / factor**2, rtol=1e-5)
    assert "per native pixel" in str(raw[0].header["COMMENT"])


def test_invvar_is_not_doubled_where_bricks_overlap(sky, survey):
    position = sky.positions["corner"]
    native = survey.get_cutout(position, 200, bands="g", products=("invvar", "nexp"))
    hdul = survey.get_cutout(
        position, 200, layer="ls-dr10", source="viewer", bands="g", products=("image", "invvar")
    )
    x, y = (v.ravel() for v in np.indices((200, 200))[::-1])
    sky_position = WCS(hdul["INVVAR_G"].header).pixel_to_world(x, y)
    there = WCS(native["INVVAR_G"].header).world_to_array_index(sky_position)
    there = [np.asarray(index, int) for index in there]
    inside = (np.array(there) >= 3).all(axis=0) & (np.array(there) < 197).all(axis=0)
    expected = native["INVVAR_G"].data[there[0][inside], there[1][inside]]
    found = hdul["INVVAR_G"].data.ravel()[inside]
    ratio = found / expected
    assert np.median(ratio) == pytest.approx(1, abs=0.02)
    assert np.percentile(ratio, 99.5) < 1.25
    assert (hdul["INVVAR_G"].data >= 0).all()


def test_masks_are_integers_without_the_flipping_bit(sky, survey):
    for name in ("corner", "split"):
        hdul = survey.get_cutout(
            sky.positions[name],
            64,
            layer="ls-dr10",
            source="viewer",
            bands="g",
            products=("image", "maskbits"),
        )
        assert hdul["MASKBITS"].data.dtype == np.int32
        assert not (hdul["MASKBITS"].data & 1).any()
        assert hdul["MASKBITS"].shape == (64, 64)


def test_across_the_split_i_is_nan_in_the_north(sky, survey):
    with pytest.warns(CoverageWarning, match="i without values in"):
        hdul = survey.get_cutout(
            sky.positions["split"], 64, layer="ls-dr10", source="viewer", bands="gi"
        )
    y, x = np.indices((64, 64))
    _, dec = WCS(hdul["IMAGE_I"].header).pixel_to_world_values(x, y)
    assert np.array_equal(np.isnan(hdul["IMAGE_I"].data), dec >= 32.375)
    assert np.isfinite(hdul["IMAGE_G"].data).all()
    with pytest.warns(CoverageWarning, match="i without values in"):
        masks = survey.get_cutout(
            sky.positions["split"],
            64,
            layer="ls-dr10",
            source="viewer",
            bands="gi",
            products="maskbits",
        )
    # The mask is of all bands, and g was observed everywhere.
    assert masks["MASKBITS"].header["OBSFRAC"] == 1
    north = SkyCoord(180.15, 32.5, unit="deg")
    with pytest.raises(MissingDataError, match="No image i in layer ls-dr10"):
        survey.get_cutout(north, 20, layer="ls-dr10", source="viewer", bands="gi")
    with pytest.warns(CoverageWarning, match="No i here: the north of dr10"):
        default = survey.get_cutout(north, 20, layer="ls-dr10", source="viewer")
    assert [hdu.name for hdu in default[1:]] == ["IMAGE_G", "IMAGE_R", "IMAGE_Z"]


def test_a_layer_of_a_release_comes_from_the_bricks_if_it_can(sky, survey):
    hdul = survey.get_cutout(sky.positions["star"], 32, layer="ls-dr10-model-grz")
    assert hdul[0].header["SOURCE"] == "bricks"
    assert [hdu.name for hdu in hdul[1:]] == ["MODEL_G", "MODEL_R", "MODEL_Z"]
    assert _viewer_requests(sky) == []
    residual = survey.get_cutout(sky.positions["star"], 32, layer="ls-dr10-resid", bands="r")
    assert residual[0].header["SOURCE"] == "viewer"
    assert residual[1].name == "RESID_R"


def test_large_requests_are_tiled_and_joined(sky, survey):
    position = sky.positions["star"]
    asked = {"layer": "ls-dr10", "source": "viewer", "bands": "r", "pixel_scale": 0.1 * u.arcsec}
    whole = survey.get_cutout(position, (40, 2900), **asked)["IMAGE_R"]
    tiled = survey.get_cutout(position, (40, 3100), **asked)["IMAGE_R"]
    paths = [path for path in _viewer_requests(sky) if "cutout.fits" in path]
    assert len(paths) == 3
    assert tiled.shape == (40, 3100)
    middle = tiled.data[:, 100:3000]
    assert np.abs(middle - whole.data).max() < 0.02 * np.abs(whole.data).max()
    assert WCS(tiled.header).pixel_to_world(1549.5, 19.5).separation(position).arcsec < 1e-6


TRAPS = {
    "resid invvar": ({"layer": "ls-dr10-resid", "products": ("image", "invvar")}, "are wrong"),
    "invvar too coarse": (
        {"products": ("image", "invvar"), "pixel_scale": 1 * u.arcsec, "source": "viewer"},
        "drops it beyond 0.524",
    ),
    "no invvar": ({"layer": "sdss", "products": ("image", "invvar")}, "layer sdss has none"),
    "pictures only": ({"layer": "sfd"}, "pictures only"),
    "poison": ({"layer": "ls-dr10-grz-model"}, "spoil"),
    "typo": ({"layer": "ls-drlO"}, "Did you mean"),
    "bands": ({"layer": "ls-dr11", "bands": "i"}, "bands of layer ls-dr11 are: g, r, z"),
    "release too": ({"layer": "ls-dr10", "release": "dr9"}, "release='dr9' cannot be given"),
    "region too": ({"layer": "ls-dr10", "region": "south"}, "region='south' cannot be given"),
    "product": ({"layer": "ls-dr10", "products": "chi2"}, "a layer has image, invvar, maskbits"),
    "psf of a layer": ({"layer": "sdss", "products": ("image", "psf")}, "psf goes with a release"),
    "bricks of sdss": ({"layer": "sdss", "source": "bricks"}, "no brick files for layer sdss"),
    "bricks unconverted": (
        {"source": "bricks", "pixel_scale": 1 * u.arcsec, "convert_flux": False},
        "flux per pixel of the result",
    ),
    "viewer rotated": ({"source": "viewer", "rotation": 30 * u.deg}, "neither rotation nor"),
    "scale of 0": ({"pixel_scale": 0 * u.arcsec}, "positive angle"),
    "bare scale": ({"pixel_scale": 0.5}, "positive angle"),
    "convert unknown": ({"layer": "galex", "convert_flux": True}, "not known well enough"),
    "chi2 scaled": (
        {"products": "chi2", "pixel_scale": 1 * u.arcsec, "source": "viewer"},
        "cannot give chi2",
    ),
    "sources": ({"source": ("auto", "bricks")}, "source="),
}


@pytest.mark.parametrize("name", TRAPS)
def test_what_would_be_answered_wrongly_is_refused_before_any_request(sky, survey, name):
    arguments, match = TRAPS[name]
    with pytest.raises(InvalidRequestError, match=match):
        survey.get_cutout(sky.positions["star"], 32, **arguments)
    assert len(sky.requests) == 0


def test_no_coverage_is_told_from_failure(sky, survey):
    asked = {"layer": "ls-dr10", "source": "viewer", "bands": "g"}
    with pytest.raises(NoCoverageError, match="Layer ls-dr10 has no data at RA 95"):
        survey.get_cutout(sky.positions["off"], 32, **asked)
    sky.faults.add("status", match="/viewer/cutout.fits*", times=None, code=500)
    with pytest.raises(ServiceDownError, match="HTTP 500"):
        survey.get_cutout(sky.positions["star"], 32, **asked)
    sent = [path for path in _viewer_requests(sky) if "cutout.fits" in path]
    assert len(sent) == 2  # a 500 is not repeated
    with pytest.raises(NoCoverageError):
        survey.get_cutout(sky.positions["off"], 32, source="viewer", bands="g")


@pytest.mark.parametrize(
    ("kind", "options", "error"),
    [
        ("html", {}, UnexpectedContentError),
        ("cut", {}, TruncatedError),
        ("status", {"code": 503}, ServiceDownError),
    ],
)
@pytest.mark.parametrize("route", ["native", "rendered"])
def test_faults_of_the_viewer_are_typed(sky, survey, kind, options, error, route):
    asked = {"bands": "g", "source": "viewer"} | ({} if route == "native" else {"layer": "ls-dr10"})
    fault = sky.faults.add(kind, match="/viewer/cutout.fits*", times=None, **options)
    with fault, pytest.raises(error):
        survey.get_cutout(sky.positions["star"], 32, **asked)
    again = survey.get_cutout(sky.positions["star"], 32, **asked)
    assert np.isfinite(again["IMAGE_G"].data).all()


def test_answers_are_kept_and_reused(sky, survey):
    asked = {"layer": "ls-dr10", "source": "viewer", "bands": "g"}
    first = survey.get_cutout(sky.positions["star"], 32, **asked)
    sky.requests.clear()
    second = survey.get_cutout(sky.positions["star"], 32, **asked)
    assert len(sky.requests) == 0
    assert np.array_equal(first[1].data, second[1].data)
    survey.get_cutout(sky.positions["star"], 32, cache=False, **asked)
    assert len(sky.requests) == 1


def test_mirror_down_the_viewer_answers(sky, survey):
    expected = survey.get_cutout(sky.positions["star"], 32, bands="g", mirror=sky.root)
    sky.faults.add("status", match="/legacysurvey/*", times=None, code=503)
    with pytest.warns(FailoverWarning, match="Source bricks failed .* viewer answered"):
        hdul = survey.get_cutout(sky.positions["star"], 32, bands="g")
    assert hdul[0].header["SOURCE"] == "viewer"
    assert hdul[0].header["FAILED1"] == "bricks"
    assert np.array_equal(hdul["IMAGE_G"].data, expected["IMAGE_G"].data)


@pytest.mark.usefixtures("no_retries")
def test_viewer_down_or_slow_the_bricks_answer(sky, survey):
    asked = {"bands": "g", "source": ("viewer", "bricks")}
    sky.faults.add("status", match="/viewer/*", times=1, code=500)
    sky.faults.add("slow", match="/viewer/*", times=None, seconds=60)
    survey.timeout = 2
    for _ in range(2):
        with pytest.warns(FailoverWarning, match="Source viewer failed .* bricks answered"):
            hdul = survey.get_cutout(sky.positions["star"], 32, **asked)
        assert hdul[0].header["SOURCE"] == "bricks"
        assert hdul[0].header["FAILED1"] == "viewer"
    with pytest.raises(ServiceTimeoutError):
        survey.get_cutout(sky.positions["star"], 32, bands="g", source="viewer")


def test_both_down_is_one_error_that_names_both(sky, survey):
    sky.faults.add("status", times=None, code=503)
    with pytest.raises(ServiceDownError, match=r"bricks: .*503.* viewer: .*503"):
        survey.get_cutout(sky.positions["star"], 32, bands="g")


def test_the_error_of_the_only_source_is_not_its_own_cause(sky, survey):
    sky.faults.add("status", times=None, code=503)
    with pytest.raises(ServiceDownError, match="503") as caught:
        survey.get_cutout(sky.positions["star"], 32, bands="g", source="viewer")
    assert caught.value.__cause__ is not caught.value


def test_payload_of_the_viewer(sky, survey):
    payload = survey.get_cutout(
        sky.positions["star"],
        (10, 20),
        bands="gr",
        products=("image", "invvar"),
        pixel_scale=0.5 * u.arcsec,
        source="viewer",
        get_query_payload=True,
    )
    assert set(payload) == {"service", "params"}
    assert payload["service"] == f"{sky.viewer_url}/cutout.fits"
    parameters = payload["params"]
    assert parameters["layer"] == "ls-dr10"
    assert (parameters["height"], parameters["width"]) == (10, 20)
    assert parameters["bands"] == "gr"
    assert parameters["invvar"] is True
    assert len(sky.requests) == 0


@pytest.mark.parametrize("pixel_scale", [None, 0.5 * u.arcsec])
def test_the_list_of_images_has_what_the_viewer_is_asked(sky, survey, pixel_scale):
    asked = {"bands": "gr", "pixel_scale": pixel_scale, "source": "viewer"}
    urls = survey.get_image_list(sky.positions["star"], 20, **asked)
    assert len(sky.requests) == 0
    survey.get_cutout(sky.positions["star"], 20, **asked)
    paths = [record.path for record in sky.requests if "/cutout.fits" in record.path]
    assert [url.removeprefix(sky.url) for url in urls] == paths


def test_pictures(sky, survey):
    pytest.importorskip("PIL")
    picture = survey.get_picture(sky.positions["star"], (40, 60))
    assert picture.shape == (40, 60, 3)
    brightest = np.unravel_index(picture.sum(axis=2).argmax(), (40, 60))
    assert np.hypot(brightest[0] - 19.5, brightest[1] - 29.5) < 3
    # North is up: a target in the south is below the star.
    south = sky.positions["star"].directional_offset_by(180 * u.deg, 4 * u.arcsec)
    row, _ = np.unravel_index(survey.get_picture(south, 60).sum(axis=2).argmax(), (60, 60))
    assert row < 20
    with pytest.raises(NoCoverageError, match="blank|no data"):
        survey.get_picture(sky.positions["off"], 40)
    with pytest.raises(InvalidRequestError, match="3000 pixels"):
        survey.get_picture(sky.positions["star"], 3001)


def test_coverage_of_layers(sky, survey):
    here = SkyCoord([sky.positions["star"], sky.positions["off"]])
    assert survey.covers(here, layer="ls-dr10-south-model").tolist() == [True, False]
    assert _viewer_requests(sky) == []
    # DR6 and DR7 together are no release: the viewer is asked, place by place.
    assert survey.covers(here, layer="ls-dr67", bands="gz").tolist() == [True, False]
    assert len([path for path in _viewer_requests(sky) if "cutout.fits" in path]) == 2
    with pytest.raises(InvalidRequestError, match="layer='ls-drlO'"):
        survey.covers(here, layer="ls-drlO")
    with pytest.raises(InvalidRequestError, match="200 at most"):
        survey.covers(SkyCoord(np.arange(300), 0, unit="deg"), layer="sdss")
    with pytest.raises(InvalidRequestError, match="release='dr9'"):
        survey.covers(here, layer="sdss", release="dr9")
    # A failure that cannot be told from no coverage is no answer.
    with pytest.raises(ServiceDownError, match="HTTP 500"):
        survey.covers(here, layer="galex")
    assert survey.covers(here, layer="sdss").tolist() == [False, False]


def test_page_address_and_layers(survey, sky):
    url = survey.viewer_url(SkyCoord(1, 2, unit="deg"), layer="sdss", zoom=13)
    assert url == f"{sky.viewer_url}?ra=1.000000&dec=2.000000&layer=sdss&zoom=13"
    table = survey.list_layers()
    assert len(table) == 87 + 6
    assert table["pixel_scale"].unit == u.arcsec
