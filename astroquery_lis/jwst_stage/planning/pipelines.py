"""Which pipeline a kind of exposure goes through in each stage.

The table is the one of the documentation of the `jwst` package, with the cases that its
association rules add.  The tests hold it against the lists in the package and in CRDS.
"""

from ...exceptions import InvalidExposureError

__all__ = [
    "EXP_TYPES",
    "STAGE3_SUFFIX",
    "is_guider",
    "is_integrations",
    "pipelines_for",
    "stage_classes",
]

_DETECTOR, _DARK, _GUIDER = "Detector1Pipeline", "DarkPipeline", "GuiderPipeline"
_IMAGE, _SPEC = "Image2Pipeline", "Spec2Pipeline"

_IMAGING = (_DETECTOR, _IMAGE, "Image3Pipeline")
_SPECTRA = (_DETECTOR, _SPEC, "Spec3Pipeline")
_CORONAGRAPHY = (_DETECTOR, _IMAGE, "Coron3Pipeline")
_IMAGE_ONLY = (_DETECTOR, _IMAGE, "")
_SPEC_ONLY = (_DETECTOR, _SPEC, "")
_RATE_ONLY = (_DETECTOR, "", "")
_DARKS = (_DARK, "", "")
_GUIDING = (_GUIDER, "", "")

EXP_TYPES = {
    **dict.fromkeys(("FGS_IMAGE", "MIR_IMAGE", "NIS_IMAGE", "NRC_IMAGE"), _IMAGING),
    **dict.fromkeys(("MIR_4QPM", "MIR_LYOT", "NRC_CORON"), _CORONAGRAPHY),
    "NIS_AMI": (_DETECTOR, _IMAGE, "Ami3Pipeline"),
    "NRC_TSIMAGE": (_DETECTOR, _IMAGE, "Tso3Pipeline"),
    **dict.fromkeys(("NRC_TSGRISM", "NRS_BRIGHTOBJ"), (_DETECTOR, _SPEC, "Tso3Pipeline")),
    **dict.fromkeys(
        (
            "MIR_LRS-FIXEDSLIT", "MIR_MRS", "MIR_WFSS", "NIS_SOSS", "NIS_WFSS", "NRC_WFSS",
            "NRS_FIXEDSLIT", "NRS_IFU", "NRS_MSASPEC",
        ),
        _SPECTRA,
    ),
    "MIR_LRS-SLITLESS": _SPEC_ONLY,
    **dict.fromkeys(
        (
            "FGS_FOCUS", "MIR_CORONCAL", "MIR_TACONFIRM", "MIR_TACQ", "NIS_FOCUS",
            "NIS_TACONFIRM", "NIS_TACQ", "NRC_FOCUS", "NRC_TACONFIRM", "NRC_TACQ", "NRC_WFSC",
            "NRS_BOTA", "NRS_CONFIRM", "NRS_FOCUS", "NRS_IMAGE", "NRS_MIMF", "NRS_MSATA",
            "NRS_TACONFIRM", "NRS_TACQ", "NRS_TASLIT", "NRS_VERIFY", "NRS_WATA",
        ),
        _IMAGE_ONLY,
    ),
    **dict.fromkeys(("NRC_GRISM", "NRS_AUTOWAVE", "NRS_LAMP"), _SPEC_ONLY),
    **dict.fromkeys(
        (
            "FGS_INTFLAT", "FGS_SKYFLAT", "MIR_FLATALL", "MIR_FLATIMAGE", "MIR_FLATIMAGE-EXT",
            "MIR_FLATMRS", "MIR_FLATMRS-EXT", "NIS_EXTCAL", "NIS_LAMP", "NRC_FLAT", "NRC_LED",
            "NRS_AUTOFLAT",
        ),
        _RATE_ONLY,
    ),
    **dict.fromkeys(
        (
            "FGS_DARK", "MIR_DARK", "MIR_DARKALL", "MIR_DARKIMG", "MIR_DARKMRS", "NIS_DARK",
            "NRC_DARK", "NRS_DARK",
        ),
        _DARKS,
    ),
    **dict.fromkeys(
        ("FGS_ACQ1", "FGS_ACQ2", "FGS_FINEGUIDE", "FGS_ID-IMAGE", "FGS_ID-STACK", "FGS_TRACK"),
        _GUIDING,
    ),
}  # fmt: skip
"""``{EXP_TYPE: (class of stage 1, of stage 2, of stage 3)}``; empty where the chain stops."""

IMAGING = frozenset(name for name, classes in EXP_TYPES.items() if classes == _IMAGING)
"""Types of plain images."""

RETIRED = ("MIR_DARK", "MIR_FLATALL", "NRS_BOTA")
"""Types that CRDS still lists, and the data models do not."""

ALWAYS_TSO = ("NRC_TSIMAGE", "NRC_TSGRISM", "NRS_BRIGHTOBJ")
"""Types that are time series whatever TSOVISIT says."""

CORONAGRAPHIC = ("MIR_4QPM", "MIR_LYOT", "NRC_CORON")
"""Types with a mask in the beam."""

_TSO_IF_VISIT = ("MIR_IMAGE", "MIR_LRS-FIXEDSLIT", "MIR_LRS-SLITLESS", "NIS_SOSS")

STAGE3_SUFFIX = {
    "Image3Pipeline": "i2d.fits",
    "Coron3Pipeline": "i2d.fits",
    "Ami3Pipeline": "aminorm-oi.fits",
    "WfsCombineStep": "wfscmb.fits",
}
"""Ending of the main product of those pipelines of stage 3 that give it one name."""

# Full-frame coronagraphy reads detectors with no mask in their field: plain images.
_NO_MASK = {"MASKBAR": ("NRCA1", "NRCA2", "NRCA3"), "MASKRND": ("NRCA1", "NRCA3", "NRCA4")}


def is_guider(exp_type):
    """Return whether the type is one of the guider's.

    Parameters
    ----------
    exp_type : str
        An EXP_TYPE.

    Returns
    -------
    bool
    """
    return EXP_TYPES.get(exp_type) == _GUIDING


def pipelines_for(exp_type, *, is_tso=False, wavefront=False, path=""):
    """Return the classes of the three stages.

    Parameters
    ----------
    exp_type : str
        An EXP_TYPE.
    is_tso : bool, optional
        Whether TSOVISIT is true; `False` by default.
    wavefront : bool, optional
        Whether PATTTYPE or VISITYPE is one of wavefront sensing (WFSC); `False` by default.
    path : str, optional
        The file, for the message.

    Returns
    -------
    tuple of str, (3,)
        Class names; empty where the chain stops.

    Raises
    ------
    InvalidExposureError
        If the type is not known.
    """
    try:
        classes = EXP_TYPES[exp_type]
    except KeyError:
        where = f"{path}: " if path else ""
        msg = f"{where}EXP_TYPE={exp_type!r} is none of {', '.join(sorted(EXP_TYPES))}."
        raise InvalidExposureError(msg, parameter="EXP_TYPE", value=exp_type) from None
    if is_tso and exp_type in _TSO_IF_VISIT:
        return (*classes[:2], "Tso3Pipeline")
    if wavefront and classes == _IMAGING:
        return (*classes[:2], "WfsCombineStep")
    return classes


def stage_classes(exposure):
    """Return the classes of the three stages for an exposure.

    Parameters
    ----------
    exposure : `~.exposures.Exposure`
        What its headers say.

    Returns
    -------
    tuple of str, (3,)
        Class names; empty where the chain stops.
    """
    classes = pipelines_for(
        exposure.exp_type,
        is_tso=exposure.is_tso,
        wavefront="WFSC" in exposure.patttype.upper() or "WFSC" in exposure.visit_type.upper(),
        path=exposure.path,
    )
    if exposure.exp_type == "NRC_CORON" and _outside_mask(exposure):
        return (*classes[:2], "Image3Pipeline")
    # F277W holds only the first order of SOSS, and is not calibrated beyond stage 1.
    if exposure.exp_type == "NIS_SOSS" and exposure.filter == "F277W":
        return (classes[0], "", "")
    return classes


def is_integrations(exposure):
    """Return whether stage 2 takes each integration for itself: rateints to calints.

    Parameters
    ----------
    exposure : `~.exposures.Exposure`
        What its headers say.

    Returns
    -------
    bool
    """
    if not stage_classes(exposure)[1] or exposure.exp_type.partition("_")[2].startswith("TA"):
        return False
    if exposure.exp_type in CORONAGRAPHIC:
        return not _outside_mask(exposure)
    return exposure.is_tso or exposure.exp_type in (*ALWAYS_TSO, "NIS_AMI")


def _outside_mask(exposure):
    return exposure.subarray.upper() == "FULL" and exposure.detector in _NO_MASK.get(
        exposure.pupil, ()
    )
