"""The CCDs of exposures: which there are at a position, and their files from the viewer."""

from __future__ import annotations

import functools
import itertools
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astropy.table import Row, Table

from .. import catalogs, io, survey
from .._conf import conf
from .._locks import new_lock
from .._typing import answering
from ..exceptions import (
    CacheError,
    InvalidRequestError,
    NotFoundError,
    ServiceDownError,
    TransferError,
    refuse,
)
from ..survey.releases import listed
from .base import SurveyBase, in_time, options_of
from .inputs import as_path, as_position

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._typing import (
        Bands,
        Coordinates,
        FilePath,
        Keywords,
        Mirror,
        OnMissing,
        Payload,
        Products,
        Region,
    )
    from ..images.viewer_service import ViewerService
    from ..io.jobs import Result
    from ..survey.layers import Layer


EXPOSURE_PRODUCTS = {"image": "image-data", "invvar": "iv-data", "dq": "dq-data"}
"""What there is of a CCD, and what the viewer calls it."""

MAX_THREADS = 4
SEARCH_DEG = 0.01
NEEDED = ("camera", "expnum", "ccdname", "filter")


class CcdMethods(SurveyBase):
    """Single CCDs of exposures, as rows and as files."""

    @answering
    def get_exposure_files(
        self,
        exposures_or_coordinates: Coordinates | Table,
        *,
        bands: Bands | None = None,
        products: Products = ("image", "invvar", "dq"),
        release: str | None = None,
        region: Region = "auto",
        download_dir: FilePath | None = None,
        cache: bool | None = None,
        get_query_payload: bool = False,
    ) -> Table | Payload:
        """Fetch whole CCDs of exposures from the viewer and tell what became of each file.

        Parameters
        ----------
        exposures_or_coordinates : `~astropy.table.Table`, `~astropy.table.Row`, \
`~astropy.coordinates.SkyCoord` or str
            The table that `query_exposures` returns, or rows of it; or one position, for all CCDs
            that cover it.
        bands : str or sequence of str, optional
            Only these.
        products : str or sequence of str, default: ('image', 'invvar', 'dq')
            What to fetch of each CCD: its counts, their inverse variance, its data quality.
        release : str, optional
            ``'dr5'`` to ``'dr11'``; by default that of the table, else `release`.
        region : {'auto', 'north', 'south'}, optional
            ``'auto'`` takes that of the table; without one, the south for DECam and the north for
            the other cameras.
        download_dir : path-like, optional
            Folder for the files; by default one in the cache for each layer of the viewer.
        cache : bool, optional
            Whether to keep and use files on disk; by default astroquery's ``cache_conf``.  Without
            a cache ``download_dir`` is needed.
        get_query_payload : bool, optional
            Return a dict of ``service``, the viewer, and ``urls`` instead of the files.  For a
            position the brick's table of CCDs is still read.

        Returns
        -------
        `~astropy.table.Table`
            One row per file: ``Local Path``, ``Status``, ``Message``, ``URL``, ``id`` (camera,
            exposure and CCD), ``product``, ``release``, ``region``, ``bands``, ``seconds``,
            ``bytes`` and ``sha256``.  The status is COMPLETE (fetched), CACHED (was here), NODATA
            (the viewer does not list the CCD) or ERROR.

        Raises
        ------
        InvalidRequestError
            If an argument is wrong; nothing was sent.

        Warns
        -----
        CoverageWarning
            If the release has no brick at the position.
        LegacySurveyWarning
            If files could not be had.

        Notes
        -----
        A file, ``decam-410003-N4-image.fits.gz``, appears in its place when it is whole, could be
        unpacked and holds FITS.  Four are fetched at a time; the same call again fetches what is
        missing.

        Examples
        --------
        >>> from astroquery_lis import LegacySurvey, sandbox
        >>> with sandbox.serve() as sky:
        ...     payload = LegacySurvey.get_exposure_files(
        ...         sky.positions['star'], bands='r', products='image', get_query_payload=True)
        >>> len(payload['urls']) > 0
        True
        """
        names = _as_products(products)
        folder = as_path("download_dir", download_dir)
        use_cache = self._location(cache) is not None
        if not (use_cache or folder or get_query_payload):
            msg = "download_dir=None needs the cache: name a folder, or leave cache as it is."
            raise InvalidRequestError(msg, parameter="download_dir", value=None)
        options = options_of(locals(), ("bands", "release", "region", "cache"))
        table = self._exposures(exposures_or_coordinates, options)
        release, region = self._tree(*_named(table, release, region))
        ccds = _ccds(table, survey.releases.as_bands(bands, release, region), release, region)
        service = self._viewer(use_cache)
        listing = _listing(service)
        jobs = [
            ExposureJob(row, *pair, service, folder, listing)
            for row, pair in enumerate(itertools.product(ccds, names))
        ]
        if get_query_payload:
            return {"service": service.url, "urls": [job.about["url"] for job in jobs]}
        begun_s = time.time()
        results = io.jobs.deliver_all(jobs, max_threads=MAX_THREADS)
        if folder is None:
            _keep_within(service, begun_s)
        io.delivery.warn_of_failures([r for r in results if r.status == "ERROR"], len(results))
        return io.delivery.table_of_files(results, [job.product for job in jobs])

    def _exposures(self, value: Any, options: Keywords) -> Table:
        """Return the table of exposures that was given, or that of a position."""
        if isinstance(value, (Table, Row)):
            return _as_exposures(value)
        return self.query_exposures(value, **options)

    @answering
    @in_time
    def query_exposures(
        self,
        coordinates: Coordinates,
        *,
        bands: Bands | None = None,
        release: str | None = None,
        region: Region = "auto",
        mirror: Mirror | None = None,
        on_missing: OnMissing = "warn",
        cache: bool | None = None,
        get_query_payload: bool = False,
    ) -> Table | Payload:
        """Return the exposures behind the coadds at a position, one row per CCD that covers it.

        Parameters
        ----------
        coordinates : `~astropy.coordinates.SkyCoord` or str
            One position.
        bands : str or sequence of str, optional
            Only these.
        release, region, mirror, cache : optional
            As for `query_bricks`.
        on_missing : {'warn', 'raise'}, optional
            Whether a position outside of the release is an error.
        get_query_payload : bool, optional
            Return a dict of the service and what it would be asked; nothing is fetched.

        Returns
        -------
        `~astropy.table.Table`
            By band and date: camera, exposure number, CCD, filter, date, the CCD's centre (``ra``
            and ``dec``, deg), exposure time (s), seeing (FWHM, arcsec), 5-sigma depths for a point
            source and a small galaxy (AB mag, from ``sig1``, ``psfnorm`` and ``galnorm``), zero
            points, cuts, the image's file, and the pixel of the position in the CCD, counted from
            0.  What the survey's own table of the brick does not have is left out.

        Raises
        ------
        InvalidRequestError
            If an argument is wrong.
        NoCoverageError
            With ``on_missing='raise'``.

        Warns
        -----
        CoverageWarning
            If the release has no brick there.

        Examples
        --------
        >>> from astroquery_lis import LegacySurvey, sandbox
        >>> with sandbox.serve() as sky:
        ...     table = LegacySurvey.query_exposures(sky.positions['star'], bands='r')
        >>> set(table['camera'].tolist())
        {'decam'}
        """
        release, region = self._tree(release, region)
        bands = survey.releases.as_bands(bands, release, region)
        ra_deg, dec_deg = as_position(coordinates)
        with self._finder(mirror, cache) as finder:
            if get_query_payload:
                path = catalogs.brick_tables.exposure_path(ra_deg, dec_deg, release, region)[0]
                return {"service": finder.service, "urls": [finder.address(path)]}
            return catalogs.brick_tables.exposures_at(
                ra_deg, dec_deg, bands, release, region, finder, on_missing=on_missing
            )


def _keep_within(service: ViewerService, begun_s: float) -> None:
    """Remove what was not used for longest from a cache that is too big."""
    if service.folder is not None:
        limit_bytes = conf.cache_size * io.whole_files.GB
        io.store.keep_within(service.folder.parent, limit_bytes, keep_since_s=begun_s)


def _as_products(products: Products) -> list[str]:
    """Return the names of products of CCDs."""
    names = listed(products, tuple(EXPOSURE_PRODUCTS))
    if not names:
        refuse("products", products, f"must name some of {', '.join(EXPOSURE_PRODUCTS)}.")
    for name in names:
        survey.request.as_choice("products", name, EXPOSURE_PRODUCTS)
    return names


def _as_exposures(value: Table | Row) -> Table:
    """Return the table of exposures that a user gave, or a row of it."""
    if isinstance(value, Row):
        value = value.table[value.index : value.index + 1]
    lacking = [name for name in NEEDED if name not in value.colnames]
    if lacking:
        msg = (
            f"exposures_or_coordinates lacks the column(s) {', '.join(lacking)}; it has to be the "
            "table that query_exposures returns, or rows of it."
        )
        parameter = "exposures_or_coordinates"
        raise InvalidRequestError(msg, parameter=parameter, value=value.colnames)
    return value


def _named(table: Table, release: str | None, region: Region) -> tuple[str | None, Region]:
    """Return the release and region that were named, else those of a table."""
    if region == "auto":
        region = table.meta.get("region", region)
    return (table.meta.get("release") if release is None else release), region


@dataclass(frozen=True)
class _Ccd:
    """One CCD of an exposure."""

    camera: str
    expnum: int
    name: str
    band: str
    layer: Layer
    """The layer of the viewer that has it."""
    place: tuple[float, float] | None = field(compare=False)
    """RA and Dec of its centre, degrees, if it is known."""

    @property
    def id(self) -> str:
        """Camera, exposure and CCD."""
        return f"{self.camera}-{self.expnum}-{self.name}"


def _ccds(table: Table, bands: Sequence[str] | None, release: str, region: str) -> list[_Ccd]:
    """Return the CCDs of a table, each once; ``region='auto'`` goes by the camera."""
    has_place = {"ra", "dec"} <= set(table.colnames)
    texts = ("camera", "ccdname", "filter")
    ccds: dict[_Ccd, None] = {}
    for row in table:
        camera, name, band = (str(row[key]).strip() for key in texts)
        if bands is not None and band not in bands:
            continue
        official = "south" if camera == "decam" else "north"
        layer = survey.layers.layer_of(release, official if region == "auto" else region)
        place = (float(row["ra"]), float(row["dec"])) if has_place else None
        ccds[_Ccd(camera, int(row["expnum"]), name, band, layer, place)] = None
    return list(ccds)


def _names_around(service: ViewerService, ccd: _Ccd) -> set[str] | None:
    """Return the CCDs that the viewer lists where one should be, `None` if it does not tell."""
    if ccd.place is None:
        return None
    try:
        outlines = service.outlines("ccds/", ccd.layer.name, *ccd.place, SEARCH_DEG)
    except TransferError:
        return None
    # "decam 410003-N4-r": without the band, which is a property of the exposure.
    return {name.rpartition("-")[0] for name, _ in outlines}


def _listing(service: ViewerService) -> Callable[[_Ccd], set[str] | None]:
    """Return what asks the viewer for the CCDs round one, once for each, whoever waits for it."""
    names, lock = functools.cache(functools.partial(_names_around, service)), new_lock()

    def listing(ccd: _Ccd) -> set[str] | None:
        with lock:
            return names(ccd)

    return listing


@dataclass(frozen=True)
class ExposureJob:
    """One product of one CCD to fetch."""

    row: int
    ccd: _Ccd
    product: str
    service: ViewerService
    folder: Path | None
    """Where it goes; `None` for a folder of its layer in the cache."""
    listing: Callable[[_Ccd], set[str] | None]
    """What the viewer lists where a CCD should be, asked once for each, after a failure."""

    @property
    def about(self) -> dict[str, str]:
        """What the manifest says of it, whatever became of it."""
        layer = self.ccd.layer
        path = f"{EXPOSURE_PRODUCTS[self.product]}/{layer.name}/{self.ccd.id}"
        return {
            "url": f"{self.service.url}/{path}",
            "id": self.ccd.id,
            "release": str(layer.release),
            "region": str(layer.region),
            "bands": self.ccd.band,
        }

    def fetch(self) -> Result:
        """Have the file, and say what became of it."""
        about: dict = self.about
        folder = self.folder or Path(self.service.folder or "", "exposures", self.ccd.layer.name)
        try:
            done = self.service.save(about["url"], folder / f"{self.ccd.id}-{self.product}.fits.gz")
        except (TransferError, CacheError) as error:
            if not self._is_absent(error):
                raise
            message = f"The viewer's layer {self.ccd.layer.name} does not have {self.ccd.id}."
            return io.jobs.Result(self.row, "NODATA", message=message, **about)
        if self.folder is None:
            io.store.mark_used(done.path)
        return io.jobs.Result(
            self.row,
            "CACHED" if done.sha256 is None else "COMPLETE",
            local_path=str(done.path),
            bytes=done.size,
            sha256=done.sha256 or "",
            **about,
        )

    def _is_absent(self, error: Exception) -> bool:
        """Return True if an error means that there is no such CCD: a 500 may mean anything."""
        if isinstance(error, NotFoundError):
            return True
        if not isinstance(error, ServiceDownError) or error.status != 500:
            return False
        names = self.listing(self.ccd)
        label = f"{self.ccd.camera} {self.ccd.expnum}-{self.ccd.name}"
        return names is not None and label not in names
