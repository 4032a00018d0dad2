"""Plans: which tasks, from which exposures, in which order."""

import json
import subprocess
import sys
from itertools import pairwise

import pytest

from astroquery_lis.exceptions import InvalidExposureError, InvalidRequestError
from astroquery_lis.jwst_stage.pipelines import EXP_TYPES
from astroquery_lis.jwst_stage.planning.associations import association_document
from astroquery_lis.jwst_stage.tasks import Member

from .headers import OPTICS, write_exposure

ROOT = "jw01234001001_02101_{:05d}_nrcalong"


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
        "import sys; from astroquery_lis.jwst_stage.planning.make_plan import make_plan\n"
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


SLIT = {"FXD_SLIT": "S200A1", "EXPSPCIN": 1, "NUMDTHPT": 2, "SUBPXPTS": 1}
# What a header of the type has, beyond what all have, for the rules to take it.
WANTED = {
    "MIR_LRS-FIXEDSLIT": {"PATTTYPE": "ALONG-SLIT-NOD"},
    "MIR_WFSS": {"FILTER": "P750L"},
    "NIS_SOSS": {"PATTTYPE": None, "FILTER": "CLEAR", "PUPIL": "GR700XD"},
    "NIS_WFSS": {"FILTER": "GR150R"},
    "NRC_TSGRISM": {"PUPIL": "GRISMR", "TSOVISIT": True},
    "NRC_WFSS": {"PUPIL": "GRISMR"},
    "NRS_BRIGHTOBJ": {"FXD_SLIT": "S1600A1", "TSOVISIT": True},
    "NRS_FIXEDSLIT": SLIT,
    "NRS_LAMP": {"FILTER": "OPAQUE", "GRATING": "G235M", "LAMP": "FLAT2", "OPMODE": "FIXEDSLIT"},
    "NRS_MSASPEC": {"MSAMETFL": "x_msa.fits", "EXPSPCIN": 1},
}
NO_RULE = ("NRC_GRISM", "NRC_WFSC", "NRS_AUTOWAVE", "NRS_BOTA")


@pytest.mark.parametrize("exp_type", sorted(EXP_TYPES))
def test_every_type_is_planned_with_its_classes(tmp_path, plan_of, exp_type):
    pytest.importorskip("jwst")
    cards = {"exp_type": exp_type, "SUBARRAY": "SUB64", **WANTED.get(exp_type, {})}
    classes = EXP_TYPES[exp_type].stages
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x_msa.fits").write_bytes(b"")
    write_exposure(tmp_path / "in", 1, **cards)
    if classes[2] in ("Coron3Pipeline", "Ami3Pipeline"):
        write_exposure(tmp_path / "in", 2, **cards, TARGPROP="STAR", IS_PSF=True)
    expected = {(stage, name) for stage, name in enumerate(classes, 1) if name}
    if exp_type.endswith("_WFSS"):
        direct = f"{exp_type[:3]}_IMAGE"
        write_exposure(tmp_path / "in", 2, exp_type=direct, SUBARRAY="SUB64")
        expected |= {(2, "Image2Pipeline"), (3, "Image3Pipeline")}
    if exp_type == "NRS_MIMF":
        expected.add((3, "Image3Pipeline"))
    plan = plan_of()
    found = {(task.stage, task.pipeline) for task in plan.tasks}
    if exp_type in NO_RULE:
        assert "no rule of jwst.associations" in plan.notes[0]
        assert not plan.tasks
        expected = {(1, "Detector1Pipeline")}
        plan = plan_of(stages=1)
        found = {(task.stage, task.pipeline) for task in plan.tasks}
    assert found == expected
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
        ({"exp_type": "NRS_MSASPEC", "MSAMETFL": "N_msa.fits", "EXPSPCIN": 1},
         ["stage1/x_rate.fits", "stage2/x_cal.fits",
          "stage3/jw01234-o001_nirspec_f170lp-g235m_asn.json"]),
        ({"exp_type": "NIS_AMI"},
         ["stage1/x_rateints.fits", "stage2/x_calints.fits"]),
    ],
)  # fmt: skip
def test_products_of_other_modes(tmp_path, plan_of, cards, expected):
    write_exposure(tmp_path / "in", root="x", SUBARRAY="FULL", **cards)
    (tmp_path / "in" / "N_msa.fits").write_bytes(b"")
    assert [task.name for task in plan_of().tasks] == expected


@pytest.mark.parametrize(
    ("exp_type", "step", "suffix"),
    [
        ("NRC_TSIMAGE", "tso_photometry", "phot.ecsv"),
        ("NRS_BRIGHTOBJ", "extract_1d", "x1dints.fits"),
    ],
)
def test_what_a_skipped_step_makes_is_not_promised(tmp_path, plan_of, exp_type, step, suffix):
    pytest.importorskip("jwst")
    cards = {"TSOVISIT": True, "SUBARRAY": "SUB64", **WANTED.get(exp_type, {})}
    write_exposure(tmp_path / "in", exp_type=exp_type, **cards)
    for is_skipped in (False, True):
        series = plan_of(steps={step: {"skip": is_skipped}}).tasks[-1]
        assert series.pipeline == "Tso3Pipeline"
        stem = series.name.removesuffix("asn.json")
        assert series.outputs[1:] == (() if is_skipped else (f"{stem}{suffix}",))


def test_integrations_are_kept_where_there_are_several(tmp_path, plan_of):
    write_exposure(tmp_path / "in", root="x", ints=3)
    assert plan_of().tasks[0].outputs == ("stage1/x_rate.fits", "stage1/x_rateints.fits")


def test_backgrounds_are_subtracted_in_stage_2(tmp_path, plan_of):
    pytest.importorskip("jwst")
    mrs = {"exp_type": "MIR_MRS", "FILTER": None}
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
    sky = plan.task("sky_cal.fits")
    assert sky.members == ()
    # The master background of stage 3 is made of the spectrum of the background.
    assert sky.outputs == ("stage2/sky_cal.fits", "stage2/sky_x1d.fits")
    science = next(t for t in plan.tasks if t.stage == 3 and "sci" in t.exposures)
    assert science.members == (
        Member("stage2/sci_cal.fits", "science"),
        Member("stage2/sky_cal.fits", "background", file="stage2/sky_x1d.fits"),
    )
    document = association_document(science, "/o", "/o/stage3")
    assert document["products"][0]["members"][1] == {
        "expname": "../stage2/sky_x1d.fits", "exptype": "background"
    }  # fmt: skip


@pytest.mark.parametrize("background_first", [False, True])
def test_only_count_rates_are_subtracted_whatever_came_first(tmp_path, plan_of, background_first):
    pytest.importorskip("jwst")
    mrs = {"exp_type": "MIR_MRS", "FILTER": None}
    sky = {"root": "sky", "TARGPROP": "SKY", "BKGDTARG": True, **mrs}
    write_exposure(tmp_path / "in", 1 if background_first else 3, **sky)
    write_exposure(tmp_path / "in", 2, root="sci", **mrs)
    nod = {"exp_type": "MIR_LRS-FIXEDSLIT", "PATTTYPE": "ALONG-SLIT-NOD", "FILTER": "P750L"}
    for number in (4, 5):
        write_exposure(tmp_path / "in", number, root=f"nod{number}", OBSERVTN="009", **nod)
    subtracted = [m for t in plan_of().tasks if t.stage == 2 for m in t.members[1:]]
    assert sorted(m.input for m in subtracted if m.exptype == "background") == [
        "stage1/nod4_rate.fits",
        "stage1/nod5_rate.fits",
        "stage1/sky_rate.fits",
    ]


def test_slitless_spectra_wait_for_the_mosaic_of_direct_images(tmp_path, plan_of):
    write_exposure(tmp_path / "in", 1, root="spec", exp_type="NIS_WFSS", FILTER="GR150R")
    write_exposure(tmp_path / "in", 2, root="direct", exp_type="NIS_IMAGE")
    plan = plan_of()
    task = plan.task("spec_cal.fits")
    mosaic = "stage3/jw01234-o001_t001_niriss_clear-f200w-sub160_i2d.fits"
    assert task.inputs == ("stage1/spec_rate.fits", mosaic)
    stem = mosaic.removesuffix("i2d.fits")
    assert [(m.exptype, m.input, m.file) for m in task.members[1:]] == [
        ("direct_image", mosaic, ""),
        ("sourcecat", mosaic, f"{stem}cat.ecsv"),
        ("segmap", mosaic, f"{stem}segm.fits"),
    ]
    names = [t.name for t in plan.tasks]
    assert names.index(mosaic) < names.index(task.name)
    kinds = {
        m["exptype"]: m["expname"].rpartition("_")[2]
        for m in association_document(task, "/o", "/o/x")["products"][0]["members"]
    }
    table = plan.members("spec_cal.fits")
    assert list(table["role"]) == ["science", "direct_image", "sourcecat", "segmap"]
    assert table["member"][2] == f"{stem}cat.ecsv"
    assert len(plan.members()) == len(plan.tasks) + 3
    assert kinds == {
        "science": "rate.fits",
        "direct_image": "i2d.fits",
        "sourcecat": "cat.ecsv",
        "segmap": "segm.fits",
    }
    (note,) = plan.notes
    assert "spec have no S_REGION in their headers" in note


def test_only_the_last_pair_of_aperture_masking_stays(tmp_path, plan_of):
    masking = {"exp_type": "NIS_AMI", "FILTER": "F480M", "PUPIL": "NRM", "ints": 2}
    for number, star in ((1, False), (2, False), (3, True), (4, True)):
        target = {"TARGPROP": "STAR", "OBSERVTN": "002"} if star else {}
        write_exposure(tmp_path / "in", number, suffix="rateints", IS_PSF=star, **target, **masking)
    (note,) = plan_of(start="rate").notes
    assert "compares 2 exposures of the target and 2 of the star in pairs" in note
    assert "only the last pair stays" in note


def test_slitless_spectra_without_direct_images_are_said(tmp_path, plan_of):
    write_exposure(tmp_path / "in", 1, exp_type="NIS_WFSS", FILTER="GR150R")
    plan = plan_of()
    assert "slitless spectra need one" in plan.notes[0]
    assert not plan.tasks


def test_slitless_spectra_need_the_mosaic_of_an_earlier_run(tmp_path, plan_of):
    pytest.importorskip("jwst")
    write_exposure(tmp_path / "in", 1, root="spec", exp_type="NIS_WFSS", FILTER="GR150R")
    write_exposure(tmp_path / "in", 2, root="direct", exp_type="NIS_IMAGE")
    plan = plan_of(stages=(1, 2))
    assert "add stage 3" in plan.notes[0]
    assert "stage2/spec_cal.fits" not in [t.name for t in plan.tasks]
    folder = tmp_path / "out" / "stage3"
    folder.mkdir(parents=True)
    stem = "jw01234-o001_t001_niriss_clear-f200w-sub160"
    files = [folder / f"{stem}_{ending}" for ending in ("i2d.fits", "cat.ecsv", "segm.fits")]
    for file in files:
        file.write_bytes(b"")
    plan = plan_of(stages=(1, 2))
    assert not plan.notes
    assert [m.input for m in plan.task("spec_cal.fits").members[1:]] == [str(f) for f in files]


def test_files_of_shutters_are_inputs_and_missed_by_name(tmp_path, plan_of):
    pytest.importorskip("jwst")
    cards = {"exp_type": "NRS_MSASPEC", "MSAMETFL": "jw01234001001_01_msa.fits", "EXPSPCIN": 1}
    write_exposure(tmp_path / "in", 1, root="x", **cards)
    with pytest.raises(InvalidExposureError, match="jw01234001001_01_msa.fits: not there"):
        plan_of()
    assert [t.name for t in plan_of(stages=1).tasks] == ["stage1/x_rate.fits"]
    (tmp_path / "in" / "jw01234001001_01_msa.fits").write_bytes(b"")
    task = plan_of().task("x_cal.fits")
    assert task.inputs == (
        "stage1/x_rate.fits",
        str(tmp_path / "in" / "jw01234001001_01_msa.fits"),
    )
    assert plan_of(str(tmp_path / "in" / "*.fits")).task("x_cal.fits").inputs == task.inputs


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
    association = {"asn_type": "image2", "asn_rule": "Asn_Lv2Image", "target": None, "products": [
        {"name": ROOT.format(1), "members": members}]}  # fmt: skip
    (dithers / "x_asn.json").write_text(json.dumps(association))
    plan = plan_of()
    task = plan.task(f"{ROOT.format(1)}_cal.fits")
    assert [m.exptype for m in task.members] == ["science", "background"]
    assert task.association["asn_rule"] == "Asn_Lv2Image"
    # What the file leaves open is taken from the exposure.
    assert task.association["target"] == "FIELD-1"
    assert plan.task(f"{ROOT.format(2)}_cal.fits").members == ()


def test_the_name_of_a_source_is_left_out_where_spectra_are_saved_together(tmp_path, plan_of):
    pytest.importorskip("jwst")
    write_exposure(tmp_path / "in", 1, root="spec", exp_type="NIS_WFSS", FILTER="GR150R")
    write_exposure(tmp_path / "in", 2, root="direct", exp_type="NIS_IMAGE")
    product = "jw01234-o001_{source_id}_niriss_f200w-gr150r"
    members = [{"expname": "spec_cal.fits", "exptype": "science"}]
    association = {"asn_type": "spec3", "products": [{"name": product, "members": members}]}
    (tmp_path / "in" / "x_asn.json").write_text(json.dumps(association))
    spectra = plan_of().tasks[-1]
    assert spectra.name == f"stage3/{spectra.association['product']}_x1d.fits"
    assert spectra.association["product"] == "jw01234-o001_niriss_f200w-gr150r"


def test_an_association_with_members_that_are_not_there(dithers, plan_of):
    products = [{"name": "p", "members": [{"expname": "jw9_nrca1_cal.fits", "exptype": "science"}]}]
    (dithers / "x_asn.json").write_text(json.dumps({"asn_type": "image3", "products": products}))
    with pytest.raises(InvalidRequestError, match="x_asn.json: its members jw9_nrca1_cal.fits are"):
        plan_of()


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
