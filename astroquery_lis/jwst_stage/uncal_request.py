"""What is asked of the archive: names and arguments as they are checked, and the request."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.time import Time

from ..exceptions import InvalidRequestError, meant, refuse
from ..survey.sphere import Polygon, separation_deg
from .pipelines import EXP_TYPES as ALL_TYPES
from .pipelines import is_guider

if TYPE_CHECKING:
    from collections.abc import Sequence


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
    r"jw(?P<program>\d{5})(?P<observation>\d{3})(?P<visit>\d{3})"
    r"_(?P<activity>\d{2}[0-9a-z]{3})_(?P<exposure>\d{5})(?:-seg(?P<segment>\d{3}))?"
    r"_(?P<detector>[a-z][a-z0-9]+)_uncal\.fits"
)
EXPOSURE = re.compile(r"jw(\d{5})(\d{3})\d{3}_")
_CANDIDATE = re.compile(r"jw(\d{5})-(?:o(\d{3})|([a-z]\d{3,4}))[-_]")


def parse_uncal_name(name: str) -> dict[str, object] | None:
    """Return what the name of an uncal file tells: columns of the table."""
    match = _UNCAL.fullmatch(name)
    if match is None or match["detector"].upper() not in DETECTORS:
        return None
    numbers = ("program", "observation", "visit", "exposure", "segment")
    return {
        **{key: int(match[key] or 0) for key in numbers},
        "activity": match["activity"],
        "detector": match["detector"].upper(),
    }


def dataset_facts(row: dict[str, Any]) -> dict[str, object]:
    """Return what a row of the search tells of a file whose name is not known yet."""
    match = EXPOSURE.match(str(row["dataset"]))
    program, observation = map(int, match.groups()) if match else (0, 0)
    return {**row, "program": program, "observation": observation}


def folder_of(name: str) -> str:
    """Return the folder of a file of the archive: its program and its observation."""
    match = EXPOSURE.match(name)
    if match:
        return f"{match[1]}/{match[2]}"
    match = _CANDIDATE.match(name)
    return f"{match[1]}/{match[2] or match[3]}" if match else "other"


SEARCH_MARGIN_DEG = 0.25
"""How far from its target a detector may look: other modules, parallel instruments."""


def as_choices(parameter: str, value: Any, allowed: Sequence[str]) -> tuple[str, ...]:
    """Return names out of a list, in upper case."""
    if value is None:
        return ()
    names = []
    for entry in _entries(parameter, value):
        name = str(entry).strip().upper()
        if name not in allowed:
            # A hundred names would hide the one that was meant.
            hint = meant(name, allowed)
            must = "is not known." if hint else f"is none of {', '.join(allowed)}."
            refuse(parameter, entry, must + hint)
        names.append(name)
    return tuple(dict.fromkeys(names))


def as_numbers(parameter: str, value: Any, largest: int) -> tuple[int, ...]:
    """Return numbers of programs or observations."""
    if value is None:
        return ()
    numbers = []
    for entry in _entries(parameter, value):
        text = str(entry).strip()
        if isinstance(entry, bool) or not text.isdecimal() or not 0 < int(text) <= largest:
            refuse(parameter, entry, f"must be a number from 1 to {largest}, or several.")
        numbers.append(int(text))
    return tuple(dict.fromkeys(numbers))


def _entries(parameter: str, value: Any) -> list:
    """Return the entries of one value, of text with commas, or of several values."""
    if isinstance(value, str):
        return value.split(",")
    entries = list(value) if isinstance(value, Iterable) else [value]
    if not entries:
        refuse(parameter, value, "is empty; leave it out to take all.")
    return entries


@dataclass(frozen=True)
class UncalRequest:
    """What is asked for; every tuple is empty for no condition."""

    program: tuple = ()
    observation: tuple = ()
    instrument: tuple = ()
    filters: tuple = ()
    detector: tuple = ()
    exp_type: tuple = ()
    start: Time | None = None
    end: Time | None = None
    circle: tuple[float, float, float] | None = None
    """RA, Dec and radius, degrees."""
    public_only: bool = False
    associations: bool = False

    def criteria(self) -> dict[str, str]:
        """Return what the service can test, by key of `~.mission_search.COLUMNS`."""
        criteria = {"level": "1b"}
        for key in ("program", "observation", "instrument", "exp_type"):
            if getattr(self, key):
                criteria[key] = ",".join(map(str, getattr(self, key)))
        # The service may know the day only; the moment is compared here.
        first = None if self.start is None else (self.start - 1 * u.day).strftime("%Y-%m-%d")
        last = None if self.end is None else (self.end + 1 * u.day).strftime("%Y-%m-%d")
        if first and last:
            criteria["day"] = f"{first}..{last}"
        elif first or last:
            criteria["day"] = f">={first}" if first else f"<={last}"
        return criteria

    @property
    def cone(self) -> tuple[SkyCoord | None, u.Quantity | None]:
        """Centre and radius of the circle in which the service searches, `None` for none."""
        if self.circle is None:
            return None, None
        ra_deg, dec_deg, radius_deg = self.circle
        return SkyCoord(ra_deg, dec_deg, unit="deg"), (radius_deg + SEARCH_MARGIN_DEG) * u.deg

    def wants(self, facts: dict[str, Any]) -> bool:
        """Return True if a file is asked for: by its row of the search, and its name."""
        for key in ("program", "observation", "instrument", "detector", "exp_type"):
            value, allowed = facts.get(key), getattr(self, key)
            value = value.upper() if isinstance(value, str) else value
            # What is not known may be what is asked for.
            if value and allowed and value not in allowed:
                return False
        if self.filters and not _elements(facts) & set(self.filters):
            return False
        return self._in_time(facts) and self._on_sky(facts)

    def _in_time(self, row: dict[str, Any]) -> bool:
        text = row.get("begun")
        if not text or (self.start is None and self.end is None):
            return True
        begun = Time(str(text).replace("Z", ""), scale="utc")
        # Where only the day is known, the whole of it counts.
        day = (1 if len(str(text)) <= 10 else 0) * u.day
        early = self.start is not None and begun + day <= self.start - 0.001 * u.s
        late = self.end is not None and begun > self.end
        return not (early or late)

    def _on_sky(self, row: dict[str, Any]) -> bool:
        if self.circle is None:
            return True
        touches = _touches(str(row.get("s_region") or ""), *self.circle)
        if touches is not None:
            return touches
        if row.get("ra_deg") is None or row.get("dec_deg") is None:
            return True
        ra_deg, dec_deg, radius_deg = self.circle
        place = float(row["ra_deg"]), float(row["dec_deg"])
        return bool(separation_deg(ra_deg, dec_deg, *place) <= radius_deg)


@lru_cache(maxsize=65_536)
def _touches(text: str, ra_deg: float, dec_deg: float, radius_deg: float) -> bool | None:
    """Return True if a footprint touches a circle; `None` if the text is none."""
    # It brings the code for mosaics along.
    from .legacy.fields import Field, Footprint
    from .planning.footprints import parse_s_region

    try:
        shapes = parse_s_region(text)
    except InvalidRequestError:
        return None
    field = Field((Footprint("", shapes),))
    corners = separation_deg(ra_deg, dec_deg, *field.corners())
    if len(shapes) == 1 and isinstance(shapes[0], Polygon) and corners.min() <= radius_deg:
        return True
    # The whole test takes a hundred times as long.
    if corners.min() > radius_deg + 2 * field.enclosing().radius_deg:
        return False
    return bool(field.contains(np.array([ra_deg]), np.array([dec_deg]), margin_deg=radius_deg)[0])


def as_moment(parameter: str, value: Any, *, is_end: bool = False) -> Time | None:
    """Return a date as a time."""
    if value is None:
        return None
    try:
        moment = Time(value, scale="utc") if isinstance(value, str) else Time(value).utc
    except (ValueError, TypeError) as error:
        msg = f"{parameter}={value!r} must be a Time or a date such as '2022-07-01'."
        raise InvalidRequestError(msg, parameter=parameter, value=value) from error
    if not moment.isscalar:
        msg = f"{parameter} has shape {moment.shape}; one date is due."
        raise InvalidRequestError(msg, parameter=parameter, value=value)
    if is_end and isinstance(value, str) and len(value.strip()) <= 10:
        moment += 1 * u.day - 1 * u.ms
    return moment


def _elements(row: dict[str, Any]) -> set[str]:
    """Return every optical element that a row names."""
    values = (row.get(key) for key in ("filter", "pupil", "grating", "band", "elements"))
    return {word for value in values if value for word in re.findall(r"\w+", str(value).upper())}
