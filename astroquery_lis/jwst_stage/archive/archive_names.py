"""What the names of files in the archive tell, and which instruments, elements and types there are.

The name of an exposure's file tells program, observation, visit, exposure and detector, so that
these never have to be taken from a service.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..planning.pipelines import EXP_TYPES as ALL_TYPES
from ..planning.pipelines import is_guider

# Instruments, detectors, optical elements and kinds of exposure are those that were launched: what
# is not in the lists is a slip of the pen.

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

EXP_TYPES = tuple(
    name for name, kind in ALL_TYPES.items() if not (kind.is_retired or is_guider(name))
)
"""Kinds of exposure, without those of guide stars."""

_UNCAL = re.compile(
    r"(?P<root>jw(?P<program>\d{5})(?P<observation>\d{3})(?P<visit>\d{3})"
    r"_(?P<activity>\d{2}[0-9a-z]{3})_(?P<exposure>\d{5})(?:-seg(?P<segment>\d{3}))?)"
    r"_(?P<detector>[a-z][a-z0-9]+)_uncal\.fits"
)
EXPOSURE = re.compile(r"jw(\d{5})(\d{3})\d{3}_")
_CANDIDATE = re.compile(r"jw(\d{5})-(?:o(\d{3})|([a-z]\d{3,4}))[-_]")


@dataclass(frozen=True, slots=True)
class ExposureName:
    """What the name of an uncal file tells."""

    root: str
    program: int
    observation: int
    visit: int
    activity: str
    exposure: int
    segment: int
    detector: str


def parse_uncal_name(name: str) -> ExposureName | None:
    """Return what the name of an uncal file tells."""
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


def folder_of(name: str) -> str:
    """Return the folder of a file of the archive: its program and its observation."""
    match = EXPOSURE.match(name)
    if match:
        return f"{match[1]}/{match[2]}"
    match = _CANDIDATE.match(name)
    return f"{match[1]}/{match[2] or match[3]}" if match else "other"
