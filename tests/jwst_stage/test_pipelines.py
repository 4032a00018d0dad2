"""The classes of each EXP_TYPE, against the documented table and the lists of jwst and CRDS."""

import json
import subprocess
import sys

import pytest

from astroquery_lis.exceptions import InvalidExposureError
from astroquery_lis.jwst_stage.pipelines import (
    EXP_TYPES,
    pipelines_for,
)
from astroquery_lis.jwst_stage.planning.exposures import Exposure

# jwst 3.0, docs/jwst/pipeline/main.rst: stage 1, 2 and 3 by EXP_TYPE; tso1 means a TSO visit.
DOCUMENTED = """
FGS_IMAGE detector1 image2 image3
FGS_FOCUS detector1 image2 -
FGS_DARK dark - -
FGS_SKYFLAT detector1 - -
FGS_INTFLAT detector1 - -
MIR_IMAGE detector1 image2 image3
MIR_MRS detector1 spec2 spec3
MIR_LRS-FIXEDSLIT detector1 spec2 spec3
MIR_LRS-SLITLESS tso1 spec2 tso3
MIR_LYOT detector1 image2 coron3
MIR_4QPM detector1 image2 coron3
MIR_TACQ detector1 image2 -
MIR_DARK dark - -
MIR_FLATIMAGE detector1 - -
MIR_FLATMRS detector1 - -
NRC_IMAGE detector1 image2 image3
NRC_CORON detector1 image2 coron3
NRC_WFSS detector1 spec2 spec3
NRC_TSIMAGE tso1 image2 tso3
NRC_TSGRISM tso1 spec2 tso3
NRC_TACQ detector1 image2 -
NRC_TACONFIRM detector1 image2 -
NRC_FOCUS detector1 image2 -
NRC_DARK dark - -
NRC_FLAT detector1 - -
NRC_LED detector1 - -
NIS_IMAGE detector1 image2 image3
NIS_WFSS detector1 spec2 spec3
NIS_SOSS tso1 spec2 tso3
NIS_AMI detector1 image2 ami3
NIS_TACQ detector1 image2 -
NIS_TACONFIRM detector1 image2 -
NIS_FOCUS detector1 image2 -
NIS_DARK dark - -
NIS_LAMP detector1 - -
NRS_FIXEDSLIT detector1 spec2 spec3
NRS_IFU detector1 spec2 spec3
NRS_MSASPEC detector1 spec2 spec3
NRS_BRIGHTOBJ tso1 spec2 tso3
NRS_IMAGE detector1 image2 -
NRS_TACQ detector1 image2 -
NRS_TACONFIRM detector1 image2 -
NRS_BOTA detector1 image2 -
NRS_TASLIT detector1 image2 -
NRS_CONFIRM detector1 image2 -
NRS_FOCUS detector1 image2 -
NRS_MIMF detector1 image2 -
NRS_DARK dark - -
NRS_AUTOWAVE detector1 - -
NRS_AUTOFLAT detector1 - -
NRS_LAMP detector1 - -
"""
CLASSES = {
    "detector1": "Detector1Pipeline",
    "tso1": "Detector1Pipeline",
    "dark": "DarkPipeline",
    "guider": "GuiderPipeline",
    "image2": "Image2Pipeline",
    "spec2": "Spec2Pipeline",
    "image3": "Image3Pipeline",
    "spec3": "Spec3Pipeline",
    "coron3": "Coron3Pipeline",
    "ami3": "Ami3Pipeline",
    "tso3": "Tso3Pipeline",
    "-": "",
}
TABLE = [line.split() for line in DOCUMENTED.split("\n") if line]
# The table ends them at stage 1, the lists of CRDS and the rules of the package at stage 2.
LAMPS = ("NRS_AUTOWAVE", "NRS_LAMP")

LISTS = """
import json, sys
from crds.jwst import pipeline
from jwst.associations.lib import dms_base as lists
from jwst.lib.exposure_types import FGS_GUIDE_EXP_TYPES
from jwst.stpipe.integration import get_steps

def ask(exp_type, tso):
    header = {"META.EXPOSURE.TYPE": exp_type, "META.VISIT.TSOVISIT": tso,
              "META.INSTRUMENT.LAMP_STATE": "OFF", "META.VISIT.TITLE": "x"}
    return pipeline.header_to_pipelines(header)

# With no cache there is no context; the list that CRDS falls back on is in the package.
newest = pipeline.os.path.join(pipeline.HERE, pipeline.REFPATHS[-1][1])
pipeline._get_config_refpath = lambda context, cal_ver: newest
known = pipeline._get_config_manager(None, None)._crdscfg["exptypes_to_pipelines"]
json.dump({
    "crds": {t: ask(t, "F") for t in known}, "tso": {t: ask(t, "T") for t in known},
    "image": [*lists.IMAGE2_SCIENCE_EXP_TYPES, *lists.IMAGE2_NONSCIENCE_EXP_TYPES],
    "spec": lists.SPEC2_SCIENCE_EXP_TYPES, "coron": lists.CORON_EXP_TYPES,
    "always_tso": lists.TSO_EXP_TYPES, "guider": FGS_GUIDE_EXP_TYPES,
    "classes": [s[0].rpartition(".")[2] for s in get_steps()],
}, sys.stdout)
"""


@pytest.fixture(scope="module")
def lists(tmp_path_factory):
    """What the packages themselves say, asked in another process."""
    pytest.importorskip("jwst")
    cache = str(tmp_path_factory.mktemp("crds"))
    child = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LISTS],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={"CRDS_PATH": cache, "CRDS_SERVER_URL": "https://serverless.invalid", "PATH": ""},
    )
    return json.loads(child.stdout)


@pytest.mark.parametrize(("exp_type", "first", "second", "third"), TABLE)
def test_documented_table(exp_type, first, second, third):
    found = pipelines_for(exp_type, is_tso=first == "tso1")
    expected = tuple(CLASSES[name] for name in (first, second, third))
    if exp_type in LAMPS:
        expected = (expected[0], "Spec2Pipeline", "")
    assert found == expected


def test_agrees_with_crds_for_every_type(lists):
    assert len(lists["crds"]) > 60
    for kind, is_tso in (("crds", False), ("tso", True)):
        for exp_type, names in lists[kind].items():
            words = [n.removeprefix("calwebb_").removesuffix(".cfg") for n in names]
            # tso-image2 and wfs-image2 are configurations of the same classes.
            first, second = (w.rpartition("-")[2] for w in words)
            expected = (CLASSES[first], CLASSES["-" if second == "skip_2b" else second])
            assert pipelines_for(exp_type, is_tso=is_tso)[:2] == expected, exp_type


def test_agrees_with_the_lists_of_associations(lists):
    upper = {k: {t.upper() for t in lists[k]} for k in ("image", "spec", "coron", "guider")}
    assert {t for t, k in EXP_TYPES.items() if k.stages[2] == "Coron3Pipeline"} == upper["coron"]
    assert {t for t, k in EXP_TYPES.items() if k.stages[0] == "GuiderPipeline"} == upper["guider"]
    assert upper["image"] <= {t for t, k in EXP_TYPES.items() if k.stages[1] == "Image2Pipeline"}
    assert upper["spec"] <= {t for t, k in EXP_TYPES.items() if k.stages[1] == "Spec2Pipeline"}
    for exp_type in lists["always_tso"]:
        assert pipelines_for(exp_type.upper())[2] == "Tso3Pipeline"
    named = {name for kind in EXP_TYPES.values() for name in kind.stages if name}
    assert named | {"WfsCombineStep"} <= set(lists["classes"])


@pytest.mark.parametrize(
    ("exp_type", "third"),
    [
        ("MIR_IMAGE", "Tso3Pipeline"),
        ("MIR_LRS-FIXEDSLIT", "Tso3Pipeline"),
        ("MIR_LRS-SLITLESS", "Tso3Pipeline"),
        ("NIS_SOSS", "Tso3Pipeline"),
        ("NRC_IMAGE", "Image3Pipeline"),
    ],
)
def test_tso_visit(exp_type, third):
    assert pipelines_for(exp_type, is_tso=True)[2] == third


def test_types_that_have_stage_3_only_in_a_time_series():
    assert pipelines_for("MIR_LRS-SLITLESS")[2] == ""


def test_wavefront_sensing_takes_the_place_of_a_mosaic():
    assert pipelines_for("NRC_IMAGE", wavefront=True)[2] == "WfsCombineStep"
    assert pipelines_for("NRC_DARK", wavefront=True)[2] == ""
    exposure = Exposure("/x", "x", "uncal", exp_type="NRC_IMAGE", patttype="WFSC")
    assert exposure.classes[2] == "WfsCombineStep"


def test_unknown_type_lists_the_known_ones():
    with pytest.raises(InvalidExposureError, match=r"EXP_TYPE='NRC_IMAG' is none of FGS_ACQ1"):
        pipelines_for("NRC_IMAG")


@pytest.mark.parametrize(
    ("exp_type", "cards", "expected"),
    [
        ("NRC_IMAGE", {}, False),
        ("NRC_IMAGE", {"is_tso": True}, True),
        ("NRC_TSIMAGE", {}, True),
        ("NRC_TACQ", {"is_tso": True}, False),
        ("NIS_AMI", {}, True),
        ("MIR_LYOT", {}, True),
        ("NRC_CORON", {"detector": "NRCALONG", "pupil": "MASKRND", "subarray": "FULL"}, True),
        ("NRC_CORON", {"detector": "NRCA1", "pupil": "MASKRND", "subarray": "FULL"}, False),
        ("NRC_DARK", {"is_tso": True}, False),
    ],
)
def test_integrations(exp_type, cards, expected):
    exposure = Exposure("/x", "x", "uncal", exp_type=exp_type, **cards)
    assert exposure.is_integrations is expected


def test_detectors_beside_the_mask_make_images():
    cards = {"detector": "NRCA1", "pupil": "MASKBAR", "subarray": "FULL"}
    exposure = Exposure("/x", "x", "uncal", exp_type="NRC_CORON", **cards)
    assert exposure.classes[2] == "Image3Pipeline"


def test_f277w_of_soss_stops_at_stage_1():
    exposure = Exposure("/x", "x", "uncal", exp_type="NIS_SOSS", filter="F277W", is_tso=True)
    assert exposure.classes == ("Detector1Pipeline", "", "")
