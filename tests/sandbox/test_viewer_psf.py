"""The PSFs of the simulated viewer, and the name resolver beside it."""

import io

import numpy as np
import pytest
import urllib3
from astropy.coordinates import SkyCoord, name_resolve
from astropy.io import fits

from astroquery_lis import _conf, sandbox
from astroquery_lis.sandbox import sky as scene
from astroquery_lis.sandbox.cameras import CAMERAS


@pytest.fixture
def psfs(sky):
    """Return the PSFs at a place, by band, and the header of the first."""
    with urllib3.PoolManager(retries=False, timeout=60) as pool:

        def request(place, **fields):
            at = sky.positions[place]
            fields = {"ra": at.ra.deg, "dec": at.dec.deg, **fields}
            answer = pool.request("GET", f"{sky.viewer_url}/coadd-psf/", fields=fields)
            if not answer.data.startswith(b"SIMPLE"):
                return answer
            with fits.open(io.BytesIO(answer.data)) as hdul:
                return {hdu.header["BAND"]: hdu.data for hdu in hdul}, hdul[0].header

        yield request


def second_moments(psf):
    y, x = np.indices(psf.shape) - (len(psf) - 1) / 2
    assert np.hypot((psf * x).sum(), (psf * y).sum()) < 1e-6
    return np.array([[(psf * x * x).sum(), (psf * x * y).sum()], [0, (psf * y * y).sum()]])


def test_round_psf(psfs):
    planes, header = psfs("star", layer="ls-dr10")
    assert (header["BANDS"], header["BAND0"], header["BAND3"]) == ("griz", "g", "z")
    assert not {"EXTNAME", "CTYPE1", "CD1_1", "PIXSCALE"} & set(header)
    for band, psf in planes.items():
        assert psf.sum() == pytest.approx(1, abs=1e-5)
        (xx, xy), (_, yy) = second_moments(psf.astype(float)) * 0.262**2
        expected = sum(weight * sigma**2 for weight, sigma in scene.psf_components(band))
        assert (xx, yy) == pytest.approx((expected, expected), rel=0.01)
        assert abs(xy) < 1e-6


def test_north_has_pixels_of_two_sizes(psfs, sky):
    sky.positions["north"] = SkyCoord(180.15, 32.5, unit="deg")
    try:
        planes, _ = psfs("north", layer="ls-dr10")
    finally:
        del sky.positions["north"]
    for band, psf in planes.items():
        camera = CAMERAS["north", band]
        (xx, _), _ = second_moments(psf.astype(float)) * camera.pixel_scale_arcsec**2
        expected = sum(weight * sigma**2 for weight, sigma in scene.psf_components(band))
        assert xx == pytest.approx(expected, rel=0.01)
    assert [len(psf) for psf in planes.values()] == [31, 31, 63]


def test_elongated_psf_is_turned_like_the_ccd(psfs, sky):
    truth = sky.psf_truth(sky.positions["elongated"], "r")
    assert (truth.axis_ratio, truth.position_angle_deg) == (0.7, 30.0)
    assert truth.minor_fwhm_arcsec / truth.major_fwhm_arcsec == pytest.approx(0.7)
    assert truth.fwhm_arcsec == pytest.approx(scene.psf_fwhm_arcsec("r"))
    planes, _ = psfs("elongated", layer="ls-dr10", bands="r")
    (xx, xy), (_, yy) = second_moments(planes["r"].astype(float))
    values, vectors = np.linalg.eigh([[xx, xy], [xy, yy]])
    assert np.sqrt(values[0] / values[1]) == pytest.approx(0.7, rel=0.01)
    x, y = vectors[:, 1]
    # On a DECam CCD x leads south and y leads east.
    angle = np.degrees(np.arctan2(y, -x)) % 180
    assert angle == pytest.approx(30.0, abs=0.5)
    # Elsewhere, and in the scene's own pixels, it is round.
    assert sky.psf_truth(sky.positions["star"], "r").axis_ratio == 1.0


@pytest.mark.parametrize(
    ("place", "fields", "status", "text"),
    [
        ("hole", {"layer": "ls-dr10"}, 500, b"Server Error"),
        ("hole", {"layer": "ls-dr10", "bands": "r"}, 500, b"Server Error"),
        ("gap", {"layer": "ls-dr10", "bands": "z"}, 200, b"no CCDs overlapping"),
        ("star", {"layer": "ls-dr9", "bands": "i"}, 200, b"no CCDs overlapping"),
        ("star", {"layer": "ls-dr10", "bands": "XY"}, 200, b"no CCDs overlapping"),
        ("star", {"layer": "des-dr1"}, 200, b"No cutouts for layer des-dr1"),
        ("star", {"layer": "ls-dr9-north"}, 500, b"Server Error"),
        ("star", {"ra": "03:00:48"}, 500, b"Server Error"),
        ("star", {"ra": "nan"}, 500, b"Server Error"),
        ("off", {}, 500, b"Server Error"),
    ],
)
def test_no_psf(psfs, place, fields, status, text):
    answer = psfs(place, **fields)
    assert answer.status == status
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert text in answer.data


def test_names_are_resolved(sky_tree):
    before, urls = _conf.setting("viewer_url"), name_resolve.sesame_url.get()
    with sandbox.serve(root=sky_tree) as sky:
        assert _conf.setting("viewer_url") == sky.viewer_url
        assert SkyCoord.from_name("NGC 1").separation(sky.positions["field"]).arcsec < 0.01
        assert SkyCoord.from_name("hd1").separation(sky.positions["star"]).arcsec < 0.01
        assert SkyCoord.from_name("Off").separation(sky.positions["off"]).arcsec < 0.01
        with pytest.raises(name_resolve.NameResolveError, match="M31"):
            SkyCoord.from_name("M31")
    assert _conf.setting("viewer_url") == before
    assert name_resolve.sesame_url.get() == urls
