"""Names of objects, looked up at the Sesame service of CDS."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from astropy.coordinates.name_resolve import sesame_database, sesame_url

from .._conf import conf, setting
from .._packages import package_version
from ..exceptions import ServiceDownError, TransferError, UnexpectedContentError
from ..io.bounds import Threads, allow_more_time, within
from ..io.http import HttpClient, reason_of

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

LOOKUPS_AT_ONCE = 4
MAX_ANSWER_BYTES = 1 << 20

_PLACE = re.compile(r"^%J\s*(\d+\.?\d*)\s*([+-]?\d+\.?\d*)", re.MULTILINE)
_DATABASES = {"all": "SNV", "simbad": "S", "ned": "N", "vizier": "V"}


def resolve_names(names: Iterable[str]) -> dict[str, tuple[float, float] | None]:
    """Return RA and Dec in degrees of each name, or `None` for those that nobody knows."""
    names = list(dict.fromkeys(names))
    client = HttpClient(
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
    msg = f"No name service could be asked for {name!r}: {reason_of(last)} Give RA and Dec instead."
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
