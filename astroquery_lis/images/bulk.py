"""What a worker does for a job of many cutouts: cut, write, and tell what became of each.

Everything here is importable and takes small, picklable arguments, so that it runs in threads,
processes and on clusters alike; the settings come with the work.
"""

import hashlib
import io
import re
import time
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from astropy.io import fits

from ..exceptions import LegacySurveyError, NoCoverageError
from ..io import Result, failure, portable
from ..io.http import HttpClient
from ..io.store import write_whole
from ..survey.bricks import brick_id, region_of_brick
from ..survey.request import CutoutRequest
from .coadds import coadd_cutout, coadd_sections, collected_notes
from .group import GroupReader
from .open_images import OpenImages

__all__ = [
    "Access",
    "BulkSpec",
    "cutouts_of_job",
    "each_cutout",
    "file_name",
    "known_of",
    "safe_name",
    "save_job",
    "told",
]


@dataclass(frozen=True)
class Access:
    """How a worker gets at the files."""

    mirrors: tuple
    location: str | None
    client_options: tuple


@dataclass(frozen=True)
class BulkSpec:
    """What is cut round every target, and where it goes."""

    ny: int
    nx: int
    products: tuple
    bands: tuple | None
    release: str
    region: str
    on_missing: str
    folder: str = ""
    ids_are_names: bool = False

    def request(self, ra_deg, dec_deg):
        """Return the request for one position."""
        return CutoutRequest(
            float(ra_deg),
            float(dec_deg),
            self.ny,
            self.nx,
            self.products,
            self.bands,
            self.release,
            self.region,
        )


@lru_cache(maxsize=4)
def _client(client_options):
    """Return this process's client for these settings, so that jobs share connections."""
    return HttpClient(**dict(client_options))


def each_cutout(spec, access, job):
    """Cut the targets of a job one after the other."""
    requests = [spec.request(ra, dec) for ra, dec in zip(job.ra_deg, job.dec_deg, strict=True)]
    sections = [coadd_sections(request) for request in requests]
    client = _client(access.client_options)
    with GroupReader(client, access.mirrors, access.location, OpenImages()) as reader:
        for mine in sections:
            reader.expect(mine)
        for index, (request, mine) in enumerate(zip(requests, sections, strict=True)):
            with collected_notes() as notes:
                try:
                    hdul = coadd_cutout(request, reader, on_missing=spec.on_missing)
                except Exception as error:  # one target must not take the others with it
                    hdul = error
                finally:
                    reader.release(mine)
            yield index, request, hdul, notes


def cutouts_of_job(spec, access, job):
    """Cut the targets of a job and return the cutouts."""
    return [
        (int(job.rows[i]), portable(hdul) if isinstance(hdul, Exception) else hdul)
        for i, _, hdul, _ in each_cutout(spec, access, job)
    ]


def save_job(spec, access, job):
    """Cut the targets of a job and write a FITS file for each."""
    results, left = [], []
    for index in range(len(job)):
        result = _found(spec, *job.target(index))
        if result is None:
            left.append(index)
        else:
            results.append(result)
    rest = job.part(left)
    begun = time.perf_counter()
    for index, _, hdul, notes in each_cutout(spec, access, rest):
        row, name, ra_deg, dec_deg = rest.target(index)
        known = known_of(spec, name, ra_deg, dec_deg)
        try:
            result = _saved(spec, row, hdul, notes, known)
        except Exception as error:
            result = told(row, error, known)
        ended = time.perf_counter()
        results.append(replace(result, seconds=round(ended - begun, 4)))
        begun = ended
    return results


def known_of(spec, name, ra_deg, dec_deg):
    """Return what is known of a target's `~astroquery_lis.io.Result` beforehand."""
    region = spec.region
    if region == "auto":
        region = str(region_of_brick(brick_id(ra_deg, dec_deg), spec.release))
    return {"id": name, "release": spec.release, "region": region}


def told(row, error, known):
    """Return the result of a target that has no cutout."""
    if isinstance(error, NoCoverageError):
        return Result(row, "NODATA", message=str(error), **known)
    return failure(row, error, **known)


def _saved(spec, row, hdul, notes, known):
    """Write one cutout and return its result."""
    if isinstance(hdul, Exception):
        raise hdul
    path = Path(spec.folder, file_name(spec, row, known["id"]))
    with io.BytesIO() as stream:
        # The headers are our own; to check every card again takes a third of the time.
        hdul.writeto(stream, output_verify="ignore")
        data = stream.getvalue()
    with write_whole(path) as temporary:
        temporary.write_bytes(data)
    return _complete(row, path, data, hdul, notes, known)


def _complete(row, path, data, hdul, notes, known):
    return Result(
        row,
        "COMPLETE",
        local_path=str(path),
        message=" ".join(notes),
        url=hdul[1].header.get("URL1", ""),
        bands=hdul[0].header.get("BANDS", ""),
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        **known,
    )


def _found(spec, row, name, ra_deg, dec_deg):
    """Return the result of a target whose file an earlier run wrote, else `None`."""
    path = Path(spec.folder, file_name(spec, row, name))
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    known = known_of(spec, name, ra_deg, dec_deg)
    try:
        with fits.open(io.BytesIO(data)) as hdul:
            if hdul[0].header.get("REQKEY") == spec.request(ra_deg, dec_deg).key[:32]:
                return _complete(row, path, data, hdul, [], known)
    except OSError:
        pass
    msg = f"{path} is there and is not of this job; move it away."
    return failure(row, LegacySurveyError(msg), **known)


def file_name(spec, row, name):
    """Return the name of a target's file."""
    stem = safe_name(name)
    return f"{stem}.fits" if spec.ids_are_names else f"{stem}_{row}.fits"


def safe_name(name):
    """Return a name with nothing in it that a file system may refuse."""
    return re.sub(r"[^A-Za-z0-9+._-]", "_", str(name)).lstrip(".")[:200] or "_"
