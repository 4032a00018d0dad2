"""Presets hold together with the installed pipeline, and give a reason for every value."""

import pytest

from astroquery_lis.jwst_stage.parameters import PRESETS, REASONS, check, specs

pytest.importorskip("jwst")


def named(checked):
    """Return every parameter as it is written with dots."""
    return {
        ".".join(part for part in (selector, step, name) if part): value
        for selector, section in checked.items()
        for step, values in section.items()
        for name, value in values.items()
    }


@pytest.mark.parametrize("preset", PRESETS)
def test_every_value_is_allowed_and_has_a_reason(preset):
    checked = named(check(PRESETS[preset]["steps"]))
    assert set(checked) <= set(REASONS)
    assert PRESETS[preset]["description"].endswith(".")


def test_every_reason_is_one_of_a_value():
    every = {name for preset in PRESETS.values() for name in named(check(preset["steps"]))}
    assert set(REASONS) == every
    assert all(len(reason) > 30 for reason in REASONS.values())


@pytest.mark.parametrize("preset", sorted(set(PRESETS) - {"default"}))
def test_every_value_differs_from_the_default(preset):
    from configobj.validate import Validator

    known = specs()["pipelines"]
    for selector, section in check(PRESETS[preset]["steps"]).items():
        for step, values in section.items():
            pipeline = next(
                spec
                for spec in known.values()
                if step in spec["steps"] and spec["alias"].endswith(selector)
            )
            for name, value in values.items():
                default = Validator().get_default_value(pipeline["steps"][step][name])
                assert value != default, f"{step}.{name}"


def test_the_accuracy_of_the_pixel_map_is_changed_where_memory_is_short_only():
    instruments = {"nircam-imaging", "nircam-deep", "niriss-imaging", "miri-imaging"}
    every = {"default", "low-memory"} | instruments
    assert set(PRESETS) == every
    assert PRESETS["default"]["steps"] == {}
    for preset in every - {"low-memory"}:
        assert not any("pixmap" in name for name in named(check(PRESETS[preset]["steps"])))


@pytest.mark.parametrize("step", ["ResampleStep", "OutlierDetectionStep"])
def test_real_steps_take_the_sparse_map(step):
    from jwst import step as steps

    kind = getattr(steps, step)
    values = PRESETS["low-memory"]["steps"]["image3"][kind.class_alias]
    instance = kind(**values)
    assert {name: getattr(instance, name) for name in values} == values
