"""What `corrections=` takes and refuses; the pipeline is not needed."""

import dataclasses
import json
import sys
import textwrap
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits

from astroquery_lis.exceptions import InvalidRequestError, OptionalDependencyError
from astroquery_lis.jwst_stage.corrections import Correction, correction, normalise, switches


def exposure(**values):
    usual = {
        "instrument": "NIRCAM",
        "channel": "SHORT",
        "detector": "NRCA3",
        "filter": "F200W",
        "pupil": "CLEAR",
        "exp_type": "NRC_IMAGE",
    }
    return SimpleNamespace(**{**usual, **values})


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image.fits"
    fits.ImageHDU(np.ones((8, 8), np.float32), name="SCI").writeto(path)
    return path


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A function that writes a module and returns its name; it is forgotten after the test."""
    monkeypatch.syspath_prepend(str(tmp_path))
    written = []

    def write(source, name="users_own"):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        written.append(name)
        return name

    yield write
    for name in written:
        sys.modules.pop(name, None)


def test_names_give_corrections_at_their_points():
    made = normalise(["snowballs", "clean_flicker_noise", "flicker", ("sky", {"order": 2})])
    assert [c.name for c in made] == ["snowballs", "clean_flicker_noise", "flicker", "sky"]
    assert [c.point for c in made] == ["in_step", "in_step", "after_rate", "after_cal"]
    assert [c.suffix for c in made][2:] == ["flicker", "sky"]
    assert made[3].parameters == {"order": 2}
    assert normalise(None) == normalise(()) == ()
    assert normalise("flicker") == normalise(["flicker"])
    assert normalise(made) == made
    assert normalise([("flicker", {})]) == normalise(("flicker", {}))
    assert correction("sky", order=2) == made[3]


def test_switches_are_asked_of_the_steps():
    made = normalise(
        [
            ("snowballs", {"expand_factor": 2.5, "only": "NRCA3"}),
            ("clean_flicker_noise", {"fit_by_channel": True}),
            "flicker",
        ]
    )
    assert switches(made) == {
        "NRCA3": {"jump": {"expand_large_events": True, "expand_factor": 2.5}},
        "": {"clean_flicker_noise": {"skip": False, "fit_by_channel": True}},
    }


def test_a_correction_survives_json_and_says_what_it_is_for(image):
    templates = {("NRCA3", "F200W"): image, "NRCB4": image}
    made = correction("wisp", templates=templates, minimum_snr=np.float32(4))
    assert made.only == ("NRCA3/F200W", "NRCB4")
    assert list(made.files) == [str(image)]
    assert Correction.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    assert made.applies(exposure())
    assert not made.applies(exposure(filter="F150W"))
    assert made.applies(exposure(detector="NRCB4", filter="F150W"))
    assert not made.applies(exposure(exp_type="NRC_WFSS"))
    assert correction("flicker", only="f200w").only == ("F200W",)
    assert correction("flicker", only="LONG").applies(exposure(channel="LONG"))
    assert not correction("flicker", only="LONG").applies(exposure())
    both = correction("wisp", templates=templates, only="F200W")
    assert both.applies(exposure(detector="NRCB4"))
    assert not both.applies(exposure(detector="NRCB4", filter="F150W"))


def test_a_flat_in_place_of_the_pipelines_skips_it(image):
    made = correction("flat", flat={"NRCA3": image}, mode="replace")
    assert made.point == "after_rate"
    assert switches([made]) == {"NRCA3": {"flat_field": {"skip": True}}}
    assert switches([correction("flat", flat=image)]) == {}
    # Where the pipeline's is skipped this one has to be applied.
    assert made.applies(exposure(exp_type="NRC_WFSS"))
    with pytest.raises(InvalidRequestError, match=r"'after_cal' must be after_rate"):
        correction("flat", flat=image, mode="replace", point="after_cal")
    with pytest.raises(InvalidRequestError, match="single words"):
        correction("flat", flat={"NRCA3/F200W": image}, mode="replace")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("fliker", "Did you mean 'flicker'"),
        (3, "must be a name out of snowballs"),
        (("flicker", {"sgma": 2}), "'sgma' is not one of .* Did you mean 'n_sigma'"),
        (("flicker", {"n_sigma": 0}), r"n_sigma=0 must be a number from 0\.5 to 100"),
        (("sky", {"sigma": True}), "sigma=True must be a number"),
        (("flicker", {"fit_method": "up"}), "fit_method='up' must be one of 'median', 'fft'"),
        (("flicker", {"fit_by_channel": 1}), "fit_by_channel=1 must be one of True, False"),
        (("flicker", {"background_box_pix": 0}), "box_pix=0 must be a whole number from 2"),
        (("flicker", {"point": "after_jump"}), "point='after_jump' must be one of after_rate"),
        (("snowballs", {"point": "after_rate"}), "point='after_rate' must be one of in_step"),
        (("snowballs", {"expand_factor": 0.5}), "expand_factor=0.5 must be a number from 1"),
        (("clean_flicker_noise", {"fit_method": "x"}), "'median', 'fft'"),
        (("sky", {"order": 4}), "order=4 must be a whole number from 0 to 3"),
        (("sky", {"estimator": "mean"}), "'clipped', 'mode'"),
        (("sky", {"suffix": "cal"}), "suffix='cal' must be of lower-case letters"),
        (("sky", {"suffix": "my_sky"}), "suffix='my_sky' must be"),
        (("sky", {"only": [""]}), "must be words"),
        (("sky", {"only": ""}), "must be words"),
        (("sky", {"only": 0}), "must be words"),
        ("wisp", "templates=None must be given"),
        (("wisp", {"templates": {}}), "files by detector"),
        (("wisp", {"templates": "nowhere.fits"}), "must be a file that exists"),
        (("flat", {"flat": 1}), "flat=1 must be a file"),
        ("json:nothing", "no 'nothing' in the source of a module 'json'"),
        ("no_such_module:f", "no 'f' in the source of a module 'no_such_module'"),
        (["flicker", "flicker"], "'flicker' is the suffix of two of them"),
        (("sky", {"order": float("nan")}), "order=nan .* cannot be written down"),
    ],
)
def test_what_is_wrong_is_told(given, told):
    with pytest.raises(InvalidRequestError, match=told):
        normalise(given if isinstance(given, list) else [given])


@pytest.mark.parametrize("only", [None, (), []])
def test_no_words_leave_a_correction_its_own_restriction(tmp_path, only):
    template = tmp_path / "wisp.fits"
    template.write_bytes(b"a template")
    parameters = {"templates": {"NRCA3": str(template)}}
    (own,) = normalise(("wisp", parameters))
    assert own.only == ("NRCA3",)
    assert normalise(("wisp", {**parameters, "only": only})) == (own,)


def test_a_second_one_of_a_kind_has_another_suffix():
    first, second = normalise(["sky", ("sky", {"point": "before_stage3", "suffix": "rest"})])
    assert (first.suffix, second.suffix) == ("sky", "rest")
    assert first.digest != second.digest


def test_digests_follow_parameters_and_the_content_of_files(image):
    made = correction("wisp", templates=image)
    assert made == correction("wisp", templates=str(image))
    assert made.digest != correction("wisp", templates=image, minimum_snr=1).digest
    fits.setval(image, "TEXT", value="other")
    changed = correction("wisp", templates=image)
    assert changed.digest != made.digest
    assert changed.files != made.files
    assert correction("flicker").digest != correction("flicker", point="after_cal").digest


SOURCE = """
    \"\"\"Corrections of a user.\"\"\"

    from helpers_of_user import factor

    LIMIT = 5
    UNUSED = 1

    def helped(value):
        return value * LIMIT

    def double(model, gain=2.0):
        \"\"\"Multiply.\"\"\"
        # A remark.
        model.data *= gain * factor(helped(1))
        return model
"""
HELPERS = """
    def factor(value):
        return value + 1

    def other():
        return 0
"""


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ("# A remark.", "# A remark.", False),
        ("# A remark.", "# Another.", True),
        ("LIMIT = 5", "LIMIT = 6", True),
        ("value * LIMIT", "value + LIMIT", True),
        ("gain=2.0", "gain=3.0", True),
        ("value + 1", "value + 2", False),
    ],
)
def test_digests_follow_the_file_of_the_module_and_not_what_it_imports(module, old, new, changes):
    module(HELPERS, "helpers_of_user")
    name = module(SOURCE)
    before = correction(f"{name}:double")
    assert before.source == f"import:{name}:double"
    assert before.suffix == "double"
    assert "users_own" not in sys.modules
    module(HELPERS.replace(old, new), "helpers_of_user")
    module(SOURCE.replace(old, new))
    assert (correction(f"{name}:double").digest != before.digest) == changes


def test_a_function_of_a_module_is_known_by_its_name(module):
    module(HELPERS, "helpers_of_user")
    module(SOURCE)
    import users_own

    made = correction(users_own.double, gain=3, point="after_cal")
    assert made == correction("users_own:double", gain=3, point="after_cal")
    assert made.parameters == {"gain": 3}
    with pytest.raises(InvalidRequestError, match="unexpected keyword argument 'gian'"):
        correction(users_own.double, gian=3)
    with pytest.raises(InvalidRequestError, match="cannot be written down"):
        correction(users_own.double, gain=object())


def made_of(limit, offset=0.0):
    """Return a function that no other process can import."""

    def clip(model, low=1):
        model.data[model.data < low] = limit + offset
        return model

    return clip


def test_a_function_of_no_module_is_carried():
    cloudpickle = pytest.importorskip("cloudpickle")
    from base64 import b64decode

    made = correction(made_of(4), low=2)
    assert made.source.startswith("pickle:")
    assert made.suffix == "clip"
    function = cloudpickle.loads(b64decode(made.source.removeprefix("pickle:")))
    model = SimpleNamespace(data=np.arange(5.0))
    assert list(function(model, **made.parameters).data) == [4, 4, 2, 3, 4]
    assert made.digest == correction(made_of(4), low=2).digest
    assert made.digest != correction(made_of(5), low=2).digest
    assert made.digest != correction(made_of(4, 1.0), low=2).digest
    first, second = (lambda model: model), (lambda model: None)
    assert correction(first).suffix == "function"
    assert correction(first).digest != correction(second).digest


def test_without_cloudpickle_a_module_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(OptionalDependencyError, match="Put the function into a module"):
        correction(made_of(4))


def test_what_cannot_be_carried_is_told():
    pytest.importorskip("cloudpickle")
    lock = __import__("threading").Lock()

    def locked(model):
        with lock:
            return model

    with pytest.raises(InvalidRequestError, match="cannot be carried .* put it into a module"):
        correction(locked)


def test_files_among_the_parameters_of_a_function_count(module, image):
    name = module("def use(model, path):\n    return model\n")
    made = correction(f"{name}:use", path=image)
    assert made.parameters == {"path": str(image)}
    assert list(made.files) == [str(image)]
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.name = "other"
