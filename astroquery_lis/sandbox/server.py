"""The simulated survey on a port of this computer."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import threading
from contextlib import ExitStack
from functools import cache
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from astropy.coordinates import SkyCoord, name_resolve
from astropy.table import Table

from .. import _conf
from . import catalog, sky
from .cameras import ELONGATED_DEG, PsfShape, psf_shape
from .faults import Faults
from .http_server import RequestRecord, Route, Server
from .made_once import cache_folder
from .tap import TapService
from .tree import Folder, SurveyTree
from .viewer import Viewer
from .web import FileTree, Request, Response

if TYPE_CHECKING:
    from .mast import MastService

MIRROR_PREFIX = "/legacysurvey/"
VIEWER_PREFIX = "/viewer/"
SESAME_PREFIX = "/sesame/"
TAP_PREFIX = "/tap"


class Sandbox:
    """A running simulated survey; a context manager that stops it at the end.

    Made by `serve`.

    Attributes
    ----------
    root : `~pathlib.Path`
        Folder of the files, a local mirror; when it is first asked for, all files are made.
    mirror_url : str
        Address of the files, each of which is made when it is first asked for.
    viewer_url : str
        Address of the simulated viewer.
    sesame_url : str
        Address of a name resolver that knows some names (see ``NAMES``).
    truth : `~astropy.table.Table`
        The sources (see ``sky.truth``).
    positions : dict of str to `~astropy.coordinates.SkyCoord`
        Named places: ``field``, ``star``, ``corner``, ``ra0``, ``split``, ``hole``, ``blank``,
        ``clump``, ``bright``, ``half`` (one half was not observed), ``edge`` (of the survey),
        ``gap`` (not observed in z), ``elongated`` (where the PSF is), ``off`` (where nothing is).
    catalog : `~astropy.table.Table`
        Every row of the Tractor files of DR10 (see ``catalog.catalog``).
    tap_url : str
        Address of the TAP service.
    tap : ``tap.TapService``
        The service itself; ``tap.default_rows`` is its limit where a query names none.
    requests : list of RequestRecord
        What was asked so far, oldest first: ``method``, ``path``, ``range``, ``status`` and
        ``bytes_sent`` of each; ``requests.clear()``.
    faults : `~astroquery_lis.sandbox.faults.Faults`
        ``faults.add(...)`` lets something go wrong.
    cache_dir : `~pathlib.Path` or None
        The cache that the package uses meanwhile; `None` with ``configure=False``.

    Examples
    --------
    >>> from astroquery_lis import sandbox
    >>> with sandbox.serve() as sky:
    ...     print(sorted(sky.positions)[:3], len(sky.requests))
    ['blank', 'bright', 'clump'] 0
    """

    mast: MastService  # set by `~.mast.serve_mast`
    mast_url: str

    def __init__(self, tree: SurveyTree | Path, *, configure: bool) -> None:
        self._tree = Folder(tree) if isinstance(tree, Path) else tree
        self.truth = sky.truth()
        self.positions = dict(_positions())
        self.faults = Faults()
        self.requests: list[RequestRecord] = []
        self.cache_dir: Path | None = None
        self._closed = threading.Lock()
        files = FileTree(Path(self._tree.root), MIRROR_PREFIX, self.faults, self._tree.file)
        self.tap = TapService(TAP_PREFIX)
        self.routes: list[Route] = [
            (MIRROR_PREFIX, files),
            (TAP_PREFIX, self.tap),
            (VIEWER_PREFIX, Viewer(self._tree.file, VIEWER_PREFIX)),
            (SESAME_PREFIX, resolve_name),
        ]
        self._server = Server(self.routes, self.faults, self.requests)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.mirror_url = self.url + MIRROR_PREFIX.rstrip("/")
        self.viewer_url = self.url + VIEWER_PREFIX.rstrip("/")
        self.sesame_url = self.url + SESAME_PREFIX
        self.tap.url = self.tap_url = self.url + TAP_PREFIX
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.005}, daemon=True
        )
        self._stack = ExitStack()
        self._stack.callback(self.tap.close)
        self._thread.start()
        # Not a finalizer of the folder: a forked worker would run it too.
        atexit.register(self.close)
        if configure:
            self._configure()

    def _configure(self) -> None:
        folder = tempfile.mkdtemp(prefix="astroquery_lis-")
        self.cache_dir = Path(folder)
        self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
        settings = {"mirror": self.mirror_url, "cache_dir": folder}
        settings |= {"viewer_url": self.viewer_url, "tap_url": self.tap_url}
        settings |= {"sesame_url": self.sesame_url}
        self._stack.enter_context(_conf.override(**settings))
        self._stack.enter_context(name_resolve.sesame_url.set([self.sesame_url]))

    @property
    def root(self) -> Path:
        """Folder of the files, a local mirror; every file that is not there yet is made now."""
        return self._tree.fill()

    def file(self, path: str) -> Path:
        """Return one file of the survey, which is made if it is not there yet.

        Parameters
        ----------
        path : str
            Path below the root of a mirror.

        Returns
        -------
        `~pathlib.Path`
            Where it is; there is nothing if the simulated survey has no such file.

        Examples
        --------
        >>> from astroquery_lis import sandbox
        >>> with sandbox.serve() as sky:
        ...     print(sky.file('dr10/survey-bricks.fits.gz').name)
        survey-bricks.fits.gz
        """
        return self._tree.file(path)

    @property
    def catalog(self) -> Table:
        """Every row of the Tractor files of DR10, a new table each time."""
        return catalog.catalog()

    def psf_truth(self, coordinates: SkyCoord, band: str) -> PsfShape:
        """Return the shape of the PSF that the viewer gives at a place.

        Parameters
        ----------
        coordinates : `~astropy.coordinates.SkyCoord`
            The place.
        band : str
            ``'g'``, ``'r'``, ``'i'`` or ``'z'``.

        Returns
        -------
        PsfShape
            Width, axis ratio and position angle on the sky.

        Examples
        --------
        >>> from astroquery_lis import sandbox
        >>> with sandbox.serve() as sky:
        ...     print(sky.psf_truth(sky.positions['elongated'], 'r').axis_ratio)
        0.7
        """
        return psf_shape(coordinates.icrs.ra.deg, coordinates.icrs.dec.deg, band)

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Sandbox at {self.mirror_url}>"

    def close(self) -> None:
        """Stop serving, put the configuration back and remove the cache; at most once.

        Examples
        --------
        >>> from astroquery_lis import sandbox
        >>> sky = sandbox.serve()
        >>> sky.close()
        """
        if not self._closed.acquire(blocking=False):
            return
        atexit.unregister(self.close)
        try:
            self._server.end()
            self._thread.join()
        finally:
            self._stack.close()


def serve(*, root: str | PathLike[str] | None = None, configure: bool = True) -> Sandbox:
    """Serve the simulated survey on this computer, and let the package use it.

    Each file is made when it is first asked for, in seconds at most, and kept in astropy's cache
    (about 240 MB if all are).

    Parameters
    ----------
    root : str or path-like, optional
        Where the files are or shall be; by default in astropy's cache.
    configure : bool, default: True
        Whether `astroquery_lis` uses the sandbox until it is closed, with a cache of its own, in
        this process and in those that it starts.  `False` only serves, e.g. a second mirror.

    Returns
    -------
    Sandbox
        To be used in ``with``, or closed with ``close()``.

    Raises
    ------
    OSError
        If the folder cannot be written.
    ValueError
        If the folder holds another version of the simulated survey.

    Examples
    --------
    >>> from astroquery_lis import sandbox
    >>> with sandbox.serve() as sky:  # doctest: +SKIP
    ...     print(len(sky.truth), sky.positions['field'])
    """
    return Sandbox(_default_tree() if root is None else SurveyTree(root), configure=configure)


_TREES: dict[Path, SurveyTree] = {}


def _default_tree() -> SurveyTree:
    """Return the tree in the cache, the same for all servers of a process while it is there."""
    folder = cache_folder()
    if folder not in _TREES or not _TREES[folder].root.is_dir():
        _TREES[folder] = SurveyTree()
    return _TREES[folder]


@cache
def _positions() -> dict[str, SkyCoord]:
    """Return the named places of the scene, and the one of the PSF."""
    elongated = SkyCoord(*ELONGATED_DEG, unit="deg", frame="icrs")
    return {**sky.positions(), "elongated": elongated}


# Invented names, and the named places of the scene that they stand for.
NAMES = {"NGC 1": "field", "NGC 2": "split", "HD 1": "star", "HD 2": "bright", "Abell 1": "clump"}


def resolve_name(request: Request) -> Response:
    """Return the answer to a request like ``/sesame/SNV?NGC%201``, in the plain format of Sesame.

    It knows the `NAMES` and the scene's own names of places, in upper or lower case, with or
    without spaces.
    """
    query = unquote(request.query.replace("+", " "))
    lines = [f"# {query}\t#Q1"]
    places = {_compact(name): name for name in (*sky.POSITIONS_DEG, *NAMES)}
    name = places.get(_compact(query))
    if name is None:
        lines += ["#!SNV=Simulated: Nothing found", "#!  *** Nothing found ***"]
    else:
        ra, dec = sky.POSITIONS_DEG[NAMES.get(name, name)]
        lines += ["#=S=Simulated: 1", f"%J {ra:.8f} {dec:+.8f} = ", f"%I.0 {name}"]
    body = "\n".join([*lines, "#====Done===="]) + "\n\n"
    return Response(200, {"Content-Type": "text/plain; charset=utf-8"}, body.encode())


def _compact(name: str) -> str:
    return "".join(name.lower().split())
