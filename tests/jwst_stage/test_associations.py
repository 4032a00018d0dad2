"""What goes into one product, and how it is named; read back by the real package."""

import json
import subprocess
import sys

import pytest

from astroquery_lis.exceptions import InvalidRequestError, StageError
from astroquery_lis.jwst_stage.planning.associations import (
    association_document,
    association_path,
    complete,
    unique_ids,
    write_association,
)
from astroquery_lis.jwst_stage.planning.exposures import read_exposure
from astroquery_lis.jwst_stage.planning.groups import Request, put_together
from astroquery_lis.jwst_stage.planning.make_plan import make_plan

from .headers import write_exposure

SLIT = {"FXD_SLIT": "S200A1", "EXPSPCIN": 1, "NUMDTHPT": 2, "SUBPXPTS": 1}
MASKED = {"PUPIL": "MASKRND", "CORONMSK": "MASKA335R", "SUBARRAY": "SUB320A335R"}


@pytest.fixture
def given(tmp_path):
    """A function that writes files and reads them."""

    def make(*specifications):
        return [
            read_exposure(write_exposure(tmp_path, number, **cards))
            for number, cards in enumerate(specifications, 1)
        ]

    return make


def level3_groups(exposures, **options):
    together = put_together(exposures, Request(**options))
    return together.groups, together.notes


def level2_members(exposure, exposures):
    """Return the members beside an exposure in its stage 2, with their roles."""
    association = put_together(exposures, Request()).calibrations.get(exposure.root)
    members = association.members if association else ()
    return [(e, role) for e, role in members if e is not exposure]


def roots(members, role):
    return [e.root for e, r in members if r == role]


@pytest.mark.parametrize(
    ("cards", "product"),
    [
        ({"SUBARRAY": "FULL"}, "jw01234-o001_t001_nircam_clear-f356w"),
        ({}, "jw01234-o001_t001_nircam_clear-f356w-sub160"),
        ({"FILTER": "F150W2", "PUPIL": "F162M", "SUBARRAY": "FULL"},
         "jw01234-o001_t001_nircam_f150w2-f162m"),
        ({"exp_type": "MIR_IMAGE", "SUBARRAY": "FULL"}, "jw01234-o001_t001_miri_f770w"),
        ({"exp_type": "NIS_IMAGE", "SUBARRAY": "FULL"}, "jw01234-o001_t001_niriss_clear-f200w"),
        ({"exp_type": "FGS_IMAGE", "SUBARRAY": "FULL"}, "jw01234-o001_t001_fgs_clear"),
        ({"exp_type": "MIR_MRS", "SUBARRAY": "FULL"}, "jw01234-o001_t001_miri"),
        ({"exp_type": "NRS_IFU", "SUBARRAY": "FULL"}, "jw01234-o001_t001_nirspec_g235m"),
        ({"exp_type": "NRS_MSASPEC", "SUBARRAY": "FULL", "MSAMETFL": "x_msa.fits", "EXPSPCIN": 1},
         "jw01234-o001_{source_id}_nirspec_f170lp-g235m"),
        ({"exp_type": "NRS_FIXEDSLIT", "SUBARRAY": "SUBS200A1", **SLIT},
         "jw01234-o001_t001-{source_id}_nirspec_f170lp-g235m-{slit_name}-subs200a1"),
    ],
)  # fmt: skip
def test_names_are_those_of_mast(given, cards, product):
    groups, notes = level3_groups(given(cards))
    assert [group.product for group in groups] == [product]
    assert "{" not in groups[0].file_stem
    assert not notes


def test_each_grism_of_a_field_makes_a_product(given):
    groups, _ = level3_groups(
        given(
            {"exp_type": "NIS_IMAGE", "SUBARRAY": "FULL"},
            {"exp_type": "NIS_WFSS", "FILTER": "GR150R", "SUBARRAY": "FULL"},
            {"exp_type": "NIS_WFSS", "FILTER": "GR150C", "SUBARRAY": "FULL"},
        )
    )
    assert {group.product for group in groups} == {
        "jw01234-o001_t001_niriss_clear-f200w",
        "jw01234-o001_t001_niriss_f200w-gr150r",
        "jw01234-o001_t001_niriss_f200w-gr150c",
    }


def test_groups_by_target_and_filter(given):
    exposures = given({}, {}, {"FILTER": "F444W"}, {"TARGPROP": "OTHER"}, {"PROGRAM": "05678"})
    groups, _ = level3_groups(exposures)
    assert [(g.product, len(g.members)) for g in groups] == [
        ("jw01234-o001_t001_nircam_clear-f356w-sub160", 2),
        ("jw01234-o001_t001_nircam_clear-f444w-sub160", 1),
        ("jw01234-o001_t002_nircam_clear-f356w-sub160", 1),
        ("jw05678-o001_t001_nircam_clear-f356w-sub160", 1),
    ]
    assert {g.header["asn_id"] for g in groups} == {"o001"}


def test_several_observations_of_a_target_make_one_product(given):
    groups, _ = level3_groups(given({}, {"OBSERVTN": "002"}))
    assert len(groups) == 1
    assert groups[0].header["asn_id"] == "c1001"
    assert groups[0].product == "jw01234-c1001_t001_nircam_clear-f356w-sub160"


def test_all_detectors_of_a_filter_go_together(given):
    groups, _ = level3_groups(given({"DETECTOR": "NRCALONG"}, {"DETECTOR": "NRCBLONG"}))
    assert len(groups) == 1


def test_backgrounds_make_their_own_mosaic_even_under_the_name_of_the_target(given):
    groups, _ = level3_groups(given({}, {"BKGDTARG": True}))
    assert sorted(g.product for g in groups) == [
        "jw01234-o001_t001_nircam_clear-f356w-sub160",
        "jw01234-o001_t001_nircam_clear-f356w-sub160-background",
    ]


def test_group_by_attributes_and_functions(given):
    exposures = given({}, {"FILTER": "F444W"}, {"DETECTOR": "NRCBLONG"})
    by_target, _ = level3_groups(exposures, group_by="target")
    assert [g.product for g in by_target] == ["jw01234-o001_t001_nircam_clear-f356w-f444w-sub160"]
    by_both, _ = level3_groups(exposures, group_by=["filter", "detector"])
    assert [len(g.members) for g in by_both] == [1, 1, 1]
    assert len({g.product for g in by_both}) == 3
    by_function, _ = level3_groups(exposures, group_by=lambda e: e.root[-4:])
    assert [len(g.members) for g in by_function] == [3]


def test_group_by_of_an_unknown_attribute(given):
    with pytest.raises(InvalidRequestError, match="group_by='fliter' is none of.*mean 'filter'"):
        level3_groups(given({}), group_by=["target", "fliter"])


def test_product_name_templates(given):
    exposures = given({"TARGPROP": "NGC 1 (a)"}, {"FILTER": "F444W", "TARGPROP": "NGC 1 (a)"})
    groups, _ = level3_groups(exposures, product_name="{target}_{filter}")
    assert [g.product for g in groups] == ["ngc-1--a-_f356w", "ngc-1--a-_f444w"]


def test_product_name_with_an_unknown_field(given):
    with pytest.raises(InvalidRequestError, match="'{band}_x' may hold the fields program, asn_id"):
        level3_groups(given({}), product_name="{band}_x")


def test_product_name_that_gives_two_products_one_name(given):
    exposures = given({}, {"FILTER": "F444W"})
    with pytest.raises(InvalidRequestError, match="several products the name 'field-1'"):
        level3_groups(exposures, product_name="{target}")


def test_coronagraphy_takes_the_reference_star(given):
    common = {"exp_type": "NRC_CORON", **MASKED}
    exposures = given(
        common,
        common,
        {**common, "TARGPROP": "STAR", "IS_PSF": True},
        {**common, "TARGPROP": "STAR", "IS_PSF": True, "FILTER": "F444W"},
    )
    groups, notes = level3_groups(exposures)
    assert len(groups) == 1
    assert roots(groups[0].members, "science") == [e.root for e in exposures[:2]]
    assert roots(groups[0].members, "psf") == [exposures[2].root]
    assert not notes


def test_coronagraphy_without_a_reference_star_is_said(given):
    groups, notes = level3_groups(given({"exp_type": "NRC_CORON", **MASKED}))
    assert not groups
    assert "needs exposures of a reference star" in notes[0]


def test_wavefront_sensing_takes_pairs_per_detector(given):
    pair = {"PATTTYPE": "WFSC", "VISITYPE": "PRIME_WFSC_SENSING_CONTROL"}
    groups, notes = level3_groups(
        given(pair, pair, {**pair, "DETECTOR": "NRCBLONG", "MODULE": "B"})
    )
    assert [(g.pipeline, len(g.members)) for g in groups] == [("WfsCombineStep", 2)]
    assert groups[0].file_stem == "jw01234-o001_t001_nircam_clear-f356w-sub160-nrcalong_wfscmb-01"
    assert "wavefront sensing takes pairs of exposures" in notes[0]


@pytest.mark.parametrize(
    ("options", "stem"),
    [
        ({}, "jw01234-o001_t001_nircam_clear-f356w-sub160-nrcalong_wfscmb-"),
        ({"product_name": "mirror_{visit}"}, "mirror_0"),
    ],
)
def test_pairs_of_one_observation_have_associations_of_their_own(plan_of, tmp_path, options, stem):
    pair = {"PATTTYPE": "WFSC", "VISITYPE": "PRIME_WFSC_SENSING_CONTROL"}
    for number in (1, 2, 3, 4):
        activity = f"{(number + 1) // 2:02d}"
        cards = {"ACT_ID": activity, "VISIT": f"0{activity}", **pair}
        write_exposure(tmp_path / "in", number, suffix="rate", **cards)
    pairs = [task for task in plan_of(start="rate", **options).tasks if task.stage == 3]
    assert [association_path(task, tmp_path).name for task in pairs] == [
        f"{stem}{activity}_asn.json" for activity in ("01", "02")
    ]


def test_each_visit_of_a_time_series_makes_a_product(given):
    common = {"exp_type": "NRC_TSIMAGE", "TSOVISIT": True, "CHANNEL": "SHORT", "DETECTOR": "NRCB1"}
    groups, _ = level3_groups(given(common, common, {**common, "OBSERVTN": "002"}))
    assert {(g.product, len(g.members)) for g in groups} == {
        ("jw01234-o001_t001_nircam_clear-f356w-sub160", 2),
        ("jw01234-o002_t001_nircam_clear-f356w-sub160", 1),
    }


def test_channels_and_bands_of_the_mrs_make_one_product(given):
    mrs = {"exp_type": "MIR_MRS"}
    groups, _ = level3_groups(
        given({**mrs, "CHANNEL": "12"}, {**mrs, "DETECTOR": "MIRIFULONG", "BAND": "LONG"})
    )
    assert [len(g.members) for g in groups] == [2]


def test_a_background_target_serves_what_has_its_set_up(given):
    mrs = {"exp_type": "MIR_MRS", "FILTER": None}
    sky = {**mrs, "TARGPROP": "SKY", "BKGDTARG": True, "OBSERVTN": "002"}
    exposures = given(mrs, sky, {**sky, "BAND": "LONG"}, {**sky, "PROGRAM": "05678"})
    found = level2_members(exposures[0], exposures)
    assert found == [(exposures[1], "background")]
    assert level2_members(exposures[1], exposures) == []
    groups, _ = level3_groups(exposures)
    # In stage 3 too, as the spectrum of the background: which of both is subtracted, steps decide.
    assert roots(groups[0].members, "background") == [e.root for e in exposures[1:3]]


def test_other_nods_are_backgrounds(given):
    nod = {"exp_type": "NRS_FIXEDSLIT", "PATTTYPE": "2-POINT-NOD", **SLIT}
    exposures = given(nod, nod, {**nod, "PATT_NUM": 1})
    assert level2_members(exposures[0], exposures) == [(exposures[1], "background")]
    assert level2_members(exposures[2], exposures) == [(exposures[1], "background")]


def test_nods_in_the_slit_of_the_lrs_are_backgrounds_and_never_their_own(given):
    nod = {"exp_type": "MIR_LRS-FIXEDSLIT", "PATTTYPE": "ALONG-SLIT-NOD", "FILTER": "P750L"}
    exposures = given(nod, nod, {"exp_type": "MIR_TACONFIRM"})
    first, second, confirmation = exposures
    beside = level2_members(first, exposures)
    assert (second, "background") in beside
    assert (confirmation, "target_acquisition") in beside
    assert len(beside) == 2
    groups, notes = level3_groups(exposures)
    assert [len(g.members) for g in groups] == [4]
    assert not notes


def test_open_shutters_of_a_nodded_slitlet_are_backgrounds(given):
    nod = {"exp_type": "NRS_MSASPEC", "NOD_TYPE": "3-SHUTTER-SLITLET", "PATTTYPE": "NONE",
           "EXPSPCIN": 1, "NUMDTHPT": 3, "SUBPXPTS": 1, "MSAMETFL": "jw01234_msa.fits"}  # fmt: skip
    exposures = given(nod, nod, nod)
    assert level2_members(exposures[1], exposures) == [
        (exposures[0], "background"),
        (exposures[2], "background"),
    ]
    assert exposures[0].msa_file == exposures[0].path.rpartition("/")[0] + "/jw01234_msa.fits"


def test_what_only_found_the_target_is_not_reduced(given):
    exposures = given({}, {"exp_type": "NRC_TACQ"}, {"exp_type": "NRC_TACONFIRM"})
    together = put_together(exposures, Request())
    assert together.unwanted == {e.root for e in exposures[1:]}
    assert "NRC_TACQ only found the target" in together.notes[0]
    assert not put_together(exposures[1:], Request()).unwanted


def test_dithers_that_are_no_nods_are_not(given):
    exposures = given({}, {})
    assert level2_members(exposures[0], exposures) == []


def test_imprints_go_with_their_observation(given):
    ifu = {"exp_type": "NRS_IFU"}
    exposures = given(ifu, {**ifu, "IS_IMPRT": True}, {**ifu, "IS_IMPRT": True, "OBSERVTN": "002"})
    assert level2_members(exposures[0], exposures) == [(exposures[1], "imprint")]
    groups, _ = level3_groups(exposures)
    assert [len(g.members) for g in groups] == [1]


def test_dithers_with_one_exposure_id_are_told_apart(given):
    same = {"EXPOSURE": "1"}
    dithers = given(same, same)
    assert dithers[0].exposure_id == dithers[1].exposure_id
    ids = unique_ids(dithers)
    assert len(set(ids.values())) == 2
    # The detectors of one exposure still make one group.
    both = given(
        {**same, "DETECTOR": "NRCALONG"},
        {**same, "DETECTOR": "NRCALONG"},
        {**same, "DETECTOR": "NRCBLONG", "TIME_OBS": "01:01:00.000"},
        {**same, "DETECTOR": "NRCBLONG", "TIME_OBS": "01:02:00.000"},
    )
    ids = unique_ids(both)
    assert ids[both[0].root] == ids[both[2].root] != ids[both[1].root] == ids[both[3].root]


def test_ids_that_differ_or_are_absent_are_left_alone(given):
    assert unique_ids(given({}, {})) == {}
    absent = dict.fromkeys(
        ("PROGRAM", "OBSERVTN", "VISIT", "VISITGRP", "SEQ_ID", "ACT_ID", "EXPOSURE")
    )
    assert unique_ids(given(absent, absent)) == {}
    assert unique_ids(given({"EXPOSURE": "1"}, {"EXPOSURE": "1", "DETECTOR": "NRCBLONG"})) == {}


def test_exposures_with_one_id_and_one_time_are_told_apart_by_name(given):
    same = {"EXPOSURE": "1", "TIME_OBS": "01:00:00.000"}
    exposures = given(same, same)
    assert unique_ids(exposures) == {e.root: e.root for e in exposures}


def test_members_are_named_relative_to_the_association_that_is_kept(tmp_path):
    for number in (1, 2):
        write_exposure(tmp_path / "in", number, suffix="cal")
        write_exposure(tmp_path / "in", number, FILTER="F444W", root=f"jw1_{number}_nrcb5")
    plan = make_plan(tmp_path / "in", output_dir=tmp_path / "out", check_associations=False)
    first, second = plan.tasks[-2:]
    (tmp_path / "scratch").mkdir()
    path = write_association(first, tmp_path / "out", tmp_path / "scratch")
    assert path.name == "jw01234-o001_t001_nircam_clear-f356w-sub160_asn.json"
    found = json.loads(path.read_text())
    assert found["program"] == "01234"
    assert found["asn_type"] == "image3"
    assert found["asn_id"] == "o001"
    members = found["products"][0]["members"]
    # The pipeline finds them beside it; the association that is kept says where they are.
    assert [m["expname"] for m in members] == [
        f"jw01234001001_02101_0000{n}_nrcalong_cal.fits" for n in (1, 2)
    ]
    document = association_document(first, tmp_path / "out", tmp_path / "out" / "stage3")
    assert [m["expname"] for m in document["products"][0]["members"]] == [
        f"../../in/jw01234001001_02101_0000{n}_nrcalong_cal.fits" for n in (1, 2)
    ]
    document = association_document(second, tmp_path / "out", tmp_path / "out" / "stage3")
    assert document["products"][0]["members"][0]["expname"] == "../stage2/jw1_1_nrcb5_cal.fits"
    assert "product" not in document


def test_the_package_completes_an_association():
    pytest.importorskip("jwst")
    products = [{"name": "p", "members": [{"expname": "a_cal.fits", "exptype": "science"}]}]
    association = {
        "asn_type": "image3", "asn_rule": "DMS_Level3_Base", "asn_id": "o001", "program": "01234",
        "target": "x", "asn_pool": "none", "products": products,
    }  # fmt: skip
    (made,) = complete([association])
    assert made["program"] == "01234"
    assert made["asn_type"] == "image3"
    assert made["code_version"]
    assert "products" not in made


def test_what_the_package_refuses_is_said():
    pytest.importorskip("jwst")
    bad = {"asn_rule": "none", "products": [{"name": "p", "members": [{"expname": "a"}]}]}
    with pytest.raises(StageError, match=r"jwst.associations refuses p: "):
        complete([bad])


LIBRARY = """
import json, sys
from jwst.datamodels import ModelLibrary
library = ModelLibrary(sys.argv[1], asn_exptypes=["science"], on_disk=True)
members = library.asn["products"][0]["members"]
json.dump([[m["expname"], m["group_id"]] for m in members], sys.stdout)
"""


def test_the_library_of_the_package_takes_the_mended_ids(tmp_path):
    pytest.importorskip("jwst")
    for number in (1, 2):
        write_exposure(tmp_path, number, suffix="cal", EXPOSURE="1")
    plan = make_plan(tmp_path, output_dir=tmp_path / "out")
    assert any("share the exposure id" in note for note in plan.notes)
    path = write_association(plan.tasks[-1], tmp_path / "out", tmp_path)
    child = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LIBRARY, str(path)],
        # It keeps its temporary files in the working directory.
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    groups = dict(json.loads(child.stdout))
    assert len(groups) == len(set(groups.values())) == 2
