"""Errors and warnings of astroquery_lis.

Every error derives from `LegacySurveyError` and, where astroquery has one for the same case, from
astroquery's own, so that code written against either keeps working::

    LegacySurveyError
    ├── InvalidRequestError      (InvalidQueryError, ValueError)  refused before any request
    │   └── ArgumentError        (TypeError)                      the method has no such argument
    ├── NoCoverageError          (EmptyResponseError)             nothing of the survey is there
    │   └── MissingDataError                                      the brick lacks a band or product
    ├── CacheError               (OSError)                        the cache cannot be written
    ├── OptionalDependencyError  (ImportError)                    an extra is not installed
    ├── StageError                                                the JWST chain cannot go on
    │   ├── InvalidExposureError (InvalidRequestError)            not a file to begin from
    │   ├── CrdsUnavailable                                       no reference files, and no server
    │   └── TaskError                                             a pipeline or correction failed
    └── TransferError            (RemoteServiceError)
        ├── NotFoundError                                         404
        ├── IncompleteMirrorError                                 a folder lacks what tells
        ├── RefusedQueryError    (InvalidQueryError)              the service refused the query
        ├── ServiceDownError                                      5xx, every mirror failed
        │   ├── UnreachableError                                  no connection: DNS, refused, TLS
        │   ├── ServiceTimeoutError  (TimeoutError)               no answer in time
        │   └── RateLimitedError                                  429
        ├── TruncatedError                                        fewer bytes than announced
        ├── UnexpectedContentError                                HTML for FITS, a wrong byte range
        ├── ChecksumError                                         not the bytes that its list names
        └── ContentChangedError                                   the file changed while it was read

    LegacySurveyWarning          (AstropyWarning)
    ├── CoverageWarning                                           part of the data is not there
    ├── FailoverWarning                                           not the first source answered
    ├── CacheWarning                                              the cache was of no use
    ├── ChecksumWarning                                           not the bytes that its list names
    └── StageWarning                                              a step of the chain had no effect

In parentheses stand astroquery's own errors and Python's.  An error carries ``url``,
``status`` and ``cause`` where it has one (otherwise `None`).
"""

import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from astropy.utils.exceptions import AstropyWarning
from astroquery.exceptions import EmptyResponseError, InvalidQueryError, RemoteServiceError
from astroquery.exceptions import TimeoutError as AstroqueryTimeoutError

__all__ = [
    "ArgumentError",
    "CacheError",
    "CacheWarning",
    "ChecksumError",
    "ChecksumWarning",
    "ContentChangedError",
    "CoverageWarning",
    "CrdsUnavailable",
    "FailoverWarning",
    "IncompleteMirrorError",
    "InvalidExposureError",
    "InvalidRequestError",
    "LegacySurveyError",
    "LegacySurveyWarning",
    "MissingDataError",
    "NoCoverageError",
    "NotFoundError",
    "OptionalDependencyError",
    "RateLimitedError",
    "RefusedQueryError",
    "ServiceDownError",
    "ServiceTimeoutError",
    "StageError",
    "StageWarning",
    "TaskError",
    "TransferError",
    "TruncatedError",
    "UnexpectedContentError",
    "UnreachableError",
]


class LegacySurveyError(Exception):
    """Base of every error of this package.

    Parameters
    ----------
    message : str
        What went wrong and what to do about it.
    url : str, optional
        The address that was asked.
    status : int, optional
        The HTTP status that came back.
    cause : Exception, optional
        The lower error behind this one.

    Examples
    --------
    >>> from astroquery_lis.exceptions import LegacySurveyError, ServiceDownError
    >>> error = ServiceDownError('No answer.', url='https://example.org/', status=503)
    >>> isinstance(error, LegacySurveyError), error.status
    (True, 503)
    """

    def __init__(
        self,
        message: str = "",
        *,
        url: str | None = None,
        status: int | None = None,
        cause: BaseException | None = None,
    ) -> None:
        super().__init__(message)
        self.url = url
        self.status = status
        self.cause = cause


class InvalidRequestError(LegacySurveyError, InvalidQueryError, ValueError):
    """An argument is wrong; nothing was sent.

    Parameters
    ----------
    message : str
        Names the parameter and the value and lists what is allowed.
    parameter : str, optional
        The name of the argument.
    value : object, optional
        What was given.

    Examples
    --------
    >>> from astroquery_lis import LegacySurvey
    >>> from astroquery_lis.exceptions import InvalidRequestError
    >>> try:
    ...     LegacySurvey.list_bands(release='dr12')
    ... except InvalidRequestError as error:
    ...     print(error.parameter, error.value)
    release dr12
    """

    def __init__(
        self, message: str = "", *, parameter: str | None = None, value: object = None
    ) -> None:
        super().__init__(message)
        self.parameter = parameter
        self.value = value


class ArgumentError(InvalidRequestError, TypeError):
    """A method has no such argument; the message says which one was meant."""


class NoCoverageError(LegacySurveyError, EmptyResponseError):
    """The survey has no data at this position in this release and region."""


class MissingDataError(NoCoverageError):
    """The brick is in the release but lacks the band or product that was named."""


class CacheError(LegacySurveyError, OSError):
    """The cache directory cannot be used."""


class OptionalDependencyError(LegacySurveyError, ImportError):
    """A feature needs a package that is not installed; the message names the extra."""


class StageError(LegacySurveyError):
    """The JWST chain cannot go on."""


class InvalidExposureError(StageError, InvalidRequestError):
    """A file is truncated, of another kind than its name says, or lacks keywords; nothing ran."""


# The name is the one that the services' users know; it is a state of CRDS, not of the code.
class CrdsUnavailable(StageError):  # noqa: N818
    """Reference files cannot be had: no usable cache, no server, or files that neither has.

    Parameters
    ----------
    message : str
        What is missing and the way to mend it.
    missing : sequence of str, optional
        Names of the reference files or mappings that are missing.
    **kwargs
        As for `LegacySurveyError`.
    """

    def __init__(self, message: str = "", *, missing: Iterable[str] = (), **kwargs: Any) -> None:
        super().__init__(message, **kwargs)
        self.missing = tuple(missing)


class TaskError(StageError):
    """A pipeline or a correction failed; the message names the product and the log."""


class TransferError(LegacySurveyError, RemoteServiceError):
    """Bytes could not be had from a service."""


class NotFoundError(TransferError):
    """The service answered 404: it has no such file."""


class IncompleteMirrorError(TransferError):
    """A mirror, most often a folder, lacks a file that the survey has, or its table of bricks.

    It says nothing of the sky: whether the survey has data there is not known.
    """


class RefusedQueryError(TransferError, InvalidQueryError):
    """The service understood the request and refused the query; the message is the service's."""


class ServiceDownError(TransferError):
    """The service could not be reached, kept answering 5xx, or every mirror failed."""


class UnreachableError(ServiceDownError):
    """No connection came about: DNS, refused, a proxy, TLS, or no network at all.

    Parameters
    ----------
    message : str
        Which hosts, why, and what to do.
    reasons : mapping of str to str, optional
        Why, by host.
    **kwargs
        As for `LegacySurveyError`.
    """

    def __init__(
        self, message: str = "", *, reasons: Mapping[str, str] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(message, **kwargs)
        self.reasons = dict(reasons or {})


class ServiceTimeoutError(ServiceDownError, AstroqueryTimeoutError):
    """The service did not answer in time."""


class RateLimitedError(ServiceDownError):
    """The service asked to slow down (429) for longer than the retries allow.

    Parameters
    ----------
    message : str
        What was asked of whom.
    retry_after_s : float, optional
        How long the service asked to wait, in seconds.
    **kwargs
        As for `LegacySurveyError`.
    """

    def __init__(
        self, message: str = "", *, retry_after_s: float | None = None, **kwargs: Any
    ) -> None:
        super().__init__(message, **kwargs)
        self.retry_after_s = retry_after_s


class TruncatedError(TransferError):
    """Fewer bytes came than were announced."""


class UnexpectedContentError(TransferError):
    """The answer is not what was asked for: HTML instead of FITS, another byte range."""


class ChecksumError(TransferError):
    """A file does not have the sha256 that the survey's list gives it.

    Parameters
    ----------
    message : str
        Which file, and both digests.
    found : str, optional
        Digest of what came.
    **kwargs
        As for `LegacySurveyError`.
    """

    def __init__(self, message: str = "", *, found: str | None = None, **kwargs: Any) -> None:
        super().__init__(message, **kwargs)
        self.found = found


class ContentChangedError(TransferError):
    """The file changed on the server while it was being read."""


class LegacySurveyWarning(AstropyWarning):
    """Base of every warning of this package."""


class CoverageWarning(LegacySurveyWarning):
    """Part of what was asked is not in the survey; the result says where."""


class FailoverWarning(LegacySurveyWarning):
    """The first source failed and another one answered."""


class CacheWarning(LegacySurveyWarning):
    """The cache could not be used; the result is right, but nothing was kept."""


class ChecksumWarning(LegacySurveyWarning):
    """A file does not have the sha256 of the survey's list; lists are known to be stale."""


class StageWarning(LegacySurveyWarning):
    """A step of the JWST chain says that it is complete and had no effect."""


def refuse(parameter: str, value: object, must: str) -> NoReturn:
    """Refuse an argument: what it is, then what it must be, or ``: `` and what is wrong."""
    gap = "" if must[0] in ":;," else " "
    msg = f"{parameter}={value!r}{gap}{must}"
    raise InvalidRequestError(msg, parameter=parameter, value=value)


def check_one_a_row(parameter: str, column: str, shape: tuple[int, ...]) -> None:
    """Refuse a column of a table that has several values in each row."""
    if len(shape) > 1:
        refuse(parameter, column, f"has shape {shape}; expected one value a row.")


def meant(word: object, allowed: Iterable[str]) -> str:
    """Return the end of a message for a word that is not allowed: which one was meant, if any."""
    near = get_close_matches(str(word), list(allowed), 1)
    return f" Did you mean {near[0]!r}?" if near else ""


_PACKAGE = f"{Path(__file__).parent}/"
_STANDARD_LIBRARY = f"{sysconfig.get_paths()['stdlib']}/"


_notes: ContextVar[list[str] | None] = ContextVar("notes", default=None)


@contextmanager
def collected_notes() -> Iterator[list[str]]:
    """Collect what would be warned of, in this thread, instead of the warnings."""
    notes: list[str] = []
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)


def warn(message: str, category: type[Warning]) -> None:
    """Warn at the line of the user's own code that called this package."""
    notes = _notes.get()
    if notes is not None:
        notes.append(message)
        return
    # Frames of the standard library between two of ours (context managers, executors) are no one's
    # own code, and a fixed stacklevel would point at them.
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and _is_inner(frame.f_code.co_filename):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def _is_inner(filename: str) -> bool:
    is_ours = filename.startswith((_PACKAGE, "<frozen "))
    return is_ours or (filename.startswith(_STANDARD_LIBRARY) and "site-packages" not in filename)
