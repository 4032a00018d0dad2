"""What the names in the JWST archive mean, and which names there can be.

The name of an exposure's file tells program, observation, visit, exposure and detector, so that
these never have to be taken from a service.  Instruments, detectors, optical elements and kinds of
exposure are those that were launched: what is not in the lists is a slip of the pen.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from ...exceptions import InvalidRequestError

__all__ = [
    "DETECTORS",
    "EXP_TYPES",
    "INSTRUMENTS",
    "OPTICAL_ELEMENTS",
    "ExposureName",
    "as_choices",
    "as_numbers",
    "folder_of",
    "parse_uncal_name",
    "size_text",
]

INSTRUMENTS = ("NIRCAM", "NIRSPEC", "NIRISS", "MIRI", "FGS")

DETECTORS = (
    *(f"NRC{module}{number}" for module in "AB" for number in (1, 2, 3, 4, "LONG")),
    "NRS1",
    "NRS2",
    "NIS",
    "MIRIMAGE",
    "MIRIFULONG",
    "MIRIFUSHORT",
    "GUIDER1",
    "GUIDER2",
)

_ELEMENT_NAMES = """
    F070W F090W F115W F140M F150W F150W2 F158M F162M F164N F182M F187N F200W F210M F212N F250M F277W
    F300M F322W2 F323N F335M F356W F360M F380M F405N F410M F430M F444W F460M F466N F470N F480M
    WLP4 WLP8 WLM8 GRISMR GRISMC GRISMV2 GRISMV3 MASKIPR GDHS0 GDHS60 MASKRND MASKBAR
    PINHOLES FLAT CLEAR CLEARP NRM GR150C GR150R GR700XD
    F560W F770W F1000W F1130W F1280W F1500W F1800W F2100W F2550W F2550WR F1065C F1140C F1550C F2300C
    FND FLENS P750L OPAQUE SHORT MEDIUM LONG
    F070LP F100LP F110W F140X F170LP F290LP
    G140M G235M G395M G140H G235H G395H PRISM MIRROR
"""

OPTICAL_ELEMENTS = tuple(_ELEMENT_NAMES.split())
"""Filters, pupil wheel elements, gratings, prisms and the bands of the MRS."""

_EXP_TYPE_NAMES = """
    FGS_DARK FGS_FOCUS FGS_IMAGE FGS_INTFLAT FGS_SKYFLAT
    MIR_4QPM MIR_CORONCAL MIR_DARKALL MIR_DARKIMG MIR_DARKMRS MIR_FLATIMAGE MIR_FLATIMAGE-EXT
    MIR_FLATMRS MIR_FLATMRS-EXT MIR_IMAGE MIR_LRS-FIXEDSLIT MIR_LRS-SLITLESS MIR_LYOT MIR_MRS
    MIR_TACONFIRM MIR_TACQ MIR_WFSS
    NIS_AMI NIS_DARK NIS_EXTCAL NIS_FOCUS NIS_IMAGE NIS_LAMP NIS_SOSS NIS_TACONFIRM NIS_TACQ
    NIS_WFSS
    NRC_CORON NRC_DARK NRC_FLAT NRC_FOCUS NRC_GRISM NRC_IMAGE NRC_LED NRC_TACONFIRM NRC_TACQ
    NRC_TSGRISM NRC_TSIMAGE NRC_WFSC NRC_WFSS
    NRS_AUTOFLAT NRS_AUTOWAVE NRS_BRIGHTOBJ NRS_CONFIRM NRS_DARK NRS_FIXEDSLIT NRS_FOCUS NRS_IFU
    NRS_IMAGE NRS_LAMP NRS_MIMF NRS_MSASPEC NRS_MSATA NRS_TACONFIRM NRS_TACQ NRS_TASLIT NRS_VERIFY
    NRS_WATA
"""

EXP_TYPES = tuple(_EXP_TYPE_NAMES.split())
"""Kinds of exposure, without those of guide stars."""

_UNCAL = re.compile(
    r"(?P<root>jw(?P<program>\d{5})(?P<observation>\d{3})(?P<visit>\d{3})"
    r"_(?P<activity>\d{2}[0-9a-z]{3})_(?P<exposure>\d{5})(?:-seg(?P<segment>\d{3}))?)"
    r"_(?P<detector>[a-z][a-z0-9]+)_uncal\.fits"
)
_EXPOSURE = re.compile(r"jw(\d{5})(\d{3})\d{3}_")
_CANDIDATE = re.compile(r"jw(\d{5})-(?:o(\d{3})|([a-z]\d{3,4}))[-_]")


@dataclass(frozen=True, slots=True)
class ExposureName:
    """What the name of an uncal file tells.

    Attributes
    ----------
    root : str
        The name up to the exposure (and segment), without the detector.
    program, observation, visit, exposure, segment : int
        Numbers; the segment is 0 for an exposure in one file.
    activity : str
        Group, sequence and activity, five characters.
    detector : str
        Upper case.
    """

    root: str
    program: int
    observation: int
    visit: int
    activity: str
    exposure: int
    segment: int
    detector: str


def parse_uncal_name(name):
    """Return what the name of an uncal file tells.

    Parameters
    ----------
    name : str
        Name of a file.

    Returns
    -------
    ExposureName or None
        `None` for any other file, those of guide stars among them.

    Examples
    --------
    >>> from astroquery_lis.jwst_stage.archive.names import parse_uncal_name
    >>> found = parse_uncal_name("jw02736001001_02101_00003_nrca1_uncal.fits")
    >>> found.program, found.observation, found.exposure, found.detector
    (2736, 1, 3, 'NRCA1')
    >>> parse_uncal_name("jw02736001001_gs-acq1_2022158002401_uncal.fits") is None
    True
    """
    match = _UNCAL.fullmatch(name)
    if match is None or match["detector"].upper() not in DETECTORS:
        return None
    numbers = {
        key: int(match[key] or 0)
        for key in ("program", "observation", "visit", "exposure", "segment")
    }
    return ExposureName(
        root=match["root"],
        activity=match["activity"],
        detector=match["detector"].upper(),
        **numbers,
    )


def folder_of(name):
    """Return the folder of a file of the archive: its program and its observation.

    Parameters
    ----------
    name : str
        Name of a file.

    Returns
    -------
    str
        With '/'; ``'other'`` for a name that tells neither.

    Examples
    --------
    >>> from astroquery_lis.jwst_stage.archive.names import folder_of
    >>> folder_of("jw02736001001_02101_00003_nrca1_uncal.fits")
    '02736/001'
    >>> folder_of("jw02736-o002_20240712t110137_image3_00001_asn.json")
    '02736/002'
    """
    match = _EXPOSURE.match(name)
    if match:
        return f"{match[1]}/{match[2]}"
    match = _CANDIDATE.match(name)
    return f"{match[1]}/{match[2] or match[3]}" if match else "other"


def as_choices(parameter, value, allowed):
    """Return names out of a list, in upper case.

    Parameters
    ----------
    parameter : str
        Name of the argument.
    value : str or iterable of str or None
        One name, names with commas between them, or several.
    allowed : iterable of str
        What may be given.

    Returns
    -------
    tuple of str
        Empty for `None`.

    Raises
    ------
    InvalidRequestError
    """
    if value is None:
        return ()
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, Iterable):
        names = [names]
    found = []
    for given in names:
        name = str(given).strip().upper()
        if name not in allowed:
            near = get_close_matches(name, allowed, n=3, cutoff=0.5)
            listed = ", ".join(allowed) if len(allowed) < 30 else ", ".join(allowed[:12]) + ", ..."
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            msg = f"{parameter}={given!r} is not known; {hint}Allowed are: {listed}."
            raise InvalidRequestError(msg, parameter=parameter, value=given)
        found.append(name)
    if not found:
        msg = f"{parameter}={value!r} is empty; leave it out to take all."
        raise InvalidRequestError(msg, parameter=parameter, value=value)
    return tuple(dict.fromkeys(found))


def as_numbers(parameter, value, largest):
    """Return numbers of programs or observations.

    Parameters
    ----------
    parameter : str
        Name of the argument.
    value : int or str or iterable of them or None
        ``2736``, ``"02736"``, or several.
    largest : int
        Largest number there can be.

    Returns
    -------
    tuple of int
        Empty for `None`.

    Raises
    ------
    InvalidRequestError
    """
    if value is None:
        return ()
    if isinstance(value, str):
        given = value.split(",")
    else:
        given = value if isinstance(value, Iterable) else [value]
    numbers = []
    for one in given:
        text = str(one).strip()
        if isinstance(one, bool) or not text.isdecimal() or not 0 < int(text) <= largest:
            msg = f"{parameter}={one!r} must be a number from 1 to {largest}, or several."
            raise InvalidRequestError(msg, parameter=parameter, value=one)
        numbers.append(int(text))
    if not numbers:
        msg = f"{parameter}={value!r} is empty; leave it out to take all."
        raise InvalidRequestError(msg, parameter=parameter, value=value)
    return tuple(dict.fromkeys(numbers))


def size_text(n_bytes):
    """Return a number of bytes in words.

    Parameters
    ----------
    n_bytes : int
        The number.

    Returns
    -------
    str

    Examples
    --------
    >>> from astroquery_lis.jwst_stage.archive.names import size_text
    >>> size_text(2_345_678), size_text(345_678_901_234)
    ('2.3 MB', '345.7 GB')
    """
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"
