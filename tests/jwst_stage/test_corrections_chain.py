"""Corrections of real products: what the simulation put in goes, and the stars stay."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from astroquery_lis.exceptions import StageError, TaskError
from astroquery_lis.jwst_stage.corrections import apply, correction

pytest.importorskip("jwst")

STRIPES_E = 20.0
WISP = 0.5
KINDS = {"clean": {}, "striped": {"stripes_e": STRIPES_E}, "wispy": {"wisp": WISP}}

# The pipeline itself, with nothing of ours around it.
CHAIN = """
import gc, sys
from jwst.pipeline import Detector1Pipeline, Image2Pipeline
gc.collect()
gc.freeze()
for path in sys.argv[1:]:
    how = {"output_dir": path.rpartition("/")[0], "save_results": True, "configure_log": False}
    if path.endswith("_uncal.fits"):
        Detector1Pipeline.call(path, **how)
    else:
        Image2Pipeline.call(path, steps={"resample": {"skip": True}}, **how)
"""

# The cal files of what is in the rate files already.
SUFFIXES = ["rate", pytest.param("cal", marks=pytest.mark.slow)]


class Products:
    """Rate and cal files of the same field: clean, with stripes, with a wisp."""

    def __init__(self, folder):
        from astroquery_lis.sandbox.jwst import simulate

        self.observations = {
            kind: simulate(
                folder / kind,
                filters=("F200W",),
                dithers=1,
                groups=5,
                cosmic_rays=0,
                hot_pixels=0,
                pointing_errors_arcsec=0.0,
                saturated=False,
                **values,
            )
            for kind, values in KINDS.items()
        }
        uncals = [one.uncals[0] for one in self.observations.values()]
        self.run(*uncals, self.path("clean", "rate"))
        self.template = next(iter(self.observations["wispy"].wisp_templates.values()))

    def run(self, *files):
        environment = {**os.environ, **self.observations["clean"].environment}
        environment.update(OMP_NUM_THREADS="1", CRDS_READONLY_CACHE="1")
        environment.pop("CRDS_SERVER_URL", None)
        subprocess.run(
            [sys.executable, "-c", CHAIN, *map(str, files)],
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=90,
        )

    def path(self, kind, suffix):
        uncal = self.observations[kind].uncals[0]
        path = uncal.with_name(uncal.name.replace("_uncal", f"_{suffix}"))
        if suffix == "cal" and kind != "clean" and not path.exists():
            self.run(self.path(kind, "rate"))
        return path

    def image(self, kind, suffix):
        return fits.getdata(self.path(kind, suffix), "SCI").astype(float)

    def stars(self):
        """Return x and y of sources with neighbours far away, the brightest first."""
        observation = self.observations["clean"]
        truth = observation.truth
        truth = truth[np.argsort(-truth["flux_F200W"])]
        x, y = observation.pixel_positions(observation.uncals[0], truth["ra"], truth["dec"])
        inside = (np.abs(x - 63.5) < 54) & (np.abs(y - 63.5) < 54)
        return x[inside][:12], y[inside][:12]


@pytest.fixture(scope="module")
def products(tmp_path_factory):
    return Products(tmp_path_factory.mktemp("corrections"))


@pytest.fixture
def corrected(tmp_path):
    """A function that applies a correction to a file and returns the image and the header."""

    def do(what, path, **parameters):
        made = correction(what, **parameters)
        output = tmp_path / f"{Path(path).stem}_{made.suffix}.fits"
        apply(made.to_dict(), path, output)
        return fits.getdata(output, "SCI").astype(float), fits.getheader(output)

    return do


def fluxes(image, x, y, radius=4.0):
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    found = []
    for one_x, one_y in zip(x, y, strict=True):
        distance = np.hypot(columns - one_x, rows - one_y)
        ring = image[(distance > 8) & (distance < 12)]
        inside = image[distance < radius]
        found.append(np.sum(inside - np.nanmedian(ring)))
    return np.array(found)


def row_scatter(image, clean):
    """Return the scatter of the medians of rows of a difference, where the sky is."""
    sky = clean < np.nanmedian(clean) + 0.3
    values = np.where(sky, image, np.nan)
    return np.nanstd(np.nanmedian(values, axis=1))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_stripes_are_lowered_five_times_and_fluxes_stay(products, corrected, suffix):
    clean, striped = (products.image(kind, suffix) for kind in ("clean", "striped"))
    image, header = corrected("flicker", products.path("striped", suffix))
    before = row_scatter(striped - clean, clean)
    after = row_scatter(image - clean, clean)
    unit = 1 if suffix == "rate" else products.image("clean", "cal")[60, 60] / clean[60, 60]
    assert before > 0.1 * unit
    assert after < before / 5
    x, y = products.stars()
    raw = fluxes(clean, x, y)
    bright = raw > 100 * np.nanmedian(np.abs(clean - np.nanmedian(clean)))
    assert bright.sum() >= 4
    ratio = fluxes(image, x, y)[bright] / raw[bright]
    assert np.abs(np.nanmedian(ratio) - 1) < 0.01
    # Without the noise of another exposure: what the correction itself does to each star.
    same, _ = corrected("flicker", products.path("clean", suffix))
    ratio = fluxes(same, x, y)[bright] / raw[bright]
    assert np.nanmax(np.abs(ratio - 1)) < 0.01
    assert any(line.startswith("corrected: flicker") for line in header["HISTORY"])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_wisp_is_lowered_five_times_and_fluxes_stay(products, corrected, suffix):
    clean, wispy = (products.image(kind, suffix) for kind in ("clean", "wispy"))
    image, header = corrected(
        "wisp", products.path("wispy", suffix), templates=products.template, suffix="light"
    )
    shape = fits.getdata(products.template, "SCI")
    good = np.isfinite(clean)

    def amount(difference):
        return np.sum((difference * shape)[good]) / np.sum((shape**2)[good])

    before, after = amount(wispy - clean), amount(image - clean)
    assert abs(after) < before / 5
    if suffix == "rate":
        assert before == pytest.approx(WISP, rel=0.05)
    told = next(line for line in header["HISTORY"] if line.startswith("wisp: scale"))
    scale, error = float(told.split()[2]), float(told.split()[4])
    assert scale == pytest.approx(before, abs=4 * error)
    x, y = products.stars()
    raw = fluxes(clean, x, y)
    bright = raw > 100 * np.nanmedian(np.abs(clean - np.nanmedian(clean)))
    ratio = fluxes(image, x, y)[bright] / raw[bright]
    assert np.abs(np.nanmedian(ratio) - 1) < 0.01
    same, header = corrected("wisp", products.path("clean", suffix), templates=products.template)
    ratio = fluxes(same, x, y)[bright] / raw[bright]
    assert np.nanmax(np.abs(ratio - 1)) < 0.01


def test_only_the_image_changes(products, tmp_path):
    path = products.path("striped", "rate")
    output = tmp_path / "out.fits"
    apply(correction("flicker").to_dict(), path, output)
    with fits.open(path) as before, fits.open(output) as after:
        for name in ("ERR", "DQ", "VAR_POISSON", "VAR_RNOISE"):
            assert np.array_equal(before[name].data, after[name].data, equal_nan=True), name
        assert np.array_equal(np.isnan(before["SCI"].data), np.isnan(after["SCI"].data))
        assert before[0].header["S_RAMP"] == after[0].header["S_RAMP"]
        assert after[0].header["FILENAME"] == "out.fits"


def test_none_is_applied_twice(products, tmp_path):
    made = correction("flicker").to_dict()
    once = tmp_path / "renamed_rate.fits"
    apply(made, products.path("striped", "rate"), once)
    for again in (made, correction("flicker", point="after_cal", n_sigma=4).to_dict()):
        with pytest.raises(TaskError, match="has been corrected by flicker .* already"):
            apply(again, once, tmp_path / "twice.fits")
    assert not (tmp_path / "twice.fits").exists()
    apply(correction("flicker", suffix="again").to_dict(), once, tmp_path / "twice.fits")


def test_nan_of_a_template_is_filled_or_flagged_and_never_zero(products, tmp_path):
    template = tmp_path / "holed.fits"
    shape = fits.getdata(products.template, "SCI").astype(np.float32)
    y, x = np.argwhere(shape[5:-5, 5:-5] > 0.7)[0] + 5
    shape[y, x] = np.nan
    shape[90:120, 5:35] = np.nan
    fits.ImageHDU(shape, name="SCI").writeto(template)
    output = tmp_path / "out.fits"
    path = products.path("wispy", "rate")
    apply(correction("wisp", templates=template).to_dict(), path, output)
    taken = fits.getdata(path, "SCI") - fits.getdata(output, "SCI")
    assert taken[y, x] == pytest.approx(WISP * fits.getdata(products.template)[y, x], rel=0.2)
    flagged = fits.getdata(output, "DQ") & 1
    assert flagged[105, 20] == 1
    assert taken[105, 20] == 0
    assert flagged[60:70, 60:70].sum() == (fits.getdata(path, "DQ")[60:70, 60:70] & 1).sum()


def test_templates_of_the_full_detector_are_cut_and_others_refused(products, tmp_path):
    path = products.path("wispy", "rate")
    header = fits.getheader(path)
    x, y = header["SUBSTRT1"] - 1, header["SUBSTRT2"] - 1
    full = np.zeros((2048, 2048), np.float32)
    full[y : y + 128, x : x + 128] = fits.getdata(products.template, "SCI")
    fits.PrimaryHDU(full).writeto(tmp_path / "full.fits")
    images = []
    for number, template in enumerate((tmp_path / "full.fits", products.template)):
        output = tmp_path / f"{number}.fits"
        apply(correction("wisp", templates=template).to_dict(), path, output)
        images.append(fits.getdata(output, "SCI"))
    assert np.array_equal(*images, equal_nan=True)
    fits.PrimaryHDU(full[:100, :100]).writeto(tmp_path / "small.fits")
    made = correction("wisp", templates=tmp_path / "small.fits").to_dict()
    with pytest.raises(TaskError, match=r"\(100, 100\) pixels; the exposure has \(128, 128\)"):
        apply(made, path, tmp_path / "out.fits")


def test_a_template_that_changed_since_the_plan_is_told(products, tmp_path):
    template = shutil.copy(products.template, tmp_path / "template.fits")
    made = correction("wisp", templates=template).to_dict()
    fits.setval(template, "TEXT", value="other")
    with pytest.raises(TaskError, match="changed since the plan was made"):
        apply(made, products.path("wispy", "rate"), tmp_path / "out.fits")


def test_a_flat_divides_pixels_and_errors_and_flags_what_is_bad(products, tmp_path):
    flat = np.full((128, 128), 2.0, np.float32)
    flat[10, 10], flat[11, 11], flat[12, 12] = np.nan, 0.0, 2.0
    flags = np.zeros(flat.shape, np.uint32)
    flags[12, 12] = 1
    error = np.full(flat.shape, 0.2, np.float32)
    planes = (("SCI", flat), ("ERR", error), ("DQ", flags))
    hdus = [fits.PrimaryHDU(), *(fits.ImageHDU(data, name=name) for name, data in planes)]
    fits.HDUList(hdus).writeto(tmp_path / "flat.fits")
    path, output = products.path("clean", "cal"), tmp_path / "out.fits"
    apply(correction("flat", flat=tmp_path / "flat.fits").to_dict(), path, output)
    with fits.open(path) as before, fits.open(output) as after:
        bad = np.zeros(flat.shape, bool)
        bad[[10, 11, 12], [10, 11, 12]] = True
        good = ~bad & np.isfinite(before["SCI"].data)
        old, new = (hdul["SCI"].data.astype(float) for hdul in (before, after))
        assert np.allclose(new[good], old[good] / 2, rtol=1e-5)
        assert np.allclose(new[bad], old[bad], equal_nan=True)
        expected = np.hypot(before["ERR"].data / 2, new * 0.1)
        assert np.allclose(after["ERR"].data[good], expected[good], rtol=1e-4)
        for name in ("VAR_POISSON", "VAR_RNOISE", "VAR_FLAT"):
            assert np.allclose(after[name].data[good], before[name].data[good] / 4, rtol=1e-4)
        assert (after["DQ"].data[bad] & 1 == 1).all()
        assert np.array_equal(after["DQ"].data[~bad], before["DQ"].data[~bad])


def test_the_sky_goes_to_zero(products, corrected):
    for parameters in ({}, {"order": 1}, {"estimator": "mode"}):
        image, header = corrected("sky", products.path("clean", "cal"), **parameters)
        clean = products.image("clean", "cal")
        noise = 1.4826 * np.nanmedian(np.abs(image - np.nanmedian(image)))
        sky = clean < np.nanpercentile(clean, 40)
        assert abs(np.nanmedian(image)) < noise
        assert np.nanmedian(image[sky]) < 0
        level = float(next(h for h in header["HISTORY"] if h.startswith("sky: mean")).split()[2])
        assert level == pytest.approx(np.nanmedian(clean) - np.nanmedian(image), abs=0.01)


def test_the_code_of_a_user_is_called_and_its_result_checked(products, tmp_path, monkeypatch):
    pytest.importorskip("cloudpickle")
    path, output = products.path("clean", "rate"), tmp_path / "out.fits"

    def double(model, gain):
        model.data *= gain
        return model

    apply(correction(double, gain=2.0).to_dict(), path, output)
    assert np.allclose(fits.getdata(output, "SCI"), 2 * fits.getdata(path, "SCI"), equal_nan=True)

    def copied(model):
        # A new one, without the history.
        other = type(model)(model.data.copy())
        other.update(model)
        return other

    apply(correction(copied).to_dict(), path, output)
    assert any("corrected: copied" in line for line in fits.getheader(output)["HISTORY"])

    def lost(model):
        model.data *= 2

    with pytest.raises(TaskError, match="lost was given a ImageModel .* returned a NoneType"):
        apply(correction(lost).to_dict(), path, tmp_path / "none.fits")
    assert not (tmp_path / "none.fits").exists()
    module = tmp_path / "own_step.py"
    module.write_text("def f(model):\n    return model\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    made = correction("own_step:f")
    apply(made.to_dict(), path, output)
    module.write_text("def f(model):\n    return None or model\n")
    with pytest.raises(TaskError, match="code of own_step:f changed since the plan was made"):
        apply(made.to_dict(), path, output)
    monkeypatch.undo()
    sys.modules.pop("own_step")
    with pytest.raises(StageError, match="cannot be imported where the pipeline runs"):
        apply(made.to_dict(), path, output)


@pytest.mark.filterwarnings("ignore:'get_cache_lock' is deprecated:DeprecationWarning")
def test_a_step_of_stpipe_is_a_correction(products, tmp_path, monkeypatch):
    (tmp_path / "own_stage.py").write_text(
        "from jwst.stpipe import Step\n"
        "class AddStep(Step):\n"
        "    class_alias = 'own_add'\n"
        "    spec = 'amount = float(default=1.0)'\n"
        "    def process(self, model):\n"
        "        model.data += self.amount\n"
        "        return model\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    observation = products.observations["clean"]
    path, output = products.path("clean", "rate"), tmp_path / "out.fits"
    with observation.crds_environment():
        by_name = correction("own_stage:AddStep", amount=2.5)
        assert "own_stage" not in sys.modules
        from own_stage import AddStep

        assert correction(AddStep, amount=2.5) == by_name
        assert correction(AddStep(amount=2.5)) == by_name
        assert by_name.suffix == "addstep"
        apply(by_name.to_dict(), path, output)
    sys.modules.pop("own_stage")
    added = fits.getdata(output, "SCI") - fits.getdata(path, "SCI")
    assert np.nanmedian(added) == pytest.approx(2.5)
