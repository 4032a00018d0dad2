"""The simulated JWST exposures, against stdatamodels, CRDS, gwcs and the real pipeline."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from scipy.special import erf

from astroquery_lis.exceptions import InvalidRequestError, OptionalDependencyError
from astroquery_lis.sandbox import sky

pytest.importorskip("stdatamodels")
pytest.importorskip("crds")

from astroquery_lis.sandbox.jwst import simulate
from astroquery_lis.sandbox.jwst.reference_files import KINDS
from astroquery_lis.sandbox.jwst.scene import one_over_f, render_rate
from astroquery_lis.sandbox.jwst.setups import (
    DETECTORS,
    ELECTRONICS,
    FILTERS,
    Pointing,
    detector_maps,
    make_ramp,
    offset_position,
)

# Runs where CRDS is imported anew, because it reads its environment once per process.
_RUN = """
import json, sys
from pathlib import Path
task = json.loads(sys.stdin.read())
{body}
print("\\nRESULT" + json.dumps(result))
"""

_STAGES = """
import gc
import numpy as np
from jwst.pipeline import Detector1Pipeline, Image2Pipeline
# Every step collects garbage, over all that was imported.
gc.freeze()
result = {"gwcs": {}}
for uncal in map(Path, task["uncals"]):
    stem = uncal.name.removesuffix("_uncal.fits")
    options = {"output_dir": task["folder"], "save_results": True, "configure_log": False}
    Detector1Pipeline.call(str(uncal), **options)
    rate = str(Path(task["folder"]) / f"{stem}_rate.fits")
    steps = {"resample": {"skip": True}}
    models = Image2Pipeline.call(rate, steps=steps, **options)
    wcs = models[0].meta.wcs
    grid = np.meshgrid([0.0, 31.5, 90.25, 127.0], [0.0, 63.0, 127.0])
    ra, dec = wcs(*grid, with_bounding_box=False)
    result["gwcs"][uncal.name] = [np.ravel(part).tolist() for part in (*grid, ra, dec)]
"""

_BEST = """
import crds
from stdatamodels.jwst.datamodels import read_metadata
header = read_metadata(task["uncal"], flatten=True)

def best(context, **other):
    return crds.getrecommendations(
        header | other, reftypes=task["kinds"], context=context, observatory="jwst"
    )

result = {context: best(context) for context in task["contexts"]}
result["other frame"] = best(task["contexts"][0], **{"meta.subarray.name": "SUB320"})
"""

_MOSAIC = """
from jwst.associations.asn_from_list import asn_from_list
from jwst.associations.lib.rules_level3_base import DMS_Level3_Base
from jwst.pipeline import Image3Pipeline
association = asn_from_list(task["names"], product_name="mosaic", rule=DMS_Level3_Base)
path = Path(task["folder"]) / "mosaic_asn.json"
path.write_text(association.dump()[1])
options = {"output_dir": task["folder"], "save_results": True, "configure_log": False}
Image3Pipeline.call(str(path), **options)
from stdatamodels.jwst import datamodels
result = {}
with datamodels.open(str(path.with_name("mosaic_i2d.fits"))) as mosaic:
    result["x"], result["y"] = (
        part.tolist()
        for part in mosaic.meta.wcs.invert(task["ra"], task["dec"], with_bounding_box=False)
    )
"""


def run(body, observation, task):
    """Run a script with the observation's CRDS environment and nobody else's."""
    environment = {name: value for name, value in os.environ.items() if "CRDS" not in name}
    done = subprocess.run(
        [sys.executable, "-c", _RUN.replace("{body}", body)],
        input=json.dumps(task),
        env={**environment, **observation.environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.rpartition("RESULT")[2])


@pytest.fixture(scope="module")
def observation():
    return simulate()


@pytest.fixture(scope="module")
def calibrated(observation, tmp_path_factory):
    """The first exposure after stages 1 and 2 of the real pipeline, and its gwcs."""
    pytest.importorskip("jwst")
    folder = tmp_path_factory.mktemp("calibrated")
    uncals = [str(observation.uncals[0])]
    return folder, run(_STAGES, observation, {"uncals": uncals, "folder": str(folder)})["gwcs"]


def test_names_are_those_of_mast(observation):
    names = [path.name for path in observation.uncals]
    assert names == [
        f"jw01234001001_02101_0000{number}_nrcalong_uncal.fits" for number in (1, 2, 3, 4)
    ]
    for path in observation.uncals:
        header = fits.getheader(path)
        assert header["FILENAME"] == path.name
        assert int(header["EXPOSURE"]) == int(path.name.split("_")[2])
        assert header["VISITGRP"] + header["SEQ_ID"] + header["ACT_ID"] == "02101"


def test_every_file_opens_with_stdatamodels(observation):
    from stdatamodels.jwst import datamodels

    for path in observation.uncals:
        with datamodels.open(path) as model:
            assert isinstance(model, datamodels.Level1bModel)
            assert model.data.shape == (1, 10, 128, 128)
            assert model.data.dtype == np.uint16
            assert model.meta.subarray.name == "SUB160"
            # The schema drops a value that it does not know.
            assert model.meta.dither.primary_type == "INTRAMODULE"
    references = observation.crds_path / "references" / "jwst" / "nircam"
    found = sorted(references.iterdir())
    assert {path.name.split("_")[2] for path in found} == set(KINDS)
    for path in found:
        if not path.name.startswith("jwst_nircam_pars"):
            with datamodels.open(path) as model:
                model.validate()


def test_header_has_what_rules_match_on(observation):
    header = fits.getheader(observation.uncals[0])
    expected = {
        "TELESCOP": "JWST",
        "INSTRUME": "NIRCAM",
        "DETECTOR": "NRCALONG",
        "CHANNEL": "LONG",
        "MODULE": "A",
        "FILTER": "F356W",
        "PUPIL": "CLEAR",
        "EXP_TYPE": "NRC_IMAGE",
        "READPATT": "RAPID",
        "NOUTPUTS": 1,
        "TSOVISIT": False,
        "SUBSTRT1": 961,
        "SUBSIZE1": 128,
        "FASTAXIS": -1,
        "SLOWAXIS": 2,
        "DATE-OBS": "2023-08-20",
    }
    assert {name: header[name] for name in expected} == expected


def test_the_same_again(observation, tmp_path):
    again = simulate(tmp_path / "again", crds_path=observation.crds_path)
    assert [path.parent for path in again.uncals] == [tmp_path / "again"] * 4
    for first, second in zip(observation.uncals, again.uncals, strict=True):
        assert np.array_equal(fits.getdata(first, "SCI"), fits.getdata(second, "SCI"))
    other = simulate(tmp_path / "other", crds_path=observation.crds_path, seed=6, dithers=1)
    first, second = (fits.getdata(one.uncals[0], "SCI") for one in (observation, other))
    assert not np.array_equal(first, second)


def test_truth_is_that_of_the_sky(observation):
    truth, own = observation.truth, sky.truth()
    shared = truth[truth["legacy_id"] >= 0]
    assert len(shared) == len(own)
    rows = own[shared["legacy_id"]]
    places = SkyCoord(shared["ra"], shared["dec"])
    # Proper motions of 7 years.
    moved = places.separation(SkyCoord(rows["ra"], rows["dec"])).arcsec
    assert moved.max() < 2
    assert np.count_nonzero(moved > 1e-3) > 10
    assert np.array_equal(shared["kind"] == "star", rows["type"] == "PSF")
    magnitude = {band: 22.5 - 2.5 * np.log10(rows[f"flux_{band}"]) for band in ("w1", "w2")}
    share = np.log(FILTERS["F356W"].wavelength_um / 3.353) / np.log(4.603 / 3.353)
    expected = magnitude["w1"] + share * (magnitude["w2"] - magnitude["w1"])
    faint = ~shared["saturated"]
    assert np.allclose(shared["mag_F356W"][faint], expected[faint], atol=1e-6)
    assert np.allclose(truth["flux_F356W"], 3631 * 10 ** (-0.4 * truth["mag_F356W"]))


@pytest.mark.parametrize(("name", "shared"), [("F356W", 8), ("F200W", 5)])
def test_every_frame_has_enough_stars(name, shared, observation, tmp_path):
    made = observation
    if name != "F356W":
        made = simulate(tmp_path, filters=name, crds_path=observation.crds_path)
    truth = made.truth[made.truth["kind"] == "star"]
    for path in made.uncals:
        x, y = made.pixel_positions(path, truth["ra"], truth["dec"])
        inside = (x > 5) & (x < 122) & (y > 5) & (y < 122) & (truth[f"mag_{name}"] < 22.6)
        assert np.count_nonzero(inside) >= 8
        assert np.count_nonzero(inside & (truth["legacy_id"] >= 0)) >= shared


def test_just_one_star_is_saturated(observation, tmp_path):
    star = observation.truth[observation.truth["saturated"]]
    assert len(star) == 1
    assert star["legacy_id"][0] == 9
    for path in observation.uncals:
        x, y = (round(float(v[0])) for v in observation.pixel_positions(path, *_place(star)))
        ramp = fits.getdata(path, "SCI")[0, :, y, x]
        assert ramp[-1] > 56000
        assert ramp[1] < 56000
    calm = simulate(tmp_path, saturated=False, dithers=1, crds_path=observation.crds_path)
    assert not calm.truth["saturated"].any()


def _place(rows):
    return np.asarray(rows["ra"]), np.asarray(rows["dec"])


def test_light_is_where_the_numbers_say(observation):
    """The centroid of an isolated star, in the counts themselves."""
    chosen = observation.truth[observation.truth["id"] == 19]
    for path in observation.uncals:
        x, y = (float(value[0]) for value in observation.pixel_positions(path, *_place(chosen)))
        data = fits.getdata(path, "SCI")[0].astype(float)
        light = data[-1] - data[0]
        rows, columns = np.mgrid[: light.shape[0], : light.shape[1]]
        near = np.hypot(columns - x, rows - y) < 3.5
        around = np.hypot(columns - x, rows - y)
        light = light - np.median(light[(around > 5) & (around < 9)])
        assert (light * columns)[near].sum() / light[near].sum() == pytest.approx(x, abs=0.08)
        assert (light * rows)[near].sum() / light[near].sum() == pytest.approx(y, abs=0.08)


def test_galaxies_are_there_and_lie_right(observation):
    """All the light of one, along its position angle."""
    exposure = observation.exposures[observation.uncals[0].name]
    ra, dec = exposure.true
    angle = np.radians(2 * 50.0)
    row = {"ra": ra, "dec": dec, "kind": "galaxy", "sersic": 1.0, "shape_r": 0.5}
    row |= {"shape_e1": 0.4 * np.cos(angle), "shape_e2": 0.4 * np.sin(angle), "flux_F356W": 2.0}
    image = render_rate(Table([row]), "F356W", exposure.to_pixel, 0.0629, 128, 10.0)
    assert image.sum() == pytest.approx(20.0, rel=0.02)
    rows, columns = np.mgrid[:128, :128]
    x, y = ((image * places).sum() / image.sum() for places in (columns, rows))
    assert (x, y) == pytest.approx(exposure.to_pixel(ra, dec), abs=0.05)
    spread = np.cov(columns.ravel() - x, rows.ravel() - y, aweights=image.ravel())
    values, vectors = np.linalg.eigh(spread)
    along = offset_position(ra, dec, np.sin(angle / 2), np.cos(angle / 2))
    end = np.array(exposure.to_pixel(*along)) - (x, y)
    assert abs(end @ vectors[:, 1]) == pytest.approx(np.hypot(*end), rel=1e-3)
    own = (0.137 / 2.3548 / 0.0629) ** 2
    assert (values[0] - own) / (values[1] - own) == pytest.approx((0.6 / 1.4) ** 2, rel=0.05)


def test_another_place_of_the_sky(observation, tmp_path):
    """The group of galaxies, which the clump has none of."""
    options = {"dithers": 1, "coordinates": sky.positions()["field"]}
    made = simulate(tmp_path, crds_path=observation.crds_path, **options)
    truth = made.truth
    x, y = made.pixel_positions(made.uncals[0], *_place(truth))
    inside = (x > 0) & (x < 127) & (y > 0) & (y < 127)
    assert (truth["kind"][inside] == "galaxy").any()
    assert np.count_nonzero(truth["kind"][inside] == "star") >= 8
    light = fits.getdata(made.uncals[0], "SCI")[0].astype(float)
    light = light[-1] - light[0]
    assert light[60:68, 60:68].mean() > 5 * np.median(light)


def test_keywords_are_wrong_by_the_errors(observation, tmp_path):
    shifted = simulate(
        tmp_path, dithers=3, offset_arcsec=(0.3, -0.1), crds_path=observation.crds_path
    )
    for made, offset in ((observation, (0, 0)), (shifted, (0.3, -0.1))):
        errors = np.array([tuple(row) for row in made.pointing_errors["east", "north"]]) - offset
        sizes = np.hypot(*errors.T)
        assert sizes[0] == pytest.approx(0, abs=1e-9)
        assert ((sizes[1:] > 0.08) & (sizes[1:] < 0.17)).all()
        for row, path in zip(made.pointing_errors, made.uncals, strict=True):
            header = fits.getheader(path, "SCI")
            claimed = SkyCoord(header["RA_REF"], header["DEC_REF"], unit="deg")
            exposure = made.exposures[row["file"]]
            east, north = SkyCoord(*exposure.true, unit="deg").spherical_offsets_to(claimed)
            assert east.arcsec == pytest.approx(row["east"], abs=1e-5)
            assert north.arcsec == pytest.approx(row["north"], abs=1e-5)


def test_cosmic_rays_are_steps_at_their_group(observation):
    rays = observation.cosmic_rays
    assert len(rays) == 100
    gain = ELECTRONICS["NRCALONG"].gain
    data = {path.name: fits.getdata(path, "SCI") for path in observation.uncals}
    for ray in rays:
        ramp = data[ray["file"]][ray["integration"], :, ray["y"], ray["x"]].astype(float)
        steps = np.diff(ramp)
        assert np.argmax(steps) == ray["group"] - 1
        step = steps[ray["group"] - 1] - np.median(steps)
        assert step * gain == pytest.approx(ray["electrons"], rel=0.05, abs=150)


def test_dead_pixels_are_in_the_mask(observation):
    from stdatamodels.jwst import datamodels
    from stdatamodels.jwst.datamodels import dqflags

    bits = dqflags.pixel["DEAD"] | dqflags.pixel["DO_NOT_USE"]
    with datamodels.open(_reference(observation, "mask", 1)) as model:
        dead = model.dq == bits
        assert np.array_equal(model.dq > 0, dead)
    assert 1 <= dead.sum() < 30
    ramps = fits.getdata(observation.uncals[0], "SCI")[0].astype(float)
    light = ramps[-1] - ramps[0]
    assert np.abs(light[dead]).max() < 40
    assert np.median(light[~dead]) > 20


def test_hot_pixels_are_unknown_and_stay(observation):
    hot = observation.hot_pixels
    assert len(hot) == 3
    masked = fits.getdata(_reference(observation, "mask", 1), "DQ")
    for path in observation.uncals:
        data = fits.getdata(path, "SCI")[0].astype(float)
        for row in hot:
            rate = (data[-1] - data[0])[row["y"], row["x"]] / (9 * 10.73677)
            assert rate > 0.8 * row["dn_s"]
            assert masked[row["y"], row["x"]] == 0


def _reference(observation, kind, serial):
    folder = observation.crds_path / "references" / "jwst" / "nircam"
    return next(folder.glob(f"jwst_nircam_{kind}_{serial:04d}.*"))


def test_numbers_of_the_detector_agree_with_its_references(observation):
    """A ramp through the linearity, dark and gain files is the light that went in."""
    maps, parts = detector_maps("NRCALONG", 128), ELECTRONICS["NRCALONG"]
    times = 10.73677 * np.arange(1, 11)
    rate = np.full((128, 128), 300.0)
    counts = make_ramp(rate, maps, parts, times, np.random.default_rng(1)).astype(float)
    bias = fits.getdata(_reference(observation, "superbias", 1), "SCI")
    coefficients = fits.getdata(_reference(observation, "linearity", 1), "COEFFS")
    dark = fits.getdata(_reference(observation, "dark", 1), "SCI")
    assert fits.getdata(_reference(observation, "gain", 1), "SCI")[3, 4] == np.float32(parts.gain)
    signal = counts - bias
    linear = sum(c * signal**power for power, c in enumerate(coefficients)) - dark[:10]
    good = ~maps.bad
    assert np.mean((linear[-1] / times[-1])[good]) == pytest.approx(300.0, rel=1e-3)
    assert np.mean((linear[2] / times[2])[good]) == pytest.approx(300.0, rel=2e-3)
    noise = np.var((linear[-1] - linear[-2])[good])
    poisson = 300.0 * 10.73677 / parts.gain
    read = fits.getdata(_reference(observation, "readnoise", 1), "SCI")[0, 0] ** 2
    assert noise == pytest.approx(poisson + read, rel=0.15)


def test_stripes_are_of_rows_and_reads():
    rows = one_over_f(np.random.default_rng(3), 512)
    assert rows.std() == pytest.approx(1)
    power = np.abs(np.fft.rfft(rows)) ** 2
    assert power[1:20].mean() > 5 * power[-100:].mean()


def test_stripes_snowballs_and_wisp_on_demand(observation, tmp_path):
    options = {"filters": "F200W", "dithers": 1, "crds_path": observation.crds_path}
    plain = simulate(tmp_path / "plain", **options)
    striped = simulate(tmp_path / "striped", stripes_e=40, **options)
    wisp = simulate(tmp_path / "wisp", wisp=2.0, **options)
    balls = simulate(tmp_path / "balls", snowballs=2, **options)

    def last_steps(made):
        data = fits.getdata(made.uncals[0], "SCI")[0].astype(float)
        return data[-1] - data[0]

    rows = np.median(last_steps(striped), axis=1).std(), np.median(last_steps(plain), axis=1).std()
    expected = 40 * np.sqrt(2) / ELECTRONICS["NRCA1"].gain
    assert rows[1] < 6
    assert rows[0] == pytest.approx(expected, rel=0.4)

    path = wisp.wisp_templates["NRCA1", "F200W"]
    template = fits.getdata(path, "SCI")
    assert template.max() == pytest.approx(1)
    light = last_steps(wisp) / (9 * 10.73677)
    level = np.median(light[template > 0.7]) - np.median(light[template < 0.02])
    assert level == pytest.approx(2.0 * np.median(template[template > 0.7]), rel=0.1)
    assert not plain.wisp_templates

    assert len(balls.snowballs) == 2
    data = fits.getdata(balls.uncals[0], "SCI")[0]
    for ball in balls.snowballs:
        assert data[ball["group"], ball["y"], ball["x"]] > 56000
        assert data[0, ball["y"], ball["x"]] < 20000


def test_rotation_against_astropy():
    """The sky around a reference point, by spherical trigonometry that is not ours."""
    pointing = Pointing(86.1, -493.2, 45.16, -0.068, 24.0)
    ra, dec = pointing.to_sky(86.1, -493.2)
    assert (ra, dec) == pytest.approx((45.16, -0.068), abs=1e-12)
    centre, north_of = SkyCoord(ra, dec, unit="deg"), pointing.to_sky(86.1, -493.2 + 60)
    above = SkyCoord(*north_of, unit="deg")
    assert centre.position_angle(above).deg == pytest.approx(24.0, abs=1e-6)
    assert centre.separation(above).arcsec == pytest.approx(60, abs=1e-6)
    v2 = 86.1 + 60 / np.cos(np.radians(493.2 / 3600))
    left = SkyCoord(*pointing.to_sky(v2, -493.2), unit="deg")
    assert centre.position_angle(left).deg == pytest.approx(114.0, abs=1e-3)
    moved = SkyCoord(*offset_position(45.16, -0.068, 30.0, -20.0), unit="deg")
    east, north = centre.spherical_offsets_to(moved)
    assert (east.arcsec, north.arcsec) == pytest.approx((30, -20), abs=1e-5)


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_detector_there_and_back(name):
    detector = DETECTORS[name]
    x, y = np.meshgrid(np.linspace(0, 2047, 9), np.linspace(0, 2047, 9))
    v2, v3 = detector.to_v2v3(x, y)
    assert np.allclose(detector.from_v2v3(v2, v3), (x, y), atol=1e-9)
    model = detector.transform()
    assert np.allclose(model(x, y), (v2, v3), atol=1e-9)
    assert np.allclose(model.inverse(v2, v3), (x, y), atol=1e-9)


def test_agrees_with_gwcs(observation, calibrated):
    _, gwcs = calibrated
    for name, (x, y, ra, dec) in gwcs.items():
        exposure = observation.exposures[name]
        commanded = exposure.shot.pointing
        own = exposure.setup.to_pixel(commanded, np.array(ra), np.array(dec))
        assert np.allclose(own, (x, y), atol=1e-3)


def test_real_pipeline_calibrates(observation, calibrated):
    folder, _ = calibrated
    uncal = observation.uncals[0]
    stem = uncal.name.removesuffix("_uncal.fits")
    rate, cal = (fits.open(folder / f"{stem}_{suffix}.fits") for suffix in ("rate", "cal"))
    with rate, cal:
        for step in ("DQINIT", "SATURA", "SUPERB", "LINEAR", "DARK", "JUMP", "RAMP"):
            assert rate[0].header[f"S_{step}"] == "COMPLETE"
        for step in ("WCS", "FLAT", "PHOTOM"):
            assert cal[0].header[f"S_{step}"] == "COMPLETE"
        assert cal[0].header["CRDS_CTX"] == "jwst_0001.pmap"
        assert cal[0].header["R_FLAT"] == "crds://jwst_nircam_flat_0001.fits"
        assert cal["SCI"].header["BUNIT"] == "MJy/sr"
        assert cal["SCI"].header["PHOTMJSR"] == pytest.approx(FILTERS["F356W"].photmjsr)
        jumps = (rate["DQ"].data & 4) > 0
        rays = observation.cosmic_rays[observation.cosmic_rays["file"] == uncal.name]
        assert jumps[rays["y"], rays["x"]].sum() >= 24
        # A cosmic ray flags its neighbours too.
        assert jumps.sum() < 6 * 25
        positions = observation.pixel_positions(uncal, *_place(observation.truth))
        model = _model(observation, positions, cal["SCI"].shape, 1 / 12)
        _compare(observation, positions, cal["SCI"].data, model)
        (star,) = observation.truth[observation.truth["saturated"]]
        x, y = observation.pixel_positions(uncal, star["ra"], star["dec"])
        assert cal["DQ"].data[int(np.rint(y)), int(np.rint(x))] & 2


def _model(observation, positions, shape, extra):
    """Return all stars of the truth on a grid, MJy/sr; `extra` square pixels widen the PSF."""
    scale = DETECTORS["NRCALONG"].scale_arcsec
    # Pixels are integrated here; what else widens the PSF is added.
    sigma = np.sqrt((FILTERS["F356W"].sigma_arcsec / scale) ** 2 + extra - 1 / 12)
    per_jansky = 1e-6 / np.radians(scale / 3600) ** 2
    model = np.zeros(shape)
    for x, y, flux in zip(*positions, observation.truth["flux_F356W"], strict=True):
        if -20 < x < shape[1] + 20 and -20 < y < shape[0] + 20:
            parts = [
                np.diff(erf((np.arange(n + 1) - 0.5 - place) / np.sqrt(2) / sigma)) / 2
                for n, place in ((shape[0], y), (shape[1], x))
            ]
            model += np.outer(*parts) * flux * per_jansky
    return model


def _in_every_frame(observation):
    inside = observation.truth["kind"] == "star"
    for path in observation.uncals:
        for place in observation.pixel_positions(path, *_place(observation.truth)):
            inside &= (place > 5) & (place < 122)
    return np.asarray(inside)


def _compare(observation, positions, data, model):
    """Compare the light within 3.5 pixels of stars with that of all stars there."""
    data = data - np.nanmedian(data - model)
    rows, columns = np.mgrid[: data.shape[0], : data.shape[1]]
    compared = 0
    chosen = _in_every_frame(observation) & ~observation.truth["saturated"]
    for x, y, wanted in zip(*positions, chosen, strict=True):
        near = np.hypot(columns - x, rows - y) < 3.5
        if not wanted or not np.isfinite(data[near]).all():
            continue
        assert data[near].sum() / model[near].sum() == pytest.approx(1, abs=0.03)
        compared += 1
    assert compared >= 8


def test_new_context_changes_what_was_asked(tmp_path):
    crds_path = tmp_path / "crds"
    # An empty folder is taken.
    crds_path.mkdir()
    made = simulate(tmp_path / "made", size=32, dithers=1, crds_path=crds_path)
    assert fits.getdata(made.uncals[0], "SCI").shape == (1, 10, 32, 32)
    flat = made.new_context(("flat",))
    several = made.new_context(["photom", "pars-jumpstep", "dark"])
    assert (flat, several) == ("jwst_0002.pmap", "jwst_0003.pmap")
    assert made.new_context(("flat",)) == flat
    assert made.new_context(("dark", "photom", "pars-jumpstep")) == several
    contexts = [made.crds_context, flat, several]
    task = {"uncal": str(made.uncals[0]), "kinds": [*KINDS, "area"], "contexts": contexts}
    best = run(_BEST, made, task)
    first = best[made.crds_context]
    # The rules of one frame do not serve another.
    for kind in ("mask", "dark", "flat"):
        assert best["other frame"][kind].upper().startswith("NOT FOUND")
    assert best["other frame"]["photom"] == first["photom"]
    assert first["area"].upper() == "NOT FOUND N/A"
    for kind in KINDS:
        assert first[kind].startswith(f"jwst_nircam_{kind}_0001.")
    changed = {
        name: {kind for kind in KINDS if best[name][kind] != first[kind]} for name in contexts[1:]
    }
    assert changed == {flat: {"flat"}, several: {"photom", "pars-jumpstep", "dark"}}
    folder = crds_path / "references" / "jwst" / "nircam"
    old, new = (fits.getdata(folder / best[name]["flat"], "SCI") for name in contexts[:2])
    assert not np.array_equal(old, new)
    with pytest.raises(InvalidRequestError, match="nonsense"):
        made.new_context(("nonsense",))


def test_cache_of_something_else_is_refused(observation, tmp_path):
    with pytest.raises(InvalidRequestError, match="serves 128 pixels and 12 groups, not 64 and 10"):
        simulate(tmp_path / "made", size=64, crds_path=observation.crds_path)
    with pytest.raises(InvalidRequestError, match="not 128 and 13"):
        simulate(tmp_path / "made", groups=13, crds_path=observation.crds_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(InvalidRequestError, match="holds other files"):
        simulate(tmp_path / "made", crds_path=tmp_path / "full")
    assert not (tmp_path / "made").exists()


def test_environment_is_given_back(observation, monkeypatch):
    monkeypatch.setenv("CRDS_SERVER_URL", "https://example.org")
    monkeypatch.delenv("CRDS_PATH", raising=False)
    with observation.crds_environment() as environment:
        assert environment == observation.environment
        assert os.environ["CRDS_PATH"] == str(observation.crds_path)
        assert "CRDS_SERVER_URL" not in os.environ
    assert "CRDS_PATH" not in os.environ
    assert os.environ["CRDS_SERVER_URL"] == "https://example.org"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"size": 1000}, "size=1000: give 32 to 640 pixels, or 2048"),
        ({"size": 20}, "size=20"),
        ({"filters": ("F999W",)}, "F999W.*F356W"),
        ({"filters": ()}, "different ones"),
        ({"filters": ("F356W", "F356W")}, "different ones"),
        ({"groups": 2}, "groups=2.*at least 3"),
        ({"dithers": 0}, "dithers=0.*at least 1"),
        ({"cosmic_rays": 1000}, "cosmic_rays=1000: give 0 to 273"),
        ({"wisp": 1.0}, "wisp=1.0.*F200W"),
    ],
)
def test_wrong_arguments(options, match):
    with pytest.raises(InvalidRequestError, match=match):
        simulate(**options)


@pytest.mark.parametrize("package", ["stdatamodels", "crds"])
def test_missing_package_names_the_extra(package, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(OptionalDependencyError, match=r"\[jwst\]"):
        simulate()


def test_import_loads_no_pipeline():
    code = (
        "import sys, astroquery_lis.sandbox.jwst; "
        "print([n for n in ('jwst', 'stdatamodels', 'crds', 'gwcs') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_two_processes_at_once(tmp_path):
    code = (
        "import sys; from astroquery_lis.sandbox.jwst import simulate; "
        "made = simulate(sys.argv[1], dithers=1, crds_path=sys.argv[2]); "
        "print(made.new_context(('gain',)))"
    )
    crds_path = tmp_path / "crds"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / name), str(crds_path)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in "ab"
    ]
    assert [one.communicate(timeout=120)[0].strip() for one in started] == ["jwst_0002.pmap"] * 2
    assert not list(tmp_path.glob(".*.partial"))
    assert len(list((crds_path / "mappings" / "jwst").glob("*.pmap"))) == 2


@pytest.mark.slow
def test_mosaic_of_four_dithers(observation, tmp_path):
    """Positions and fluxes after the whole chain, in spite of the errors of pointing."""
    pytest.importorskip("jwst")
    uncals = [str(path) for path in observation.uncals]
    run(_STAGES, observation, {"uncals": uncals, "folder": str(tmp_path)})
    names = [Path(path).name.replace("_uncal", "_cal") for path in uncals]
    ra, dec = (place.tolist() for place in _place(observation.truth))
    task = {"names": names, "folder": str(tmp_path), "ra": ra, "dec": dec}
    found = run(_MOSAIC, observation, task)
    positions = np.array(found["x"]), np.array(found["y"])
    data = fits.getdata(tmp_path / "mosaic_i2d.fits", "SCI")
    # The detector's pixel, the drop and the pixel of the mosaic.
    model = _model(observation, positions, data.shape, 4 / 12)
    _compare(observation, positions, data, model)
    catalogue = Table.read(tmp_path / "mosaic_cat.ecsv")
    offsets = []
    for x, y, wanted in zip(*positions, _in_every_frame(observation), strict=True):
        if wanted:
            apart = np.hypot(catalogue["xcentroid"] - x, catalogue["ycentroid"] - y)
            offsets.append(apart.min())
    assert len(offsets) >= 12
    assert max(offsets) < 0.1
    assert np.median(offsets) < 0.03
    for name in names:
        crf = next(tmp_path.glob(name.replace("_cal.fits", "_*_crf.fits")))
        dq = fits.getdata(crf, "DQ")
        assert (dq[observation.hot_pixels["y"], observation.hot_pixels["x"]] & 16 > 0).all()


@pytest.mark.slow
def test_full_frame_has_reference_pixels(tmp_path):
    from stdatamodels.jwst import datamodels
    from stdatamodels.jwst.datamodels import dqflags

    made = simulate(
        tmp_path, size=2048, dithers=1, groups=3, cosmic_rays=50, crds_path=tmp_path / "crds"
    )
    data = fits.getdata(made.uncals[0], "SCI")[0].astype(float)
    assert data.shape == (3, 2048, 2048)
    assert fits.getheader(made.uncals[0])["SUBARRAY"] == "FULL"
    border = np.ones((2048, 2048), bool)
    border[4:-4, 4:-4] = False
    with datamodels.open(_reference(made, "mask", 1)) as mask:
        flagged = mask.dq & dqflags.pixel["REFERENCE_PIXEL"] > 0
        assert np.array_equal(flagged, border)
    drift = data[-1] - data[0]
    # Each amplifier has an offset of its own at each read, which the border shows too.
    for quarter in range(4):
        columns = slice(512 * quarter, 512 * (quarter + 1))
        edge = np.median(drift[:4, columns])
        inside = np.median(drift[4:-4, columns])
        assert inside - edge == pytest.approx(0.3 * 2 * 10.73677, abs=3)
