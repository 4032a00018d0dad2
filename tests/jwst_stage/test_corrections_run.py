"""Corrections in a run: in their places, under clean names, and again only when they change."""

import numpy as np
import pytest
from astropy.io import fits

from astroquery_lis.exceptions import InvalidRequestError
from astroquery_lis.jwst_stage.look import plot_ramp, read_ramp
from astroquery_lis.jwst_stage.tasks import Reduction, read_record

pytest.importorskip("jwst")
pytest.importorskip("cloudpickle")

pytestmark = pytest.mark.slow


def own(row):
    """Return a function that is in no module."""

    def drop_row(model):
        model.groupdq[..., row, :] |= 1
        return model

    return drop_row


def asked(scale=1.0):
    return [
        ("snowballs", {"expand_factor": 2.5}),
        (own(5), {"point": "after_jump"}),
        ("flicker", {"n_sigma": 2.5}),
        ("sky", {"sigma": 2.5 * scale}),
        ("flicker", {"point": "before_stage3", "suffix": "rest", "fit_by_channel": False}),
    ]


@pytest.fixture(scope="module")
def corrected(observation, planned, tmp_path_factory):
    from astroquery_lis.jwst_stage.running.run import run

    output_dir = tmp_path_factory.mktemp("corrected") / "reduced"
    files = observation.uncals[:2]

    def do(corrections):
        plan, resolution = planned(
            files,
            output_dir=output_dir,
            corrections=corrections,
            steps={"jump": {"save_results": True}},
        )
        manifest = run(Reduction(plan, output_dir, resolution), show_progress=False)
        return plan, manifest

    return (output_dir, do, *do(asked()))


def test_the_products_are_in_their_places_with_clean_names(corrected):
    output_dir, _, plan, manifest = corrected
    assert list(manifest["Status"]) == ["COMPLETE"] * len(plan.tasks)
    roots = [t.exposures[0] for t in plan.tasks if t.pipeline == "Detector1Pipeline"]
    for root in roots:
        for name in (
            *(f"stage1/{root}_{suffix}.fits" for suffix in ("rate", "flicker")),
            *(f"stage2/{root}_{suffix}.fits" for suffix in ("cal", "sky", "rest")),
        ):
            assert (output_dir / name).is_file(), name
        assert len(list((output_dir / "stage3").glob(f"{root}_*_crf.fits"))) == 1
    crf = sorted(path.name for path in (output_dir / "stage3").glob("*_crf.fits"))
    assert [name.rsplit("_", 2)[0] for name in crf] == sorted(roots)
    association = next((output_dir / "stage3").glob("*_asn.json")).read_text()
    assert association.count("_rest.fits") == 2
    assert "_cal.fits" not in association


def test_what_was_done_is_in_the_history_of_what_comes_after(corrected):
    output_dir, _, plan, _ = corrected
    first = plan.tasks[0].exposures[0]
    lines = "\n".join(fits.getheader(output_dir / f"stage2/{first}_rest.fits")["HISTORY"])
    for suffix in ("droprow", "flicker", "sky", "rest"):
        assert lines.count(f"corrected: {suffix} ") == 1
    rate = output_dir / f"stage1/{first}_rate.fits"
    assert "corrected: droprow " in "\n".join(fits.getheader(rate)["HISTORY"])
    # The groups that it dropped left no slope.
    assert (fits.getdata(rate, "DQ")[5] & 1 == 1).all()
    assert (fits.getdata(rate, "DQ")[6] & 1 == 0).mean() > 0.9


def test_the_switch_is_among_the_parameters_of_its_step(corrected):
    output_dir, _, plan, _ = corrected
    assert plan.tasks[0].steps["jump"]["expand_large_events"] is True
    record = read_record(output_dir, plan.tasks[0].name)
    assert record.parameters["steps"]["jump"]["expand_large_events"] is True
    assert record.parameters["steps"]["jump"]["expand_factor"] == 2.5
    hook = "astroquery_lis.jwst_stage.corrections.correction.droprow_correction"
    assert record.parameters["steps"]["jump"]["post_hooks"] == [hook]
    assert {step["step"] for step in record.steps} >= {"jump", "ramp_fit"}


def test_the_ramps_that_were_kept_show_what_was_flagged(corrected, observation):
    output_dir, _, plan, _ = corrected
    ramps = output_dir / f"stage1/{plan.tasks[0].exposures[0]}_jump.fits"
    rays = observation.cosmic_rays
    rays = rays[rays["file"] == observation.uncals[0].name]
    ray = max(rays, key=lambda row: row["electrons"])
    ramp = read_ramp(ramps, int(ray["x"]), int(ray["y"]))
    assert ramp.flags[ray["group"]] & 4
    assert "jump" in [
        line.get_label() for line in plot_ramp(ramps, int(ray["x"]), int(ray["y"])).get_lines()
    ]


def test_the_mosaic_is_flat_where_the_sky_is(corrected):
    output_dir = corrected[0]
    image = fits.getdata(next((output_dir / "stage3").glob("*_i2d.fits")), "SCI")
    sky = image[image < np.nanpercentile(image, 60)]
    noise = 1.4826 * np.nanmedian(np.abs(sky - np.nanmedian(sky)))
    assert abs(np.nanmedian(sky)) < 3 * noise


def test_a_second_run_does_nothing_and_a_changed_correction_only_what_follows(corrected):
    _, do, plan, _ = corrected
    _, manifest = do(asked())
    assert set(manifest["Status"]) == {"CACHED"}
    _, manifest = do(asked(scale=1.2))
    states = dict(zip(manifest["task"], manifest["Status"], strict=True))
    for task in plan.tasks:
        name = task.name
        untouched = name.startswith("stage1") or name.endswith("_cal.fits")
        assert states[name] == ("CACHED" if untouched else "COMPLETE"), name


def test_a_corrected_file_is_not_taken_as_an_exposure(corrected, planned):
    output_dir, _, plan, _ = corrected
    first = plan.tasks[0].exposures[0]
    with pytest.raises(InvalidRequestError, match="flicker"):
        planned([output_dir / f"stage1/{first}_flicker.fits"])
