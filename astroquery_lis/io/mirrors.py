"""The places that files come from: registered names, URLs, and folders.

What a URL says to be let in, a user with a password or the parameters of its query, is sent with
the requests and stands nowhere else: neither in a mirror's name nor in its addresses.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from ..exceptions import refuse
from .http import send_with

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._typing import Mirror as MirrorNames

PLACEHOLDERS = "{path}, {release}, {RELEASE}, {rest}"

_USER = re.compile(r"://[^/@]*@")
_RELEASE_FOLDER = re.compile(r"dr\d+")


class AutoOrder(tuple):
    """Mirrors of which the one that answers best may come first."""

    __slots__ = ()


@dataclass(frozen=True)
class Mirror:
    """One place that holds the survey's tree, or a part of it."""

    name: str
    """Registered name, or what the user gave, without what is secret."""
    template: str
    """URL with ``{path}`` (``dr10/south/...``), or with ``{release}``, ``{RELEASE}`` and ``{rest}``
    (the path without its release); or a local directory."""
    official: bool = False
    """Whether it mirrors the released files, so that all such share one cache."""
    description: str = ""
    user: str = field(default="", repr=False)
    """``user:password`` to log in with."""
    query: str = field(default="", repr=False)
    """Parameters that go with every address."""

    def __post_init__(self) -> None:
        if self.user or self.query:
            send_with(self.template.partition("{")[0], user=self.user, query=self.query)

    def __reduce__(self) -> tuple[type[Mirror], tuple]:
        # A worker that is sent a mirror has to learn of its secrets too.
        values = self.name, self.template, self.official, self.description, self.user, self.query
        return Mirror, values

    @cached_property
    def is_local(self) -> bool:
        """Whether files are read in place."""
        return "://" not in self.template

    @cached_property
    def label(self) -> str:
        """Its name in files that are written: of a folder no more than the last part."""
        folder = Path(self.template).name if self.is_local and not self.official else ""
        return folder or self.name

    def locate(self, path: str) -> str | Path:
        """Return the URL, or the local path, of a file relative to the survey's root."""
        if self.is_local:
            return Path(self.template, path)
        release, _, rest = path.partition("/")
        return self.template.format(path=path, release=release, RELEASE=release.upper(), rest=rest)

    def origin(self, path: str) -> str:
        """Return what files that are written say of where a file of this mirror was."""
        return f"{self.label}/{path}" if self.is_local else str(self.locate(path))

    @cached_property
    def root_name(self) -> str:
        """Folder of the cache for what comes from here."""
        if self.official:
            return "official"
        text = self.template + (f"?{self.query}" if self.query else "")
        return f"custom-{_digest(text)}"

    @cached_property
    def place(self) -> str:
        """What the journal of a job calls it: one place, whatever password its URLs end in now."""
        return "official" if self.official else f"{self.label} ({_digest(self.template)})"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


REGISTERED = {
    mirror.name: mirror
    for mirror in (
        Mirror(
            "nersc",
            "https://portal.nersc.gov/cfs/cosmo/data/legacysurvey/{path}",
            official=True,
            description="NERSC, Berkeley: the primary copy",
        ),
        Mirror(
            "nadc",
            "https://casdc.china-vo.org/mirror/DESI/cosmo/data/legacysurvey/{path}",
            official=True,
            description="China-VO NADC, Beijing: same tree",
        ),
        Mirror(
            "nadc-flat",
            "https://casdc.china-vo.org/mirror/DESI-{RELEASE}/{rest}",
            official=True,
            description="China-VO NADC, Beijing: one tree per release",
        ),
        Mirror(
            "nersc-disk",
            "/global/cfs/cdirs/cosmo/data/legacysurvey",
            official=True,
            description="the files themselves, for jobs that run at NERSC",
        ),
    )
}
"""Mirrors known by name.  Their addresses come from the survey's pages and the mirrors' users."""

AUTO_ORDER = ("nersc-disk", "nersc", "nadc")
"""What ``'auto'`` tries, in order; a local tree only where it exists."""


def _parse(value: object) -> Mirror:
    """Return the `Mirror` that one string means."""
    text = os.fspath(value).strip() if isinstance(value, (str, os.PathLike)) else ""
    if text in REGISTERED:
        return REGISTERED[text]
    scheme = text.partition("://")[0].lower() if "://" in text else ""
    if scheme in ("http", "https"):
        return _of_url(text)
    folder = Path(unquote(urlsplit(text).path) if scheme == "file" else text).expanduser()
    if text and scheme in ("", "file") and folder.is_dir():
        return _of_folder(text, folder.resolve())
    refuse(
        "mirror",
        _USER.sub("://***@", text) if text else value,
        "is neither a registered mirror, a URL, nor a directory that exists; registered: auto, "
        f"{', '.join(REGISTERED)}.",
    )


@lru_cache(maxsize=32)
def _of_url(text: str) -> Mirror:
    try:
        parts = urlsplit(text)
        # A placeholder there would send what is secret to hosts that nobody named.
        has_host = bool(parts.hostname) and parts.port != 0 and "{" not in parts.netloc
    except ValueError:
        has_host = False
    if not has_host:
        plain = _USER.sub("://***@", text).partition("?")[0]
        refuse("mirror", plain, "is a URL whose host or port is none.")
    user, _, host = parts.netloc.rpartition("@")
    plain = urlunsplit((parts.scheme, host, parts.path, "", ""))
    if "{" not in parts.path + parts.query:
        if parts.query:
            must = "has a query: say with {path} where the path of a file goes: "
            refuse("mirror", plain, must + plain.rstrip("/") + "/{path}?...")
        template, query = plain.rstrip("/") + "/{path}", ""
    else:
        # The parameters that say nothing of the file may be a key, and go with the requests.
        parameters = parts.query.split("&")
        about_file = "&".join(item for item in parameters if "{" in item)
        query = "&".join(item for item in parameters if "{" not in item)
        template = plain = urlunsplit((parts.scheme, host, parts.path, about_file, ""))
        _check_template(template)
    return Mirror(plain, template, user=unquote(user), query=query)


def _check_template(template: str) -> None:
    """Refuse a template that is not of one address per file."""
    try:
        addresses = {template.format(path=p, release="", RELEASE="", rest=p) for p in ("a", "b")}
    except (LookupError, ValueError, AttributeError):
        refuse("mirror", template, f"has a placeholder that is not known; allowed: {PLACEHOLDERS}.")
    if len(addresses) < 2:
        must = "has neither {path} nor {rest}: every file would have one address."
        refuse("mirror", template, must)


def _of_folder(name: str, folder: Path) -> Mirror:
    """Return the mirror in a folder; refuse one that holds no release."""
    if not _has_release(folder):
        must = "is a folder without a release: a mirror holds dr10/, dr9/ and so on, as the survey."
        parent = next((place for place in folder.parents if _has_release(place)), None)
        if parent is not None:
            must += f" Its parent {str(parent)!r} does; did you mean that?"
        refuse("mirror", name, must)
    return Mirror(name, str(folder))


def _has_release(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(_RELEASE_FOLDER.fullmatch(e.name) and e.is_dir() for e in entries)
    except OSError:
        return False


def resolve_mirrors(value: MirrorNames) -> tuple[Mirror, ...]:
    """Return the mirrors to try, in order; an `AutoOrder` for ``'auto'``."""
    if isinstance(value, (str, os.PathLike)):
        if value == "auto":
            ordered = (REGISTERED[name] for name in AUTO_ORDER)
            return AutoOrder(m for m in ordered if not m.is_local or Path(m.template).is_dir())
        value = [value]
    try:
        mirrors = tuple(_parse(item) for item in value)
    except TypeError:
        mirrors = (_parse(value),)
    if not mirrors:
        refuse("mirror", value, f"names no mirror; registered: auto, {', '.join(REGISTERED)}.")
    return mirrors


def local_folders(mirrors: Sequence[Mirror]) -> tuple[Path, ...]:
    """Return the folders that mirrors are, if every one is a folder, else none."""
    if not all(mirror.is_local for mirror in mirrors):
        return ()
    return tuple(Path(mirror.template) for mirror in mirrors)
