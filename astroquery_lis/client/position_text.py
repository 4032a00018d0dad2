"""Texts of positions, brought to degrees: one rule for Python, tables and the command line.

A text is a position if it has two coordinates, else the name of a brick, which stands for its
centre, or of an object.  A plain number is degrees.  A right ascension with colons or of three
parts is hours, as astronomers write it, and so is one with an ``h``; with a ``d`` it is degrees.
What could be both is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import quote, urlsplit

import numpy as np
from astropy.coordinates.name_resolve import sesame_database, sesame_url

from .. import io
from .._conf import conf, setting
from .._packages import package_version
from ..exceptions import (
    InvalidRequestError,
    ServiceDownError,
    TransferError,
    UnexpectedContentError,
)
from ..io.bounds import Threads, allow_more_time, within
from ..survey.bricks import get_brick

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

    from ..io.http import HttpClient

POSITION = "RA and Dec in degrees or sexagesimal (ICRS), or the name of an object or a brick"

_EMPTY = frozenset({"", "nan", "none", "null", "--", "-", "n/a", "na", "masked"})
_WORDS = {
    "h": r"hourangle|hours?|hrs?",
    "d": r"degrees?|degs?|[°º]",
    "s": r"seconds?|secs?|''|[\"″”]",
    "m": "minutes?|mins?|['′\N{RIGHT SINGLE QUOTATION MARK}]",
}
# Only the last part has a fraction, and those after the first are below 60.
_PART = re.compile(
    r"(?!.*\.\d*[^\d.]+\d)(?!\D*[\d.]+\s*:\s*$)([+-]?)\s*(\d+\.?\d*|\.\d+)\s*"
    r"(?:(h|d|:|\s)\s*(?:(0*[0-5]?\d(?:\.\d*)?)\s*"
    r"(?:(?:m|:|\s)\s*(?:(0*[0-5]?\d(?:\.\d*)?)\s*s?)?)?)?)?"
)
_NUMBER = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|nan|inf(?:inity)?)", re.IGNORECASE)
# What looks like coordinates and is none is not looked up as a name.
_LIKE_A_POSITION = re.compile(r"(?:[+-]?\.?\d[\dhmsdeg.:+\-°º′″'\" ,;]*)?", re.IGNORECASE)
_DESIGNATION = re.compile(
    r"^J\s*(\d\d)(\d\d)(\d\d(?:\.\d*)?)\s*([+-]\d\d)(\d\d)(\d\d(?:\.\d*)?)$", re.IGNORECASE
)
BRICK_NAME = re.compile(r"\d{4}[pm]\d{3}", re.IGNORECASE)
_UNSIGNED = r"(?:e[+-]|[^+-])"
_HALVES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"J\s*(\d{1,3}\.\d+)\s*([+-]\d{1,2}\.\d+)",  # a designation in degrees
        r"\W*ra\b\s*[:=]?\s*(.*?)[\s,;]*\bdec?\b\s*[:=]?\s*(.*)",  # with labels
        r"([^,]*?)\s*,\s*([^,]*)",  # on either side of the one comma
        r"([^;]*?)\s*;\s*([^;]*)",
        r"[\s,]*([^\s,]+)[\s,]+([^\s,]+)[\s,]*",  # two words
        rf"([+-]?{_UNSIGNED}+?)\s*((?<!e)[+-]{_UNSIGNED}*)",  # before the one sign, and from it on
    )
)
"""Texts of two coordinates; others are cut in the middle of their words."""


@dataclass(frozen=True)
class _Coordinate:
    """One coordinate as it is written: its value in its own unit, and which unit that may be."""

    value: float
    unit: str  # 'h', 'd', ':' or '' for none
    n_parts: int

    @property
    def is_plain(self) -> bool:
        return not self.unit and self.n_parts == 1


def is_empty(text: object) -> bool:
    """Return True for what stands in a table where there is no value."""
    return text is None or text is np.ma.masked or str(text).strip().lower() in _EMPTY


def first_few(words: Sequence[object] | np.ndarray) -> str:
    """Return the first five of some words for a message."""
    return ", ".join(map(str, words[:5])) + (", ..." if len(words) > 5 else "")


def read_positions(
    texts: Sequence[object], parameter: str
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return RA and Dec in degrees, NaN where there is none, and the names that nobody knows.

    Names are looked up together, each once.
    """
    words = dict.fromkeys(str(text) for text in texts if not is_empty(text))
    places = {text: _position(text, parameter) for text in words}
    names = [text for text, place in places.items() if place is None]
    if names:
        places |= resolve_names(names)
    unknown = [name for name in names if places[name] is None]
    pairs = [places.get(str(text)) or (np.nan, np.nan) for text in texts]
    degrees = np.array(pairs, float).reshape(len(pairs), 2)
    return degrees[:, 0], degrees[:, 1], unknown


def positions_of_texts(texts: Sequence[object], parameter: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of texts, all of which have to have one."""
    ra_deg, dec_deg, unknown = read_positions(texts, parameter)
    if unknown:
        verb = "is" if len(unknown) == 1 else "are each"
        msg = (
            f"position {first_few(list(map(repr, unknown)))} {verb} neither a position nor a name "
            "that the Sesame service knows."
        )
        raise InvalidRequestError(msg, parameter=parameter, value=unknown)
    if np.isnan(ra_deg).any():
        msg = f"position {texts[int(np.argmax(np.isnan(ra_deg)))]!r} is not {POSITION}."
        raise InvalidRequestError(msg, parameter=parameter, value=texts)
    return ra_deg, dec_deg


def coordinate_deg(text: str, axis: str, *, sexagesimal_is_degrees: bool = False) -> float:
    """Return one coordinate, ``'ra'`` or ``'dec'``, in degrees; NaN if it is empty."""
    if is_empty(text):
        return np.nan
    coordinate = _coordinate(_plain(text))
    if coordinate is None:
        _refuse(text, axis, "is not an angle in degrees or sexagesimal")
    if axis == "ra" and not sexagesimal_is_degrees:
        return _ra_deg(coordinate, text, axis)
    if coordinate.unit == "h" and axis == "dec":
        _refuse(text, axis, "is in hours; a declination is in degrees")
    return coordinate.value * (15 if coordinate.unit == "h" else 1)


def _position(text: str, parameter: str) -> tuple[float, float] | None:
    """Return the degrees of a text, or `None` for a name."""
    plain = _plain(text)
    if BRICK_NAME.fullmatch(plain):
        return _middle_of_brick(plain, text, parameter)
    ra, dec = map(_coordinate, _halves(plain))
    if ra is None or dec is None:
        if _LIKE_A_POSITION.fullmatch(plain):
            _refuse(text, parameter, f"is not {POSITION}")
        return None
    if not np.isfinite(ra.value + dec.value):
        _refuse(text, parameter, "is not finite")
    ra_deg, dec_deg = _ra_deg(ra, text, parameter, beside=dec), dec.value
    if dec.unit == "h":
        _refuse(text, parameter, "is not a position: its declination is in hours")
    if abs(ra_deg - 90) > 270 or abs(dec_deg) > 90:
        must = f"is not a position: RA {ra_deg:g} and Dec {dec_deg:g} degrees are out of range"
        _refuse(text, parameter, must)
    return ra_deg % 360.0, dec_deg


def _middle_of_brick(name: str, text: str, parameter: str) -> tuple[float, float]:
    try:
        brick = get_brick(name.lower())
    except InvalidRequestError:
        _refuse(text, parameter, "is not the name of a brick; those look like '1126p220'")
    return brick.ra_deg, brick.dec_deg


def _plain(text: str) -> str:
    """Return a text with plain signs and single spaces, without brackets."""
    text = text.replace("\N{MINUS SIGN}", "-").replace("\N{EN DASH}", "-")
    return " ".join(text.strip("()[]{} \t\r\n").split())


def _halves(text: str) -> tuple[str, str]:
    """Return the two coordinates of a text, the first of them empty if it has no two."""
    text = _DESIGNATION.sub(r"\1:\2:\3 \4:\5:\6", text)
    for pattern in _HALVES:
        match = pattern.fullmatch(text)
        if match is not None:
            return match[1], match[2]
    words = text.replace(",", " ").split()
    middle = 0 if len(words) % 2 else len(words) // 2
    return " ".join(words[:middle]), " ".join(words[middle:])


def _coordinate(text: str) -> _Coordinate | None:
    """Return the coordinate that a text is, or `None`."""
    if _NUMBER.fullmatch(text):
        return _Coordinate(float(text), "", 1)
    text = text.lower()
    for unit, words in _WORDS.items():
        text = re.sub(words, unit, text)
    match = _PART.fullmatch(text)
    if match is None:
        return None
    sign, degrees, mark, *rest = match.groups(default="")
    parts = [float(part) for part in (degrees, *rest) if part]
    value = sum(part / 60**power for power, part in enumerate(parts))
    return _Coordinate(-value if sign == "-" else value, mark.strip(), len(parts))


def _ra_deg(ra: _Coordinate, text: str, parameter: str, beside: _Coordinate | None = None) -> float:
    """Return a right ascension in degrees; refuse one that may be in hours."""
    if ra.unit == "d":
        return ra.value
    if ra.unit in ("h", ":") or ra.n_parts == 3:
        if not 0 <= ra.value <= 24:
            must = f"has a right ascension of {ra.value:g} hours; mark degrees, such as 150d30m00s"
            _refuse(text, parameter, must)
        return ra.value * 15
    odd = ra.n_parts == 2 or (beside is not None and not beside.is_plain)
    if odd and 0 <= ra.value <= 24:
        must = (
            f"may be RA {ra.value:g} hours ({ra.value * 15:g} degrees) or {ra.value:g} degrees; "
            "write hours as 10h30m00s or 10:30:00, degrees as 10.5d"
        )
        _refuse(text, parameter, must)
    return ra.value


def _refuse(text: str, parameter: str, must: str) -> NoReturn:
    msg = f"position {text!r} {must}."
    raise InvalidRequestError(msg, parameter=parameter, value=text)


# ---- names, looked up at the Sesame service of CDS -----------------------------------------------

LOOKUPS_AT_ONCE = 4
MAX_ANSWER_BYTES = 1 << 20

_PLACE = re.compile(r"^%J\s*(\d+\.?\d*)\s*([+-]?\d+\.?\d*)", re.MULTILINE)
_DATABASES = {"all": "SNV", "simbad": "S", "ned": "N", "vizier": "V"}


def resolve_names(names: Iterable[str]) -> dict[str, tuple[float, float] | None]:
    """Return RA and Dec in degrees of each name, or `None` for those that nobody knows."""
    names = list(dict.fromkeys(names))
    client = io.http.HttpClient(
        timeout_s=conf.timeout,
        retries=min(conf.retries, 1),
        max_connections=LOOKUPS_AT_ONCE,
        user_agent=f"astroquery_lis/{package_version()}",
    )
    services = _services()
    if len(names) == 1:
        return {names[0]: _lookup(names[0], services, client)}
    with within(grows=True), Threads(LOOKUPS_AT_ONCE) as threads:
        try:
            places = list(threads.map(lambda name: _lookup(name, services, client), names))
        finally:
            threads.shutdown(cancel_futures=True)
    return dict(zip(names, places, strict=True))


def _services() -> list[str]:
    """Return the addresses to ask in turn: those of the configuration, else astropy's."""
    own = setting("sesame_url")
    by_host: dict[str, str] = {}
    for url in [own] if own else sesame_url.get():
        by_host.setdefault(urlsplit(url).netloc, f"{url.rstrip('/')}/")
    return list(by_host.values())


def _lookup(name: str, services: Sequence[str], client: HttpClient) -> tuple[float, float] | None:
    database = _DATABASES[sesame_database.get()]
    errors = []
    for service in services:
        url = f"{service}{database}?{quote(name)}"
        try:
            answer = client.fetch(url, _read)
            allow_more_time()
            return _place(answer, url)
        except TransferError as error:
            errors.append(error)
    last = errors[-1]
    kind = type(last) if isinstance(last, ServiceDownError) else ServiceDownError
    reason = io.http.reason_of(last)
    msg = f"No name service could be asked for {name!r}: {reason} Give RA and Dec instead."
    raise kind(msg, url=last.url, status=last.status, cause=last) from last


def _read(response: BaseHTTPResponse) -> bytes:
    return response.read(MAX_ANSWER_BYTES)


def _place(answer: bytes, url: str) -> tuple[float, float] | None:
    """Return the place that an answer in Sesame's plain format tells, or `None`."""
    text = answer.decode("utf-8", "replace")
    if not text.lstrip().startswith("#"):
        msg = f"{url} answered something that is no list of positions: {text.strip()[:80]!r}."
        raise UnexpectedContentError(msg, url=url)
    match = _PLACE.search(text)
    return None if match is None else (float(match[1]), float(match[2]))
