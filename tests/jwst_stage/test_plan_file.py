"""The options of a plan, what it says, and the way to its file and back."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from astroquery_lis.exceptions import InvalidRequestError
from astroquery_lis.jwst_stage.planning import Plan
from astroquery_lis.jwst_stage.planning.exposures import Exposure
from astroquery_lis.jwst_stage.states import State
from astroquery_lis.jwst_stage.tasks import Estimate, Member, Task

from .headers import write_exposure

ROOT = "jw01234001001_02101_{:05d}_nrcalong"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"start": "raw"}, r"start='raw' is none of 'uncal', 'rate', 'cal', 'auto'"),
        ({"stages": (1, 4)}, r"stages=\(1, 4\) must be some of 1, 2 and 3"),
        ({"stages": ()}, r"stages=\(\) must be"),
        ({"stages": (1, 3)}, "stage 3 begins from products of stage 2"),
        ({"stages": (2,)}, "has to go through stage 1 first, and stage1/"),
        ({"preset": "nircam-image"}, "Did you mean 'nircam-imaging'"),
        ({"abs_refcat": "gaea"}, "none of 'legacy', 'gaia', and not a file that is there"),
        ({"common_grid": {"scale": 1}}, "may have 'pixel_scale' and 'rotation'"),
        ({"common_grid": True, "wcs": "x.fits"}, "both set the grid"),
    ],
)
def test_wrong_options(dithers, plan_of, options, match):
    with pytest.raises(InvalidRequestError, match=match):
        plan_of(**options)


def test_stages(dithers, plan_of, tmp_path):
    assert {task.stage for task in plan_of(stages=1).tasks} == {1}
    assert {task.stage for task in plan_of(stages=(2, 1)).tasks} == {1, 2}
    for number in (1, 2, 3, 4):
        write_exposure(tmp_path / "out" / "stage1", number, suffix="rate")
    later = plan_of(stages=(2, 3))
    assert {task.stage for task in later.tasks} == {2, 3}
    assert later.tasks[0].inputs == (
        str(tmp_path / "out" / "stage1" / f"{ROOT.format(1)}_rate.fits"),
    )


def test_catalogues_of_reference(dithers, plan_of):
    task = plan_of(abs_refcat="gaia").tasks[-1]
    expected = "refcat/jw01234-o001_t001_nircam_clear-f356w-sub160_gaia.ecsv"
    assert task.steps == {"tweakreg": {"abs_refcat": expected}}
    (dithers / "my.ecsv").write_text("x")
    task = plan_of(abs_refcat=dithers / "my.ecsv").tasks[-1]
    assert task.steps == {"tweakreg": {"abs_refcat": str(dithers / "my.ecsv")}}


def test_parameters_go_to_the_tasks_that_have_the_step(dithers, plan_of):
    pytest.importorskip("jwst")
    plan = plan_of(steps={"jump": {"rejection_threshold": 5}, "F444W": {"jump": {"skip": True}}})
    assert plan.tasks[0].steps == {"jump": {"rejection_threshold": 5.0}}
    assert plan.tasks[4].steps == {}
    with pytest.raises(InvalidRequestError, match=r"jmp.*Did you mean 'jump'"):
        plan_of(steps={"jmp": {"skip": True}})


def test_presets_stand_below_steps(dithers, plan_of):
    pytest.importorskip("jwst")
    plan = plan_of(preset="nircam-imaging", steps={"jump": {"expand_large_events": False}})
    assert plan.tasks[0].steps["jump"] == {"expand_large_events": False}
    assert plan.tasks[4].steps == {"resample": {"skip": True}}
    assert "resample" not in plan.tasks[8].steps


def test_saved_and_loaded(dithers, plan_of, tmp_path):
    pytest.importorskip("jwst")
    write_exposure(dithers, 5, EXPOSURE="1")
    plan = plan_of(
        check_associations=True,
        steps={"resample": {"pixel_scale": 0.05}, "tweakreg": {"abs_refcat": "None"}},
        common_grid=True,
        group_by=["target", "filter"],
    )
    assert plan.notes
    path = tmp_path / "new" / "plan.toml"
    plan.save(path)
    assert Plan.load(path) == plan
    text = path.read_text()
    assert f'name = "stage1/{ROOT.format(1)}_rate.fits"' in text
    assert "pixel_scale = 0.05" in text


@pytest.mark.parametrize(
    ("text", "match"),
    [("a = ", "is not a plan"), ("format = 99", "format 99; this version reads 1"), ("", "format")],
)
def test_a_file_that_is_no_plan(tmp_path, text, match):
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(InvalidRequestError, match=match):
        Plan.load(tmp_path / "x.toml")
    with pytest.raises(InvalidRequestError, match=r"none.toml: cannot be read"):
        Plan.load(tmp_path / "none.toml")


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names = words.filter(bool)
scalars = words | st.integers(-(2**53), 2**53) | st.booleans()
values = scalars | st.none() | st.floats(allow_nan=False) | st.lists(scalars | st.none())
steps = st.dictionaries(names, st.dictionaries(names, values, min_size=1), max_size=3)
tasks = st.builds(
    Task,
    name=names,
    stage=st.integers(1, 3),
    kind=st.sampled_from(["pipeline", "correction"]),
    pipeline=words,
    inputs=st.lists(words, max_size=3).map(tuple),
    outputs=st.lists(words, max_size=3).map(tuple),
    steps=steps,
    corrections=st.lists(st.dictionaries(names, values, min_size=1), max_size=2).map(tuple),
    association=st.dictionaries(names, scalars, max_size=2),
    members=st.lists(st.builds(Member, input=words, exptype=names, group_id=words)).map(tuple),
    exposures=st.lists(words, max_size=2).map(tuple),
    configuration=words,
    estimate=st.builds(Estimate, *[st.floats(0, 1e9)] * 3),
)
exposures = st.builds(
    Exposure,
    path=names,
    root=names,
    suffix=st.sampled_from(["uncal", "rate"]),
    target=words,
    filter=words,
    is_tso=st.booleans(),
    n_ints=st.integers(1, 99),
    shape=st.tuples(st.integers(0, 9999), st.integers(0, 9999)),
    parameters=st.dictionaries(names, words),
    pointing=st.dictionaries(names, st.floats(-360, 360)),
)
plans = st.builds(
    Plan,
    exposures=st.lists(exposures, max_size=2).map(tuple),
    tasks=st.lists(tasks, max_size=3).map(tuple),
    configurations=st.dictionaries(names, st.dictionaries(names, words), max_size=2),
    options=st.dictionaries(names.filter(lambda s: s not in ("steps", "corrections")), scalars),
    output_dir=st.none() | names,
    notes=st.lists(words, max_size=2).map(tuple),
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(plan=plans)
def test_any_plan_survives_its_file(plan, tmp_path_factory):
    pytest.importorskip("tomli_w")
    path = tmp_path_factory.getbasetemp() / "any.toml"
    plan.save(path)
    assert Plan.load(path) == plan


def test_table_and_words(dithers, plan_of, tmp_path):
    plan = plan_of()
    name = f"stage2/{ROOT.format(1)}_cal.fits"
    states = {
        name: State("stale", ("jump.rejection_threshold 4 -> 5",)),
        plan.tasks[0].name: State("done"),
    }
    table = plan.table(states)
    assert table.colnames == [
        "task", "stage", "pipeline", "state", "reason", "seconds", "memory_gb", "disk_gb"
    ]  # fmt: skip
    assert list(table["state"][:5]) == ["done", "missing", "missing", "missing", "stale"]
    assert plan.explain(name, states) == f"{name}: stale: jump.rejection_threshold 4 -> 5"
    assert plan.explain(tmp_path / "out" / name, states).startswith(name)
    many = {name: State("stale", tuple("abcde"))}
    assert plan.table(many)["reason"][4] == "a; b; c; and 2 more"
    assert plan.explain(name, many) == f"{name}: stale: a; b; c; d; e"
    assert plan.explain(plan.tasks[0].name, states) == f"{plan.tasks[0].name}: done"
    assert plan.explain(name) == f"{name}: missing: nothing was made in {tmp_path / 'out'}."
    assert "Plan: 4 exposures, 9 tasks" in repr(plan)
    assert name in repr(plan)
    assert "<table" in plan._repr_html_()


def test_a_product_that_no_task_makes(dithers, plan_of):
    with pytest.raises(InvalidRequestError, match="product='x.fits' is made by no task"):
        plan_of().explain("x.fits")
    with pytest.raises(InvalidRequestError, match=r"is made by no task"):
        Plan().task("rate.fits")


def test_states_come_from_the_output_directory(dithers, plan_of, tmp_path):
    (tmp_path / "out").mkdir()
    assert set(plan_of().table()["state"]) == {"missing"}


def test_a_recipe_in_the_home_directory_is_noted_by_its_path(
    dithers, plan_of, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.toml").write_text("[jump]\nrejection_threshold = 5.5\n")
    plan = plan_of(recipe="~/mine.toml")
    assert plan.options["recipe"] == str(tmp_path / "mine.toml")
    assert plan.tasks[0].steps == {"jump": {"rejection_threshold": 5.5}}
