"""Which uncal files there are: a request, the search for it, and one tidy table.

Three ways lead to lists of JWST files at MAST.  The keyword search of the portal shows only the
highest level of calibration and so no uncal files.  The observation search (CAOM) finds planned
and combined observations, whose lists of products repeat each file many times, hold ten times as
many of guide stars, and take minutes.  The mission search has a row per file with the keywords of
its header: a program takes one search, and one list of files for every hundred exposures.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from astropy import log
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table
from astropy.time import Time
from astroquery.exceptions import NoResultsWarning

from ...exceptions import InvalidRequestError, LegacySurveyWarning, warn
from ...survey.sky_region import Polygon, separation_deg
from .names import DETECTORS, parse_uncal_name, size_text

__all__ = ["UncalRequest", "as_moment", "find_uncal"]

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
_TEXTS = ("instrument", "filter", "pupil", "grating", "exp_type", "target")
# Names of spectra of single sources: thousands share one association.
_SOURCE = re.compile(r"_[bsv]\d{5,}_|-s\d{5,}_")
_EXPOSURE = re.compile(r"jw(\d{5})(\d{3})\d{3}_")
_ASN_OBSERVATION = re.compile(r"jw(\d{5})-o(\d{3})_")


@dataclass(frozen=True)
class UncalRequest:
    """What is asked for; every tuple is empty for no condition.

    Attributes
    ----------
    program, observation : tuple of int
        Numbers.
    instrument, filters, detector, exp_type : tuple of str
        Names, upper case.
    start, end : `~astropy.time.Time` or None
        First and last moment at which an exposure may begin.
    ra_deg, dec_deg, radius_deg : float or None
        A circle on the sky.
    public_only : bool
        Whether what is not public yet is left out.
    associations : bool
        Whether the association files are wanted too.
    """

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

    def criteria(self):
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
    def cone(self):
        """Centre and radius of the circle in which the service searches, `None` for none."""
        if self.radius_deg is None:
            return None, None
        center = SkyCoord(self.ra_deg, self.dec_deg, unit="deg", frame="icrs")
        return center, (self.radius_deg + SEARCH_MARGIN_DEG) * u.deg

    def wants(self, name, row):
        """Tell whether a file is asked for, by its name and its row of the search."""
        if self.detector and name.detector and name.detector not in self.detector:
            return False
        for key, given in (("program", name.program), ("observation", name.observation)):
            if given and getattr(self, key) and given not in getattr(self, key):
                return False
        if self.filters and not _elements(row) & set(self.filters):
            return False
        for key in ("instrument", "exp_type"):
            known = str(row.get(key) or "").upper()
            if known and getattr(self, key) and known not in getattr(self, key):
                return False
        return self._in_time(row) and self._on_sky(row)

    def _in_time(self, row):
        text = row.get("begun")
        if not text or (self.start is None and self.end is None):
            return True
        begun = Time(str(text).replace("Z", ""), scale="utc")
        # Where only the day is known, the whole of it counts.
        day = (1 if len(str(text)) <= 10 else 0) * u.day
        early = self.start is not None and begun + day <= self.start - 0.001 * u.s
        late = self.end is not None and begun > self.end
        return not (early or late)

    def _on_sky(self, row):
        if self.radius_deg is None:
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
def _touches(text, ra_deg, dec_deg, radius_deg):
    """Tell whether a footprint touches a circle; `None` if the text is none."""
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
    return bool(field.contains([ra_deg], [dec_deg], margin_deg=radius_deg)[0])


def as_moment(parameter, value, *, is_end=False):
    """Return a date as a time.

    Parameters
    ----------
    parameter : str
        Name of the argument.
    value : `~astropy.time.Time` or str or None
        A date without a time of day means its beginning, or its end.
    is_end : bool, optional
        Whether the end of a day is meant.

    Returns
    -------
    `~astropy.time.Time` or None

    Raises
    ------
    InvalidRequestError
    """
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


def find_uncal(search, request):
    """Return the table of the files that a request asks for.

    Parameters
    ----------
    search : `~.archive_search.MissionSearch`
        The service.
    request : UncalRequest
        What is asked.

    Returns
    -------
    `~astropy.table.Table`
        See `~astroquery_lis.jwst_stage.JwstStageClass.query_uncal`.
    """
    found = search.search(request.criteria(), *request.cone)
    rows, due = {}, {}
    for row in found:
        dataset, name = str(row["dataset"]), _NameOf(row)
        rows.setdefault(dataset, []).append(row)
        if GUIDE_STAR not in dataset and request.wants(name, row):
            due.setdefault(dataset, set()).update({name.detector} & set(DETECTORS))

    def is_complete(dataset, files):
        names = [parse_uncal_name(str(file.get("filename"))) for file in files]
        listed = {name.detector for name in names if name is not None}
        return bool(files) and due[dataset] <= listed

    entries, odd = {}, 0
    for dataset, files in search.products(due, is_complete).items():
        for file in files:
            filename = str(file.get("filename"))
            if not filename.endswith("_uncal.fits") or GUIDE_STAR in filename:
                continue
            name = parse_uncal_name(filename)
            if name is None:
                odd += 1
                continue
            row = _row_of(name, rows.get(dataset, ()))
            if request.wants(name, row):
                entries[filename] = _entry(file, name, row)
    if odd:
        msg = f"{odd} uncal file(s) have names that are not those of exposures, and are left out."
        warn(msg, LegacySurveyWarning)
    if request.associations and entries:
        entries |= _associations(search, request, entries.values(), set(due))
    return _tidy(entries, request, search.server)


class _NameOf:
    """What a row of the search tells of a file whose name is not known yet."""

    def __init__(self, row):
        self.detector = str(row.get("detector") or "").upper()
        match = _EXPOSURE.match(str(row["dataset"]))
        self.program, self.observation = map(int, match.groups()) if match else (0, 0)


def _row_of(name, rows):
    """Return the row of the search that a file belongs to: of its detector if there is one."""
    same = [row for row in rows if str(row.get("detector") or "").upper() == name.detector]
    return (same or list(rows) or [{}])[0]


def _elements(row):
    """Return every optical element that a row names."""
    values = (row.get(key) for key in ("filter", "pupil", "grating", "band", "elements"))
    return {word for value in values if value for word in re.findall(r"\w+", str(value).upper())}


def _entry(file, name, row):
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


def _file(file, row):
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


def _is_past(text):
    try:
        return bool(text) and Time(text, scale="utc") <= Time.now()
    except ValueError:
        return False


def _associations(search, request, entries, asked):
    """Return the association files of the observations whose uncal files were found."""
    observations = {(entry["program"], entry["observation"]) for entry in entries}
    criteria = {
        "level": "2a,2b,2c,3",
        "program": ",".join(str(p) for p in sorted({p for p, _ in observations})),
    }
    if request.instrument:
        criteria["instrument"] = ",".join(request.instrument)
    rows = {str(row["dataset"]): row for row in search.search(criteria)}
    chosen = {_SOURCE.sub("_", name): name for name in sorted(rows, reverse=True)}
    due = asked | set(chosen.values())
    found = {}
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
            found[filename] = {
                "product": "asn",
                "program": program,
                "observation": int(match[2]) if match else 0,
                "instrument": str(row.get("instrument") or ""),
                **_file(file, row),
            }
    programs = {program for program, _ in observations}
    return {name: entry for name, entry in found.items() if entry["program"] in programs}


def _tidy(entries, request, server):
    """Return the table, and say what is in it."""
    every = [entries[name] for name in sorted(entries)]
    chosen = [entry for entry in every if entry["public"] or not request.public_only]
    table = Table(
        {
            name: np.array([entry.get(name, dtype()) for entry in chosen], dtype)
            for name, dtype in _TYPES.items()
        }
    )
    table["size"].unit = u.byte
    sizes = np.array(table["size"])
    uncal = np.array(table["product"]) == "uncal"
    table.meta.update(
        server=server,
        queried=Time.now().utc.iso[:19],
        n_uncal=int(uncal.sum()),
        n_associations=int((~uncal).sum()),
        n_not_public=int((~np.array(table["public"])).sum()),
        n_left_out=len(every) - len(chosen),
        bytes=int(sizes[sizes > 0].sum()),
        n_unknown_size=int((sizes < 0).sum()),
    )
    log.info(_summary(table.meta))
    if not len(table):
        warn("Query returned no results.", NoResultsWarning)
    return table


def _summary(meta):
    """Return the line that tells how much there is before anything is fetched."""
    told = f"{meta['n_uncal']} uncal file(s)"
    if meta["n_associations"]:
        told += f" and {meta['n_associations']} association(s)"
    told += f", {size_text(meta['bytes'])}"
    if meta["n_unknown_size"]:
        told += f" and {meta['n_unknown_size']} of unknown size"
    if meta["n_not_public"]:
        told += f"; {meta['n_not_public']} not public yet"
    if meta["n_left_out"]:
        told += f"; {meta['n_left_out']} not public yet and left out"
    return told + "."
