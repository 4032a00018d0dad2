"""What each EXP_TYPE decides: the pipeline of every stage, and how its exposures are put together.

The table is the one of the documentation of the `jwst` package, with the cases that its
association rules add.  The tests hold it against the lists in the package and in CRDS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...exceptions import InvalidExposureError

if TYPE_CHECKING:
    from .exposures import Exposure

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


@dataclass(frozen=True, slots=True)
class Kind:
    """What one EXP_TYPE decides.

    Attributes
    ----------
    stages : tuple of str, (3,)
        Class of stage 1, of 2, of 3; empty where the chain stops.
    tso : {'', 'visit', 'always'}
        Whether it is a time series: where TSOVISIT says so, or whatever it says.
    is_slitless : bool
        Whether it holds spectra of a field, whose sources a mosaic of direct images tells.
    optics : tuple of str or None
        Keywords of the optics that have to be there, where they are not those of the instrument.
    has_mask : bool
        Whether a coronagraph's mask is in the beam.
    is_retired : bool
        Whether CRDS still lists it, and the data models do not.
    spectra : tuple of str
        Endings of the spectra of stage 3, where a product has one set of them, the main first.
    """

    stages: tuple[str, str, str]
    tso: str = ""
    is_slitless: bool = False
    optics: tuple[str, ...] | None = None
    has_mask: bool = False
    is_retired: bool = False
    spectra: tuple[str, ...] = ()


_STAGES: dict[str, tuple[str, str, str]] = {
    **dict.fromkeys(("FGS_IMAGE", "NIS_IMAGE", "NRC_IMAGE"), _IMAGING),
    "NIS_AMI": (_DETECTOR, _IMAGE, "Ami3Pipeline"),
    "NRS_IFU": _SPECTRA,
    **dict.fromkeys(
        (
            "FGS_FOCUS", "MIR_CORONCAL", "MIR_TACONFIRM", "MIR_TACQ", "NIS_FOCUS",
            "NIS_TACONFIRM", "NIS_TACQ", "NRC_FOCUS", "NRC_TACONFIRM", "NRC_TACQ", "NRC_WFSC",
            "NRS_CONFIRM", "NRS_FOCUS", "NRS_IMAGE", "NRS_MIMF", "NRS_MSATA",
            "NRS_TACONFIRM", "NRS_TACQ", "NRS_TASLIT", "NRS_VERIFY", "NRS_WATA",
        ),
        _IMAGE_ONLY,
    ),
    **dict.fromkeys(("NRC_GRISM", "NRS_AUTOWAVE", "NRS_LAMP"), _SPEC_ONLY),
    **dict.fromkeys(
        (
            "FGS_INTFLAT", "FGS_SKYFLAT", "MIR_FLATIMAGE", "MIR_FLATIMAGE-EXT",
            "MIR_FLATMRS", "MIR_FLATMRS-EXT", "NIS_EXTCAL", "NIS_LAMP", "NRC_FLAT", "NRC_LED",
            "NRS_AUTOFLAT",
        ),
        _RATE_ONLY,
    ),
    **dict.fromkeys(
        (
            "FGS_DARK", "MIR_DARKALL", "MIR_DARKIMG", "MIR_DARKMRS", "NIS_DARK",
            "NRC_DARK", "NRS_DARK",
        ),
        _DARKS,
    ),
    **dict.fromkeys(
        ("FGS_ACQ1", "FGS_ACQ2", "FGS_FINEGUIDE", "FGS_ID-IMAGE", "FGS_ID-STACK", "FGS_TRACK"),
        _GUIDING,
    ),
}  # fmt: skip

_SLITLESS = Kind(_SPECTRA, is_slitless=True, spectra=("x1d.fits", "c1d.fits"))

_SPECIAL = {
    "MIR_4QPM": Kind(_CORONAGRAPHY, has_mask=True),
    "MIR_LYOT": Kind(_CORONAGRAPHY, has_mask=True),
    "NRC_CORON": Kind(_CORONAGRAPHY, has_mask=True),
    "MIR_IMAGE": Kind(_IMAGING, tso="visit"),
    "MIR_LRS-FIXEDSLIT": Kind(_SPECTRA, tso="visit", spectra=("x1d.fits", "s2d.fits")),
    "MIR_LRS-SLITLESS": Kind(_SPEC_ONLY, tso="visit"),
    "NIS_SOSS": Kind(_SPECTRA, tso="visit"),
    "NRC_TSIMAGE": Kind((_DETECTOR, _IMAGE, "Tso3Pipeline"), tso="always"),
    "NRC_TSGRISM": Kind((_DETECTOR, _SPEC, "Tso3Pipeline"), tso="always"),
    "NRS_BRIGHTOBJ": Kind((_DETECTOR, _SPEC, "Tso3Pipeline"), tso="always"),
    "MIR_MRS": Kind(_SPECTRA, optics=("CHANNEL", "BAND")),
    "NIS_WFSS": _SLITLESS,
    "NRC_WFSS": _SLITLESS,
    "MIR_WFSS": _SLITLESS,
    "NRS_MSASPEC": Kind(_SPECTRA),
    "NRS_FIXEDSLIT": Kind(_SPECTRA),
    "MIR_DARK": Kind(_DARKS, is_retired=True),
    "MIR_FLATALL": Kind(_RATE_ONLY, is_retired=True),
    "NRS_BOTA": Kind(_IMAGE_ONLY, is_retired=True),
}

EXP_TYPES = {name: Kind(stages) for name, stages in _STAGES.items()} | _SPECIAL
"""What every EXP_TYPE decides."""

ACQUISITIONS = frozenset(
    (
        "MIR_TACONFIRM", "MIR_TACQ", "NIS_TACONFIRM", "NIS_TACQ", "NRC_TACONFIRM", "NRC_TACQ",
        "NRS_CONFIRM", "NRS_MSATA", "NRS_TACONFIRM", "NRS_TACQ", "NRS_TASLIT", "NRS_VERIFY",
        "NRS_WATA",
    )
)  # fmt: skip
"""Types of exposures that find the target and confirm it."""

IMAGING = frozenset(name for name, kind in EXP_TYPES.items() if kind.stages == _IMAGING)
"""Types of plain images."""

STAGE3_SUFFIXES = {
    "Image3Pipeline": ("i2d.fits",),
    "Coron3Pipeline": ("i2d.fits",),
    "Ami3Pipeline": ("aminorm-oi.fits",),
}
"""Endings of the products of those pipelines of stage 3 that give them one name, the main first."""

ASN_TYPES = {
    "Image3Pipeline": "image3",
    "Spec3Pipeline": "spec3",
    "Coron3Pipeline": "coron3",
    "Ami3Pipeline": "ami3",
    "Tso3Pipeline": "tso3",
    "WfsCombineStep": "wfs-image3",
}
"""The type of the associations of each pipeline of stage 3."""

# Full-frame coronagraphy reads detectors with no mask in their field: plain images.
_NO_MASK = {"MASKBAR": ("NRCA1", "NRCA2", "NRCA3"), "MASKRND": ("NRCA1", "NRCA3", "NRCA4")}


def is_guider(exp_type: str) -> bool:
    """Return True for one of the guider's types."""
    return exp_type in EXP_TYPES and EXP_TYPES[exp_type].stages == _GUIDING


def pipelines_for(
    exp_type: str, *, is_tso: bool = False, wavefront: bool = False, path: str = ""
) -> tuple[str, str, str]:
    """Return the classes of the three stages of a type, empty where the chain stops."""
    try:
        kind = EXP_TYPES[exp_type]
    except KeyError:
        where = f"{path}: " if path else ""
        msg = f"{where}EXP_TYPE={exp_type!r} is none of {', '.join(sorted(EXP_TYPES))}."
        raise InvalidExposureError(msg, parameter="EXP_TYPE", value=exp_type) from None
    if is_tso and kind.tso == "visit":
        return (*kind.stages[:2], "Tso3Pipeline")
    if wavefront and kind.stages == _IMAGING:
        return (*kind.stages[:2], "WfsCombineStep")
    return kind.stages


def stage_classes(exposure: Exposure) -> tuple[str, str, str]:
    """Return the classes of the three stages for an exposure, empty where the chain stops."""
    classes = pipelines_for(
        exposure.exp_type,
        is_tso=exposure.is_tso,
        wavefront="WFSC" in exposure.patttype.upper() or "WFSC" in exposure.visit_type.upper(),
        path=exposure.path,
    )
    if exposure.exp_type == "NRC_CORON" and _is_outside_mask(exposure):
        return (*classes[:2], "Image3Pipeline")
    # F277W holds only the first order of SOSS, and is not calibrated beyond stage 1.
    if exposure.exp_type == "NIS_SOSS" and exposure.filter == "F277W":
        return (classes[0], "", "")
    return classes


def is_integrations(exposure: Exposure) -> bool:
    """Return True if stage 2 takes each integration for itself: rateints to calints."""
    if not stage_classes(exposure)[1] or exposure.exp_type.partition("_")[2].startswith("TA"):
        return False
    kind = EXP_TYPES[exposure.exp_type]
    if kind.has_mask:
        return not _is_outside_mask(exposure)
    return exposure.is_tso or kind.tso == "always" or kind.stages[2] == "Ami3Pipeline"


def _is_outside_mask(exposure: Exposure) -> bool:
    detectors = _NO_MASK.get(exposure.pupil, ())
    return exposure.subarray.upper() == "FULL" and exposure.detector in detectors
