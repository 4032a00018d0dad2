"""What a worker does for a job of many cutouts: cut, write, and say what happened to each.

Everything here is importable and takes small, picklable arguments, so that it runs in threads,
processes and on clusters alike; the settings come with the work.  A job is written as a FITS file
for each target, or as one HDF5 file, arrays for machines that learn, and an index::

    image, invvar, ...   (n, bands, ny, nx), of the survey's type; by the product's name
    maskbits             (n, ny, nx): products without bands
    has                  (n, planes): whether the target has the plane; it holds no values if not
    index                (n,): row, id, ra, dec, brick, region, request

Attributes of the HDF5 file: ``bands``, ``planes``, ``release``, ``creator``.
"""

from __future__ import annotations

import hashlib
import io
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from astropy.io import fits

from .._packages import import_optional, package_version
from ..exceptions import LegacySurveyError, NoCoverageError
from ..io.http import HttpClient
from ..io.jobs import Result, failure, portable
from ..io.mirrors import Mirror
from ..io.store import write_whole
from ..survey.bricks import brick_id, brick_name, region_of_brick
from ..survey.paths import MASK_PLANES, coadd_product
from ..survey.releases import get_release, get_tree
from ..survey.request import CutoutRequest, plane_name
from .coadds import coadd_cutout, coadd_sections, collected_notes
from .reader import OpenImages, SectionReader
from .strips import SharedFiles

__all__ = [
    "Access",
    "BulkSpec",
    "CutoutJob",
    "cutouts_of_job",
    "each_cutout",
    "file_name",
    "safe_name",
    "save_job",
    "target_facts",
]

Facts = dict[str, Any]
"""What a target's `Result` says of it, whatever happens: id, release, region."""


@dataclass(frozen=True)
class Access:
    """How a worker gets at the files: without a location nothing is kept."""

    mirrors: tuple[Mirror, ...]
    location: str | None
    client_options: tuple[tuple[str, Any], ...]  # of HttpClient, names and values


@dataclass(frozen=True)
class BulkSpec:
    """What is cut round every target, and where it goes."""

    ny: int
    nx: int
    products: tuple[str, ...]
    bands: tuple[str, ...] | None
    release: str
    region: str
    on_missing: str
    folder: str = ""  # where files are written; empty if none are
    ids_are_names: bool = False  # a target's id alone makes the name of its file

    def request(self, ra_deg: float, dec_deg: float) -> CutoutRequest:
        """Return the request for one position."""
        return CutoutRequest(
            float(ra_deg),
            float(dec_deg),
            self.ny,
            self.nx,
            self.products,
            self.bands,
            get_release(self.release),
            self.region,
        )


@dataclass(frozen=True, eq=False)
class CutoutJob:
    """Targets whose cutouts share files, in the order that is good for reading them."""

    rows: np.ndarray  # numbers of the targets in what the user gave
    ids: np.ndarray
    ra_deg: np.ndarray
    dec_deg: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def target(self, index: int) -> tuple[int, int | str, float, float]:
        """Return row, id, RA and Dec of one target, as Python's own types."""
        name = self.ids[index]
        name = name.item() if hasattr(name, "item") else name
        return int(self.rows[index]), name, float(self.ra_deg[index]), float(self.dec_deg[index])

    def part(self, indices: Sequence[int]) -> CutoutJob:
        """Return a job of some of the targets."""
        columns = (self.rows, self.ids, self.ra_deg, self.dec_deg)
        return CutoutJob(*(column[np.asarray(indices, int)] for column in columns))


# ---- cutting ------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def _client(client_options: tuple[tuple[str, Any], ...]) -> HttpClient:
    """Return this process's client for these settings, so that jobs share connections."""
    return HttpClient(**dict(client_options))


def each_cutout(
    spec: BulkSpec, access: Access, job: CutoutJob
) -> Iterator[tuple[int, CutoutRequest, fits.HDUList | Exception, list[str]]]:
    """Yield index, request, cutout or the error, and notes, of one target after the other."""
    requests = [spec.request(ra, dec) for ra, dec in zip(job.ra_deg, job.dec_deg, strict=True)]
    sections = [coadd_sections(request) for request in requests]
    shared = SharedFiles()
    for boxes in sections:
        shared.expect(boxes)
    client = _client(access.client_options)
    with SectionReader(client, access.mirrors, access.location, OpenImages(), shared) as reader:
        for index, (request, boxes) in enumerate(zip(requests, sections, strict=True)):
            with collected_notes() as notes:
                try:
                    hdul = coadd_cutout(request, reader, on_missing=spec.on_missing)
                except Exception as error:  # one target must not take the others with it
                    hdul = error
                finally:
                    shared.release(boxes)
            yield index, request, hdul, notes


def cutouts_of_job(
    spec: BulkSpec, access: Access, job: CutoutJob
) -> list[tuple[int, fits.HDUList | Exception]]:
    """Return row and cutout of every target of a job, or the error that says why there is none."""
    return [
        (int(job.rows[i]), portable(hdul) if isinstance(hdul, Exception) else hdul)
        for i, _, hdul, _ in each_cutout(spec, access, job)
    ]


def target_facts(spec: BulkSpec, name: int | str, ra_deg: float, dec_deg: float) -> Facts:
    """Return what is known of a target's `Result` beforehand."""
    region = spec.region
    if region == "auto":
        region = str(region_of_brick(brick_id(ra_deg, dec_deg), spec.release))
    return {"id": name, "release": spec.release, "region": region}


def safe_name(name: int | str) -> str:
    """Return a name with nothing in it that a file system may refuse."""
    return re.sub(r"[^A-Za-z0-9+._-]", "_", str(name)).lstrip(".")[:200] or "_"


def file_name(spec: BulkSpec, row: int, name: int | str) -> str:
    """Return the name of a target's file."""
    stem = safe_name(name)
    return f"{stem}.fits" if spec.ids_are_names else f"{stem}_{row}.fits"


# ---- writing ------------------------------------------------------------------------------------


class _Output(Protocol):
    """Where the cutouts of a job are written.  A context manager."""

    job: CutoutJob  # what is left to do

    def earlier_results(self) -> list[Result]:
        """Return the results of targets that an earlier run wrote, and leave those out."""

    def add(self, index: int, request: CutoutRequest, hdul: fits.HDUList, facts: Facts) -> Facts:
        """Write one cutout and return what its result says of the file."""

    def completed(self, result: Result) -> Result:
        """Return a result with what is known only when everything is written."""

    def __enter__(self) -> _Output: ...

    def __exit__(self, *exc_info: Any) -> None: ...


def save_job(
    spec: BulkSpec, access: Access, job: CutoutJob, *, output: str = "fits"
) -> list[Result]:
    """Cut the targets of a job and write them; what an earlier run wrote is left alone."""
    files: _Output = _FitsFiles(spec, job) if output == "fits" else _ShardFile(spec, job)
    earlier = files.earlier_results()
    job = files.job
    if not len(job):
        return earlier
    results = []
    start_s = time.perf_counter()
    with files:
        for index, request, hdul, notes in each_cutout(spec, access, job):
            row, name, ra_deg, dec_deg = job.target(index)
            facts = target_facts(spec, name, ra_deg, dec_deg)
            try:
                if isinstance(hdul, Exception):
                    raise hdul
                cards = {
                    "message": " ".join(notes),
                    "url": hdul[1].header.get("URL1", ""),
                    "bands": hdul[0].header.get("BANDS", ""),
                }
                written = files.add(index, request, hdul, facts)
                result = Result(row, "COMPLETE", **cards, **written, **facts)
            except NoCoverageError as error:
                result = Result(row, "NODATA", message=str(error), **facts)
            except Exception as error:
                result = failure(row, error, **facts)
            end_s = time.perf_counter()
            results.append(replace(result, seconds=round(end_s - start_s, 4)))
            start_s = end_s
    return earlier + [files.completed(r) if r.status == "COMPLETE" else r for r in results]


def _file_facts(path: Path, data: bytes) -> Facts:
    digest = hashlib.sha256(data).hexdigest()
    return {"local_path": str(path), "bytes": len(data), "sha256": digest}


class _FitsFiles:
    """A FITS file for each target."""

    def __init__(self, spec: BulkSpec, job: CutoutJob) -> None:
        self._spec = spec
        self.job = job

    def __enter__(self) -> _FitsFiles:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def _path(self, row: int, name: int | str) -> Path:
        return Path(self._spec.folder, file_name(self._spec, row, name))

    def earlier_results(self) -> list[Result]:
        """Return the results of targets whose files are there, and leave those out."""
        results, indices = [], []
        for index in range(len(self.job)):
            result = self._earlier_result(*self.job.target(index))
            if result is None:
                indices.append(index)
            else:
                results.append(result)
        self.job = self.job.part(indices)
        return results

    def _earlier_result(
        self, row: int, name: int | str, ra_deg: float, dec_deg: float
    ) -> Result | None:
        path = self._path(row, name)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        facts = target_facts(self._spec, name, ra_deg, dec_deg)
        try:
            with fits.open(io.BytesIO(data)) as hdul:
                key = self._spec.request(ra_deg, dec_deg).key[:32]
                if hdul[0].header.get("REQKEY") == key:
                    url, bands = hdul[1].header.get("URL1", ""), hdul[0].header.get("BANDS", "")
                    written = _file_facts(path, data)
                    return Result(row, "COMPLETE", url=url, bands=bands, **written, **facts)
        except OSError:
            pass
        msg = f"{path} is there and is not of this job; move it away."
        return failure(row, LegacySurveyError(msg), **facts)

    def add(self, index: int, request: CutoutRequest, hdul: fits.HDUList, facts: Facts) -> Facts:
        """Write the file of one target."""
        path = self._path(int(self.job.rows[index]), facts["id"])
        with io.BytesIO() as stream:
            # The headers are our own; to check every card again takes a third of the time.
            hdul.writeto(stream, output_verify="ignore")
            data = stream.getvalue()
        with write_whole(path) as temporary:
            temporary.write_bytes(data)
        return _file_facts(path, data)

    def completed(self, result: Result) -> Result:
        """Return the result as it is."""
        return result


class _ShardFile:
    """One HDF5 file for all targets of a job, filled one by one."""

    def __init__(self, spec: BulkSpec, job: CutoutJob) -> None:
        self._h5py = import_optional("h5py", "batch", "output='hdf5'")
        self._spec = spec
        self.job = job
        self._path = self._path_of(job)
        self._resources = ExitStack()
        self._n = 0
        self._written: Facts = {}
        tree = None if spec.region == "auto" else get_tree(spec.release, spec.region)
        self._bands = spec.bands or (tree or get_release(spec.release)).bands
        self._planes = [
            (name, i, band)
            for name in spec.products
            for i, band in enumerate(self._bands if coadd_product(name).per_band else (None,))
        ]

    def _path_of(self, job: CutoutJob) -> Path:
        """Return the path of a job's file: its first row, and a digest of all."""
        digest = hashlib.sha256(np.asarray(job.rows, "<i8").tobytes()).hexdigest()[:8]
        first = int(job.rows.min()) if len(job) else 0
        return Path(self._spec.folder, f"cutouts-{first:08d}-{digest}.h5")

    def earlier_results(self) -> list[Result]:
        """Return the results that files of the same job have; what they lack goes to another."""
        results: list[Result] = []
        while len(self.job) and self._path.exists() and (found := self._read_results()):
            results += found
            rows = {result.row for result in found}
            indices = [i for i in range(len(self.job)) if int(self.job.rows[i]) not in rows]
            self.job = self.job.part(indices)
            self._path = self._path_of(self.job)
        return results

    def _read_results(self) -> list[Result]:
        """Return the results of the targets that the file has."""
        written = self._whole_file(self._path)
        places = {int(row): index for index, row in enumerate(self.job.rows)}
        results = []
        with self._h5py.File(self._path) as file:
            planes = [name.partition("_") for name in file.attrs["planes"]]
            for entry, has in zip(file["index"][:], file["has"][:], strict=True):
                index = places.get(int(entry["row"]))
                if index is None:
                    continue
                row, name, ra_deg, dec_deg = self.job.target(index)
                if self._spec.request(ra_deg, dec_deg).key[:32].encode() != entry["request"]:
                    continue
                bands = dict.fromkeys(
                    band.lower() for (_, _, band), there in zip(planes, has, strict=True) if there
                )
                facts = target_facts(self._spec, name, ra_deg, dec_deg)
                names = ",".join(band for band in bands if band)
                results.append(Result(row, "COMPLETE", bands=names, **written, **facts))
        return results

    def _whole_file(self, path: Path) -> Facts:
        with open(path, "rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        size = path.stat().st_size
        return {"local_path": str(self._path), "bytes": size, "sha256": digest}

    def __enter__(self) -> _ShardFile:
        self._temporary = self._resources.enter_context(write_whole(self._path, locked=False))
        self._file = self._h5py.File(self._temporary, "w")
        # If anything is raised, the file is closed before it is removed.
        self._resources.callback(self._file.close)
        self._make_datasets()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        if exc_info[0] is None:
            self._finish()
        self._resources.__exit__(*exc_info)

    def _make_datasets(self) -> None:
        self._data = {}
        for name in self._spec.products:
            product = coadd_product(name)
            axes = (len(self._bands),) if product.per_band else ()
            shape = (*axes, self._spec.ny, self._spec.nx)
            self._data[name] = self._file.create_dataset(
                name,
                (len(self.job), *shape),
                _dtype(name),
                maxshape=(None, *shape),
                chunks=(1, *shape),
                fillvalue=product.no_value,
            )
            self._data[name].attrs["unit"] = product.unit
        self._has = np.zeros((len(self.job), len(self._planes)), bool)
        self._index = np.zeros(len(self.job), self._index_dtype())
        attributes = self._file.attrs
        attributes["planes"] = [plane_name(name, band) for name, _, band in self._planes]
        attributes["bands"] = list(self._bands)
        attributes["release"] = self._spec.release
        attributes["creator"] = f"astroquery_lis {package_version()}"

    def _index_dtype(self) -> list[tuple[str, np.dtype | str]]:
        ids = self.job.ids
        if ids.dtype.kind in "iu":
            kind = ids.dtype
        else:
            kind = np.array([str(name).encode() for name in ids.tolist()]).dtype
        return [
            ("row", "i8"),
            ("id", kind),
            ("ra", "f8"),
            ("dec", "f8"),
            ("brick", "S8"),
            ("region", "S5"),
            ("request", "S32"),
        ]

    def add(self, index: int, request: CutoutRequest, hdul: fits.HDUList, facts: Facts) -> Facts:
        """Write one cutout to the next place."""
        names = {hdu.name for hdu in hdul[1:]}
        for number, (product, band_index, band) in enumerate(self._planes):
            extname = plane_name(product, band)
            if extname in names:
                where = (self._n,) if band is None else (self._n, band_index)
                self._data[product][where] = hdul[extname].data
                self._has[self._n, number] = True
        row, name, ra_deg, dec_deg = self.job.target(index)
        self._index[self._n] = (
            row,
            name if isinstance(name, int) else str(name).encode(),
            ra_deg,
            dec_deg,
            str(brick_name(ra_deg, dec_deg)).encode(),
            facts["region"].encode(),
            request.key[:32].encode(),
        )
        self._n += 1
        return {"local_path": str(self._path)}

    def _finish(self) -> None:
        """Cut off the places that were not used and write the index; keep no file without any."""
        for dataset in self._data.values():
            dataset.resize(self._n, axis=0)
        self._file["has"] = self._has[: self._n]
        self._file["index"] = self._index[: self._n]
        self._file.close()
        if self._n:
            self._written = self._whole_file(self._temporary)
        else:
            self._temporary.unlink()

    def completed(self, result: Result) -> Result:
        """Return a result with the size and the digest of the whole file."""
        return replace(result, **self._written)


def _dtype(product: str) -> type:
    if product in ("maskbits", *MASK_PLANES):
        return np.int32
    return np.int16 if product == "nexp" else np.float32
