"""Grids of mosaics: against astropy's WCS, and against what resample makes of them."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

from astroquery_lis.exceptions import InvalidExposureError, InvalidRequestError
from astroquery_lis.jwst_stage.planning.exposures import read_exposure
from astroquery_lis.jwst_stage.planning.footprints import (
    corners_of,
    exposure_shapes,
    grid_of_exposures,
    grid_of_wcs,
    n_pixels,
)
from astroquery_lis.jwst_stage.planning.make_plan import make_plan

from .headers import write_exposure


def footprint(exposure):
    """Return the corners of what an exposure covers."""
    return np.concatenate([np.transpose(corners_of(s)) for s in exposure_shapes(exposure)])


def wcs_of(grid):
    """Return the WCS that FITS has for a grid; the paper's conventions, not this package's."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = grid["crval"]
    wcs.wcs.crpix = np.array(grid["crpix"]) + 1
    scale = grid["pixel_scale"] / 3600
    wcs.wcs.cdelt = [-scale, scale]
    # A position angle to the east is CROTA2 turned the other way: east is to the left.
    angle = math.radians(-grid["rotation"])
    wcs.wcs.pc = [
        [math.cos(angle), math.sin(angle)],
        [-math.sin(angle), math.cos(angle)],
    ]
    wcs.array_shape = grid["output_shape"][::-1]
    return wcs


@pytest.fixture
def exposures(tmp_path):
    positions = [(359.9995, 60.0), (0.0005, 60.0005), (0.0, 59.9995)]
    cards = [{}, {"DETECTOR": "NRCA1", "CHANNEL": "SHORT", "FILTER": "F200W"}, {}]
    return [
        read_exposure(write_exposure(tmp_path, n, ra=ra, dec=dec, shape=(64, 96), **more))
        for n, ((ra, dec), more) in enumerate(zip(positions, cards, strict=True), 1)
    ]


def test_a_footprint_of_the_pointing(exposures):
    corners = footprint(exposures[1])
    sky = SkyCoord(corners, unit="deg")
    center = SkyCoord(0.0005, 60.0005, unit="deg")
    assert sky.separation(center).arcsec == pytest.approx([math.hypot(48, 32) * 0.0307] * 4, 1e-5)
    sides = [sky[i].separation(sky[(i + 1) % 4]).arcsec for i in range(4)]
    assert sides == pytest.approx([96 * 0.0307, 64 * 0.0307] * 2, 1e-5)
    # The y axis of the detector is V3, which stands at ROLL_REF from north.
    angle = sky[0].position_angle(sky[3]).to_value(u.deg)
    assert angle == pytest.approx(30, abs=0.01)


def test_a_footprint_of_s_region(tmp_path):
    path = write_exposure(tmp_path)
    with fits.open(path, mode="update") as hdul:
        hdul["SCI"].header["S_REGION"] = "POLYGON ICRS  10.0 1.0 10.1 1.0 10.1 1.1 10.0 1.1"
    assert footprint(read_exposure(path)).tolist() == [[10, 1], [10.1, 1], [10.1, 1.1], [10, 1.1]]


def test_a_footprint_of_two_shapes_and_one_that_nobody_can_read(tmp_path):
    path = write_exposure(tmp_path)
    two = "POLYGON ICRS 10.0 1.0 10.1 1.0 10.1 1.1 POLYGON ICRS 11.0 1.0 11.1 1.0 11.1 1.1"
    with fits.open(path, mode="update") as hdul:
        hdul["SCI"].header["S_REGION"] = two
    assert footprint(read_exposure(path))[[0, 3]].tolist() == [[10, 1], [11, 1]]
    with fits.open(path, mode="update") as hdul:
        hdul["SCI"].header["S_REGION"] = "POLYGON ICRS 10.0 1.0 none"
    # What the pointing tells, round RA 190.
    assert np.allclose(footprint(read_exposure(path)), [190, 1.2], rtol=0, atol=0.001)


@pytest.mark.parametrize("rotation", [0.0, 35.0, -120.0])
def test_a_common_grid_holds_every_exposure_and_little_more(exposures, rotation):
    grid = grid_of_exposures(exposures, rotation=rotation)
    assert grid["pixel_scale"] == 0.0307
    corners = np.concatenate([footprint(e) for e in exposures])
    x, y = wcs_of(grid).all_world2pix(corners, 0).T
    nx, ny = grid["output_shape"]
    assert 2 < x.min() < 6
    assert 2 < y.min() < 6
    assert 2 < nx - x.max() < 7
    assert 2 < ny - y.max() < 7
    assert n_pixels(exposures, grid) == nx * ny


def test_a_common_grid_with_a_scale(exposures):
    fine, coarse = (grid_of_exposures(exposures, pixel_scale=s) for s in (0.03, 0.06))
    assert coarse["output_shape"][0] == pytest.approx(fine["output_shape"][0] / 2, abs=8)
    assert coarse["crval"] == fine["crval"]


def test_the_pixels_of_a_mosaic_of_its_own(exposures):
    # One exposure, turned with the detector: its own pixels and the margin.
    assert 96 * 64 < n_pixels(exposures[:1]) < (96 + 12) * (64 + 12)
    assert n_pixels(exposures[:1], {"output_wcs": "x.asdf"}) is None


def test_no_pointing(tmp_path):
    path = write_exposure(tmp_path, exp_type="NRC_DARK", drop=("RA_REF",))
    dark = read_exposure(path)
    assert n_pixels([dark]) is None
    for refused in (lambda: exposure_shapes(dark), lambda: grid_of_exposures([dark])):
        with pytest.raises(InvalidExposureError, match=rf"{path}.* no S_REGION .* lacks RA_REF\."):
            refused()


@pytest.mark.parametrize("exp_type", ["MIR_MRS", "MIR_LRS-FIXEDSLIT", "NRS_MSASPEC"])
def test_a_slit_or_a_slicer_has_no_field_of_its_detector(tmp_path, exp_type):
    exposure = read_exposure(write_exposure(tmp_path, exp_type=exp_type))
    with pytest.raises(InvalidExposureError, match=f"{exp_type} has no field"):
        exposure_shapes(exposure)


def test_the_spectra_of_a_field_have_that_of_the_detector(tmp_path):
    exposure = read_exposure(write_exposure(tmp_path, exp_type="NIS_WFSS", shape=(64, 96)))
    sky = SkyCoord(footprint(exposure), unit="deg")
    sides = [sky[i].separation(sky[(i + 1) % 4]).arcsec for i in range(4)]
    assert sides == pytest.approx([96 * 0.0656, 64 * 0.0656] * 2, 1e-5)


@pytest.mark.parametrize("rotation", [0.0, 20.0, 171.0])
def test_the_grid_of_a_wcs_is_that_wcs(rotation):
    grid = {
        "crval": [190.1, 1.2], "crpix": [49.5, 20.25], "pixel_scale": 0.262,
        "rotation": rotation, "output_shape": [100, 60],
    }  # fmt: skip
    found = grid_of_wcs(wcs_of(grid))
    assert found["output_shape"] == [100, 60]
    for name in ("crval", "crpix", "pixel_scale", "rotation"):
        assert found[name] == pytest.approx(grid[name], abs=1e-9), name


def test_headers_and_files(tmp_path):
    wcs = wcs_of(common := {
        "crval": [190.1, 1.2], "crpix": [5.0, 6.0], "pixel_scale": 0.05, "rotation": 3.0,
        "output_shape": [12, 10],
    })  # fmt: skip
    header = wcs.to_header()
    path = tmp_path / "x.fits"
    fits.HDUList(
        [fits.PrimaryHDU(), fits.ImageHDU(np.zeros((10, 12), np.float32), header)]
    ).writeto(path)
    with fits.open(path) as hdul:
        assert grid_of_wcs(hdul[1].header) == grid_of_wcs(path)
    assert grid_of_wcs(path)["output_shape"] == common["output_shape"]
    compressed = tmp_path / "x.fits.fz"
    fits.HDUList(
        [fits.PrimaryHDU(), fits.CompImageHDU(np.zeros((10, 12), np.float32), header)]
    ).writeto(compressed)
    assert grid_of_wcs(compressed)["output_shape"] == common["output_shape"]
    (tmp_path / "g.asdf").write_text("x")
    assert grid_of_wcs(tmp_path / "g.asdf") == {"output_wcs": str(tmp_path / "g.asdf")}


def _changed(**cards):
    header = wcs_of(common_grid_stub()).to_header()
    header["NAXIS1"], header["NAXIS2"] = 10, 12
    for keyword, value in cards.items():
        if value is None:
            del header[keyword]
        else:
            header[keyword] = value
    return header


def common_grid_stub():
    return {
        "crval": [190.1, 1.2], "crpix": [5.0, 6.0], "pixel_scale": 0.05, "rotation": 0.0,
        "output_shape": [10, 12],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("wcs", "match"),
    [
        (_changed(CTYPE1="RA---SIN", CTYPE2="DEC--SIN"), "resample makes RA---TAN"),
        (_changed(CDELT1=2e-5), "pixels that are not square"),
        (_changed(CDELT1=1.3888888888889e-05), "east to the right"),
        (_changed(NAXIS1=None), "has no shape"),
        (_changed(LONPOLE=90.0), "LONPOLE=90"),
        ("none.fits", "'none.fits' is not a file that is there"),
        (3, "must be a WCS"),
    ],
)
def test_grids_that_resample_cannot_make(wcs, match):
    with pytest.raises(InvalidRequestError, match=match):
        grid_of_wcs(wcs)


def test_all_mosaics_of_a_plan_get_the_grid(tmp_path):
    for number in (1, 2):
        write_exposure(tmp_path, number)
        write_exposure(tmp_path, number, DETECTOR="NRCA1", CHANNEL="SHORT", FILTER="F200W")
    plan = make_plan(tmp_path, common_grid=True, check_associations=False)
    short, long = (task.steps["resample"] for task in plan.tasks[-2:])
    assert short == long == plan.options["grid"]
    assert short["pixel_scale"] == 0.0307
    assert all("resample" not in task.steps for task in plan.tasks if task.stage < 3)
    turned = make_plan(
        tmp_path, common_grid={"rotation": 20, "pixel_scale": 0.1}, check_associations=False
    )
    assert turned.options["grid"]["rotation"] == 20.0


def test_parameters_of_the_grid_in_steps(tmp_path):
    pytest.importorskip("jwst")
    write_exposure(tmp_path)
    steps = {"resample": {"pixel_scale": 0.02}}
    plan = make_plan(tmp_path, common_grid=True, steps=steps, check_associations=False)
    assert plan.options["grid"]["pixel_scale"] == 0.02
    wcs = wcs_of(common_grid_stub())
    with pytest.raises(InvalidRequestError, match=r"wcs sets the grid, and steps too: resample.pi"):
        make_plan(tmp_path, wcs=wcs, steps=steps, check_associations=False)


RESAMPLED = """
import json, sys
import numpy as np
from jwst.datamodels import ModelLibrary
from jwst.resample.resample_utils import resampled_wcs_from_models
given = json.load(sys.stdin)
answer = {"sky": [], "corners": []}
with ModelLibrary(given["files"]) as library:
    for model in library:
        ny, nx = model.data.shape
        x, y = np.array([(-.5, -.5), (nx - .5, -.5), (nx - .5, ny - .5), (-.5, ny - .5)]).T
        sky = model.meta.wcs(x, y, with_bounding_box=False)
        answer["corners"] += np.transpose(sky).tolist()
        library.shelve(model, modify=False)
library = ModelLibrary(given["files"])
for grid in given["grids"]:
    wcs = resampled_wcs_from_models(
        library, pixel_scale=grid["pixel_scale"] / 3600, rotation=grid["rotation"],
        crpix=grid["crpix"], crval=grid["crval"], output_shape=grid["output_shape"][::-1])[0]
    assert list(wcs.array_shape) == grid["output_shape"][::-1]
    sky = wcs(*np.transpose(given["pixels"]), with_bounding_box=False)
    answer["sky"].append(np.transpose(sky).tolist())
json.dump(answer, sys.stdout)
"""


def test_resample_makes_the_grid_that_was_meant(chain):
    files = [str(path) for path in chain.product("_cal.fits")]
    exposures = [read_exposure(path) for path in files]
    grids = [grid_of_exposures(exposures, rotation=r) for r in (0.0, 35.0)]
    brick = {**common_grid_stub(), "crval": grids[0]["crval"], "rotation": -10.0}
    grids.append(grid_of_wcs(wcs_of(brick)))
    pixels = [(0.0, 0.0), (90.0, 10.0), (30.5, 80.25)]
    child = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RESAMPLED],
        input=json.dumps({"files": files, "grids": grids, "pixels": pixels}),
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    answer = json.loads(child.stdout)
    for grid, sky in zip([*grids[:2], brick], answer["sky"], strict=True):
        expected = wcs_of(grid).all_pix2world(pixels, 0)
        away = SkyCoord(sky, unit="deg").separation(SkyCoord(expected, unit="deg"))
        assert away.arcsec.max() < 1e-3 * grid["pixel_scale"]
    for grid in grids[:2]:
        x, y = wcs_of(grid).all_world2pix(answer["corners"], 0).T
        nx, ny = grid["output_shape"]
        assert min(x.min(), y.min(), nx - 1 - x.max(), ny - 1 - y.max()) >= 0
