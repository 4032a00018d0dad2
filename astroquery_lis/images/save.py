"""What a worker writes for a job of many targets, and what it says of each."""

from __future__ import annotations

import hashlib
import io
import os
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from astropy.io import fits

from ..exceptions import LegacySurveyError, NoCoverageError, TransferError
from ..io.jobs import Result, failure
from ..io.whole_files import check_structure, reading, write_bytes
from ..survey.request import CutoutRequest
from .array_files import ARRAY_OUTPUTS, ArrayFile
from .cutting import Answer, BulkSpec, CutoutJob, Facts, each_answer, facts_of_answer
from .plain import PlainCutout
from .sources import Access

if TYPE_CHECKING:
    from typing_extensions import Buffer


def safe_name(name: int | str) -> str:
    """Return a name with nothing in it that a file system may refuse."""
    return re.sub(r"[^A-Za-z0-9+._-]", "_", str(name)).lstrip(".")[:200] or "_"


def file_name(spec: BulkSpec, row: int, name: int | str, suffix: str = ".fits") -> str:
    """Return the name of a target's file."""
    stem = safe_name(name)
    return f"{stem}{suffix}" if spec.ids_are_names else f"{stem}_{row}{suffix}"


# ---- writing ------------------------------------------------------------------------------------


class Encoding(Protocol):
    """What the bytes of a target's own file are."""

    @property
    def suffix(self) -> str:
        """Ending of the files' names."""

    def encode(self, answer: Answer, key: str, facts: Facts) -> Buffer:
        """Return a file of a cutout; ``key`` is that of the request."""

    def decode(self, data: bytes) -> tuple[str, Facts]:
        """Return the key and the facts that a file tells; raise OSError if it is no such file."""


@dataclass(frozen=True)
class FitsEncoding:
    """FITS files."""

    suffix: str = ".fits"

    def encode(self, answer: Answer, key: str, facts: Facts) -> Buffer:
        """Return a file, whose header has the key."""
        if isinstance(answer, PlainCutout):
            return answer.to_bytes()
        with io.BytesIO() as stream:
            # The headers are our own; to check every card again takes a third of the time.
            answer.writeto(stream, output_verify="ignore")
            return stream.getvalue()

    def decode(self, data: bytes) -> tuple[str, Facts]:
        """Return the key of the request and what the headers tell."""
        with fits.open(io.BytesIO(data)) as hdul:
            return hdul[0].header.get("REQKEY", ""), facts_of_answer(hdul)


def save_job(
    spec: BulkSpec,
    access: Access,
    job: CutoutJob,
    *,
    output: str = "fits",
    encoding: Encoding | None = None,
) -> list[Result]:
    """Cut the targets of a job and write them; what an earlier run wrote is left alone."""
    files: _Files | ArrayFile
    if output in ARRAY_OUTPUTS:
        files = ArrayFile(spec.folder, job, output)
    else:
        files = _Files(spec, job, FitsEncoding() if encoding is None else encoding)
    earlier = files.earlier_results()
    job = files.job
    if not len(job):
        return earlier
    results = []
    start_s = time.perf_counter()
    with files:
        for index, request, answer, notes in each_answer(spec, access, job):
            row, facts = int(job.rows[index]), job.facts(index)
            try:
                if isinstance(answer, Exception):
                    raise answer
                known = {**facts, **facts_of_answer(answer)}
                written = files.add(index, request, answer, known)
                result = Result(row, "COMPLETE", message=" ".join(notes), **written, **known)
            except NoCoverageError as error:
                result = Result(row, "NODATA", message=str(error), **facts)
            except Exception as error:
                result = failure(row, error, **facts)
            end_s = time.perf_counter()
            results.append(replace(result, seconds=round(end_s - start_s, 4)))
            start_s = end_s
    return earlier + [files.completed(r) if r.status == "COMPLETE" else r for r in results]


def _file_facts(path: Path, data: Buffer) -> Facts:
    digest = hashlib.sha256(data).hexdigest()
    return {"local_path": str(path), "bytes": memoryview(data).nbytes, "sha256": digest}


class _Files:
    """A file for each target."""

    def __init__(self, spec: BulkSpec, job: CutoutJob, encoding: Encoding) -> None:
        self._spec, self._folder = spec, Path(spec.folder)
        self._encoding = encoding
        self.job = job

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def _path(self, index: int) -> Path:
        row, name = self.job.target(index)
        return self._folder / file_name(self._spec, row, name, self._encoding.suffix)

    def earlier_results(self) -> list[Result]:
        """Return the results of targets whose files are there, and leave those out."""
        earlier = [i for i in range(len(self.job)) if os.path.lexists(self._path(i))]
        results = [self._earlier_result(index) for index in earlier]
        self.job = self.job.part(np.setdiff1d(np.arange(len(self.job)), earlier).tolist())
        return results

    def _earlier_result(self, index: int) -> Result:
        row, facts, path = int(self.job.rows[index]), self.job.facts(index), self._path(index)
        try:
            data = path.read_bytes()
            check_structure(path, io.BytesIO(data), path)
            with reading(path, "read"):
                key, told = self._encoding.decode(data)
            if key == self.job.request(index).key[:32]:
                return Result(row, "COMPLETE", **{**facts, **told, **_file_facts(path, data)})
        except (OSError, TransferError):
            pass
        msg = f"{path} is there and is not of this job, or not whole; move it away."
        return failure(row, LegacySurveyError(msg), **facts)

    def add(self, index: int, request: CutoutRequest, answer: Answer, facts: Facts) -> Facts:
        """Write the file of one target."""
        path = self._path(index)
        data = self._encoding.encode(answer, request.key[:32], facts)
        write_bytes(path, data)
        return _file_facts(path, data)

    def completed(self, result: Result) -> Result:
        """Return the result as it is."""
        return result
