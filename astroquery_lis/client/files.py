"""Whole files of the survey: which are meant, how they are fetched, how one is read."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from astropy.table import Table

from .. import catalogs, io, survey
from .._conf import conf
from .._typing import answering
from ..exceptions import (
    ChecksumError,
    ChecksumWarning,
    CoverageWarning,
    FailoverWarning,
    IncompleteMirrorError,
    check_one_a_row,
    refuse,
    warn,
)
from ..survey.bricks import N_BRICKS, parse_brick_name
from .base import SurveyBase
from .footprint import as_brick_radius_deg, bricks_at
from .inputs import as_path, as_targets
from .position_columns import NOT_NAMED, Columns, column_of
from .position_text import BRICK_NAME

if TYPE_CHECKING:
    from typing import Literal

    from .._typing import (
        Angle,
        Bands,
        Executor,
        FilePath,
        Keywords,
        Mirror,
        Payload,
        Positions,
        Products,
        Region,
    )
    from ..io.delivery import FileJob, FileSettings
    from ..io.jobs import Result
    from ..io.mirrors import Mirror as Place
    from ..survey.paths import SurveyFile


MAX_THREADS = 8
"""Files fetched at once by threads of our own; a server is shared with others."""


class FileMethods(SurveyBase):
    """Whole files."""

    @answering
    def get_brick_files(
        self,
        bricks_or_coordinates: Positions | int | None = None,
        *,
        ra: str | None = None,
        dec: str | None = None,
        name: str | None = None,
        radius: Angle | None = None,
        products: Products = ("image",),
        bands: Bands | None = None,
        path: str | Sequence[str] | None = None,
        release: str | None = None,
        region: Region = "auto",
        download_dir: FilePath | None = None,
        mirror: Mirror | None = None,
        verify: Literal["warn", "strict", False] = "warn",
        refresh: bool = False,
        executor: Executor | None = None,
        show_progress: bool = True,
        get_query_payload: bool = False,
    ) -> Table | Payload:
        """Fetch files of the survey, whole, and tell what became of each.

        Parameters
        ----------
        bricks_or_coordinates : str, `~astropy.coordinates.SkyCoord`, `~astropy.table.Table` \
or sequence, optional
            Names of bricks (``'1901p012'``) or their numbers; positions, scalar or of any shape,
            or a table of them, as for `download_cutouts`, in which ``brickname`` comes first; or
            names of sweep files (``'sweep-190p000-195p005'``).  The sweep of a position is the one
            that holds it.  Not needed for tables of a whole
            region or release.
        ra, dec, name : str, optional
            Columns of a table, as for `download_cutouts`; they count more than ``brickname``.
        radius : `~astropy.units.Quantity` ['angle'] or str, optional
            Take every brick that a circle of this radius touches; by default the brick that owns
            each position.
        products : str or sequence of str, optional
            Names out of `list_file_products`: ``image``, ``maskbits``, ``tractor``,
            ``image-jpg``, ``sweep``, ``region-bricks`` and so on.
        bands : str or sequence of str, optional
            For example ``'grz'`` or ``'g,W1'``; by default the optical bands of the region.
        path : str or sequence of str, optional
            Any file of the survey's tree, or several, by path, such as
            ``'dr9/masking/gaia-mask-dr9.fits.gz'``, instead of bricks and products.
        release : str, optional
            ``'dr5'`` to ``'dr11'``; by default `release`.
        region : {'auto', 'north', 'south'}, optional
            ``'auto'`` takes the official one for each brick.
        download_dir : path-like, optional
            Folder for the files, which is laid out like the survey and so can be used as a mirror;
            by default the cache.
        mirror : str, path-like, or sequence of them, optional
            A registered name, a URL or template, or a directory; by default `mirror`.  The files
            of a directory are not copied unless ``download_dir`` is given.
        verify : {'warn', 'strict', False}, optional
            What a sha256 means that differs from the survey's list, after the file was fetched a
            second time: a warning, since some lists are stale, or an error.  ``'strict'`` also
            compares the files that are here already.  `False` fetches no list.
        refresh : bool, optional
            Whether to ask if files that are here were replaced at their server.
        executor : `~concurrent.futures.Executor`, {'threads', 'processes'}, optional
            Does the work; by default up to eight threads.
        show_progress : bool, optional
            Whether to show a bar, where tqdm is installed, in terminals and notebooks.
        get_query_payload : bool, optional
            Return a dict of ``service``, the mirror, and ``urls`` instead of the files; nothing is
            fetched.

        Returns
        -------
        `~astropy.table.Table`
            One row per file: ``Local Path``, ``Status``, ``Message``, ``URL``, ``id`` (the brick),
            ``product``, ``release``, ``region``, ``bands``, ``seconds``, ``bytes`` and ``sha256``.
            The status is COMPLETE (fetched), CACHED (was here), NODATA (the survey does not have
            it), SKIPPED (not asked for, since the mirrors failed before) or ERROR.

        Raises
        ------
        InvalidRequestError
            If an argument is wrong; nothing was sent.
        ChecksumError
            If ``verify='strict'`` and a file has not the sha256 of its list.

        Warns
        -----
        ChecksumWarning
            If a file differs from its list, twice in the same way.
        CoverageWarning
            If the survey has none of the files.
        FailoverWarning
            If another mirror than the first had to answer.
        LegacySurveyWarning
            If files could not be had.

        Notes
        -----
        A file appears in its place when it is whole and was checked.  The same call again fetches
        what is missing and goes on with files that were begun.

        Examples
        --------
        >>> from astroquery_lis import LegacySurvey
        >>> payload = LegacySurvey.get_brick_files('1901p012', products='tractor', release='dr10',
        ...                                        mirror='nersc', get_query_payload=True)
        >>> [url.rpartition('/')[2] for url in payload['urls']]
        ['tractor-1901p012.fits']
        """
        release, region = self._tree(release, region)
        products = survey.paths.as_file_products(products, release)
        bands = survey.paths.as_file_bands(bands, products, release, region)
        mirrors = self._mirrors(mirror)
        folder = as_path("download_dir", download_dir)
        bricks = as_bricks(bricks_or_coordinates, radius, Columns(ra, dec, name))
        if path is None:
            files = survey.paths.plan_files(
                bricks.ids,
                products=products,
                bands=bands,
                release=release,
                region=region,
                sweeps=bricks.sweeps,
                positions=bricks.positions,
            )
        else:
            files = _files_at(path, bricks_or_coordinates, bands, products)
        if get_query_payload:
            urls = [str(mirrors[0].locate(file.paths[0])) for file in files if file.paths]
            return {"service": mirrors[0].name, "urls": urls}
        settings = io.delivery.FileSettings(
            mirrors=mirrors,
            location=str(Path(self.cache_location).absolute()),
            folder=None if folder is None else str(folder),
            verify=verify,
            refresh=bool(refresh),
            client_options=self._client_options(),
            begun_s=time.time(),
        )
        rows = list(enumerate(files))
        results = io.jobs.deliver_all(
            [_job(row, file, settings) for row, file in rows if file.paths],
            ready=[_without_band(row, file) for row, file in rows if not file.paths],
            max_threads=min(conf.max_workers, MAX_THREADS),
            executor=executor,
            show_progress=show_progress,
        )
        results = [_proven(result, files[result.row], mirrors) for result in results]
        _warn_of(results, verify)
        return io.delivery.table_of_files(results, [file.product for file in files])

    def read_catalogue(
        self, path: FilePath, *, columns: str | Sequence[str] | None = None
    ) -> Table:
        """Return a file of the catalogue, on this computer, as a table with units and masks.

        Parameters
        ----------
        path : str or path-like
            A Tractor file, a sweep or one of the files beside it, randoms, or a table of CCDs or of
            bricks, of any release; FITS, also when packed with gzip.
        columns : str or sequence of str, optional
            Names of columns, in the order wanted, in any case; by default all of the file.

        Returns
        -------
        `~astropy.table.Table`
            One row per row of the file, whether primary or not.  Names are in lower case; units are
            astropy's, also where the survey writes none or spells them as astropy does not.  What
            the file marks as no value (``TNULL``, and -99 among redshifts) is masked; NaN stays.
            ``meta['file']`` is the path.

        Raises
        ------
        InvalidRequestError
            If there is no such file, it may not be read, or it has no such column.
        TruncatedError
            If the file ends too early.
        UnexpectedContentError
            If it is no FITS file, or its first table is no catalogue of the survey.

        Warns
        -----
        CoverageWarning
            If columns of the file cannot be columns of a table here and did not come.

        Examples
        --------
        >>> from astroquery_lis import LegacySurvey, sandbox
        >>> with sandbox.serve() as sky:
        ...     path = sky.root / 'dr10/south/tractor/045/tractor-0451p000.fits'
        ...     rows = LegacySurvey.read_catalogue(path, columns=['ra', 'flux_r'])
        >>> rows['flux_r'].unit
        Unit("nmgy")
        """
        file = as_path("path", path)
        if file is None or not os.path.isfile(file):
            must = "is no file on this computer; get_brick_files fetches those of the survey."
            refuse("path", path, must)
        names = survey.releases.listed(columns)
        if columns is not None and not names:
            refuse("columns", columns, "must name columns; leave it out for all of the file.")
        try:
            return catalogs.table_file.read_file(file, names or None)
        except OSError as error:
            refuse("path", str(path), f"cannot be read: {error.strerror}.")


def _files_at(
    path: str | Sequence[str], bricks: object, bands: object, products: Sequence[str]
) -> list[SurveyFile]:
    """Return the files of paths, which stand alone."""
    if bricks is not None or bands is not None or tuple(products) != ("image",):
        refuse("path", path, "stands alone, without bricks, coordinates, products or bands.")
    paths = [path] if isinstance(path, str) else path
    if not isinstance(paths, (list, tuple)) or not all(isinstance(each, str) for each in paths):
        refuse("path", path, "must be the path of a file, or a list of some.")
    if not paths:
        refuse("path", path, "names no file.")
    return list(map(survey.paths.file_at_path, dict.fromkeys(paths)))


def _about(file: SurveyFile) -> Keywords:
    """Return what the manifest says of a file, whatever became of it."""
    facts = {"id": file.brick, "release": file.release, "region": file.region, "bands": file.band}
    return {name: str(value) for name, value in facts.items()}


def _job(row: int, file: SurveyFile, settings: FileSettings) -> FileJob:
    facts = tuple(_about(file).items())
    return io.delivery.FileJob(row, tuple(file.paths), file.checksum_path, facts, settings)


def _without_band(row: int, file: SurveyFile) -> Result:
    where = "/".join(name for name in (file.release, file.region) if name)
    return io.jobs.Result(
        row, "NODATA", message=f"{where} has no {file.band} band.", **_about(file)
    )


def _proven(result: Result, file: SurveyFile, mirrors: tuple[Place, ...]) -> Result:
    """Return the error of a file that folders lack, if the survey may have it all the same."""
    folders = io.mirrors.local_folders(mirrors)
    if result.status != "NODATA" or not folders or not file.paths:
        return result
    try:
        if not file.product or survey.paths.FILE_PRODUCTS[file.product].per != "brick":
            msg = f"{', '.join(map(str, folders))} lacks {file.paths[0]}."
            raise IncompleteMirrorError(msg)
        bricks = [parse_brick_name(file.brick)]
        catalogs.brick_tables.require_unlisted(
            folders, file.release, file.region, bricks, file.paths[0], band=file.band or None
        )
    except IncompleteMirrorError as error:
        return io.jobs.failure(result.row, error, url=result.url, **_about(file))
    return result


def _warn_of(results: Sequence[Result], verify: str | bool) -> None:
    """Warn of what the user should not have to look for in the table."""
    stale = [r for r in results if io.delivery.STALE_LIST in r.message]
    _warn_of_some(stale, ChecksumWarning, "differ from the survey's list, e.g. {0.local_path}.")
    errors = (ChecksumError,) if verify == "strict" else ()
    wrong = [r for r in results if isinstance(r.error, errors)]
    failures = [r for r in results if r.status in ("ERROR", "SKIPPED") and r not in wrong]
    io.delivery.warn_of_failures(failures, len(results))
    _warn_of_sources(results)
    if wrong:
        msg = f"{len(wrong)} of {len(results)} file(s) are not those of the survey's lists. "
        error = wrong[0].error
        raise ChecksumError(msg + str(error), url=wrong[0].url, found=getattr(error, "found", None))


def _warn_of_sources(results: Sequence[Result]) -> None:
    """Warn of files that came from elsewhere, and if there are none at all."""
    complete = [r for r in results if r.status == "COMPLETE"]
    elsewhere = [r for r in complete if io.delivery.OTHERS_FAILED in r.message]
    _warn_of_some(elsewhere, FailoverWarning, "came after a failure. {0.message}")
    if {r.status for r in results} == {"NODATA"}:
        msg = f"The survey has none of the {len(results)} file(s). {results[0].message}"
        warn(msg, CoverageWarning)


def _warn_of_some(results: Sequence[Result], category: type[Warning], sentence: str) -> None:
    """Warn of files, if there are any; the sentence may tell of the first."""
    if results:
        warn(f"{len(results)} file(s) {sentence.format(results[0])}", category)


# ---- which are meant ----------------------------------------------------------------------------


class BricksAsked(NamedTuple):
    """What of the sky whole files are asked of."""

    ids: np.ndarray  # of bricks, ascending and each once
    sweeps: tuple[str, ...]  # names of sweep files
    positions: tuple[tuple[float, float], ...] | None = None  # if bricks are meant by theirs


def as_bricks(
    value: Positions | int | None, radius: Angle | None = None, columns: Columns = NOT_NAMED
) -> BricksAsked:
    """Return the bricks that are named, numbered, or those at positions.

    With a radius they are all that the circles touch.  A column that is named, as for `as_targets`,
    counts more than one with the names of bricks.
    """
    names = None if columns.named else _names(value)
    if names is None:
        radius_deg = as_brick_radius_deg(radius)
        targets = as_targets(value, columns, "bricks_or_coordinates")
        if not targets.placed.any():
            refuse("bricks_or_coordinates", value, ": none of them is a position on the sky.")
        targets.warn_of_unplaced("are left out")
        places = tuple(filter(None, targets.places())) if radius is None else None
        return BricksAsked(bricks_at(targets, radius_deg), (), places)
    if radius is not None:
        refuse("radius", radius, "needs coordinates, not names of bricks.")
    sweeps = [name.removesuffix(".fits") for name in names if survey.paths.is_sweep_name(name)]
    numbers = [_brick_number(name) for name in names if not survey.paths.is_sweep_name(name)]
    return BricksAsked(np.unique(np.array(numbers, np.int64)), tuple(dict.fromkeys(sweeps)))


def _brick_number(name: str | int) -> int:
    number = parse_brick_name(name) if isinstance(name, str) else int(name)
    if not 1 <= number <= N_BRICKS:
        refuse("bricks_or_coordinates", number, f"is no brick: they go from 1 to {N_BRICKS}.")
    return number


def _names(value: Any) -> list | None:
    """Return names of bricks and sweep files, or numbers of bricks; `None` for positions."""
    if value is None:
        return []
    items = _items(value)
    if items and all(map(_is_name, items)):
        return [item.strip().lower() if isinstance(item, str) else item for item in items]
    return _names_of_table(value)


def _items(value: Any) -> list:
    """Return what may be names, of which text and a number have one or several."""
    if isinstance(value, str):
        return value.replace(",", " ").split()
    is_list = isinstance(value, (Sequence, Set, np.ndarray)) and np.iterable(value)
    if not is_list or isinstance(value, (bytes, bytearray)):
        return [value]
    # Of a million positions no list is made.
    return list(value) if len(value) and _is_name(next(iter(value))) else []


def _names_of_table(value: Any) -> list | None:
    """Return what a table's column of bricks holds; `None` for positions."""
    from .user_tables import as_table

    table = as_table(value, "bricks_or_coordinates")
    name = None if table is None else column_of(table, ("brickname", "brickid"))
    if table is None or name is None:
        return None
    check_one_a_row("bricks_or_coordinates", name, table[name].shape)
    return np.ma.compressed(table[name]).tolist()


def _is_name(item: object) -> bool:
    """Return True for the name of a file or the number of a brick."""
    is_number = isinstance(item, (int, np.integer)) and not isinstance(item, bool)
    return is_number or is_file_name(item)


def is_file_name(word: object) -> bool:
    """Return True if a word is meant as the name of a brick, even of none, or of a sweep file."""
    text = word.strip().lower() if isinstance(word, str) else ""
    return bool(BRICK_NAME.fullmatch(text)) or survey.paths.is_sweep_name(text)
