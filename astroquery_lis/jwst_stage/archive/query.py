"""Which uncal files there are: names in the archive, a request, the search for it, one tidy table.

The name of an exposure's file tells program, observation, visit, exposure and detector, so that
these never have to be taken from a service.  Three ways lead to lists of JWST files at MAST.  The
keyword search of the portal shows only the highest level of calibration and so no uncal files.  The
observation search (CAOM) finds planned and combined observations, whose lists of products repeat
each file many times, hold ten times as many of guide stars, and take minutes.  The mission search
has a row per file with the keywords of its header: a program takes one search, and one list of
files for every hundred exposures.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy import log
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table
from astropy.time import Time
from astroquery.exceptions import NoResultsWarning

from ...exceptions import InvalidRequestError, LegacySurveyWarning, warn
from ...survey.region import Polygon
from ...survey.sphere import separation_deg
from ..planning.pipelines import EXP_TYPES as ALL_TYPES
from ..planning.pipelines import is_guider

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .search import MissionSearch

__all__ = [
    "DETECTORS",
    "EXP_TYPES",
    "INSTRUMENTS",
    "OPTICAL_ELEMENTS",
    "ExposureName",
    "UncalRequest",
    "as_choices",
    "as_moment",
    "as_numbers",
    "find_uncal",
    "folder_of",
    "parse_uncal_name",
    "size_text",
]

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
_EXPOSURE = re.compile(r"jw(\d{5})(\d{3})\d{3}_")
_SHUTTERS = re.compile(r"jw(\d{5})(\d{3})(\d{3})_\w+_msa\.fits")
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
    match = _EXPOSURE.match(name)
    if match:
        return f"{match[1]}/{match[2]}"
    match = _CANDIDATE.match(name)
    return f"{match[1]}/{match[2] or match[3]}" if match else "other"


def as_choices(parameter: str, value: Any, allowed: Sequence[str]) -> tuple[str, ...]:
    """Return names out of a list, in upper case."""
    if value is None:
        return ()
    names = {}
    for entry in _entries(parameter, value):
        name = str(entry).strip().upper()
        if name not in allowed:
            near = get_close_matches(name, allowed, n=3, cutoff=0.5)
            listed = ", ".join(allowed) if len(allowed) < 30 else ", ".join(allowed[:12]) + ", ..."
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            msg = f"{parameter}={entry!r} is not known; {hint}Allowed are: {listed}."
            raise InvalidRequestError(msg, parameter=parameter, value=entry)
        names[name] = True
    return tuple(names)


def as_numbers(parameter: str, value: Any, largest: int) -> tuple[int, ...]:
    """Return numbers of programs or observations."""
    if value is None:
        return ()
    numbers = {}
    for entry in _entries(parameter, value):
        text = str(entry).strip()
        if isinstance(entry, bool) or not text.isdecimal() or not 0 < int(text) <= largest:
            msg = f"{parameter}={entry!r} must be a number from 1 to {largest}, or several."
            raise InvalidRequestError(msg, parameter=parameter, value=entry)
        numbers[int(text)] = True
    return tuple(numbers)


def _entries(parameter: str, value: Any) -> list:
    """Return the entries of one value, of text with commas, or of several values."""
    if isinstance(value, str):
        return value.split(",")
    entries = list(value) if isinstance(value, Iterable) else [value]
    if not entries:
        msg = f"{parameter}={value!r} is empty; leave it out to take all."
        raise InvalidRequestError(msg, parameter=parameter, value=value)
    return entries


def size_text(n_bytes: int) -> str:
    """Return a number of bytes in words."""
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"


SEARCH_MARGIN_DEG = 0.25
"""How far from its target a detector may look: other modules, parallel instruments."""

UNKNOWN_SIZE = -1

GUIDE_STAR = "_gs-"
"""Is in the name of every file and dataset of a guide star."""

_TYPES = {
    "file": str,
    "product": str,
    "size": np.int64,
    "uri": str,
    "program": np.int64,
    "observation": np.int64,
    "visit": np.int64,
    "activity": str,
    "exposure": np.int64,
    "segment": np.int64,
    "instrument": str,
    "detector": str,
    "filter": str,
    "pupil": str,
    "grating": str,
    "exp_type": str,
    "target": str,
    "date_obs": str,
    "s_region": str,
    "release_date": str,
    "public": bool,
}
_OF_A_DETECTOR = (
    "detector", "exp_type", "filter", "pupil", "grating", "band", "elements", "s_region", "access",
)  # fmt: skip
_TEXTS = ("instrument", "filter", "pupil", "grating", "exp_type", "target")
# Names of spectra of single sources: thousands share one association.
_SOURCE = re.compile(r"_[bsv]\d{5,}_|-s\d{5,}_")
_ASN_OBSERVATION = re.compile(r"jw(\d{5})-o(\d{3})_")


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
    ra_deg: float | None = None
    dec_deg: float | None = None
    radius_deg: float | None = None
    public_only: bool = False
    associations: bool = False

    def criteria(self) -> dict[str, str]:
        """Return what the service can test, by key of `~.archive_search.COLUMNS`."""
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
        if self.radius_deg is None:
            return None, None
        center = SkyCoord(self.ra_deg, self.dec_deg, unit="deg", frame="icrs")
        return center, (self.radius_deg + SEARCH_MARGIN_DEG) * u.deg

    def wants(self, name: ExposureName | _NameOf, row: dict[str, Any]) -> bool:
        """Return True if a file is asked for, by its name and its row of the search."""
        if self.detector and name.detector and name.detector not in self.detector:
            return False
        if self.filters and not _elements(row) & set(self.filters):
            return False
        values: dict[str, Any] = {"program": name.program, "observation": name.observation}
        values |= {key: str(row.get(key) or "").upper() for key in ("instrument", "exp_type")}
        # What is not known may be what is asked for.
        if any(v and getattr(self, k) and v not in getattr(self, k) for k, v in values.items()):
            return False
        return self._in_time(row) and self._on_sky(row)

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
        if self.radius_deg is None:
            return True
        if self.ra_deg is None or self.dec_deg is None:
            return True
        circle = self.ra_deg, self.dec_deg, self.radius_deg
        touches = _touches(str(row.get("s_region") or ""), *circle)
        if touches is not None:
            return touches
        if row.get("ra_deg") is None or row.get("dec_deg") is None:
            return True
        place = float(row["ra_deg"]), float(row["dec_deg"])
        return bool(separation_deg(self.ra_deg, self.dec_deg, *place) <= self.radius_deg)


@lru_cache(maxsize=65_536)
def _touches(text: str, ra_deg: float, dec_deg: float, radius_deg: float) -> bool | None:
    """Return True if a footprint touches a circle; `None` if the text is none."""
    # It brings the code for mosaics along.
    from ..legacy.footprints import Field, Footprint, parse_s_region

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


def find_uncal(search: MissionSearch, request: UncalRequest) -> Table:
    """Return the table of the files that a request asks for."""
    rows: dict[str, list[dict]] = {}
    due: dict[str, set[str]] = {}
    for row in search.search(request.criteria(), *request.cone):
        dataset, partial = str(row["dataset"]), _NameOf(row)
        rows.setdefault(dataset, []).append(row)
        if GUIDE_STAR not in dataset and request.wants(partial, row):
            due.setdefault(dataset, set()).update({partial.detector} & set(DETECTORS))

    def is_complete(dataset: str, files: list[dict]) -> bool:
        names = [parse_uncal_name(str(file.get("filename"))) for file in files]
        listed = {name.detector for name in names if name is not None}
        return bool(files) and due[dataset] <= listed

    entries: dict[str, dict] = {}
    odd: list[str] = []
    for dataset, files in search.products(due, is_complete).items():
        exposures = _exposures(files, rows.get(dataset, []), request, odd)
        entries |= exposures
        if any(entry["instrument"] in ("", "NIRSPEC") for entry in exposures.values()):
            entries |= _shutters(files, rows.get(dataset, []))
    if odd:
        msg = (
            f"{len(odd)} uncal file(s) have names that are not those of exposures, and are left "
            "out."
        )
        warn(msg, LegacySurveyWarning)
    if request.associations and entries:
        entries |= _associations(search, request, entries.values(), set(due))
    return _tidy(entries, request, search.server)


def _exposures(
    files: Iterable[dict], rows: list[dict], request: UncalRequest, odd: list[str]
) -> dict[str, dict]:
    """Return the entries of a dataset's uncal files that are asked for; ``odd`` gets others."""
    entries = {}
    for file in files:
        filename = str(file.get("filename"))
        if not filename.endswith("_uncal.fits") or GUIDE_STAR in filename:
            continue
        name = parse_uncal_name(filename)
        if name is None:
            odd.append(filename)
            continue
        row = _row_of(name, rows)
        if request.exp_type and rows and "exp_type" not in row:
            continue  # The search was for types, and found other detectors only.
        if request.wants(name, row):
            entries[filename] = _entry(file, name, row)
    return entries


def _shutters(files: Iterable[dict], rows: list[dict]) -> dict[str, dict]:
    """Return the entries of the files that tell which shutters of NIRSpec's MSA were open."""
    entries = {}
    for file in files:
        filename = str(file.get("filename"))
        if match := _SHUTTERS.fullmatch(filename):
            numbers = zip(("program", "observation", "visit"), match.groups(), strict=True)
            entries[filename] = {
                "product": "msa",
                **{key: int(value) for key, value in numbers},
                "instrument": "NIRSPEC",
                **_file(file, rows[0] if rows else {}),
            }
    return entries


class _NameOf:
    """What a row of the search tells of a file whose name is not known yet."""

    def __init__(self, row: dict[str, Any]) -> None:
        self.detector = str(row.get("detector") or "").upper()
        match = _EXPOSURE.match(str(row["dataset"]))
        self.program, self.observation = map(int, match.groups()) if match else (0, 0)


def _row_of(name: ExposureName, rows: Iterable[dict[str, Any]]) -> dict:
    """Return the row of the search that a file belongs to.

    Detectors of one exposure may differ in all that a row tells of optics, type and place: of the
    row of another detector only the rest is taken.
    """
    rows = list(rows)
    detectors = [str(row.get("detector") or "").upper() for row in rows]
    if name.detector in detectors:
        return rows[detectors.index(name.detector)]
    if not rows or not all(detectors):
        return (rows or [{}])[0]
    return {key: value for key, value in rows[0].items() if key not in _OF_A_DETECTOR}


def _elements(row: dict[str, Any]) -> set[str]:
    """Return every optical element that a row names."""
    values = (row.get(key) for key in ("filter", "pupil", "grating", "band", "elements"))
    return {word for value in values if value for word in re.findall(r"\w+", str(value).upper())}


def _entry(file: dict[str, Any], name: ExposureName, row: dict[str, Any]) -> dict:
    """Return a row of the table for an uncal file."""
    entry = {
        "product": "uncal",
        "program": name.program,
        "observation": name.observation,
        "visit": name.visit,
        "activity": name.activity,
        "exposure": name.exposure,
        "segment": name.segment,
        "detector": name.detector,
        "date_obs": str(row.get("begun") or ""),
        "s_region": str(row.get("s_region") or ""),
        **{key: str(row.get(key) or "") for key in _TEXTS},
    }
    return entry | _file(file, row)


def _file(file: dict[str, Any], row: dict[str, Any]) -> dict:
    filename = str(file["filename"])
    size = file.get("size")
    released = str(row.get("released") or "")
    access = str(file.get("access") or row.get("access") or "").upper()
    return {
        "file": filename,
        "size": int(size) if size and not np.ma.is_masked(size) else UNKNOWN_SIZE,
        "uri": f"mast:JWST/product/{filename}",
        "release_date": released,
        "public": access == "PUBLIC" or (not access and _is_past(released)),
    }


def _is_past(text: str) -> bool:
    try:
        return bool(text) and Time(text, scale="utc") <= Time.now()
    except ValueError:
        return False


def _associations(
    search: MissionSearch, request: UncalRequest, entries: Iterable[dict], asked: set[str]
) -> dict[str, dict]:
    """Return the association files of the observations whose uncal files were found."""
    observations = {(entry["program"], entry["observation"]) for entry in entries}
    criteria = {
        "level": "2a,2b,2c,3",
        "program": ",".join(str(p) for p in sorted({p for p, _ in observations})),
    }
    if request.instrument:
        criteria["instrument"] = ",".join(request.instrument)
    rows = {str(row["dataset"]): row for row in search.search(criteria)}
    by_association = {_SOURCE.sub("_", name): name for name in sorted(rows, reverse=True)}
    due = asked | set(by_association.values())
    associations: dict[str, dict] = {}
    for dataset, files in search.products(sorted(due)).items():
        for file in files:
            filename = str(file.get("filename"))
            if not filename.endswith("_asn.json"):
                continue
            match = _ASN_OBSERVATION.match(filename)
            if match and (int(match[1]), int(match[2])) not in observations:
                continue
            row = rows.get(dataset, {})
            program = int(filename[2:7])
            associations[filename] = {
                "product": "asn",
                "program": program,
                "observation": int(match[2]) if match else 0,
                "instrument": str(row.get("instrument") or ""),
                **_file(file, row),
            }
    programs = {program for program, _ in observations}
    return {name: entry for name, entry in associations.items() if entry["program"] in programs}


def _tidy(entries: dict[str, dict], request: UncalRequest, server: str) -> Table:
    """Return the table, and say what is in it."""
    every = [entries[name] for name in sorted(entries)]
    listed = [entry for entry in every if entry["public"] or not request.public_only]
    table = Table(
        {
            name: np.array([entry.get(name, dtype()) for entry in listed], dtype)
            for name, dtype in _TYPES.items()
        }
    )
    table["size"].unit = u.byte
    sizes = np.array(table["size"])
    kinds = np.array(table["product"])
    table.meta.update(
        server=server,
        queried=Time.now().utc.iso[:19],
        n_uncal=int((kinds == "uncal").sum()),
        n_associations=int((kinds == "asn").sum()),
        n_shutters=int((kinds == "msa").sum()),
        n_not_public=int((~np.array(table["public"])).sum()),
        n_left_out=len(every) - len(listed),
        bytes=int(sizes[sizes > 0].sum()),
        n_unknown_size=int((sizes < 0).sum()),
    )
    log.info(_summary(table.meta))
    if not len(table):
        warn("Query returned no results.", NoResultsWarning)
    return table


def _summary(meta: dict) -> str:
    """Return the line that tells how much there is before anything is fetched."""
    text = f"{meta['n_uncal']} uncal file(s)"
    if meta["n_associations"]:
        text += f" and {meta['n_associations']} association(s)"
    if meta["n_shutters"]:
        text += f" and {meta['n_shutters']} file(s) of NIRSpec's shutters"
    text += f", {size_text(meta['bytes'])}"
    if meta["n_unknown_size"]:
        text += f" and {meta['n_unknown_size']} of unknown size"
    if meta["n_not_public"]:
        text += f"; {meta['n_not_public']} not public yet"
    if meta["n_left_out"]:
        text += f"; {meta['n_left_out']} not public yet and left out"
    return text + "."
