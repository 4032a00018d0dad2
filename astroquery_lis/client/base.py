"""Settings, cache and connections of the query class, and the lists of what there is."""

from __future__ import annotations

import inspect
import re
import time
from ast import literal_eval
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from functools import cached_property, update_wrapper, wraps
from numbers import Integral, Real
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from astroquery import cache_conf
from astroquery.query import BaseQuery

from .. import catalogs, images, io, survey
from .._conf import conf, setting
from .._packages import package_version
from ..exceptions import (
    ArgumentError,
    InvalidRequestError,
    LegacySurveyError,
    NoCoverageError,
    ServiceDownError,
    refuse,
)
from ..io.bounds import BOUNDS, Bound
from ..survey.releases import as_region, get_release
from .inputs import as_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Literal

    from .._typing import Executor, FilePath, Keywords, Mirror, Region
    from ..catalogs.catalog_files import OpenTables
    from ..images.open_images import OpenImages
    from ..images.reader import SectionReader
    from ..images.sources import Access
    from ..images.viewer_service import ViewerService
    from ..io.http import Options
    from ..io.mirrors import Mirror as SurveyMirror
    from ..io.places import FileFinder
    from ..survey.layers import Layer


Method = TypeVar("Method", bound="Callable")
T = TypeVar("T")


_SENTENCES = (InvalidRequestError, NoCoverageError, ServiceDownError)
"""Errors of which a user reads the sentence, not the way through the package."""


def in_time(method: Method) -> Method:
    """Bound every call of a method by ``conf.deadline``."""
    return _public(method, is_bounded=True)


def explaining(method: Method) -> Method:
    """Let a method say in one sentence which argument it does not know."""
    return _public(method, is_bounded=False)


def _public(method: Method, *, is_bounded: bool) -> Method:
    choices = _choices(method)

    @wraps(method)
    def called(*args: Any, **options: Any) -> object:
        for name in choices.keys() & options.keys():
            _check_choice(name, options[name], choices[name])
        if options.get("executor") is not None:
            io.workers.check_executor(options["executor"])
        # As `within` does, which every call would pass on its way.
        bound = (Bound(time.monotonic() + conf.deadline),) if is_bounded else ()
        token = BOUNDS.set((*BOUNDS.get(), *bound))
        try:
            return method(*args, **options)
        except _SENTENCES as error:
            raise error.with_traceback(None) from _root(error)
        except TypeError as error:
            error_of_call = explained(error, method, args, options)
            if error_of_call is None:
                raise
            raise error_of_call from None
        finally:
            BOUNDS.reset(token)

    return called  # type: ignore[return-value]


def alias(method: T, name: str) -> T:
    """Return a method under another name, by which its errors call it."""
    inner: Any = inspect.unwrap(method)  # type: ignore[arg-type]
    parts = inner.__code__, inner.__globals__, name, inner.__defaults__, inner.__closure__
    again = FunctionType(*parts)
    again.__kwdefaults__ = inner.__kwdefaults__
    return in_time(update_wrapper(again, inner, ("__module__", "__doc__")))  # type: ignore


def options_of(arguments: Mapping[str, Any], names: Iterable[str]) -> Keywords:
    """Return those of a method's arguments, its ``locals()``, that it hands on by their names."""
    return {name: arguments[name] for name in names if name in arguments}


def _root(error: LegacySurveyError) -> BaseException | None:
    """Return the one cause of an error, without the way through the libraries below."""
    cause = error.cause
    if cause is None:
        return error.__cause__
    cause.__cause__, cause.__suppress_context__ = None, True
    return cause.with_traceback(None)


_CHOICES: dict[str, tuple[object, ...]] = {
    "bool": (True, False),
    "bool | None": (True, False, None),
    "OnMissing": ("raise", "warn"),
}
"""What an option takes, by how it is annotated; beside those that are a ``Literal``."""


def _choices(method: Callable) -> dict[str, tuple[object, ...]]:
    """Return what those options of a method may be that take one of a few values."""
    parameters = inspect.signature(method).parameters.values()
    values = {p: _values(p.annotation) for p in parameters}
    # The default comes first, as it does in messages.
    return {p.name: tuple(dict.fromkeys((p.default, *of))) for p, of in values.items() if of}


def _values(annotation: str) -> tuple[object, ...]:
    """Return the values that an annotation lists; none if it is of another kind."""
    match = re.fullmatch(r"Literal\[(.*)\]", str(annotation))
    return literal_eval(f"({match[1]},)") if match else _CHOICES.get(annotation, ())


def _check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Refuse what is none of the choices: ``cache='no'`` would be true, an array neither."""
    if not (value is None or isinstance(value, (bool, np.bool_, str))) or value not in choices:
        of_words = f"is not one of: {', '.join(map(str, choices))}."
        refuse(name, value, "must be True or False." if True in choices else of_words)


def whole_number(parameter: str, value: int, last: int) -> int:
    """Return a whole number that may be up to the last; refuse what is none."""
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_whole or not 0 <= value <= last:
        refuse(parameter, value, f"must be a whole number from 0 to {last}.")
    return int(value)


class QueryBase(BaseQuery):
    """How long to wait for a service, and where the cache is."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, method in list(vars(cls).items()):
            if inspect.isfunction(method) and name[0] != "_" and not hasattr(method, "__wrapped__"):
                setattr(cls, name, explaining(method))

    def __init__(self) -> None:
        super().__init__()
        self._timeout: float | None = None

    @property
    def timeout(self) -> float:
        """Seconds without an answer before a request is given up; ``conf.timeout`` unless set."""
        return setting("timeout", self._timeout)

    @timeout.setter
    def timeout(self, value: float | None) -> None:
        if value is not None:
            is_number = isinstance(value, Real) and not isinstance(value, bool)
            if not (is_number and 0 < value < np.inf):
                refuse("timeout", value, "must be a positive number of seconds.")
            value = float(value)
        self._timeout = value

    @property
    def cache_location(self) -> Path:
        """Folder of the cache: the one that was set, else ``conf.cache_dir``, else astroquery's."""
        location = setting("cache_dir", self._cache_location) or None
        if location is None:
            return super().cache_location
        return Path(location).expanduser()

    @cache_location.setter
    def cache_location(self, location: FilePath | None) -> None:
        self._cache_location = as_path("cache_location", location)


class SurveyBase(QueryBase):
    """What every method stands on: settings, cache, connections."""

    def __init__(self) -> None:
        super().__init__()
        self._session.headers["User-Agent"] += f" astroquery_lis/{package_version()}"
        self._release: str | None = None
        self._mirror: Mirror | None = None
        self._cone_refused: set[str] = set()

    def __repr__(self) -> str:
        mirrors = ", ".join(mirror.name for mirror in io.mirrors.resolve_mirrors(self.mirror))
        return (
            f"<{type(self).__name__}: release {self.release}, mirrors {mirrors}, time-out "
            f"{self.timeout:g} s, cache {self.cache_location}>"
        )

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_tables"}

    @cached_property
    def _images(self) -> OpenImages:
        return images.open_images.OpenImages()

    @cached_property
    def _tables(self) -> OpenTables:
        return OrderedDict()

    # ---- settings -------------------------------------------------------------------------------

    @property
    def release(self) -> str:
        """Release used when a call names none; ``conf.release`` unless it was set."""
        return get_release(setting("release", self._release)).name

    @release.setter
    def release(self, value: str | None) -> None:
        self._release = None if value is None else get_release(value).name

    @property
    def mirror(self) -> Mirror:
        """Mirror, or sequence of them in order, used when a call names none.

        It is ``conf.mirror`` unless it was set.
        """
        return setting("mirror", self._mirror)

    @mirror.setter
    def mirror(self, value: Mirror | None) -> None:
        if value is not None:
            io.mirrors.resolve_mirrors(value)
        self._mirror = value

    # ---- inner ----------------------------------------------------------------------------------

    def _release_name(self, release: str | None) -> str:
        """Return the name of the release that a call means."""
        return get_release(self.release if release is None else release).name

    def _tree(self, release: str | None, region: Region) -> tuple[str, Region]:
        """Return the names of the release and region that a call means."""
        name = self._release_name(release)
        return name, as_region(region, name)

    def _layer(self, name: str | None) -> Layer:
        """Return the layer of a name, or that of the release."""
        layers = survey.layers
        return layers.layer_of(self.release) if name is None else layers.get_layer(name)

    def _mirrors(self, mirror: Mirror | None) -> tuple[SurveyMirror, ...]:
        """Return the mirrors that a call means, in order."""
        return io.mirrors.resolve_mirrors(
            setting("mirror", self._mirror) if mirror is None else mirror
        )

    def _location(self, cache: bool | None) -> Path | None:
        """Return the folder of the cache if a call may use it."""
        use_cache = cache_conf.cache_active if cache is None else cache
        return self.cache_location if use_cache else None

    def _reader(self, mirrors: tuple[SurveyMirror, ...], cache: bool | None) -> SectionReader:
        location = self._location(cache)
        return images.reader.SectionReader(
            self._client_options(),
            mirrors,
            location,
            self._images,
            proof=catalogs.brick_tables.require_unlisted,
        )

    def _access(
        self,
        mirror: Mirror | None,
        cache: bool | None,
        executor: Executor | Literal["threads", "processes"] | None,
    ) -> Access:
        """Return how workers get at the files, with this instance's settings."""
        location = self._location(cache)
        mirrors = self._mirrors(mirror)
        # Threads of one process share four connections to the viewer; a process has one.
        is_shared = executor in (None, "threads") or isinstance(executor, ThreadPoolExecutor)
        n_viewer = images.viewer_service.MAX_CONNECTIONS if is_shared else 1
        return images.sources.Access(
            mirrors,
            None if location is None else str(location),
            self._client_options(),
            setting("viewer_url"),
            (("timeout_is_set", self._timeout is not None), ("max_connections", n_viewer)),
            self._is_same_sky("viewer_url", mirrors),
            cache_conf.cache_timeout,
            catalogs.brick_tables.require_unlisted,
        )

    def _finder(self, mirror: Mirror | None, cache: bool | None) -> FileFinder:
        return io.places.FileFinder(
            lambda: io.http.shared_client(self._client_options()),
            self._mirrors(mirror),
            self._location(cache),
        )

    def _client_options(self) -> Options:
        """Return the options of the HTTP clients for the settings in force."""
        return (
            ("timeout_s", setting("timeout", self._timeout)),
            ("retries", conf.retries),
            ("max_connections", conf.max_workers),
            ("max_retry_after_s", conf.max_retry_after),
            ("user_agent", self._session.headers["User-Agent"]),
        )

    def _is_same_sky(self, service: str, mirrors: Sequence[SurveyMirror]) -> bool:
        """Return True if a service of ``conf`` has the sky of the mirrors, and may stand in."""
        is_own = setting(service) != getattr(type(conf), service).defaultvalue
        return is_own or all(mirror.official for mirror in mirrors)

    def _viewer(self, cache: bool | None) -> ViewerService:
        """Return the viewer's service for the settings in force."""
        service = images.viewer_service
        options = (*self._client_options(), ("timeout_is_set", self._timeout is not None))
        return service.ViewerService(
            io.http.shared_client(options, service.viewer_client),
            setting("viewer_url"),
            self._location(cache),
            cache_conf.cache_timeout,
        )


_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_WRITERS = {"HDUList": "writeto()", "Table": "write()"}
_MEANT = {
    "radius": "radius size",
    "size": "size radius width",
    "width": "width size radius",
    "height": "height size radius",
    "fov": "size radius",
    "npix pixels": "size",
    "filter filters": "bands column_filters",
    "band": "bands",
    "survey surveys": "release layer",
    "dr data_release version": "release",
    "pixscale scale": "pixel_scale",
    "hemisphere": "region",
    "product invvar": "products",
    "path": "download_dir output_dir WRITE",
    "filename save_path output_file": "WRITE",
    "download_dir": "output_dir WRITE",
    "output_dir": "download_dir WRITE",
    "proposal_id proposal": "program",
    "outdir savedir folder directory": "download_dir output_dir",
    "fields cols": "columns",
    "where constraints": "column_filters",
    "limit row_limit top": "maxrec",
    "timeout": "LegacySurvey.timeout",
    "verbose progress": "show_progress",
    "format": "output",
    "workers n_jobs": "executor",
    "dec": "PAIR",
    "ra": "PAIR FIRST",
    "coord coords position positions target coordinates": "FIRST",
}
"""What other packages call it, and what it may be here.

WRITE is a method of what is returned, PAIR the one argument of two coordinates, FIRST the first.
"""

MEANT = {word: names.split() for words, names in _MEANT.items() for word in words.split()}
"""What may be meant by a word; the first that the method has is."""


def explained(
    error: TypeError, method: Callable, args: tuple, options: dict[str, Any]
) -> LegacySurveyError | None:
    """Return the error of ours for a call that does not fit, or `None` for one from within."""
    trace = error.__traceback__
    if isinstance(error, LegacySurveyError) or trace is None or trace.tb_next is not None:
        return None
    return _argument_error(method, args, options, error)


def _argument_error(
    method: Callable[..., Any], args: tuple, options: dict[str, Any], error: TypeError
) -> ArgumentError:
    """Return the error that says which argument a method does not know, and what was meant."""
    name = f"{type(args[0] if args else None).__name__.removesuffix('Class')}.{method.__name__}"
    signature = inspect.signature(method)
    parameters = list(signature.parameters.values())[1:]
    kinds = (_NAMED, _NAMED[:1], _NAMED[1:])
    words, positional, named = ([p.name for p in parameters if p.kind in of] for of in kinds)
    unknown = [word for word in options if word not in words]
    if unknown:
        writer = _WRITERS.get(str(signature.return_annotation).partition(" ")[0])
        meant = _meant(unknown[0], words, positional, writer)
        hint = f"did you mean {meant}?" if meant else f"it has: {', '.join(words)}."
        msg = f"{name}() has no argument {unknown[0]}=; {hint}"
        return ArgumentError(msg, parameter=unknown[0], value=options[unknown[0]])
    if "positional argument" in str(error) and "missing" not in str(error):
        return ArgumentError(f"{name}() {_too_many(args, positional, named)}", parameter=name)
    text = str(error).partition(") ")[2] or str(error)
    return ArgumentError(f"{name}() {text}: it takes {', '.join(words)}.", parameter=name)


def _too_many(args: tuple, positional: list[str], named: list[str]) -> str:
    """Return what is said of more arguments without a name than a method takes."""
    limit = f"only {' and '.join(positional)}" if positional else "no argument"
    msg = f"takes {limit} without a name"
    if all(isinstance(value, Real) for value in args[1:3]) and len(args) > 2:
        msg += "; RA and Dec are one argument, such as (190.1, 1.2)"
    elif named:
        msg += f"; name the others: {', '.join(f'{word}=' for word in named[:8])}"
    return f"{msg}{', ...' if len(named) > 8 else '.'}"


def _meant(word: str, words: list[str], positional: list[str], writer: str | None) -> str | None:
    """Return what is meant by a word that is no argument; `None` if nothing is like it."""
    meanings = {
        "WRITE": f"the method {writer} of what is returned" if writer else None,
        "PAIR": "coordinates=(ra, dec), in degrees" if "coordinates" in words else None,
        "FIRST": "".join(f"{first}=" for first in positional[:1]),
    }
    near = get_close_matches(word.lower(), words, 1, 0.6)
    for candidate in (*MEANT.get(word.lower(), ()), *near):
        if candidate in words:
            return f"{candidate}="
        meaning = meanings.get(candidate, None if candidate.isidentifier() else candidate)
        if meaning or candidate == "WRITE":
            return meaning
    return None
