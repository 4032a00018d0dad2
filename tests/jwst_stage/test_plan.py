"""Plans: which tasks, from which files, in which order, and back from a file."""

import json
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise

import pytest
from astropy.table import Table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from astroquery_lis.exceptions import InvalidExposureError, InvalidRequestError
from astroquery_lis.jwst_stage.planning.associations import association_document
from astroquery_lis.jwst_stage.planning.exposures import Exposure
from astroquery_lis.jwst_stage.planning.pipelines import EXP_TYPES
from astroquery_lis.jwst_stage.planning.plan import Plan, make_plan
from astroquery_lis.jwst_stage.tasks import Estimate, Member, Task

from .headers import OPTICS, write_exposure

ROOT = "jw01234001001_02101_{:05d}_nrcalong"


@pytest.fixture
def plan_of(tmp_path):
    """A function that plans the files of the folder ``in``."""

    def make(files=tmp_path / "in", **options):
        options.setdefault("output_dir", tmp_path / "out")
        options.setdefault("check_associations", False)
        return make_plan(files, **options)

    return make


@pytest.fixture
def dithers(tmp_path):
    for number in (1, 2, 3, 4):
        write_exposure(tmp_path / "in", number)
    return tmp_path / "in"


@dataclass
class State:
    state: str
    reason: str = ""


def test_four_dithers(dithers, plan_of):
    plan = plan_of()
    assert [task.name for task in plan.tasks] == [
        *(f"stage1/{ROOT.format(n)}_rate.fits" for n in (1, 2, 3, 4)),
        *(f"stage2/{ROOT.format(n)}_cal.fits" for n in (1, 2, 3, 4)),
        "stage3/jw01234-o001_t001_nircam_clear-f356w-sub160_i2d.fits",
    ]
    first, second, third = plan.tasks[0], plan.tasks[4], plan.tasks[8]
    assert first.inputs == (str(dithers / f"{ROOT.format(1)}_uncal.fits"),)
    assert second.inputs == (first.name,)
    assert third.inputs == tuple(task.name for task in plan.tasks[4:8])
    assert third.exposures == tuple(ROOT.format(n) for n in (1, 2, 3, 4))
    assert len(plan) == 9
    assert len(plan.configurations) == 1
    assert {task.configuration for task in plan.tasks} == set(plan.configurations)
    (parameters,) = plan.configurations.values()
    assert parameters["META.OBSERVATION.TIME"] == "01:01:00.000"


def test_nothing_is_written_and_jwst_is_not_imported(dithers, tmp_path):
    code = (
        "import sys; from astroquery_lis.jwst_stage.planning.plan import make_plan\n"
        f"plan = make_plan({str(dithers)!r}, output_dir={str(tmp_path / 'out')!r})\n"
        "repr(plan)\n"
        "names = {name.partition('.')[0] for name in sys.modules}\n"
        "print(sorted(names & {'jwst', 'crds', 'stpipe', 'stdatamodels', 'stcal', 'gwcs'}))"
    )
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True
    )
    assert child.stdout.strip() == "[]"
    assert not (tmp_path / "out").exists()


def test_long_and_short_waves_make_two_mosaics(dithers, plan_of):
    for number in (1, 2, 3, 4):
        write_exposure(dithers, number, DETECTOR="NRCA1", CHANNEL="SHORT", FILTER="F200W")
    mosaics = [task for task in plan_of().tasks if task.stage == 3]
    assert [(task.name.partition("nircam_")[2], len(task.members)) for task in mosaics] == [
        ("clear-f200w-sub160_i2d.fits", 4),
        ("clear-f356w-sub160_i2d.fits", 4),
    ]
    assert all(m.input.endswith("nrca1_cal.fits") for m in mosaics[0].members)


@pytest.mark.parametrize("exp_type", sorted(EXP_TYPES))
def test_every_type_is_planned_with_its_classes(tmp_path, plan_of, exp_type):
    pytest.importorskip("jwst")
    cards = {"exp_type": exp_type, "SUBARRAY": "SUB64"}
    classes = EXP_TYPES[exp_type].stages
    write_exposure(tmp_path / "in", 1, **cards)
    if classes[2] in ("Coron3Pipeline", "Ami3Pipeline"):
        write_exposure(tmp_path / "in", 2, **cards, TARGPROP="STAR", IS_PSF=True)
    plan = plan_of()
    found = {(task.stage, task.pipeline) for task in plan.tasks}
    assert found == {(stage, name) for stage, name in enumerate(classes, 1) if name}
    for task in plan.tasks:
        assert task.name in task.outputs
        known = [t.name for t in plan.tasks[: plan.tasks.index(task)]]
        assert all(name in known or name.startswith("/") for name in task.inputs)


@pytest.mark.parametrize(
    ("cards", "expected"),
    [
        ({"exp_type": "NRC_DARK"}, ["stage1/x_dark.fits"]),
        ({"exp_type": "NRC_LED"}, ["stage1/x_rate.fits"]),
        ({"exp_type": "FGS_TRACK"}, ["stage1/x_cal.fits"]),
        ({"exp_type": "NRC_TACQ"}, ["stage1/x_rate.fits", "stage2/x_cal.fits"]),
        ({"exp_type": "NRC_TSIMAGE", "TSOVISIT": True},
         ["stage1/x_rateints.fits", "stage2/x_calints.fits",
          "stage3/jw01234-o001_t001_nircam_clear-f356w_asn.json"]),
        ({"exp_type": "NRS_MSASPEC"},
         ["stage1/x_rate.fits", "stage2/x_cal.fits",
          "stage3/jw01234-o001_nirspec_f170lp-g235m_asn.json"]),
        ({"exp_type": "NIS_AMI"},
         ["stage1/x_rateints.fits", "stage2/x_calints.fits",
          "stage3/jw01234-o001_t001_niriss_clear-f200w_asn.json"]),
    ],
)  # fmt: skip
def test_products_of_other_modes(tmp_path, plan_of, cards, expected):
    write_exposure(tmp_path / "in", root="x", SUBARRAY="FULL", **cards)
    assert [task.name for task in plan_of().tasks] == expected


def test_integrations_are_kept_where_there_are_several(tmp_path, plan_of):
    write_exposure(tmp_path / "in", root="x", ints=3)
    assert plan_of().tasks[0].outputs == ("stage1/x_rate.fits", "stage1/x_rateints.fits")


def test_backgrounds_are_subtracted_in_stage_2(tmp_path, plan_of):
    mrs = {"exp_type": "MIR_MRS"}
    write_exposure(tmp_path / "in", 1, root="sci", **mrs)
    write_exposure(tmp_path / "in", 2, root="sky", TARGPROP="SKY", BKGDTARG=True, **mrs)
    plan = plan_of()
    task = plan.task("sci_cal.fits")
    assert task.members == (
        Member("stage1/sci_rate.fits", "science"),
        Member("stage1/sky_rate.fits", "background"),
    )
    assert task.inputs == ("stage1/sci_rate.fits", "stage1/sky_rate.fits")
    document = association_document(task, "/o", "/o/stage2")
    assert document["asn_type"] == "spec2"
    assert document["products"][0]["name"] == "sci"
    assert document["products"][0]["members"][1] == {
        "expname": "../stage1/sky_rate.fits", "exptype": "background"
    }  # fmt: skip
    assert plan.task("sky_cal.fits").members == ()


def test_slitless_spectra_wait_for_the_mosaic_of_direct_images(tmp_path, plan_of):
    write_exposure(tmp_path / "in", 1, root="spec", exp_type="NIS_WFSS", FILTER="GR150R")
    write_exposure(tmp_path / "in", 2, root="direct", exp_type="NIS_IMAGE")
    plan = plan_of()
    task = plan.task("spec_cal.fits")
    mosaic = "stage3/jw01234-o001_t001_niriss_clear-f200w-sub160_i2d.fits"
    assert task.inputs == ("stage1/spec_rate.fits", mosaic)
    names = [t.name for t in plan.tasks]
    assert names.index(mosaic) < names.index(task.name)
    kinds = {
        m["exptype"]: m["expname"].rpartition("_")[2]
        for m in association_document(task, "/o", "/o/x")["products"][0]["members"]
    }
    assert kinds == {
        "science": "rate.fits",
        "direct_image": "i2d.fits",
        "sourcecat": "cat.ecsv",
        "segmap": "segm.fits",
    }
    assert not plan.notes


def test_slitless_spectra_without_direct_images_are_said(tmp_path, plan_of):
    write_exposure(tmp_path / "in", 1, exp_type="NIS_WFSS", FILTER="GR150R")
    assert "slitless spectra need one" in plan_of().notes[0]


def test_an_association_of_mast_decides(dithers, plan_of):
    members = [{"expname": f"{ROOT.format(n)}_cal.fits", "exptype": "science"} for n in (1, 3)]
    association = {
        "asn_type": "image3", "asn_rule": "Asn_Lv3Image", "asn_id": "c1009", "program": "01234",
        "target": "t7", "asn_pool": "jw01234_pool", "version_id": None,
        "products": [{"name": "jw01234-c1009_t007_nircam_x", "members": members}],
    }  # fmt: skip
    (dithers / "jw01234-c1009_image3_00001_asn.json").write_text(json.dumps(association))
    given, rest = [task for task in plan_of().tasks if task.stage == 3]
    assert given.name == "stage3/jw01234-c1009_t007_nircam_x_i2d.fits"
    assert given.association["asn_rule"] == "Asn_Lv3Image"
    assert given.association["asn_pool"] == "jw01234_pool"
    assert given.exposures == (ROOT.format(1), ROOT.format(3))
    assert rest.exposures == (ROOT.format(2), ROOT.format(4))


def test_an_association_of_level_2_decides_on_backgrounds(dithers, plan_of):
    members = [
        {"expname": f"{ROOT.format(1)}_rate.fits", "exptype": "science"},
        {"expname": f"{ROOT.format(4)}_rate.fits", "exptype": "background"},
    ]
    association = {"asn_type": "image2", "asn_rule": "Asn_Lv2Image", "products": [
        {"name": ROOT.format(1), "members": members}]}  # fmt: skip
    (dithers / "x_asn.json").write_text(json.dumps(association))
    plan = plan_of()
    assert [m.exptype for m in plan.task(f"{ROOT.format(1)}_cal.fits").members] == [
        "science",
        "background",
    ]
    assert plan.task(f"{ROOT.format(2)}_cal.fits").members == ()


def test_an_association_with_members_that_are_not_there(dithers, plan_of):
    products = [{"name": "p", "members": [{"expname": "jw9_nrca1_cal.fits", "exptype": "science"}]}]
    (dithers / "x_asn.json").write_text(json.dumps({"asn_type": "image3", "products": products}))
    with pytest.raises(InvalidRequestError, match="x_asn.json: its members jw9_nrca1_cal.fits are"):
        plan_of()


@pytest.mark.parametrize("text", ["not json", "{}", '{"products": [{"members": [{}]}]}'])
def test_a_json_file_that_is_no_association(dithers, plan_of, text):
    (dithers / "x_asn.json").write_text(text)
    with pytest.raises(InvalidExposureError, match="x_asn.json: is not an association"):
        plan_of()


def test_everything_that_is_wrong_is_told_at_once(dithers, plan_of):
    write_exposure(dithers, 5, drop=("FILTER",))
    write_exposure(dithers, 6, suffix="cal", named="rate")
    cut = write_exposure(dithers, 7)
    cut.write_bytes(cut.read_bytes()[:-5000])
    with pytest.raises(InvalidExposureError) as caught:
        plan_of()
    text = str(caught.value)
    assert text.startswith("3 files cannot be used:")
    assert "lacks FILTER" in text
    assert "its name says 'rate'" in text
    assert "cut off" in text


def test_one_exposure_in_two_places(dithers, plan_of):
    write_exposure(dithers / "copy", 1)
    with pytest.raises(InvalidExposureError, match=r"00001_nrcalong_uncal.fits is given 2 times"):
        plan_of()
    path = dithers / f"{ROOT.format(1)}_uncal.fits"
    assert len(plan_of([path, str(path)]).exposures) == 1


def test_files_patterns_and_directories(dithers, plan_of, tmp_path):
    whole = plan_of(dithers)
    assert plan_of(str(dithers / "*_uncal.fits")) == whole
    assert plan_of(sorted(dithers.iterdir())) == whole
    assert plan_of([dithers / f"{ROOT.format(1)}_uncal.fits", dithers / "*0000[234]_*"]) == whole
    # Other products in a directory are no matter.
    write_exposure(dithers, 1, suffix="cal", named="i2d")
    assert plan_of(dithers) == whole


def test_products_below_the_output_directory_are_no_input(dithers, plan_of):
    write_exposure(dithers / "out" / "stage1", 1, suffix="rate")
    plan = plan_of(output_dir=dithers / "out", start="rate")
    assert {e.suffix for e in plan.exposures} == {"uncal"}


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("nothing", "holds no exposure"),
        ("*_x.fits", "no file matches"),
        ("x_uncal.fits", "no such file or directory"),
    ],
)
def test_no_files(tmp_path, plan_of, name, match):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InvalidExposureError, match=match):
        plan_of(tmp_path / name)
    with pytest.raises(InvalidExposureError, match="holds no exposure"):
        plan_of([])


def test_a_manifest(dithers, plan_of):
    paths = sorted(str(path) for path in dithers.iterdir())
    table = Table({"Local Path": paths, "Status": ["COMPLETE", "CACHED", "COMPLETE", "SKIPPED"]})
    assert plan_of(table) == plan_of(dithers)


def test_rows_of_a_manifest_that_failed_are_refused_by_name(dithers, plan_of):
    paths = sorted(str(path) for path in dithers.iterdir())[:2]
    table = Table(
        {
            "Local Path": [*paths, ""],
            "Status": ["COMPLETE", "ERROR", "ERROR"],
            "Message": ["", "TruncatedError: 5 of 9 bytes", "NotFoundError: 404"],
            "URL": ["", "", "mast:JWST/product/jw9_uncal.fits"],
        }
    )
    with pytest.raises(InvalidExposureError) as caught:
        plan_of(table)
    text = str(caught.value)
    assert f"{paths[1]}: ERROR in the table. TruncatedError: 5 of 9 bytes" in text
    assert "mast:JWST/product/jw9_uncal.fits: ERROR in the table. NotFoundError: 404" in text
    with pytest.raises(InvalidRequestError, match="no column 'Local Path', but Status"):
        plan_of(table[["Status"]])


def test_start_levels(dithers, plan_of):
    write_exposure(dithers, 1, suffix="rate")
    write_exposure(dithers, 2, suffix="cal")
    by_start = {
        start: [e.suffix for e in plan_of(start=start).exposures]
        for start in ("uncal", "rate", "cal")
    }
    assert by_start == {
        "uncal": ["uncal", "uncal", "uncal", "uncal"],
        "rate": ["rate", "uncal", "uncal", "uncal"],
        "cal": ["rate", "cal", "uncal", "uncal"],
    }
    plan = plan_of(start="cal")
    assert plan.tasks[-1].inputs[1] == str(dithers / f"{ROOT.format(2)}_cal.fits")
    assert f"stage1/{ROOT.format(1)}_rate.fits" not in [task.name for task in plan.tasks]


def test_a_rate_file_alone_begins_at_stage_2(tmp_path, plan_of):
    write_exposure(tmp_path / "in", suffix="rate")
    assert [task.stage for task in plan_of().tasks] == [2, 3]


def test_the_wrong_one_of_rate_and_rateints(tmp_path, plan_of):
    cards = {"exp_type": "NRC_TSIMAGE", "TSOVISIT": True}
    write_exposure(tmp_path / "in", suffix="rate", ints=3, **cards)
    with pytest.raises(InvalidExposureError, match="goes on from the rateints file"):
        plan_of()
    write_exposure(tmp_path / "in", suffix="rateints", ints=3, **cards)
    assert [e.suffix for e in plan_of().exposures] == ["rateints"]


def test_start_auto_takes_rates_of_the_installed_version(dithers, plan_of):
    from importlib.metadata import version

    pytest.importorskip("jwst")
    write_exposure(dithers, 1, suffix="rate", CAL_VER=version("jwst"))
    write_exposure(dithers, 2, suffix="rate", CAL_VER="1.7.0")
    plan = plan_of(start="auto")
    assert [e.suffix for e in plan.exposures] == ["rate", "uncal", "uncal", "uncal"]
    assert "its reference files were not compared" in plan.notes[0]
    assert "made by jwst 1.7.0, not" in plan.notes[1]
    assert "there is no rate file" in plan.notes[2]


def test_start_auto_compares_reference_files(dithers, plan_of):
    from importlib.metadata import version

    pytest.importorskip("jwst")
    for number, dark in ((1, "crds://dark_0001.fits"), (2, "crds://dark_0002.fits")):
        cards = {"CAL_VER": version("jwst"), "R_DARK": dark, "R_FLAT": "crds://old.fits"}
        write_exposure(dithers, number, suffix="rate", **cards)

    @dataclass
    class Resolution:
        references: dict

    key = plan_of().tasks[0].configuration
    now = {"dark": {"name": "dark_0002.fits"}, "flat": {"name": "new.fits"}}
    plan = plan_of(start="auto", resolution=Resolution({key: now}))
    assert [e.suffix for e in plan.exposures][:2] == ["uncal", "rate"]
    assert "reference dark dark_0001.fits -> dark_0002.fits" in plan.notes[0]
    assert "with the reference files of now" in plan.notes[1]


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
        name: State("stale", "jump.rejection_threshold 4 -> 5"),
        plan.tasks[0].name: State("done"),
    }
    table = plan.table(states)
    assert table.colnames == [
        "task", "stage", "pipeline", "state", "reason", "seconds", "memory_gb", "disk_gb"
    ]  # fmt: skip
    assert list(table["state"][:5]) == ["done", "missing", "missing", "missing", "stale"]
    assert plan.explain(name, states) == f"{name}: stale: jump.rejection_threshold 4 -> 5"
    assert plan.explain(tmp_path / "out" / name, states).startswith(name)
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


def test_optics_of_the_helper_are_complete():
    assert {exp_type[:3] for exp_type in EXP_TYPES} == set(OPTICS)


def test_corrections_stand_between_the_stages(dithers, plan_of):
    pytest.importorskip("jwst")
    plan = plan_of(corrections=["snowballs", ("flicker", {"only": "NRCALONG"}), "sky"])
    points = {c["name"]: (c["point"], c["suffix"]) for c in plan.options["corrections"]}
    assert plan.tasks[0].steps["jump"]["expand_large_events"] is True
    chain = [task for task in plan.tasks if task.exposures == (ROOT.format(1),)]
    suffix, sky = points["flicker"][1], points["sky"][1]
    assert [(task.name.rpartition("/")[2], task.kind) for task in chain] == [
        (f"{ROOT.format(1)}_rate.fits", "pipeline"),
        (f"{ROOT.format(1)}_{suffix}.fits", "correction"),
        (f"{ROOT.format(1)}_cal.fits", "pipeline"),
        (f"{ROOT.format(1)}_{sky}.fits", "correction"),
    ]
    for earlier, later in pairwise(chain):
        assert later.inputs == (earlier.name,)
    assert plan.tasks[-1].members[0].input == chain[-1].name
    assert plan_of(corrections=[("flicker", {"only": "NRCB1"})]).tasks == plan_of().tasks
