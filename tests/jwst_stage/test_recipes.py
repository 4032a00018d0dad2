"""Recipes: TOML there and back, and the files that stpipe writes."""

import pytest

from astroquery_lis.exceptions import InvalidRequestError
from astroquery_lis.jwst_stage.parameters import check, read_recipe, write_recipe

pytest.importorskip("jwst")

STEPS = {
    "jump": {"rejection_threshold": 4.5, "expand_large_events": True},
    "tweakreg": {"peakmax": None, "kron_params": [1.5, 2.5], "starfinder": "dao"},
    "image3": {"resample": {"pixel_scale": 0.03}},
    "F200W": {"tweakreg": {"snr_threshold": 20.0}},
}


def test_a_recipe_comes_back_as_it_was_written(tmp_path):
    path = tmp_path / "recipe.toml"
    write_recipe(path, STEPS)
    assert read_recipe(path) == check(STEPS)


def test_a_recipe_is_toml_that_a_person_can_read(tmp_path):
    path = tmp_path / "recipe.toml"
    write_recipe(path, {"jump.rejection_threshold": 4.5, "F200W": {"tweakreg.minobj": 5}})
    text = path.read_text()
    assert "[jump]\nrejection_threshold = 4.5\n" in text
    assert "[F200W.tweakreg]\nminobj = 5\n" in text


def test_faults_of_a_recipe_name_it(tmp_path):
    path = tmp_path / "deep.toml"
    path.write_text("[jump]\nrejection_treshold = 4.5\n[tweakreg]\nfitgeometry = 'bent'\n")
    with pytest.raises(InvalidRequestError, match="the recipe deep.toml has 2 faults") as caught:
        read_recipe(path)
    assert "Did you mean 'rejection_threshold'" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.toml", None, "is not a file"),
        ("broken.toml", "[jump\n", "is not TOML"),
        ("recipe.yaml", "jump:\n", "must be a .toml, .asdf or .cfg file"),
    ],
)
def test_what_is_no_recipe_is_refused(tmp_path, name, text, message):
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(InvalidRequestError, match=message) as caught:
        read_recipe(path)
    assert caught.value.parameter == "recipe"


def test_a_recipe_is_written_only_if_it_is_right(tmp_path):
    path = tmp_path / "recipe.toml"
    with pytest.raises(InvalidRequestError, match="no step 'jmp'"):
        write_recipe(path, {"jmp": {"skip": True}})
    assert not path.exists()
    with pytest.raises(InvalidRequestError, match="must end in .toml"):
        write_recipe(tmp_path / "recipe.asdf", STEPS)


@pytest.mark.slow
def test_files_of_stpipe_are_recipes_too(tmp_path):
    from jwst.jump import JumpStep

    step = JumpStep(rejection_threshold=6.0)
    step.export_config(tmp_path / "jump.asdf")
    values = read_recipe(tmp_path / "jump.asdf")
    assert list(values) == [""]
    assert values[""]["jump"]["rejection_threshold"] == 6.0
    # What stpipe exports is everything, and has its way over CRDS as it has in strun.
    assert values[""]["jump"]["four_group_rejection_threshold"] == 5.0
    assert "maximum_cores" not in values[""]["jump"]


@pytest.mark.slow
def test_files_of_whole_pipelines_are_recipes_too(tmp_path):
    from jwst.pipeline import Image2Pipeline

    pipeline = Image2Pipeline(steps={"resample": {"skip": True, "pixfrac": 0.7}})
    pipeline.export_config(tmp_path / "image2.asdf")
    values = read_recipe(tmp_path / "image2.asdf")
    assert list(values) == ["image2"]
    assert values["image2"]["resample"]["skip"] is True
    assert values["image2"]["resample"]["pixfrac"] == 0.7
