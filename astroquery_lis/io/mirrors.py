"""Where the files can come from: a registered mirror, a URL or template, or a directory."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..exceptions import InvalidRequestError

__all__ = ["AUTO_ORDER", "REGISTERED", "AutoOrder", "Mirror", "resolve_mirrors"]


class AutoOrder(tuple):
    """Mirrors of which the one that answers best may come first.

    Examples
    --------
    >>> from astroquery_lis.io.mirrors import AutoOrder, resolve_mirrors
    >>> isinstance(resolve_mirrors('auto'), AutoOrder)
    True
    """

    __slots__ = ()


@dataclass(frozen=True)
class Mirror:
    """One place that holds the survey's tree, or a part of it.

    Attributes
    ----------
    name : str
        Registered name, or what the user gave.
    template : str
        URL with ``{path}`` (``dr10/south/...``), or with ``{release}``, ``{RELEASE}`` and
        ``{rest}`` (the path without its release); or a local directory.
    official : bool
        Whether it mirrors the released files, so that all such share one cache.
    description : str
        One line.

    Examples
    --------
    >>> from astroquery_lis.io.mirrors import REGISTERED
    >>> REGISTERED['nersc'].is_local
    False
    """

    name: str
    template: str
    official: bool = False
    description: str = ""

    @property
    def is_local(self):
        """Whether files are read in place."""
        return "://" not in self.template

    def locate(self, path):
        """Return the URL, or the local `~pathlib.Path`, of a file.

        Parameters
        ----------
        path : str
            Relative to the survey's root, as `~astroquery_lis.survey.layout` gives it.

        Returns
        -------
        str or `~pathlib.Path`

        Examples
        --------
        >>> from astroquery_lis.io.mirrors import Mirror
        >>> Mirror('mine', 'https://example.org/{path}').locate('dr10/survey-bricks.fits.gz')
        'https://example.org/dr10/survey-bricks.fits.gz'
        """
        if self.is_local:
            return Path(self.template, path)
        release, _, rest = path.partition("/")
        return self.template.format(
            path=path, release=release, RELEASE=release.upper(), rest=rest
        )

    @property
    def root_name(self):
        """Folder of the cache for what comes from here."""
        if self.official:
            return "official"
        digest = hashlib.sha256(self.template.encode()).hexdigest()[:12]
        return f"custom-{digest}"


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


def _parse(value):
    """Return the `Mirror` that one string means."""
    text = os.fspath(value).strip() if isinstance(value, (str, os.PathLike)) else ""
    if text in REGISTERED:
        return REGISTERED[text]
    scheme = urlsplit(text).scheme if "://" in text else ""
    if scheme in ("http", "https"):
        if "{" not in text:
            return Mirror(text, text.rstrip("/") + "/{path}")
        try:
            text.format(path="", release="", RELEASE="", rest="")
        except (KeyError, IndexError, ValueError) as error:
            msg = (
                f"mirror={value!r} has a placeholder that is not known; allowed: "
                "{path}, {release}, {RELEASE}, {rest}."
            )
            raise InvalidRequestError(msg, parameter="mirror", value=value) from error
        return Mirror(text, text)
    if scheme == "file":
        text = unquote(urlsplit(text).path)
    folder = Path(text).expanduser()
    if text and folder.is_dir():
        return Mirror(text, str(folder.resolve()))
    msg = (
        f"mirror={value!r} is neither a registered mirror, a URL, nor a directory that exists; "
        f"registered: auto, {', '.join(REGISTERED)}."
    )
    raise InvalidRequestError(msg, parameter="mirror", value=value)


def resolve_mirrors(value):
    """Return the mirrors to try, in order.

    Parameters
    ----------
    value : str, path-like, or sequence of them
        ``'auto'``, a name of `REGISTERED`, a URL, a URL template, or a directory.

    Returns
    -------
    tuple of Mirror
        An `AutoOrder` for ``'auto'``.

    Raises
    ------
    InvalidRequestError
        If a value means no mirror.

    Examples
    --------
    >>> from astroquery_lis.io.mirrors import resolve_mirrors
    >>> mirror, = resolve_mirrors('nersc')
    >>> mirror.locate('dr10/south/survey-bricks-dr10-south.fits.gz')
    'https://portal.nersc.gov/cfs/cosmo/data/legacysurvey/dr10/south/survey-bricks-dr10-south.fits.gz'
    """
    if isinstance(value, (str, os.PathLike)):
        if value == "auto":
            found = (REGISTERED[name] for name in AUTO_ORDER)
            return AutoOrder(m for m in found if not m.is_local or Path(m.template).is_dir())
        value = [value]
    try:
        mirrors = tuple(_parse(item) for item in value)
    except TypeError:
        mirrors = (_parse(value),)
    if not mirrors:
        msg = f"mirror={value!r} names no mirror; registered: auto, {', '.join(REGISTERED)}."
        raise InvalidRequestError(msg, parameter="mirror", value=value)
    return mirrors
