"""Cutouts of a job as one HDF5 file: arrays for machines that learn, and an index.

::

    image, invvar, ...   (n, bands, ny, nx), of the survey's type; by the product's name
    maskbits             (n, ny, nx): products without bands
    has                  (n, planes): whether the target has the plane; it holds no values if not
    index                (n,): row, id, ra, dec, brick, region, request

Attributes of the file: ``bands``, ``planes``, ``release``, ``creator``.
"""

import hashlib
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from .._packages import import_optional, package_version
from ..io import Result
from ..io.store import write_whole
from ..survey.bricks import brick_name
from ..survey.paths import MASK_PLANES, coadd_product
from ..survey.releases import get_release, get_tree
from .bulk import each_cutout, known_of, told

__all__ = ["save_shard", "shard_name"]


def shard_name(job):
    """Return the name of a job's file: its first row, and a digest of all."""
    digest = hashlib.sha256(np.asarray(job.rows, "<i8").tobytes()).hexdigest()[:8]
    return f"cutouts-{int(job.rows.min()):08d}-{digest}.h5"


def save_shard(spec, access, job):
    """Cut the targets of a job and write them to one HDF5 file."""
    h5py = import_optional("h5py", "batch", "output='hdf5'")
    results = []
    path = Path(spec.folder, shard_name(job))
    while path.exists() and (found := _read_results(h5py, spec, job, path)):
        results += found
        rows = {result.row for result in found}
        job = job.part([i for i in range(len(job)) if int(job.rows[i]) not in rows])
        if not len(job):
            return results
        path = Path(spec.folder, shard_name(job))
    return results + _write_shard(h5py, spec, access, job, path)


def _write_shard(h5py, spec, access, job, path):
    done, others = [], []
    begun = time.perf_counter()
    with write_whole(path, locked=False) as temporary:
        with h5py.File(temporary, "w") as file:
            shard = _Shard(file, spec, job)
            for index, request, hdul, notes in each_cutout(spec, access, job):
                row, *target = job.target(index)
                known = known_of(spec, *target)
                try:
                    if isinstance(hdul, Exception):
                        raise hdul
                    shard.add(index, request, hdul, known["region"])
                    result = _complete(row, path, hdul, notes, known)
                except Exception as error:
                    result = told(row, error, known)
                ended = time.perf_counter()
                result = replace(result, seconds=round(ended - begun, 4))
                (done if result.status == "COMPLETE" else others).append(result)
                begun = ended
            shard.finish()
        if done:
            with open(temporary, "rb") as stream:
                sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            size = temporary.stat().st_size
        else:
            temporary.unlink()
    return [*others, *(replace(result, sha256=sha256, bytes=size) for result in done)]


def _complete(row, path, hdul, notes, known):
    return Result(
        row,
        "COMPLETE",
        local_path=str(path),
        message=" ".join(notes),
        url=hdul[1].header.get("URL1", ""),
        bands=hdul[0].header.get("BANDS", ""),
        **known,
    )


class _Shard:
    """The datasets of one file, filled target by target."""

    def __init__(self, file, spec, job):
        bands = spec.bands or _all_bands(spec)
        self._n = 0
        self._job, self._file, self._bands = job, file, bands
        self._planes, self._data = [], {}
        for name in spec.products:
            product = coadd_product(name)
            axes = (len(bands),) if product.per_band else ()
            shape = (*axes, spec.ny, spec.nx)
            self._data[name] = file.create_dataset(
                name,
                (len(job), *shape),
                _dtype(name),
                maxshape=(None, *shape),
                chunks=(1, *shape),
                fillvalue=product.no_value,
            )
            self._data[name].attrs["unit"] = product.unit
            letters = bands if product.per_band else (None,)
            self._planes += [(name, i, band) for i, band in enumerate(letters)]
        self._has = np.zeros((len(job), len(self._planes)), bool)
        self._index = np.zeros(len(job), self._index_dtype())
        file.attrs["planes"] = [_extname(name, band) for name, _, band in self._planes]
        file.attrs["bands"] = list(bands)
        file.attrs["release"] = spec.release
        file.attrs["creator"] = f"astroquery_lis {package_version()}"

    def _index_dtype(self):
        ids = self._job.ids
        kind = ids.dtype if ids.dtype.kind in "iu" else f"S{_encoded(ids).dtype.itemsize}"
        return [
            ("row", "i8"),
            ("id", kind),
            ("ra", "f8"),
            ("dec", "f8"),
            ("brick", "S8"),
            ("region", "S5"),
            ("request", "S32"),
        ]

    def add(self, index, request, hdul, region):
        """Write one cutout to the next place."""
        names = {hdu.name for hdu in hdul[1:]}
        for number, (name, band_index, band) in enumerate(self._planes):
            extname = _extname(name, band)
            if extname in names:
                where = (self._n,) if band is None else (self._n, band_index)
                self._data[name][where] = hdul[extname].data
                self._has[self._n, number] = True
        row, name, ra_deg, dec_deg = self._job.target(index)
        self._index[self._n] = (
            row,
            name if isinstance(name, int) else str(name).encode(),
            ra_deg,
            dec_deg,
            brick_name(ra_deg, dec_deg).encode(),
            region.encode(),
            request.key[:32].encode(),
        )
        self._n += 1

    def finish(self):
        """Cut off the places that were not used and write the index."""
        for dataset in self._data.values():
            dataset.resize(self._n, axis=0)
        self._file["has"] = self._has[: self._n]
        self._file["index"] = self._index[: self._n]


def _all_bands(spec):
    if spec.region == "auto":
        return get_release(spec.release).bands
    return get_tree(spec.release, spec.region).bands


def _dtype(product):
    if product in ("maskbits", *MASK_PLANES):
        return np.int32
    return np.int16 if product == "nexp" else np.float32


def _extname(product, band):
    return f"{product}_{band}".upper() if band else product.upper()


def _encoded(ids):
    return np.array([str(name).encode() for name in ids.tolist()])


def _read_results(h5py, spec, job, path):
    """Return the results of the targets of a job that a file has."""
    with open(path, "rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    places = {int(row): index for index, row in enumerate(job.rows)}
    results = []
    with h5py.File(path) as file:
        planes = [name.partition("_") for name in file.attrs["planes"]]
        for entry, has in zip(file["index"][:], file["has"][:], strict=True):
            index = places.get(int(entry["row"]))
            if index is None:
                continue
            row, *target = job.target(index)
            if spec.request(*target[1:]).key[:32].encode() != entry["request"]:
                continue
            bands = dict.fromkeys(
                band.lower() for (_, _, band), there in zip(planes, has, strict=True) if there
            )
            result = Result(
                row,
                "COMPLETE",
                local_path=str(path),
                bands=",".join(band for band in bands if band),
                bytes=path.stat().st_size,
                sha256=sha256,
                **known_of(spec, *target),
            )
            results.append(result)
    return results
