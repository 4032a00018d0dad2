"""Cutouts from bricks on any grid: positions, fluxes, seams, memory."""

import subprocess
import sys

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.wcs import WCS

from astroquery_lis.exceptions import CoverageWarning, InvalidRequestError
from astroquery_lis.survey.bricks import brick_wcs
from astroquery_lis.survey.paths import file_path

PLACES = ("star", "corner", "ra0", "split")


def _wcs(position, scale_arcsec, rotation_deg, ny, nx, *, galactic=False):
    wcs = WCS(naxis=2)
    center = position.galactic if galactic else position
    names = ["GLON-TAN", "GLAT-TAN"] if galactic else ["RA---TAN", "DEC--TAN"]
    wcs.wcs.ctype = names
    wcs.wcs.crval = [center.spherical.lon.deg, center.spherical.lat.deg]
    wcs.wcs.crpix = [nx / 2 + 0.7, ny / 2 - 0.4]
    angle = np.radians(rotation_deg)
    scale = scale_arcsec / 3600
    wcs.wcs.cd = [
        [-scale * np.cos(angle), scale * np.sin(angle)],
        [scale * np.sin(angle), scale * np.cos(angle)],
    ]
    if not galactic:
        wcs.wcs.radesys = "ICRS"
    wcs.array_shape = ny, nx
    return wcs


def _measure(hdu, position, radius_arcsec=5.0):
    """Return flux and offset in arcsec of a source in an image whose pixels hold flux."""
    wcs = WCS(hdu.header)
    scale = np.sqrt(wcs.proj_plane_pixel_area()).to_value("arcsec")
    x0, y0 = wcs.world_to_pixel(position)
    y, x = np.indices(hdu.shape)
    distance = np.hypot(y - y0, x - x0) * scale
    inside = distance < radius_arcsec
    core = np.where(distance < 3, hdu.data, 0)
    dx, dy = ((core * (v - v0)).sum() / core.sum() for v, v0 in ((x, x0), (y, y0)))
    return hdu.data[inside].sum(), np.hypot(dx, dy) * scale


def _true_flux(sky, position, band):
    apart = np.hypot(
        (sky.truth["ra"] - position.ra.deg + 180) % 360 - 180, sky.truth["dec"] - position.dec.deg
    )
    return sky.truth[f"flux_{band}"][np.argmin(apart)]


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize(
    ("scale", "rotation", "galactic"),
    [(0.262, 33.0, False), (0.1, -70.0, False), (0.2, 10.0, True), (1.0, 25.0, False)],
)
def test_a_given_wcs_keeps_places_and_fluxes(sky, survey, name, scale, rotation, galactic):
    if scale > 0.3:
        pytest.importorskip("reproject")
    position = sky.positions[name]
    size = int(30 / scale)
    wcs = _wcs(position, scale, rotation, size, size + 10, galactic=galactic)
    hdul = survey.get_cutout(position, wcs=wcs, bands="r", products=("image", "model"))
    assert hdul["IMAGE_R"].shape == (size, size + 10)
    found = WCS(hdul["IMAGE_R"].header)
    corner = found.pixel_to_world(0, 0).icrs
    assert corner.separation(wcs.pixel_to_world(0, 0).icrs).arcsec < 1e-3
    radius = 8.0 if scale > 0.3 else 5.0
    true_flux = _true_flux(sky, position, "r")
    # Without noise the aperture's ragged edge does not matter; with it, to 2 %.
    flux, _ = _measure(hdul["MODEL_R"], position, radius)
    assert flux == pytest.approx(true_flux, rel=0.005)
    flux, offset = _measure(hdul["IMAGE_R"], position, radius)
    assert flux == pytest.approx(true_flux, rel=0.02)
    assert offset < 0.1 * 0.262
    assert hdul["IMAGE_R"].header["FLUXPIX"] == pytest.approx(scale, rel=1e-3)


def test_no_seam_over_the_corner(sky, survey):
    position = sky.positions["corner"]
    wcs = _wcs(position, 0.262, 45.0, 200, 200)
    products = ("image", "model", "invvar")
    hdul = survey.get_cutout(position, wcs=wcs, bands="r", products=products)
    noise = (hdul["IMAGE_R"].data - hdul["MODEL_R"].data) * np.sqrt(hdul["INVVAR_R"].data)
    assert hdul[0].header["NBRICKS"] == 4
    y, x = np.indices(noise.shape)
    ra, dec = WCS(hdul["IMAGE_R"].header).pixel_to_world_values(x, y)
    borders = (np.abs((ra - 45.25) * 3600) < 0.8) | (np.abs((dec - 0.125) * 3600) < 0.8)
    assert borders.sum() > 500
    assert abs(noise[borders].mean()) < 4 / np.sqrt(borders.sum())
    assert noise[borders].std() < 1.3 * noise[~borders].std()
    model = hdul["MODEL_R"].data
    assert np.isfinite(model).all()


def test_rotation_turns_the_image(sky, survey):
    position = sky.positions["field"]
    turned = survey.get_cutout(position, 101, bands="r", rotation=90 * u.deg)["IMAGE_R"]
    wcs = WCS(turned.header)
    up = wcs.pixel_to_world(50, 80)
    assert position.position_angle(up).deg == pytest.approx(90, abs=0.1)
    assert wcs.pixel_to_world(50, 50).separation(position).arcsec < 1e-6
    straight = survey.get_cutout(position, 101, bands="r", rotation=0 * u.deg)
    assert "WCS" not in straight[0].header["GRID"]


def test_pixel_scale_from_bricks_and_viewer_agree(sky, survey):
    pytest.importorskip("reproject")
    position = sky.positions["star"]
    asked = {"bands": "r", "pixel_scale": 0.5 * u.arcsec}
    bricks = survey.get_cutout(position, 60, source="bricks", **asked)
    from astroquery_lis import conf

    with conf.set_temp("viewer_url", sky.viewer_url):
        viewer = survey.get_cutout(position, 60, source="viewer", **asked)
    assert bricks["IMAGE_R"].shape == viewer["IMAGE_R"].shape
    for name in ("CRVAL1", "CRPIX1", "CRPIX2"):
        assert bricks["IMAGE_R"].header[name] == pytest.approx(viewer["IMAGE_R"].header[name])
    one, _ = _measure(bricks["IMAGE_R"], position)
    other, _ = _measure(viewer["IMAGE_R"], position)
    assert one == pytest.approx(other, rel=0.01)


def test_invvar_of_coarser_and_finer_pixels(sky, survey):
    pytest.importorskip("reproject")
    position = sky.positions["blank"]
    native = survey.get_cutout(position, 100, bands="r", products=("image", "invvar"))
    middle = np.median(native["INVVAR_R"].data)
    for scale in (0.131, 0.786):
        hdul = survey.get_cutout(
            position,
            40,
            bands="r",
            products=("image", "invvar"),
            source="bricks",
            pixel_scale=scale * u.arcsec,
        )
        ratio = (scale / 0.262) ** 2
        expected = middle / (ratio if ratio > 1 else ratio**2)
        assert np.median(hdul["INVVAR_R"].data) == pytest.approx(expected, rel=0.01)


def test_masks_and_counts_stay_whole_numbers(sky, survey):
    wcs = _wcs(sky.positions["bright"], 0.3, 20.0, 80, 80)
    hdul = survey.get_cutout(
        None, wcs=wcs, bands="r", products=("maskbits", "nexp", "depth", "psfsize")
    )
    assert hdul["MASKBITS"].data.dtype == np.int32
    assert hdul["NEXP_R"].data.dtype == np.int16
    assert (hdul["MASKBITS"].data & 2).any()
    assert hdul["PSFSIZE_R"].data.max() < 3


def test_beyond_the_bricks_a_given_grid_is_nan(sky, survey):
    pytest.importorskip("reproject")
    edge = SkyCoord(45.0, 0.0, unit="deg")
    with pytest.warns(CoverageWarning, match="0448p000"):
        hdul = survey.get_cutout(
            edge.directional_offset_by(90 * u.deg, 2 * u.arcsec),
            wcs=_wcs(edge, 0.3, 0.0, 40, 400),
            bands="g",
            products=("image", "invvar"),
        )
    assert 0.3 < np.isnan(hdul["IMAGE_G"].data).mean() < 0.7
    assert (hdul["INVVAR_G"].data[np.isnan(hdul["IMAGE_G"].data)] == 0).all()


@pytest.mark.parametrize(
    ("arguments", "parameter"),
    [
        ({"wcs": "TAN"}, "wcs"),
        ({"wcs": WCS(naxis=2)}, "wcs"),
        ({"wcs": WCS(naxis=3)}, "wcs"),
        ({"rotation": 30}, "rotation"),
        ({"rotation": np.nan * u.deg}, "rotation"),
        ({"rotation": 3 * u.s}, "rotation"),
    ],
)
def test_bad_grids_are_refused_by_name(sky, survey, arguments, parameter):
    with pytest.raises(InvalidRequestError, match=f"{parameter}=") as caught:
        survey.get_cutout(sky.positions["star"], **arguments)
    assert caught.value.parameter == parameter
    assert len(sky.requests) == 0


def test_what_a_wcs_excludes_is_refused(sky, survey):
    wcs = _wcs(sky.positions["star"], 0.3, 0.0, 40, 60)
    for name, value in (
        ("pixel_scale", 1 * u.arcsec),
        ("rotation", 3 * u.deg),
        ("size", 30),
    ):
        with pytest.raises(InvalidRequestError, match=f"{name}="):
            survey.get_cutout(sky.positions["star"], wcs=wcs, **{name: value})
    no_size = _wcs(sky.positions["star"], 0.3, 0.0, 40, 60)
    no_size.array_shape = None
    with pytest.raises(InvalidRequestError, match="array_shape"):
        survey.get_cutout(sky.positions["star"], wcs=no_size)


def test_everything_at_once_and_derived_products(sky, survey):
    position = sky.positions["field"]
    hdul = survey.get_cutout(position, 40, bands="gr", products="all")
    names = [hdu.name for hdu in hdul[1:]]
    for product in ("IMAGE", "INVVAR", "MODEL", "RESID", "BLOBMODEL", "CHI2", "DEPTH"):
        assert f"{product}_G" in names
    assert "MASKBITS" in names
    assert not [name for name in names if name.startswith(("SNR", "SIGMA", "PSF_"))]
    assert len({hdu.shape for hdu in hdul[1:]}) == 1
    residual = hdul["IMAGE_G"].data - hdul["MODEL_G"].data
    assert np.array_equal(hdul["RESID_G"].data, residual)
    few = survey.get_cutout(position, 40, bands="r", products=("snr", "sigma"))
    assert [hdu.name for hdu in few[1:]] == ["SNR_R", "SIGMA_R"]
    snr = hdul["IMAGE_R"].data * np.sqrt(hdul["INVVAR_R"].data)
    assert np.array_equal(few["SNR_R"].data, snr)
    assert few["SIGMA_R"].header["BUNIT"] == "nanomaggy"
    only = survey.get_cutout(position, 40, bands="g", products="resid")
    assert np.array_equal(only["RESID_G"].data, hdul["RESID_G"].data)


def test_wise_masks_are_the_planes_beside_maskbits(sky, survey):
    position = sky.positions["bright"]
    products = ("maskbits", "wisem1", "wisem2")
    for mirror in (None, sky.root):
        hdul = survey.get_cutout(position, 60, products=products, bands="r", mirror=mirror)
        assert [hdu.name for hdu in hdul[1:]] == ["MASKBITS", "WISEM1", "WISEM2"]
        path = sky.root / file_path("maskbits", "dr10", "south", brick="0451p000")
        with fits.open(path) as file:
            for name in ("WISEM1", "WISEM2"):
                expected = Cutout2D(file[name].data, position, 60, wcs=brick_wcs("0451p000"))
                assert np.array_equal(hdul[name].data, expected.data)
                assert hdul[name].data.any()
    with pytest.raises(InvalidRequestError, match="'wisem1' is not"):
        survey.get_cutout(position, 60, products="wisem1", release="dr7")


def test_plane_by_plane_gives_the_same(sky, survey, monkeypatch):
    from astroquery_lis.images import coadds

    position = sky.positions["corner"]
    asked = {"bands": "gr", "products": ("image", "invvar", "maskbits")}
    expected = survey.get_cutout(position, 256, **asked)
    monkeypatch.setattr(coadds, "LARGE_BYTES", 1000)
    found = survey.get_cutout(position, 256, **asked)
    for one, other in zip(expected[1:], found[1:], strict=True):
        assert np.array_equal(one.data, other.data, equal_nan=True)


LARGE = """
import pathlib, re, sys, warnings
from astroquery_lis import LegacySurvey, sandbox

warnings.simplefilter("ignore")
with sandbox.serve() as sky:
    hdul = LegacySurvey.get_cutout(sky.positions["star"], int(sys.argv[1]), bands="grz")
# Not ru_maxrss: a child starts with its parent's, here that of the whole test run.
status = pathlib.Path("/proc/self/status").read_text()
print(hdul["IMAGE_Z"].shape, re.search(r"VmHWM:\\s+(\\d+)", status).group(1))
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("size", [4000, 10_000])
def test_large_cutouts_take_little_memory_beside_their_planes(size):
    run = subprocess.run(
        [sys.executable, "-c", LARGE, str(size)], capture_output=True, text=True, check=True
    )
    shape, _, kilobytes = run.stdout.strip().rpartition(" ")
    assert shape == str((size, size))
    # The planes, and 400 MB beside the process itself.
    assert int(kilobytes) < 3 * 4 * size**2 / 1024 + 550e3
