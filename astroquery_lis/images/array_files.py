"""The cutouts of a job as arrays in one file, HDF5 or zarr, for machines that learn, and an index.

::

    image, invvar, ...   (n, bands, ny, nx), of the survey's type; by the product's name
    image_wise, ...      the same of the WISE bands, on their own pixels
    maskbits             (n, ny, nx): products without bands
    observed             (n, planes): the share of the plane's pixels that were observed
    has                  (n, planes): whether any was; the plane holds no values if not
    index                (n,): row, id, ra, dec, brick, region, request, layer

Attributes: ``planes``, ``bands``, ``release``, ``creator``; of each array ``bands`` and ``unit``.
HDF5 has the last three as datasets.  Beside a zarr file, which is one zip, lies a parquet
file of the index, with columns ``has_`` and ``observed_`` for each plane.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from astropy.io import fits
from astropy.table import Table

from .._packages import import_optional
from ..io.jobs import Result
from ..io.whole_files import check_space, write_whole, writing
from ..survey.paths import IMAGE_PRODUCTS
from ..survey.placement import cached_name
from ..survey.releases import DERIVED, WISE_BANDS, WISE_PRODUCTS
from ..survey.request import CutoutRequest
from .cutout_hdus import FLUX_PRODUCTS
from .plain import CREATOR, PlainCutout, plane_name

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from .cutting import Answer, CutoutJob

BUFFER_BYTES = 1 << 20
"""Cutouts are written in slabs of about this size; a chunk of a zarr array is one."""


class _Slot(NamedTuple):
    """Where a plane goes: an array, the place on its axis of bands, and how the plane is called."""

    array: str
    band: str | None
    plane: str


class _Array(Protocol):
    """An array in a file, as h5py and zarr have it."""

    @property
    def attrs(self) -> Mapping[str, Iterable[str]]:
        """What is said of it."""

    def __getitem__(self, key: tuple[int, ...], /) -> np.ndarray: ...

    def __setitem__(self, key: Any, value: Any, /) -> None: ...


class _Unfailing(io.FileIO):
    """A file of which HDF5 never hears that a write failed: it would end the process at its end."""

    error: OSError | None = None

    def write(self, data: Buffer) -> int:
        """Write all of what is given, or keep the error."""
        size, done = memoryview(data).nbytes, 0
        try:
            while self.error is None and done < size:
                done += super().write(memoryview(data)[done:])
        except OSError as error:
            self.error = error
        return size

    def truncate(self, size: int | None = None) -> int:
        """Change the size, or keep the error."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = error
            return size or 0


class _Hdf5:
    """A file of HDF5."""

    suffix = ".h5"

    def __init__(self, path: Path, target: Path, attributes: Facts) -> None:
        h5py = import_optional("h5py", "batch", "output='hdf5'")
        self._stream = _Unfailing(path, "w+")
        self._file = h5py.File(self._stream, "w")
        self._file.attrs.update(attributes)

    def create(
        self, name: str, shape: tuple[int, ...], chunk: int, attributes: Facts, **options: Any
    ) -> _Array:
        entry = shape[1:]
        dataset = self._file.create_dataset(
            name, shape, maxshape=(None, *entry), chunks=(1, *entry), **options
        )
        dataset.attrs.update(attributes)
        return dataset

    def finish(self, rows: list[Facts], shares: np.ndarray, planes: list[str]) -> None:
        """Cut the arrays to the number of rows, add the index, and close the file."""
        index = Table(rows=rows)
        index.convert_unicode_to_bytestring()
        try:
            for dataset in self._file.values():
                dataset.resize(len(rows), axis=0)
            self._file["observed"] = shares
            self._file["has"] = shares > 0
            self._file["index"] = index.as_array()
            self.close()
        finally:
            self.check()

    def check(self) -> None:
        if self._stream.error is not None:
            raise self._stream.error

    def close(self) -> None:
        self._file.close()
        self._stream.close()

    @staticmethod
    @contextmanager
    def arrays(path: Path) -> Iterator[Mapping[str, _Array]]:
        """Open a file for reading."""
        with import_optional("h5py", "batch", "output='hdf5'").File(path) as file:
            yield file

    @staticmethod
    def read_index(path: Path) -> tuple[list[Facts], np.ndarray, list[str]]:
        """Return the rows of the index, what was observed of which planes, and their names."""
        with import_optional("h5py", "batch", "output='hdf5'").File(path) as file:
            table = Table(file["index"][:])
            table.convert_bytestring_to_unicode()
            entries = table.as_array().tolist()
            rows = [dict(zip(table.colnames, entry, strict=True)) for entry in entries]
            return rows, file["observed"][:], list(file.attrs["planes"])


class _Zarr:
    """A zip with the arrays of a zarr group (format 3), and the index beside it."""

    suffix = ".zarr.zip"

    def __init__(self, path: Path, target: Path, attributes: Facts) -> None:
        zarr = import_optional("zarr", "batch", "output='zarr'")
        self._index_path = _index_path(target)
        self._store = zarr.storage.ZipStore(path, mode="w")
        self._group = zarr.create_group(self._store, attributes=attributes, zarr_format=3)
        self._arrays: list[Any] = []

    def create(
        self, name: str, shape: tuple[int, ...], chunk: int, attributes: Facts, **options: Any
    ) -> _Array:
        array = self._group.create_array(
            name,
            shape=shape,
            chunks=(min(chunk, shape[0]), *shape[1:]),
            compressors=None,
            fill_value=options["fillvalue"],
            dtype=options["dtype"],
            attributes=attributes,
        )
        self._arrays.append(array)
        return array

    def finish(self, rows: list[Facts], shares: np.ndarray, planes: list[str]) -> None:
        """Cut the arrays to the number of rows, close the file, and write the index."""
        pyarrow = import_optional("pyarrow", "batch", "output='zarr'")
        parquet = import_optional("pyarrow.parquet", "batch", "output='zarr'")
        with warnings.catch_warnings():
            # A zip keeps the first description of an array beside the last, which is read.
            warnings.filterwarnings("ignore", message="Duplicate name", category=UserWarning)
            for array in self._arrays:
                if array.shape[0] > len(rows):
                    array.resize((len(rows), *array.shape[1:]))
        self.close()
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        flags = {f"has_{name}": shares[:, i] > 0 for i, name in enumerate(planes)}
        flags |= {f"observed_{name}": shares[:, i] for i, name in enumerate(planes)}
        with write_whole(self._index_path) as temporary:
            parquet.write_table(pyarrow.table({**columns, **flags}), temporary)

    def check(self) -> None:
        pass

    def close(self) -> None:
        self._store.close()

    @staticmethod
    @contextmanager
    def arrays(path: Path) -> Iterator[Mapping[str, _Array]]:
        """Open a file for reading."""
        zarr = import_optional("zarr", "batch", "output='zarr'")
        with zarr.storage.ZipStore(path, mode="r") as store:
            yield zarr.open_group(store, mode="r")

    @staticmethod
    def read_index(path: Path) -> tuple[list[Facts], np.ndarray, list[str]]:
        """Return the rows of the index, what was observed of which planes, and their names."""
        parquet = import_optional("pyarrow.parquet", "batch", "output='zarr'")
        table = parquet.read_table(_index_path(path))
        planes = [name.removeprefix("has_") for name in table.column_names if name[:4] == "has_"]
        shares = np.array([table[f"observed_{name}"].to_numpy() for name in planes]).T
        return table.to_pylist(), shares, planes


_CONTAINERS: dict[str, type[_Hdf5 | _Zarr]] = {"hdf5": _Hdf5, "zarr": _Zarr}
ARRAY_OUTPUTS = tuple(_CONTAINERS)


@lru_cache(maxsize=4)
def _read_index(
    kind: type[_Hdf5 | _Zarr], path: Path, modified_ns: int, n_bytes: int
) -> tuple[list[Facts], np.ndarray, list[str]]:
    """Return the index of a file in the state told by its date and size, for one target each."""
    return kind.read_index(path)


def read_entry(path: Path, name: str, row: int) -> tuple[fits.HDUList, Facts]:
    """Return the images of a target in a file of arrays, and its row of the index.

    It is the only one of that name, or else the one of that row.
    """
    kind = _Zarr if path.name.endswith(_Zarr.suffix) else _Hdf5
    status = (_index_path(path) if kind is _Zarr else path).stat()
    entries, shares, planes = _read_index(kind, path, status.st_mtime_ns, status.st_size)
    places = [i for i, entry in enumerate(entries) if str(entry["id"]) == name]
    if len(places) != 1:
        places = [i for i, entry in enumerate(entries) if int(entry["row"]) == row]
    (place,) = places
    has = dict(zip(planes, shares[place] > 0, strict=True))
    hdus = [fits.PrimaryHDU()]
    with kind.arrays(path) as arrays:
        for array in FLUX_PRODUCTS:
            bands = arrays[array].attrs["bands"] if array in arrays else ()
            for number, band in enumerate(map(str, bands)):
                extname = plane_name(array, band)
                if has[extname]:
                    hdus.append(fits.ImageHDU(arrays[array][place, number], name=extname))
                    hdus[-1].header["BAND"] = band
    return fits.HDUList(hdus), entries[place]


def _index_path(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(_Zarr.suffix) + ".parquet")


class _Buffered:
    """An array that is filled entry by entry and written slab by slab."""

    def __init__(
        self, array: _Array, fill: Any, values: np.ndarray, folder: Path, file: _Hdf5 | _Zarr
    ) -> None:
        self._array, self._fill, self._folder, self._file = array, fill, folder, file
        self._values = values
        self._start = 0

    def put(self, entry: int, place: int | None, pixels: np.ndarray) -> None:
        """Set one plane of an entry; entries come in order."""
        if entry >= self._start + len(self._values):
            self.flush(entry)
            # Slabs are whole chunks, wherever the first entry of a plane is.
            self._start = entry - entry % len(self._values)
        where = (entry - self._start,) if place is None else (entry - self._start, place)
        self._values[where] = pixels

    def flush(self, stop: int) -> None:
        """Write what there is, of the entries before ``stop``."""
        stop = min(stop, self._start + len(self._values))
        if stop > self._start:
            check_space(self._folder, self._values.nbytes)
            with writing(self._folder):
                self._array[self._start : stop] = self._values[: stop - self._start]
                self._file.check()
        self._values[...] = self._fill


class ArrayFile:
    """One file for all targets of a job, filled one by one."""

    def __init__(self, folder: str, job: CutoutJob, output: str) -> None:
        self._kind = _CONTAINERS[output]
        self._folder = folder
        self.job = job
        self._path = self._path_of(job)
        self._resources = ExitStack()
        self._rows: list[Facts] = []
        self._written: Facts = {}
        chain = list(_chain(job.templates[0]))
        self._slots = list(dict.fromkeys(slot for request in chain for slot in _slots(request)))
        self._planes = [slot.plane for slot in self._slots]
        self._bands: dict[str, list[str]] = {}
        for slot in self._slots:
            names = self._bands.setdefault(slot.array, [])
            if slot.band is not None and slot.band not in names:
                names.append(slot.band)

    def _path_of(self, job: CutoutJob) -> Path:
        """Return the path of a job's file: its first row, and a digest of all."""
        digest = hashlib.sha256(np.asarray(job.rows, "<i8").tobytes()).hexdigest()[:8]
        first = int(job.rows.min()) if len(job) else 0
        return Path(self._folder, f"cutouts-{first:08d}-{digest}{self._kind.suffix}")

    def earlier_results(self) -> list[Result]:
        """Return the results that files of the same job have; what they lack goes to another."""
        results: list[Result] = []
        while len(self.job) and self._path.exists():
            found = list(self._read_results())
            if not found:
                break
            results += found
            rows = {result.row for result in found}
            indices = [i for i in range(len(self.job)) if int(self.job.rows[i]) not in rows]
            self.job = self.job.part(indices)
            self._path = self._path_of(self.job)
        return results

    def _read_results(self) -> Iterator[Result]:
        """Yield the results of the targets that the file has."""
        written = self._whole_file(self._path)
        places = {int(row): index for index, row in enumerate(self.job.rows)}
        entries, shares, planes = self._kind.read_index(self._path)
        slots = {slot.plane: slot for slot in self._slots}
        for entry, of_planes in zip(entries, shares, strict=True):
            index = places.get(int(entry["row"]))
            if index is None:
                continue
            request = self.job.request(index)
            if request.key[:32] != entry["request"]:
                continue
            of_band: dict[str, float] = {}
            for plane, share in zip(planes, of_planes.tolist(), strict=True):
                band = slots[plane].band
                if band and share:
                    of_band.setdefault(band, share)
            row, facts = int(self.job.rows[index]), self.job.facts(index)
            texts: Facts = {"bands": ",".join(of_band), "observed": shares_text(of_band.values())}
            yield Result(row, "COMPLETE", layer=entry.get("layer", ""), **texts, **written, **facts)

    def _whole_file(self, path: Path) -> Facts:
        with open(path, "rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        size = path.stat().st_size
        return {"local_path": str(self._path), "bytes": size, "sha256": digest}

    def __enter__(self) -> ArrayFile:
        self._temporary = self._resources.enter_context(write_whole(self._path, locked=False))
        release = self.job.templates[0].release
        attributes = {
            "planes": self._planes,
            "bands": list(dict.fromkeys(s.band for s in self._slots if s.band is not None)),
            "release": release.name if release else "",
            "creator": CREATOR,
        }
        self._file = self._kind(self._temporary, self._path, attributes)
        # If anything is raised, the file is closed before it is removed.
        self._resources.callback(self._file.close)
        self._arrays: dict[str, _Buffered] = {}
        self._shares = np.zeros((len(self.job), len(self._slots)), np.float32)
        return self

    def __exit__(self, *exc_info: Any) -> None:
        if exc_info[0] is not None:
            self._resources.__exit__(*exc_info)
            return
        # What fails here leaves no half of a file either.
        with self._resources:
            self._finish()

    def _array(self, name: str, shape: tuple[int, ...]) -> _Buffered:
        """Return an array, made when its first plane comes."""
        if name not in self._arrays:
            bands = self._bands.get(name, [])
            entry = (len(bands), *shape) if bands else shape
            product = IMAGE_PRODUCTS.get(name.removesuffix("_wise"))
            fill = product.no_value if product is not None else np.nan
            dtype = np.dtype(product.dtype if product is not None else np.float32)
            chunk = max(BUFFER_BYTES // (int(np.prod(entry)) * dtype.itemsize), 1)
            attributes = {"bands": bands, "unit": product.unit if product else ""}
            whole = len(self.job), *entry
            array = self._file.create(name, whole, chunk, attributes, dtype=dtype, fillvalue=fill)
            folder = self._path.parent
            values = np.full((chunk, *entry), fill, dtype)
            self._arrays[name] = _Buffered(array, fill, values, folder, self._file)
        return self._arrays[name]

    def add(self, index: int, request: CutoutRequest, answer: Answer, facts: Facts) -> Facts:
        """Write one cutout to the next place."""
        plain = answer if isinstance(answer, PlainCutout) else PlainCutout.of(answer)
        planes = {image.name: image for image in plain.images}
        n = len(self._rows)
        for number, slot in enumerate(self._slots):
            image = planes.get(slot.plane)
            if image is not None:
                place = self._bands[slot.array].index(slot.band) if slot.band else None
                pixels = image.pixels
                self._array(slot.array, pixels.shape).put(n, place, pixels)
                self._shares[n, number] = image.header.get("OBSFRAC", 1.0)
        self._rows.append(
            {
                "row": int(self.job.rows[index]),
                "id": self.job.ids[index],  # of its own type, so that large numbers stay whole
                "ra": request.ra_deg,
                "dec": request.dec_deg,
                "brick": cached_name(int(self.job.bricks[index])),
                "region": facts.get("region", ""),
                "request": request.key[:32],
                "layer": str(plain.header.get("LAYER", "")),
            }
        )
        return {"local_path": str(self._path)}

    def _finish(self) -> None:
        """Cut off the places that were not used and write the index; keep no file without any."""
        if not self._rows:
            self._file.close()
            self._temporary.unlink()
            return
        for array in self._arrays.values():
            array.flush(len(self._rows))
        self._file.finish(self._rows, self._shares[: len(self._rows)], self._planes)
        self._written = self._whole_file(self._temporary)

    def completed(self, result: Result) -> Result:
        """Return a result with the size and the digest of the whole file."""
        return replace(result, **self._written)


def _chain(request: CutoutRequest) -> Iterator[CutoutRequest]:
    """Yield a request and those that it falls back on."""
    yield request
    if request.fallback is not None:
        yield from _chain(request.fallback)


def _slots(request: CutoutRequest) -> Iterator[_Slot]:
    """Yield the planes that a cutout may have, in order."""
    optical, wise = _bands(request)
    for product in request.products:
        name = product
        if request.layer is not None and product == "image":
            name = request.layer.product
        known = IMAGE_PRODUCTS.get(product)
        if known is not None and not known.per_band:
            yield _Slot(product, None, plane_name(name))
            continue
        for band in optical:
            yield _Slot(product, band, plane_name(name, band))
        if product in WISE_PRODUCTS or product in DERIVED:
            array = product if request.wise_grid == "optical" or request.wcs else f"{product}_wise"
            for band in wise:
                yield _Slot(array, band, plane_name(name, band))


def _bands(request: CutoutRequest) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the bands that a cutout may have: optical ones, or the layer's, and those of WISE."""
    if request.layer is not None:
        return request.bands or request.layer.default_bands or request.layer.bands, ()
    assert request.release is not None
    if request.bands is not None:
        wise = tuple(band for band in request.bands if band in WISE_BANDS)
        return tuple(band for band in request.bands if band not in wise), wise
    return request.release.bands_in[request.region], ()


Facts = dict[str, Any]
"""What a target's `Result` says of it, whatever happens: id, release, region."""


def shares_text(shares: Iterable[float]) -> str:
    """Return shares as text."""
    return ",".join(f"{share:.4g}" for share in shares)
