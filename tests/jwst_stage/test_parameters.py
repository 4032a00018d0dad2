"""Parameters are checked against the real specifications, all at once, before anything runs."""

import json
import re
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from astroquery_lis import conf
from astroquery_lis.exceptions import InvalidRequestError, StageWarning
from astroquery_lis.jwst_stage import parameters
from astroquery_lis.jwst_stage.parameters import OWNED, check, for_task, specs

pytest.importorskip("jwst")


def exposure(detector="NRCALONG", filter_name="F356W", **kwargs):
    short = "LONG" if detector.endswith("LONG") else "SHORT"
    values = {"instrument": "NIRCAM", "channel": short, "detector": detector, "pupil": "CLEAR"}
    return SimpleNamespace(**{**values, "filter": filter_name, **kwargs})


def of_task(steps, pipeline, exposures):
    return for_task([check(steps)], pipeline, exposures)


def refusal(steps, **kwargs):
    with pytest.raises(InvalidRequestError) as caught:
        check(steps, **kwargs)
    assert caught.value.parameter == "steps"
    return str(caught.value)


@pytest.fixture(scope="module", autouse=True)
def fresh(tmp_path_factory):
    """The specifications as they are read where the cache holds a file that was cut off."""
    folder = tmp_path_factory.mktemp("specs")
    name = f"specs-{version('jwst')}-{version('stpipe')}.json"
    path = folder / "jwst_stage" / name
    path.parent.mkdir()
    path.write_text('{"pipelines": {')
    parameters._specs.cache_clear()
    with conf.set_temp("cache_dir", str(folder)):
        found = specs()
    return found, path


def test_specifications_are_kept_on_disk(fresh, tmp_path):
    found, path = fresh
    assert json.loads(path.read_text()) == found
    parameters._specs.cache_clear()
    other = tmp_path / "jwst_stage" / path.name
    other.parent.mkdir()
    other.write_text(json.dumps({**found, "from": "disk"}))
    try:
        with conf.set_temp("cache_dir", str(tmp_path)):
            assert specs()["from"] == "disk"
        parameters._specs.cache_clear()
    finally:
        with conf.set_temp("cache_dir", str(path.parents[1])):
            assert specs() == found


def test_every_pipeline_of_jwst_is_known():
    source = Path(find_spec("jwst").origin).parent / "pipeline" / "__init__.py"
    named = re.findall(r'"(\w+Pipeline)"', source.read_text())
    assert len(named) > 8
    assert {*named, "WfsCombineStep"} == set(specs()["pipelines"])
    assert {"NRCALONG", "MIRIMAGE", "NIS"} <= set(specs()["words"]["detector"])


def test_specifications_are_those_of_the_classes():
    from jwst.jump import JumpStep

    spec = JumpStep.load_spec_file()
    mine = specs()["pipelines"]["Detector1Pipeline"]["steps"]["jump"]
    assert {name: str(text) for name, text in spec.items()}.items() <= mine.items()


def test_all_faults_are_told_at_once():
    said = refusal(
        {
            "jmp": {"rejection_threshold": 5},
            "jump": {"rejection_treshold": 5, "rejection_threshold": -1, "maximum_cores": "half"},
            "NRCA9": {"jump": {"skip": True}},
            "tweakreg.fitgeometry": "bent",
            "skymatch": 5,
        }
    )
    assert said.startswith("steps has 7 faults:")
    assert said.count("\n- ") == 7
    for part in (
        "there is no step 'jmp'. Did you mean 'jump'?",
        "no parameter 'rejection_treshold'. Did you mean 'rejection_threshold'",
        "jump.rejection_threshold=-1 does not agree with float(default=4.0,min=0)",
        "jump.maximum_cores cannot be set: one process works on each exposure",
        "'NRCA9' is not an instrument, channel, detector, filter or pupil of JWST. Did you mean",
        "tweakreg.fitgeometry='bent'",
        "skymatch=5 must be a dictionary of parameters",
    ):
        assert part in said


@pytest.mark.parametrize("name", sorted(OWNED))
def test_what_the_plan_decides_on_is_refused(name):
    assert f"jump.{name} cannot be set: {OWNED[name]}" in refusal({"jump": {name: "x"}})


@pytest.mark.parametrize(
    ("value", "expected"),
    [("5", 5.0), (5, 5.0), (5.5, 5.5)],
)
def test_numbers_are_as_stpipe_takes_them(value, expected):
    checked = check({"jump": {"rejection_threshold": value}})
    assert checked == {"": {"jump": {"rejection_threshold": expected}}}
    assert isinstance(checked[""]["jump"]["rejection_threshold"], float)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("skip", "perhaps"),
        ("kron_params", [1.0]),
        ("nclip", -1),
        ("minobj", 2.5),
        ("minobj", {"a": 1}),
        ("starfinder", None.__class__),
    ],
)
def test_values_of_a_wrong_type_or_range_are_refused(name, value):
    assert f"tweakreg.{name}=" in refusal({"tweakreg": {name: value}})


def test_values_agree_with_what_stpipe_makes_of_them():
    from jwst.tweakreg import TweakRegStep
    from stpipe import config_parser

    asked = {"kron_params": (1, 2.5), "peakmax": None, "brightest": "50", "roundhi": 1}
    checked = check({"tweakreg": asked})[""]["tweakreg"]
    config = config_parser.config_from_dict(
        {**asked, "kron_params": [1, 2.5]}, TweakRegStep.load_spec_file()
    )
    assert checked == {name: config[name] for name in asked}


def test_common_parameters_are_known(tmp_path):
    file = tmp_path / "flat.fits"
    file.touch()
    asked = {"flat_field": {"skip": True, "save_results": True, "override_flat": str(file)}}
    assert check(asked)[""] == asked


def test_an_override_has_to_exist_and_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = refusal({"flat_field": {"override_flat": "flat.fits"}})
    assert "flat_field.override_flat='flat.fits' must be a reference file that exists" in said
    (tmp_path / "flat.fits").touch()
    checked = check({"flat_field.override_flat": "flat.fits"})
    assert checked[""]["flat_field"]["override_flat"] == str(tmp_path / "flat.fits")
    assert check({"flat_field.override_flat": "N/A"})[""]["flat_field"]["override_flat"] == "N/A"


def test_a_pipeline_can_be_named():
    asked = {"image2": {"resample": {"skip": True}}, "image3.resample.pixel_scale": 0.03}
    checked = check(asked)
    assert checked == {
        "image2": {"resample": {"skip": True}},
        "image3": {"resample": {"pixel_scale": 0.03}},
    }
    assert "'image2' has no step 'tweakreg'" in refusal({"image2": {"tweakreg": {"skip": True}}})
    exposures = [exposure()]
    assert of_task(asked, "Image2Pipeline", exposures) == {"resample": {"skip": True}}
    assert of_task(asked, "Image3Pipeline", exposures) == {"resample": {"pixel_scale": 0.03}}


def test_the_most_specific_selector_has_its_way():
    steps = {
        "jump.rejection_threshold": 1,
        "F200W": {"jump": {"rejection_threshold": 6}},
        "detector1": {"jump": {"rejection_threshold": 2}},
        "NRCA1": {"jump": {"rejection_threshold": 5}},
        "SHORT": {"jump": {"rejection_threshold": 4}},
        "NIRCAM": {"jump": {"rejection_threshold": 3}},
    }

    def chosen(**kwargs):
        one = exposure(**kwargs)
        return of_task(steps, "Detector1Pipeline", [one])["jump"]["rejection_threshold"]

    assert chosen(detector="NRCA1", filter_name="F200W") == 6
    assert chosen(detector="NRCA1", filter_name="F115W") == 5
    assert chosen(detector="NRCA2", filter_name="F115W") == 4
    assert chosen(detector="NRCALONG") == 3
    assert chosen(instrument="MIRI", channel="", detector="MIRIMAGE", filter_name="F770W") == 2


def test_a_selector_counts_where_it_is_right_for_all_exposures():
    steps = {"NRCA1": {"tweakreg": {"minobj": 4}}, "F200W": {"tweakreg": {"snr_threshold": 20}}}
    two = [exposure("NRCA1", "F200W"), exposure("NRCA2", "F200W")]
    assert of_task(steps, "Image3Pipeline", two) == {"tweakreg": {"snr_threshold": 20.0}}
    assert of_task(steps, "Image3Pipeline", two[:1])["tweakreg"]["minobj"] == 4


def test_a_pupil_is_a_selector_too():
    one = exposure("NRCALONG", "F444W", pupil="F470N")
    steps = {"F470N": {"photom": {"skip": True}}}
    assert of_task(steps, "Image2Pipeline", [one]) == {"photom": {"skip": True}}


def test_a_later_layer_has_its_way_whatever_the_selectors():
    layers = [{"F356W": {"jump.rejection_threshold": 7}}, {"jump.rejection_threshold": 5}]
    found = for_task(map(check, layers), "Detector1Pipeline", [exposure()])
    assert found == {"jump": {"rejection_threshold": 5.0}}


def test_a_task_gets_only_what_its_pipeline_has():
    steps = {"jump.skip": True, "photom.skip": True, "resample.pixfrac": 0.8}
    assert of_task(steps, "Image2Pipeline", [exposure()]) == {
        "photom": {"skip": True},
        "resample": {"pixfrac": 0.8},
    }


def test_parameters_that_nothing_comes_of_are_warned_about():
    with pytest.warns(StageWarning, match="parameters of tweakreg; no pipeline of this plan"):
        check({"tweakreg.minobj": 4, "jump.skip": True}, ["Detector1Pipeline"])


def test_a_parameter_is_checked_against_the_pipelines_of_the_plan():
    assert check({"extract_1d.skip": True}, ["Spec2Pipeline", "Spec3Pipeline"])


def test_words_of_toml_for_no_value():
    assert check({"tweakreg.peakmax": "None"})[""]["tweakreg"]["peakmax"] is None
    # A catalogue may have that name.
    assert check({"tweakreg.abs_refcat": "None"})[""]["tweakreg"]["abs_refcat"] == "None"


@pytest.mark.parametrize("steps", [[("jump", {})], "jump", 5])
def test_something_else_than_a_dictionary_is_refused(steps):
    with pytest.raises(InvalidRequestError, match="must be a dictionary of the form"):
        check(steps)


def test_a_name_that_is_no_word_is_refused():
    assert "5 is not the name of a step" in refusal({5: {"skip": True}})
