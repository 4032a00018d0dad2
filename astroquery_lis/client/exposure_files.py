"""Single CCDs of exposures as files, from the viewer: image, inverse variance, data quality."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.table import Row

from .._conf import conf
from ..exceptions import (
    CacheError,
    InvalidRequestError,
    NotFoundError,
    ServiceDownError,
    TransferError,
)
from ..io.jobs import Result, failure, run
from ..io.store import GB, mark_used
from ..io.upkeep import keep_within
from ..survey.layers import layer_of

__all__ = ["EXPOSURE_PRODUCTS", "ExposureFile", "as_exposures", "fetch_exposures", "plan_exposures"]

EXPOSURE_PRODUCTS = {"image": "image-data", "invvar": "iv-data", "dq": "dq-data"}
"""What there is of a CCD, and what the viewer calls it."""

MAX_THREADS = 4
SEARCH_DEG = 0.01
_NEEDED = ("camera", "expnum", "ccdname", "filter")


@dataclass(frozen=True)
class ExposureFile:
    """One file of one CCD.

    Attributes
    ----------
    row : int
        Its number in the manifest.
    camera, ccdname, band : str
        Of the CCD.
    expnum : int
        Number of the exposure.
    product : str
        One of `EXPOSURE_PRODUCTS`.
    layer : `~astroquery_lis.survey.layers.Layer`
        The layer of the viewer that has the exposure.
    place : tuple of float or None
        RA and Dec of the CCD's centre, degrees, if it is known.
    """

    row: int
    camera: str
    expnum: int
    ccdname: str
    band: str
    product: str
    layer: object
    place: tuple | None

    @property
    def id(self):
        """Camera, exposure and CCD."""
        return f"{self.camera}-{self.expnum}-{self.ccdname}"

    @property
    def name(self):
        """Name of the file."""
        return f"{self.id}-{self.product}.fits.gz"

    @property
    def path(self):
        """Where it is, below the viewer's address."""
        return f"{EXPOSURE_PRODUCTS[self.product]}/{self.layer.name}/{self.id}"


def as_exposures(table):
    """Return the table of exposures that a user gave, which may be a row of it.

    Parameters
    ----------
    table : `~astropy.table.Table` or `~astropy.table.Row`
        From ``query_exposures``.

    Returns
    -------
    `~astropy.table.Table`

    Raises
    ------
    InvalidRequestError
        If a column is lacking.
    """
    if isinstance(table, Row):
        table = table.table[table.index : table.index + 1]
    lacking = [name for name in _NEEDED if name not in table.colnames]
    if lacking:
        msg = (
            f"exposures_or_coordinates lacks the column(s) {', '.join(lacking)}; it has to be the "
            "table that query_exposures returns, or rows of it."
        )
        parameter = "exposures_or_coordinates"
        raise InvalidRequestError(msg, parameter=parameter, value=table.colnames)
    return table


def plan_exposures(table, products, bands, release, region):
    """Return the files of the CCDs of a table.

    Parameters
    ----------
    table : `~astropy.table.Table`
        From `as_exposures`.
    products : sequence of str
        Out of `EXPOSURE_PRODUCTS`.
    bands : sequence of str or None
        Only CCDs of these.
    release : str
        The release whose layers are asked.
    region : {'auto', 'north', 'south'}
        ``'auto'`` goes by the camera: DECam's are in the south.

    Returns
    -------
    list of ExposureFile
        Each once.
    """
    has_place = {"ra", "dec"} <= set(table.colnames)
    wanted = {}
    for row in table:
        camera, ccd, band = (str(row[name]).strip() for name in ("camera", "ccdname", "filter"))
        if bands is not None and band not in bands:
            continue
        where = region
        if where == "auto":
            where = "south" if camera == "decam" else "north"
        for product in products:
            key = camera, int(row["expnum"]), ccd, band, product
            place = (float(row["ra"]), float(row["dec"])) if has_place else None
            wanted[key] = layer_of(release, where), place
    return [
        ExposureFile(number, *key, *known) for number, (key, known) in enumerate(wanted.items())
    ]


def fetch_exposures(files, service, folder):
    """Fetch files, four at a time, and tell what became of each.

    Parameters
    ----------
    files : list of ExposureFile
        Which.
    service : `~.viewer_service.ViewerService`
        The viewer.
    folder : `~pathlib.Path` or None
        Where they go; `None` for a folder of each layer in the service's cache.

    Returns
    -------
    list of `~astroquery_lis.io.Result`
    """
    work, begun_s = _Fetch(service, folder), time.time()
    with ThreadPoolExecutor(MAX_THREADS, "astroquery_lis-exposures") as executor:
        results = list(
            run(
                work,
                files,
                failed=work.failed,
                total=len(files),
                executor=executor,
                show_progress=False,
                label="files",
            )
        )
    if folder is None:
        keep_within(service.folder.parent, conf.cache_size * GB, keep_since_s=begun_s)
    return sorted(results, key=lambda result: result.row)


class _Fetch:
    """The work of one call: whether the viewer lists a CCD is asked once, after a failure."""

    def __init__(self, service, folder):
        self._service, self._folder = service, folder
        self._listed = {}
        self._lock = threading.Lock()

    def __call__(self, file):
        begun = time.perf_counter()
        folder = self._folder or Path(self._service.folder, "exposures", file.layer.name)
        try:
            got = self._service.save(file.path, folder / file.name)
        except (TransferError, CacheError) as error:
            if self._is_absent(file, error):
                message = f"The viewer's layer {file.layer.name} does not have {file.id}."
                return [Result(file.row, "NODATA", message=message, **self._known(file))]
            return self.failed(file, error)
        status = "COMPLETE" if got.sha256 is not None else "CACHED"
        if self._folder is None:
            mark_used(got.path)
        found = Result(
            file.row,
            status,
            local_path=str(got.path),
            seconds=time.perf_counter() - begun,
            bytes=got.size,
            sha256=got.sha256 or "",
            **self._known(file),
        )
        return [found]

    def failed(self, file, error):
        """Return the results of a file that could not be had."""
        return [failure(file.row, error, **self._known(file))]

    def _known(self, file):
        return {
            "url": f"{self._service.url}/{file.path}",
            "id": file.id,
            "release": file.layer.release,
            "region": file.layer.region,
            "bands": file.band,
        }

    def _is_absent(self, file, error):
        """Tell whether an error means that there is no such CCD: a 500 may mean anything."""
        if isinstance(error, NotFoundError):
            return True
        if not isinstance(error, ServiceDownError) or error.status != 500 or file.place is None:
            return False
        with self._lock:
            if file.id not in self._listed:
                self._listed[file.id] = self._list(file)
            listed = self._listed[file.id]
        return listed is not None and f"{file.camera} {file.expnum}-{file.ccdname}" not in listed

    def _list(self, file):
        """Return the CCDs that the viewer lists round the file's, `None` if it does not tell."""
        ra, dec = file.place
        aside = SEARCH_DEG / max(np.cos(np.radians(dec)), 1e-3)
        try:
            answer = self._service.json(
                "ccds/",
                ralo=f"{(ra - aside) % 360:.6f}",
                rahi=f"{(ra + aside) % 360:.6f}",
                declo=f"{dec - SEARCH_DEG:.6f}",
                dechi=f"{dec + SEARCH_DEG:.6f}",
                layer=file.layer.name,
            )
            # "decam 410003-N4-r": without the band, which is a property of the exposure.
            return {polygon["name"].rpartition("-")[0] for polygon in answer["polys"]}
        except (TransferError, KeyError, TypeError, AttributeError):
            return None
